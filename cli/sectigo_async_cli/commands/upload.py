"""Ordering for keys of one's own: upload."""

import asyncio
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509

from sectigo_async import SectigoClient
from sectigo_async.errors import FileError, InvalidArgumentError, InvalidCSRError
from sectigo_async.pki import common_names, public_bytes, read_requests, requests_pem, without_dns_name
from sectigo_async_cli.context import settings
from sectigo_async_cli.options import register as add
from sectigo_async_cli.ordering import agree, left_to_order, show_order, tell, ways_out
from sectigo_async_cli.run import noting, run_client
from sectigo_async_cli.stdin import read_stdin
from sectigo_async_cli.streams import say
from sectigo_async_cli.targets import check_profile_is_named, file_target, profile_target

_LARGEST_UPLOAD = 32 * 1024 * 1024


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
        with noting("nothing was ordered"):
            named = files or [str(await file_target(chosen, None, "File with the CSRs:", "FILE"))]
            check_profile_is_named(chosen, profile, "--profile")
            requests = await _read_all(named)
            target = await profile_target(chosen, client, profile, "--profile")
            if nameless := without_dns_name(requests):
                say(f"warning: no DNS name in the CSR of {', '.join(nameless)}: such batches are known to break")
            count = len(requests)
            one = count == 1
            cost = "1 CSR, which spends 1 licence" if one else f"{count:,} CSRs, which spend {count:,} licences"
            if target.asked or not files:
                left = await left_to_order(client, target)
                await agree(f"Order under profile {target.profile_id}? {cost}{left}.")
            else:
                chosen.output.note(f"{cost}, in one batch")
        with ways_out(chosen, target.profile_id):
            batch = await client.batches.upload(profile_id=target.profile_id, requests=requests_pem(requests))
        tell(chosen, batch)
        show_order(chosen.output, batch)

    run_client(ctx, job)


async def _read_all(names: Sequence[str]) -> list[x509.CertificateSigningRequest]:
    """Return the requests in files; the same key twice is refused, since both would be paid for."""
    requests: list[x509.CertificateSigningRequest] = []
    where: dict[bytes, str] = {}
    for name in names:
        data = await _read_stdin() if name == "-" else await asyncio.to_thread(_read, name)
        for request in await asyncio.to_thread(_read_requests, name, data):
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


def _read_requests(name: str, data: bytes) -> tuple[x509.CertificateSigningRequest, ...]:
    try:
        return read_requests(data)
    except InvalidCSRError as error:
        problem, hint = f"{'standard input' if name == '-' else name}: {error}", error.hint
    raise InvalidCSRError(problem, hint=hint)


async def _read_stdin() -> bytes:
    data = await read_stdin(_LARGEST_UPLOAD)
    if len(data) <= _LARGEST_UPLOAD:
        return data
    raise FileError(
        f"standard input is larger than {_LARGEST_UPLOAD // 1024**2} MiB", hint="order in several uploads"
    )


def _read(name: str) -> bytes:
    problem = ""
    try:
        if not stat.S_ISREG(Path(name).stat().st_mode):
            problem = f"{name} is not a file"
        elif Path(name).stat().st_size > _LARGEST_UPLOAD:
            problem = f"{name} is larger than {_LARGEST_UPLOAD // 1024**2} MiB"
        else:
            return Path(name).read_bytes()
    except OSError as error:
        problem = f"cannot read {name}: {error.strerror}"
    raise FileError(problem, hint="name a file with certificate signing requests")


def register(app: typer.Typer) -> None:
    """Add this command to `app`."""
    add(app, upload)
