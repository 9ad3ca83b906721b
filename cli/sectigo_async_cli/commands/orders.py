"""Ordering: create and upload."""

import asyncio
import shlex
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import attrs
import typer
from cryptography import x509

from sectigo_async import Batch, Secret, SectigoClient, SectigoError
from sectigo_async.errors import (
    BadRequestError,
    BatchFailed,
    FileError,
    InvalidArgumentError,
    InvalidCSRError,
    NotFoundError,
    OutcomeUnknownError,
)
from sectigo_async.files import make_directory
from sectigo_async.parameters import make_password
from sectigo_async.pki import (
    Archive,
    common_names,
    public_bytes,
    read_requests,
    requests_pem,
    safe_name,
    without_dns_name,
    write_private,
)
from sectigo_async_cli import exit_codes
from sectigo_async_cli.context import Settings, settings
from sectigo_async_cli.options import register as add
from sectigo_async_cli.output import Output, give_up_stdout, record, say, spinner
from sectigo_async_cli.progress import follow, last_seen, warn_if_partial
from sectigo_async_cli.prompts import ask, confirm
from sectigo_async_cli.run import report, run_client
from sectigo_async_cli.secret_input import PasswordFile, PasswordStdin, check_one_way, given_password
from sectigo_async_cli.targets import Target, balance, order_target, profile_target
from sectigo_async_cli.unpacking import Unpacking, unsound
from sectigo_async_cli.wizard import (
    PASSWORD,
    Params,
    Rules,
    add_dns_name,
    ask_for,
    from_options,
    is_incomplete,
    refuse,
)

_LARGEST_UPLOAD = 32 * 1024 * 1024
_DOWNLOAD_LIMIT = 3600.0

Wait = Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait at most.")]


def create(
    ctx: typer.Context,
    *,
    authority: Annotated[
        int | None, typer.Option("--authority", "-a", min=0, help="Id of the profile or authority to order under.")
    ] = None,
    domain: Annotated[
        str | None, typer.Option("--domain", "-d", help="Common name, and DNS name, of the certificate.")
    ] = None,
    san: Annotated[list[str] | None, typer.Option("--san", help="A further DNS name; may be repeated.")] = None,
    password: Annotated[
        str | None, typer.Option("--password", "-p", help="PKCS#12 password; made for you when left out.")
    ] = None,
    password_stdin: PasswordStdin = False,
    password_file: PasswordFile = None,
    password_out: Annotated[
        Path | None,
        typer.Option(help="Where a password made for you is kept (0600); DOMAIN.p12.password when left out."),
    ] = None,
    show_password: Annotated[
        bool, typer.Option("--show-password", help="Show a password made for you, on a terminal alone.")
    ] = False,
    organization: Annotated[str | None, typer.Option(help="Organisation in the subject.")] = None,
    country: Annotated[str | None, typer.Option("--country", "-c", help="Country, two letters.")] = None,
    state: Annotated[str | None, typer.Option("--state", "-s", help="State or province.")] = None,
    locality: Annotated[str | None, typer.Option("--locality", "-l", help="City or locality.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="KEY=VALUE", help="Any parameter of the profile; may be repeated."),
    ] = None,
    batch_name: Annotated[
        str | None, typer.Option("--batch-name", "-b", help="Name of the batch; a unique one when left out.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the certificate is ready.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Wait, download, and write key and certificate to a folder in here.")
    ] = None,
    timeout: Wait = 1800.0,
) -> None:
    """Order one certificate with a key made by the service. This spends a licence.

    On a terminal it asks for what is missing, by the rules of the profile.

    Example: sectigo-async create -a 42 -d gw7.example.com --out certs/
    """
    chosen = settings(ctx)
    check_one_way(password, password_stdin, password_file)
    if show_password and not chosen.talks_to_a_terminal:
        raise typer.BadParameter("a password is shown on a terminal alone", param_hint="--show-password")
    if password is not None:
        say("warning: a password on the command line can be seen by others on this machine; leave -p out")
    given = {
        "commonName": domain.strip() if domain else None,
        "organizationName": organization,
        "countryName": country,
        "stateOrProvinceName": state,
        "localityName": locality,
    }

    async def job(client: SectigoClient) -> None:
        if not chosen.interactive and not given["commonName"] and not param:
            raise typer.BadParameter("missing: name the certificate with --domain", param_hint="--domain")
        own = Secret(password) if password else await given_password(stdin=password_stdin, file=password_file)
        target = await order_target(chosen, client, authority, "--authority")
        rules = await Rules.of_profile(client, target.profile_id)
        params = from_options(rules, given, san or [], param or [])
        if own is not None:
            params[PASSWORD] = own
        asked = target.asked
        if chosen.interactive and is_incomplete(rules, params):
            await ask_for(rules, params)
            asked = True
        add_dns_name(rules, params)
        order = _Order(
            client=client,
            target=target,
            rules=rules,
            params=params,
            batch_name=batch_name,
            password_out=password_out,
            show_password=show_password,
        )
        if out is not None:
            await asyncio.to_thread(make_directory, out)  # Before money is spent on what it is for.
        batch = await order.place(asked=asked)
        if wait or out is not None:
            await _finish(chosen, client, batch, None if out is None else order.unpacking(out), timeout)
        else:
            _show_order(chosen.output, batch)

    run_client(ctx, job)


@attrs.define(kw_only=True)
class _Order:
    """One order of one certificate.

    Attributes:
        client: places it.
        target: what to order under.
        rules: what the profile asks of it.
        params: its parameters; a password that is made is added.
        batch_name: name of the batch; a unique one where not given.
        password_out: where a password that is made is kept; by the common name where not given.
        show_password: whether that is shown on the terminal, too.
    """

    client: SectigoClient
    target: Target
    rules: Rules
    params: Params
    batch_name: str | None
    password_out: Path | None
    show_password: bool

    @property
    def name(self) -> str:
        """What is ordered."""
        return str(self.params.get("commonName") or "certificate")

    async def place(self, *, asked: bool) -> Batch:
        """Place the order, after all that can be known has been checked, and a password that is made is kept.

        Args:
            asked: whether a person was asked for parts of it, and is to confirm the whole.
        """
        kept = await self._make_password()
        refuse(await self.rules.check(self.params), self.target.profile_id)
        if asked:
            await _confirm(self.target, self.params, kept, left=await _left(self.client, self.target))
        password = self.params.get(PASSWORD)
        if kept is not None and isinstance(password, Secret):
            # Durable before the order: without it the key that is ordered is lost.
            await asyncio.to_thread(write_private, kept, password.reveal().encode() + b"\n")
        with _ways_out(self.name, self.target.profile_id, unused=kept):
            batch = await self.client.batches.create(
                authority_id=self.target.order_id, name=self.batch_name, params=self.params
            )
        if kept is not None and isinstance(password, Secret):
            say(f"the PKCS#12 password is kept in {kept}")
            if self.show_password:
                say(f"PKCS#12 password: {password.reveal()}")
        _tell(batch)
        return batch

    async def _make_password(self) -> Path | None:
        """Make a password where the profile takes one and none is given; return where it is to be kept."""
        if PASSWORD in self.params or not self.rules.takes(PASSWORD):
            return None
        path = self.password_out or Path(f"{safe_name(self.name)}.p12.password")
        if await asyncio.to_thread(path.exists):
            raise FileError(
                f"{path} is there already",
                hint="it may hold the password of an earlier order: name another with --password-out",
            )
        self.params[PASSWORD] = await asyncio.to_thread(make_password, self.rules.get(PASSWORD))
        return path

    def unpacking(self, directory: Path) -> Unpacking:
        """Return how to unpack what was ordered."""
        password = self.params.get(PASSWORD)
        return Unpacking(
            directory=directory,
            password=password if isinstance(password, Secret) else None,
            names={self.name, *str(self.params.get("dNSName", "")).split("\n")} - {""},
        )


async def _left(client: SectigoClient, target: Target) -> str:
    """Return how many licences are left, in words; nothing where that is not known."""
    count = None if target.authority is None else await balance(client, target.authority)
    return "" if count is None else f" of the {count:,} left"


async def _confirm(target: Target, params: Params, kept: Path | None, *, left: str) -> None:
    """Show what is about to be ordered, and ask whether to go on.

    Raises:
        typer.Exit: no.
    """
    from rich.console import Console

    summary: dict[str, object] = {"profile": target.profile_id}
    if target.authority is not None:
        summary["profile"] = f"{target.authority.profile_name} ({target.profile_id})"
    summary |= {name: str(value).split("\n") for name, value in params.items()}
    if kept is not None:
        summary[PASSWORD] = f"made for you, kept in {kept}"
    with spinner.hushed():
        Console(stderr=True).print(record(summary))
    await _agree(f"Order this? It spends one licence{left}.")


async def _agree(question: str) -> None:
    """Ask whether to order.

    Raises:
        typer.Exit: no.
    """
    if not await confirm(question, default=False):
        say("nothing was ordered")
        raise typer.Exit(exit_codes.FAILED)


async def _finish(
    chosen: Settings, client: SectigoClient, batch: Batch, unpacking: Unpacking | None, limit: float
) -> None:
    """Wait for a batch that was ordered, and fetch and unpack it; show what became of it."""
    number = batch.batch_id
    folder = (
        "" if unpacking is None else f" and `sectigo-async download -i {number} -o {unpacking.directory} --extract`"
    )
    way_on = f"batch {number} was ordered: go on with `sectigo-async wait {number}`{folder}; do not order again"
    try:
        (result,) = await follow(chosen, client, [number], timeout=limit)
        _show_order(chosen.output, last_seen(result) or batch)
        if isinstance(result, SectigoError):
            if not isinstance(result, BatchFailed):
                result.hint = way_on
            raise result
        warn_if_partial(result)
        if unpacking is not None:
            await _fetch(chosen, client, number, unpacking)
    except asyncio.CancelledError as cancelled:
        cancelled.add_note(way_on)
        raise


async def _fetch(chosen: Settings, client: SectigoClient, number: int, unpacking: Unpacking) -> None:
    """Download and unpack what was ordered; that something was is told by the exit code."""
    try:
        path = await client.batches.download_to(number, unpacking.directory, timeout=_DOWNLOAD_LIMIT)
        documents = await unpacking.run(chosen, await asyncio.to_thread(Archive.from_file, path))
        for document in documents:
            say(f"{document['commonName']} is in {document['directory']}, chain: {document['chain']}")
        problem = unsound(documents)
        if problem is None:
            return
    except SectigoError as error:
        problem = error
        problem.hint += f"; batch {number} was ordered, do not order again"
    report(problem, chosen)
    raise typer.Exit(exit_codes.PARTLY_DONE)


@contextmanager
def _ways_out(name: str, profile_id: int, *, unused: Path | None = None) -> Iterator[None]:
    """Name the commands that help where an order fails; remove a password that nothing was ordered with."""
    try:
        yield
    except OutcomeUnknownError as error:
        look = f"sectigo-async find -n {shlex.quote(name)}"
        error.hint = f"do not order again; first see by `{look}` or in the portal whether it ran"
        raise
    except SectigoError as error:
        if unused is not None:
            with suppress(OSError):
                unused.unlink(missing_ok=True)
        if isinstance(error, BadRequestError):
            error.hint = f"nothing was ordered; `sectigo-async profiles -i {profile_id} --params` shows what it takes"
        elif isinstance(error, NotFoundError):
            error.hint = "nothing was ordered; `sectigo-async authorities` shows authorities and profiles"
        raise


def _tell(batch: Batch) -> None:
    """Say what was ordered: whatever becomes of the output, its id is told."""
    noun = "certificate" if batch.size == 1 else "certificates"
    say(f"ordered batch {batch.batch_id}: {batch.size} {noun}")


def _show_order(output: Output, batch: Batch) -> None:
    try:
        output.emit(batch.document())
    except BrokenPipeError:
        raise
    except OSError as error:
        give_up_stdout()
        say(f"error: the order was placed, but the output cannot be written: {error.strerror or error}")
        raise typer.Exit(exit_codes.PARTLY_DONE) from None


def upload(
    ctx: typer.Context,
    *,
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE...",
            help="PEM with one or many CSRs, or a ZIP of .csr and .pem files; - for standard input.",
        ),
    ] = None,
    profile: Annotated[
        int | None, typer.Option("--profile", "-p", min=0, help="Id of the profile to order under.")
    ] = None,
) -> None:
    """Order certificates for your own CSRs, all in one batch. This spends a licence for each.

    Example: sectigo-async upload -p 42 gw8.csr gw9.csr
    """
    chosen = settings(ctx)

    async def job(client: SectigoClient) -> None:
        named = files or []
        if not named:
            if not chosen.interactive:
                raise typer.BadParameter("missing: name a file with CSRs, or - for standard input", param_hint="FILE")
            named = [await ask("File with the CSRs:", check=lambda text: "" if Path(text).is_file() else "no file")]
        target = await profile_target(chosen, client, profile, "--profile")
        requests = await asyncio.to_thread(_read_all, named)
        if nameless := without_dns_name(requests):
            say(f"warning: no DNS name in the CSR of {', '.join(nameless)}: such batches are known to break")
        count = len(requests)
        cost = "1 CSR, which spends 1 licence" if count == 1 else f"{count:,} CSRs, which spend {count:,} licences"
        if target.asked or not files:
            left = await _left(client, target)
            await _agree(f"Order under profile {target.profile_id}? {cost}{left}.")
        else:
            chosen.output.note(f"{cost}, in one batch")
        with _ways_out(common_names(requests)[0], target.profile_id):
            batch = await client.batches.upload(profile_id=target.profile_id, requests=requests_pem(requests))
        _tell(batch)
        _show_order(chosen.output, batch)

    run_client(ctx, job)


def _read_all(names: Sequence[str]) -> list[x509.CertificateSigningRequest]:
    """Return the requests in files; the same key twice is refused, since both would be paid for."""
    requests: list[x509.CertificateSigningRequest] = []
    where: dict[bytes, str] = {}
    for name in names:
        for request in _read_requests(name):
            key = public_bytes(request.public_key())
            if key in where:
                common_name = common_names([request])[0]
                raise InvalidArgumentError(
                    f"the key of {common_name} is in {where[key]} and again in {name}: each would be paid for",
                    hint="nothing was ordered; leave one out",
                )
            where[key] = name
            requests.append(request)
    return requests


def _read_requests(name: str) -> tuple[x509.CertificateSigningRequest, ...]:
    try:
        return read_requests(_read(name))
    except InvalidCSRError as error:
        problem, hint = f"{'standard input' if name == '-' else name}: {error}", error.hint
    raise InvalidCSRError(problem, hint=hint)


def _read(name: str) -> bytes:
    problem = ""
    try:
        if name == "-":
            if sys.stdin is None:
                raise FileError("there is no standard input", hint="name a file")
            data = sys.stdin.buffer.read(_LARGEST_UPLOAD + 1)
            if len(data) <= _LARGEST_UPLOAD:
                return data
            problem = f"standard input is larger than {_LARGEST_UPLOAD // 1024**2} MiB"
        elif not stat.S_ISREG(Path(name).stat().st_mode):
            problem = f"{name} is not a file"
        elif Path(name).stat().st_size > _LARGEST_UPLOAD:
            problem = f"{name} is larger than {_LARGEST_UPLOAD // 1024**2} MiB"
        else:
            return Path(name).read_bytes()
    except OSError as error:
        problem = f"cannot read {name}: {error.strerror}"
    raise FileError(problem, hint="name a file with certificate signing requests")


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    add(app, create)
    add(app, upload)
