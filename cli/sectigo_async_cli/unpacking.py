"""From an archive to the files that servers read, each certificate in a folder of its own."""

import asyncio
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

import attrs
import typer
from cryptography import x509

from sectigo_async import Archive, FileError, IssuedCertificate, PkiError, Secret, SectigoError, WrongPasswordError
from sectigo_async.files import check_directory, exists, file_errors
from sectigo_async.pki import PrivateKey, load_certificates, load_key, safe_name
from sectigo_async_cli import exit_codes
from sectigo_async_cli.context import Settings
from sectigo_async_cli.prompts import ask_secret
from sectigo_async_cli.run import report
from sectigo_async_cli.streams import say

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
_HOW_TO_LOCK = "give a password with --password-file or --password-stdin"
_HOW_TO_OPEN = "give the PKCS#12 password of the order with --password-file or --password-stdin"


def is_free(folder: Path) -> bool:
    """Say whether nothing stands in the place of a folder but an empty one.

    Raises:
        FileError: that cannot be found out.
    """
    if not exists(folder):
        return True
    with file_errors(folder):
        return folder.is_dir() and not any(folder.iterdir())


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
            FileError: the directory cannot be written to, holds files for that name already, or the roots cannot be
                read.
        """
        await self._anchors(chosen)
        await asyncio.to_thread(check_directory, self.directory)
        folder = self.directory / safe_name(common_name)
        if not await asyncio.to_thread(is_free, folder):
            raise FileError(f"{folder} is there already, and nothing in it is replaced", hint="choose another --out")

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
        password, issued, problems = await self._open(chosen, archive, keys, anchors)
        return await asyncio.to_thread(self._write, issued, password, problems)

    async def _open(
        self,
        chosen: Settings,
        archive: Archive,
        keys: Sequence[PrivateKey],
        anchors: Sequence[x509.Certificate] | None,
    ) -> tuple[Secret | None, tuple[IssuedCertificate, ...], list[PkiError]]:
        password = self.password
        for left in range(_TRIES, -1, -1):
            may_ask = left > 0 and chosen.interactive and self.password is None
            problems: list[PkiError] = []
            try:
                issued = await asyncio.to_thread(
                    archive.open, password=password, keys=keys, trust=anchors, names=self.names, problems=problems
                )
            except WrongPasswordError as error:
                if not may_ask:
                    error.hint = _HOW_TO_OPEN
                    raise
                if password is not None:
                    say(f"warning: {error}")
            else:
                locked = [problem for problem in problems if isinstance(problem, WrongPasswordError)]
                for problem in locked:
                    problem.hint = _HOW_TO_OPEN
                if not locked or not may_ask:
                    return password, issued, problems
            password = Secret(await ask_secret("PKCS#12 password:"))
        raise AssertionError

    def _write(
        self, issued: Sequence[IssuedCertificate], password: Secret | None, problems: Sequence[PkiError]
    ) -> "Unpacked":
        documents: list[dict[str, object]] = []
        failures: list[PkiError] = list(problems)
        old: list[IssuedCertificate] = []
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
                    "protection": str(one.protection) if one.protection else None,
                }
            )
            if one.protection is not None and one.protection.old:
                old.append(one)
        if failures and not documents:
            raise failures[0]
        return Unpacked(documents, failures, _note(old, written_anew=password is not None))


@attrs.frozen
class Unpacked:
    """What was unpacked.

    Attributes:
        documents: one for each certificate whose files were written.
        failures: what of the archive could not be read, and what could not be written.
        note: what else to tell, in one line.
    """

    documents: list[dict[str, object]]
    failures: list[PkiError]
    note: str = ""

    def report(self, chosen: Settings) -> None:
        """Report what failed, and end with the exit code for that.

        Raises:
            typer.Exit: something failed.
        """
        if self.note:
            chosen.output.note(self.note)
        for failure in self.failures:
            report(failure, chosen)
        problem = _unsound(self.documents)
        if problem is not None:
            report(problem, chosen)
        if self.failures:
            raise typer.Exit(exit_codes.PARTLY_DONE)
        if problem is not None:
            raise typer.Exit(exit_codes.FAILED)


def _note(old: Sequence[IssuedCertificate], *, written_anew: bool) -> str:
    if not old:
        return ""
    more = f" and {len(old) - 1} more" if len(old) > 1 else ""
    way = "bundle.p12 is the same with AES-256" if written_anew else f"for a bundle.p12 with AES-256, {_HOW_TO_LOCK}"
    return f"note: {old[0].member!r}{more} came with old encryption, {old[0].protection}; {way}"


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
    try:
        return load_key(Archive.from_file(file).raw)
    except FileError:
        raise
    except PkiError as error:
        problem = f"{file}: {error}"
    raise PkiError(problem, hint=f"write it as PEM without a password: openssl pkey -in {shlex.quote(str(file))}")
