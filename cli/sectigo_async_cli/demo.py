"""The demonstration: from nothing to verified certificates, against a simulator on this machine."""

import asyncio
import shlex
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
from cryptography import x509
from rich.console import Console
from rich.text import Text

from sectigo_async import Archive, Batch, IssuedCertificate, RevocationReason, Secret, SectigoClient, SectigoError
from sectigo_async.errors import FileError
from sectigo_async.parameters import make_password
from sectigo_async.pki import (
    ChainStatus,
    MemberKind,
    PrivateKey,
    generate_key,
    key_pem,
    make_csr,
    safe_name,
    write_private,
)
from sectigo_async.sandbox import Sandbox, SandboxConfig, SandboxServer
from sectigo_async_cli.context import Settings
from sectigo_async_cli.progress import follow

_MARK = ".sectigo-async-demo"
_PROFILE = 42
_SERVER_KEYS = ("gw-1.example.com", "gw-2.example.com")
_LOCAL_KEYS = ("node-1.example.com", "node-2.example.com", "node-3.example.com")
_WAIT = 60.0


@attrs.frozen(kw_only=True)
class _Order:
    """A batch that was ordered, and what opens its archive."""

    batch: Batch
    names: tuple[str, ...]
    password: Secret | None = None
    keys: tuple[PrivateKey, ...] = attrs.field(default=(), repr=False)


@attrs.frozen(kw_only=True)
class _Row:
    """A line of the table at the end."""

    issued: IssuedCertificate
    key_made_by: str
    status: str = "valid"

    def document(self) -> dict[str, object]:
        issued = self.issued
        return {
            "commonName": issued.common_name,
            "serialNumber": issued.serial_number,
            "key": f"{issued.key_description}, {self.key_made_by}",
            "validUntil": f"{issued.not_after:%Y-%m-%d}",
            "checks": f"key, names, chain {'ok' if issued.sound else 'NOT OK'}",
            "status": self.status,
        }


class Demo:
    """One demonstration.

    Args:
        out: folder for keys and certificates.
        chosen: how the table at the end is written.
    """

    def __init__(self, out: Path, chosen: Settings) -> None:
        self._out = out
        self._chosen = chosen
        self._console = Console(stderr=True, highlight=False)

    async def run(self) -> None:
        """Run all of it; any step that fails raises."""
        try:
            await self._run()
        except asyncio.CancelledError:
            pass
        else:
            return
        # What was on its way ended with the simulator: there is nothing to look up.
        raise asyncio.CancelledError

    async def _run(self) -> None:
        await asyncio.to_thread(self._prepare_folder)
        async with self._signed_in() as client:
            await self._look_around(client)
            orders = [await self._order_with_server_key(client, name) for name in _SERVER_KEYS]
            orders.append(await self._order_for_own_keys(client))
            await self._wait(client, orders)
            root = (await client.request("GET", "/_sandbox/ca.pem")).body
            await asyncio.to_thread(write_private, self._out / "root.pem", root)
            rows = [row for order in orders for row in await self._collect(client, order, root)]
            rows[-1] = await self._revoke(client, rows[-1])
        self._show(rows)

    def _step(self, text: str) -> None:
        self._console.print(Text.assemble(("✓ ", "green"), text), soft_wrap=not self._console.is_terminal)

    def _prepare_folder(self) -> None:
        """Make the folder anew; only what an earlier demonstration made is removed."""
        out = self._out
        try:
            if out.is_symlink() or (out.exists() and not out.is_dir()) or Path.cwd().is_relative_to(out.resolve()):
                problem = f"{out} cannot be replaced by a new folder"
            elif out.is_dir() and not _from_earlier_demo(out):
                problem = f"{out} holds files that no demo made"
            else:
                if out.is_dir():
                    shutil.rmtree(out)
                out.mkdir(mode=0o700, parents=True)
                write_private(out / _MARK, b"Made by `sectigo-async demo`, which may replace this folder.\n")
                return
        except OSError as error:
            problem = f"cannot make the folder {out}: {error.strerror}"
        raise FileError(problem, hint="choose another folder with --out")

    @asynccontextmanager
    async def _signed_in(self) -> AsyncIterator[SectigoClient]:
        config = SandboxConfig(issue_delay=1.5)
        async with SandboxServer(Sandbox(config)) as server:
            self._step(f"a simulator of the service runs on {server.url}; nothing it issues is to be trusted")
            client = SectigoClient(username=config.username, password=Secret(config.password), endpoint=server.url)
            async with client:
                await client.sign_in()
                self._step(f"signed in as {config.username}")
                yield client

    async def _look_around(self, client: SectigoClient) -> None:
        listed = await client.authorities.list()
        for authority in listed:
            left = await client.authorities.balance(authority.id)
            self._step(
                f"authority {authority.id} orders under profile {authority.profile_id}, "
                f"{authority.profile_name!r}: {left} certificates left"
            )
        parameters = await client.profiles.parameters(_PROFILE)
        wanted = ", ".join(f"{one.name}{'' if one.required else ' (optional)'}" for one in parameters)
        self._step(f"profile {_PROFILE} takes {wanted}")

    async def _order_with_server_key(self, client: SectigoClient, name: str) -> _Order:
        password = make_password()
        folder = self._folder(name)
        # Kept before it is ordered: without the password the key is lost.
        await asyncio.to_thread(write_private, folder / "bundle.p12.password", password.reveal().encode() + b"\n")
        params: dict[str, str | Secret] = {"commonName": name, "dNSName": name, "pkcs12Password": password}
        batch = await client.batches.create(authority_id=_PROFILE, params=params)
        self._step(f"ordered {name} with a key made by the service: batch {batch.batch_id}")
        return _Order(batch=batch, names=(name,), password=password)

    async def _order_for_own_keys(self, client: SectigoClient) -> _Order:
        keys = tuple(generate_key() for _ in _LOCAL_KEYS)
        for name, key in zip(_LOCAL_KEYS, keys, strict=True):
            await asyncio.to_thread(write_private, self._folder(name) / "privkey.pem", key_pem(key))
        requests = b"".join(make_csr(key, name) for name, key in zip(_LOCAL_KEYS, keys, strict=True))
        batch = await client.batches.upload(profile_id=_PROFILE, requests=requests)
        self._step(f"ordered {len(keys)} certificates for keys made here, in one upload: batch {batch.batch_id}")
        return _Order(batch=batch, names=_LOCAL_KEYS, keys=keys)

    def _folder(self, name: str) -> Path:
        folder = self._out / safe_name(name)
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    async def _wait(self, client: SectigoClient, orders: list[_Order]) -> None:
        results = await follow(self._chosen, client, [order.batch.batch_id for order in orders], timeout=_WAIT)
        for result in results:
            if isinstance(result, SectigoError):
                raise result
        self._step(f"{len(orders)} batches are ready for download")

    async def _collect(self, client: SectigoClient, order: _Order, root: bytes) -> list[_Row]:
        await asyncio.to_thread(_note_archive, self._out, f"{order.batch.batch_id}.zip")
        path = await client.batches.download_to(order.batch.batch_id, self._out)
        archive = await asyncio.to_thread(Archive.from_file, path)
        issued = await asyncio.to_thread(
            archive.open,
            password=order.password,
            keys=order.keys,
            trust=[x509.load_pem_x509_certificate(root)],
            names=order.names,
        )
        for one in issued:
            await asyncio.to_thread(one.write_to, self._folder(one.common_name))
        for member in archive.members():
            if member.kind is MemberKind.PKCS12:
                await asyncio.to_thread(write_private, self._folder(order.names[0]) / "bundle.p12", member.content)
        if {one.common_name for one in issued} != set(order.names):
            raise SectigoError(f"batch {order.batch.batch_id} does not hold the certificates that were ordered")
        for one in issued:
            if not (one.key_match and one.name_match and one.chain_check.status is ChainStatus.VERIFIED):
                raise SectigoError(f"{one.common_name} failed a check: {one}")
        self._step(
            f"batch {order.batch.batch_id}: {len(issued)} downloaded and verified against the simulator's root"
        )
        return [_Row(issued=one, key_made_by="made here" if order.keys else "by the service") for one in issued]

    async def _revoke(self, client: SectigoClient, row: _Row) -> _Row:
        serial = row.issued.serial_number
        await client.certificates.revoke(
            profile_id=_PROFILE, serial_number=serial, reason=RevocationReason.SUPERSEDED
        )
        published = (await client.request("GET", "/_sandbox/crl.pem")).body
        await asyncio.to_thread(write_private, self._out / "crl.pem", published)
        revocations = x509.load_pem_x509_crl(published)
        signed = revocations.is_signature_valid(row.issued.chain[0].public_key())  # type: ignore[arg-type]
        listed = revocations.get_revoked_certificate_by_serial_number(row.issued.certificate.serial_number)
        if not signed or listed is None:
            raise SectigoError(f"{row.issued.common_name} was revoked, but the revocation list does not say so")
        self._step(f"revoked {row.issued.common_name}; the revocation list now refuses it")
        return attrs.evolve(row, status="revoked")

    def _show(self, rows: list[_Row]) -> None:
        headings = {
            "commonName": "Common name",
            "serialNumber": "Serial number",
            "key": "Key",
            "validUntil": "Valid until",
            "checks": "Checks",
            "status": "Status",
        }
        self._chosen.output.emit([row.document() for row in rows], headings)
        self._console.print(
            Text(f"Keys and certificates lie in {self._out}/, readable by you alone. To check one yourself:"),
            soft_wrap=not self._console.is_terminal,
        )
        name = safe_name(_LOCAL_KEYS[0])
        root, chain, leaf = (self._out / "root.pem", self._out / name / "chain.pem", self._out / name / "cert.pem")
        command = shlex.join(["openssl", "verify", "-CAfile", f"{root}", "-untrusted", f"{chain}", f"{leaf}"])
        self._console.print(Text("  " + command), soft_wrap=True)


def _note_archive(folder: Path, name: str) -> None:
    """Note in the mark that an archive is the demonstration's own."""
    mark = folder / _MARK
    write_private(mark, mark.read_bytes() + name.encode() + b"\n", overwrite=True)


def _archives(folder: Path) -> set[str]:
    return set((folder / _MARK).read_text(encoding="utf-8", errors="replace").splitlines()[1:])


def _from_earlier_demo(folder: Path) -> bool:
    entries = list(folder.iterdir())
    return not entries or ((folder / _MARK).is_file() and all(_is_ours(entry) for entry in entries))


def _is_ours(entry: Path) -> bool:
    """Say whether an entry of the folder is one that a demonstration makes."""
    if entry.is_symlink():
        return False
    if entry.is_dir():
        ours = {safe_name(name) for name in (*_SERVER_KEYS, *_LOCAL_KEYS)}
        return entry.name in ours and all(_is_made_file(file) for file in entry.iterdir())
    return entry.name in {_MARK, "root.pem", "crl.pem"} or entry.name in _archives(entry.parent)


def _is_made_file(file: Path) -> bool:
    made = {"privkey.pem", "cert.pem", "chain.pem", "fullchain.pem", "bundle.p12", "bundle.p12.password"}
    return file.is_file() and not file.is_symlink() and file.name in made
