"""From an archive to the files that servers read, each certificate in a folder of its own."""

import asyncio
from collections.abc import Collection, Sequence
from pathlib import Path

import attrs
import typer
from cryptography import x509

from sectigo_async import Archive, FileError, IssuedCertificate, Secret, SectigoError, WrongPasswordError
from sectigo_async.files import file_errors
from sectigo_async.pki import PrivateKey, StagedFile, load_certificates, load_key, safe_name
from sectigo_async_cli import exit_codes
from sectigo_async_cli.context import Settings
from sectigo_async_cli.output import say
from sectigo_async_cli.prompts import ask_secret
from sectigo_async_cli.run import report

COLUMNS = {
    "commonName": "Common name",
    "serialNumber": "Serial number",
    "notAfter": "Expires",
    "keyMatch": "Key fits",
    "chain": "Chain",
    "directory": "Folder",
}
DOWNLOAD_LIMIT = 3600.0
"""Seconds for a download: an archive may be large and a line slow; a line that is dead is noticed earlier."""

_TRIES = 3


def exists(file: Path) -> bool:
    """Say whether something stands there.

    Raises:
        FileError: that cannot be found out.
    """
    with file_errors(file):
        return file.exists()


def check_directory(directory: Path) -> None:
    """See that files can be written to a directory, or to the one that it is to be made in.

    Raises:
        FileError: they cannot.
    """
    while not exists(directory) and directory.parent != directory:
        directory = directory.parent
    if not directory.is_dir():
        raise FileError(f"{directory} is not a directory", hint="name another")
    staged = StagedFile(directory / "probe")
    try:
        staged.open()
    finally:
        staged.discard()


@attrs.frozen(kw_only=True)
class Unpacking:
    """How an archive is unpacked.

    Attributes:
        directory: where the folders are made.
        password: opens PKCS#12 files, and locks the new one.
        key_files: private keys of one's own, to match with the certificates.
        trust: PEM file with the roots that chains must lead to; what the settings say when not given.
        names: the names that were ordered, where they are known.
        combined: whether to write one PEM with all of it too.
        overwrite: whether files of other content may be replaced.
    """

    directory: Path
    password: Secret | None = None
    key_files: Sequence[Path] = ()
    trust: Path | None = None
    names: Collection[str] | None = None
    combined: bool = False
    overwrite: bool = False

    async def prepare(self, chosen: Settings, common_name: str) -> None:
        """See that it can be done, before money is spent on what is to be unpacked.

        Raises:
            FileError: the directory cannot be written to, holds a key for that name already, or the roots cannot be
                read.
        """
        await self._anchors(chosen)
        await asyncio.to_thread(check_directory, self.directory)
        there = self.directory / safe_name(common_name) / "privkey.pem"
        if await asyncio.to_thread(exists, there):
            raise FileError(f"{there} is there already, and a key is never replaced", hint="choose another --out")

    async def _anchors(self, chosen: Settings) -> list[x509.Certificate] | None:
        trust = self.trust or chosen.resolve().config.trust_anchors
        return None if trust is None else await asyncio.to_thread(load_certificates, trust)

    async def run(self, chosen: Settings, archive: Archive) -> "Unpacked":
        """Write the files of each certificate, and tell what was checked.

        Asks a person for a password that is needed and not given.

        Raises:
            ArchiveError: there is no certificate in it.
            WrongPasswordError: the password is missing or does not fit.
            FileError: a file cannot be read, or not one certificate's files can be written.
        """
        anchors = await self._anchors(chosen)
        keys = [await asyncio.to_thread(read_key, file) for file in self.key_files]
        password, issued = await self._open(chosen, archive, keys, anchors)
        return await asyncio.to_thread(self._write, issued, password)

    async def _open(
        self,
        chosen: Settings,
        archive: Archive,
        keys: Sequence[PrivateKey],
        anchors: Sequence[x509.Certificate] | None,
    ) -> tuple[Secret | None, tuple[IssuedCertificate, ...]]:
        password = self.password
        for left in range(_TRIES, -1, -1):
            try:
                issued = await asyncio.to_thread(
                    archive.open, password=password, keys=keys, trust=anchors, names=self.names
                )
            except WrongPasswordError as error:
                if not left or not chosen.interactive or self.password is not None:
                    error.hint = "give the PKCS#12 password of the order with --password-file or --password-stdin"
                    raise
                if password is not None:
                    say(f"warning: {error}")
            else:
                return password, issued
            password = Secret(await ask_secret("PKCS#12 password:"))
        raise AssertionError

    def _write(self, issued: Sequence[IssuedCertificate], password: Secret | None) -> "Unpacked":
        documents: list[dict[str, object]] = []
        failures: list[FileError] = []
        taken: set[str] = set()
        for one in issued:
            folder = safe_name(one.common_name)
            if folder in taken:
                folder = safe_name(f"{one.common_name}-{one.serial_number}")
            taken.add(folder)
            there = self.directory / folder
            try:
                one.write_to(there, password=password, combined=self.combined, overwrite=self.overwrite)
            except FileError as error:
                failures.append(error)
                continue
            documents.append(
                {
                    "commonName": one.common_name,
                    "serialNumber": one.serial_number,
                    "notAfter": one.not_after.isoformat(),
                    "keyMatch": one.key_match,
                    "nameMatch": one.name_match,
                    "chain": one.chain_check.status.value,
                    "chainDetail": one.chain_check.detail,
                    "directory": str(there),
                }
            )
        if failures and not documents:
            raise failures[0]
        return Unpacked(documents, failures)


@attrs.frozen
class Unpacked:
    """What was unpacked.

    Attributes:
        documents: one for each certificate whose files were written.
        failures: why others' files were not.
    """

    documents: list[dict[str, object]]
    failures: list[FileError]

    def report(self, chosen: Settings) -> None:
        """Report what failed, and end with the exit code for that.

        Raises:
            typer.Exit: something failed.
        """
        for failure in self.failures:
            report(failure, chosen)
        problem = _unsound(self.documents)
        if problem is not None:
            report(problem, chosen)
        if self.failures:
            raise typer.Exit(exit_codes.PARTLY_DONE)
        if problem is not None:
            raise typer.Exit(exit_codes.FAILED)


def _unsound(documents: Sequence[dict[str, object]]) -> SectigoError | None:
    """Return the error for certificates that failed a check; nothing where all is well."""
    told = []
    for document in documents:
        problems = [
            words
            for name, words in (("keyMatch", "no key here fits it"), ("nameMatch", "it has other names than ordered"))
            if document[name] is False
        ]
        if document["chain"] == "failed":
            problems.append(str(document["chainDetail"]))
        if problems:
            told.append(f"{document['commonName']}: {', '.join(problems)}")
    if not told:
        return None
    return SectigoError(
        "; ".join(told), hint="the files are written all the same; do not use them before it is clear"
    )


def read_key(file: Path) -> PrivateKey:
    """Return the private key in a PEM file.

    Raises:
        FileError: it cannot be read.
        PkiError: it holds none, or has a password.
    """
    return load_key(Archive.from_file(file).raw)
