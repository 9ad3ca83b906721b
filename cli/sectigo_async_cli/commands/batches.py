"""Ordering, watching and downloading: create, upload, batches, download."""

import asyncio
import secrets
import shlex
import stat
import string
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from sectigo_async import Batch, Secret, SectigoClient, SectigoError
from sectigo_async.errors import BadRequestError, FileError, NotFoundError, OutcomeUnknownError
from sectigo_async.pki import common_names, read_requests, safe_name, without_dns_name, write_private
from sectigo_async_cli import exit_codes
from sectigo_async_cli.context import default_profile
from sectigo_async_cli.output import emit, give_up_stdout, print_text, say
from sectigo_async_cli.run import run_client

_LARGEST_UPLOAD = 32 * 1024 * 1024
_DOWNLOAD_LIMIT = 3600.0  # An archive may be large and a line slow; a line that is dead is noticed earlier.

_BatchId = Annotated[int, typer.Option("--id", "-i", min=0, help="Id of the batch.")]


def create(
    ctx: typer.Context,
    *,
    authority: Annotated[
        int | None, typer.Option("--authority", "-a", min=0, help="Profile or authority to order under.")
    ] = None,
    domain: Annotated[str, typer.Option("--domain", "-d", help="Common name and DNS name of the certificate.")],
    password: Annotated[
        str | None, typer.Option("--password", "-p", help="PKCS#12 password; made for you when left out.")
    ] = None,
    password_out: Annotated[
        Path | None,
        typer.Option(help="Where a password made for you is kept (0600); DOMAIN.p12.password when left out."),
    ] = None,
    organization: Annotated[str | None, typer.Option(help="Organisation in the subject.")] = None,
    country: Annotated[str | None, typer.Option("--country", "-c", help="Country, two letters.")] = None,
    state: Annotated[str | None, typer.Option("--state", "-s", help="State or province.")] = None,
    locality: Annotated[str | None, typer.Option("--locality", "-l", help="City or locality.")] = None,
    batch_name: Annotated[
        str | None, typer.Option("--batch-name", "-b", help="Name of the batch; a unique one when left out.")
    ] = None,
) -> None:
    """Order one certificate with a key made by the service. This spends a licence.

    Example: sectigo-async create -a 42 -d gw7.example.com -b "gateway 7"
    """
    authority_id = default_profile(ctx, authority, "--authority")
    if not domain.strip():
        raise typer.BadParameter("must not be empty", param_hint="--domain")
    if password is not None:
        say("warning: a password on the command line can be seen by others on this machine; leave -p out")
    subject = {
        "organizationName": organization,
        "countryName": country,
        "stateOrProvinceName": state,
        "localityName": locality,
    }

    async def job(client: SectigoClient) -> None:
        await client.sign_in()
        kept = None if password else password_out or Path(f"{safe_name(domain)}.p12.password")
        chosen = Secret(password or "") if kept is None else await asyncio.to_thread(_make_password, kept)
        params: dict[str, str | Secret] = {"commonName": domain, "dNSName": domain, "pkcs12Password": chosen}
        params |= {name: value for name, value in subject.items() if value}
        with _ways_out(domain, authority_id, unused=kept):
            batch = await client.batches.create(authority_id=authority_id, name=batch_name, params=params)
        if kept is not None:
            say(f"the PKCS#12 password is kept in {kept}")
        _show_order(batch)

    run_client(ctx, job)


def _make_password(path: Path) -> Secret:
    """Make a PKCS#12 password and keep it durably: without it the key that is ordered is lost."""
    if path.exists():
        raise FileError(
            f"{path} is there already",
            hint="it may hold the password of an earlier order: name another with --password-out",
        )
    text = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(24))
    write_private(path, text.encode() + b"\n")
    return Secret(text)


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


def _show_order(batch: Batch) -> None:
    """Show an order that was placed: whatever becomes of the output, its id is told."""
    noun = "certificate" if batch.size == 1 else "certificates"
    say(f"ordered batch {batch.batch_id}: {batch.size} {noun}")
    try:
        emit(batch.document())
    except BrokenPipeError:
        raise
    except OSError as error:
        give_up_stdout()
        say(f"error: the order was placed, but the output cannot be written: {error.strerror or error}")
        raise typer.Exit(exit_codes.PARTLY_DONE) from None


def upload(
    ctx: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(help="PEM with one or many CSRs, or a ZIP of .csr and .pem files.")],
    profile: Annotated[int | None, typer.Option("--profile", "-p", min=0, help="Profile to order under.")] = None,
) -> None:
    """Order certificates for your own CSRs. This spends a licence for each.

    Example: sectigo-async upload -p 42 gw8.csr
    """
    profile_id = default_profile(ctx, profile, "--profile")

    async def job(client: SectigoClient) -> None:
        data = await asyncio.to_thread(_read, file)
        requests = await asyncio.to_thread(read_requests, data)
        nameless = without_dns_name(requests)
        if nameless:
            say(f"warning: no DNS name in the CSR of {', '.join(nameless)}: such batches are known to break")
        with _ways_out(common_names(requests)[0], profile_id):
            batch = await client.batches.upload(profile_id=profile_id, requests=data)
        _show_order(batch)

    run_client(ctx, job)


def _read(file: Path) -> bytes:
    problem = ""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            problem = f"{file} is not a file"
        elif file.stat().st_size > _LARGEST_UPLOAD:
            problem = f"{file} is larger than {_LARGEST_UPLOAD // 1024**2} MiB"
        else:
            return file.read_bytes()
    except OSError as error:
        problem = f"cannot read {file}: {error.strerror}"
    raise FileError(problem, hint="name a file with certificate signing requests")


def batches(
    ctx: typer.Context,
    *,
    batch_id: _BatchId,
    info: Annotated[bool, typer.Option("--info", "-I", help="Show how many of its certificates are done.")] = False,
    status: Annotated[bool, typer.Option("--status", "-s", help="Show only its status.")] = False,
) -> None:
    """Show a batch.

    Example: sectigo-async batches -i 24 --status
    """

    async def job(client: SectigoClient) -> None:
        if info:
            emit((await client.batches.processing_info(batch_id)).document())
        elif status:
            told = await client.batches.status(batch_id)
            known = told.status.name != "UNKNOWN"
            print_text(told.status.value if known else told.text.upper().replace(" ", "_"))
        else:
            emit((await client.batches.get(batch_id)).document())

    if info and status:
        raise typer.BadParameter("--info and --status exclude each other", param_hint="--info")
    run_client(ctx, job)


def download(
    ctx: typer.Context,
    *,
    batch_id: _BatchId,
    outdir: Annotated[Path, typer.Option("--outdir", "-o", help="Directory to download to.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace a file of other content.")] = False,
) -> None:
    """Download the archive of a batch that is ready.

    Example: sectigo-async download -i 24 -o certs/
    """

    async def job(client: SectigoClient) -> None:
        path = await client.batches.download_to(batch_id, outdir, overwrite=force, timeout=_DOWNLOAD_LIMIT)
        print_text(f"downloaded batch {batch_id} to {path}")
        print_text(
            "after unzipping, unencrypt with your password using "
            "`openssl pkcs12 -in INFILE.p12 -out OUTFILE.crt -nodes`"
        )

    run_client(ctx, job)


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    for command in (create, upload, batches, download):
        app.command()(command)
