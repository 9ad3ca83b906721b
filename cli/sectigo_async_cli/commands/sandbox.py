"""The simulator: serve and demo."""

import asyncio
import json
import math
import os
import re
import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sectigo_async.config import is_loopback
from sectigo_async.credentials import read_secret_file
from sectigo_async.errors import ConfigurationError, CredentialStoreError, FileError
from sectigo_async_cli import exit_codes
from sectigo_async_cli.context import refuse_in_a_shell, settings
from sectigo_async_cli.options import register as add
from sectigo_async_cli.run import run
from sectigo_async_cli.streams import print_text, say

if TYPE_CHECKING:
    from sectigo_async.sandbox import FaultRule, Sandbox, SandboxConfig, SandboxServer

_FORMATS = frozenset({"pem", "crt", "cer", "p7b"})
_LONGEST = 1e9
_DEFAULT_ADDRESS = "127.0.0.1:8831"
_ADDRESS = re.compile(r"(\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:\s]*)):(?P<port>[0-9]{1,5})")


def serve(
    ctx: typer.Context,
    *,
    addr: Annotated[
        str | None,
        typer.Option(
            "--addr",
            "-a",
            help="HOST:PORT; :PORT is this machine only, port 0 picks one; or SIAS_BIND_ADDR, or 127.0.0.1:8831.",
        ),
    ] = None,
    username: Annotated[str, typer.Option("--username", "-u", help="Who may sign in.")] = "demo",
    password_file: Annotated[
        Path | None, typer.Option(help="File with their password; demo-password if left out.")
    ] = None,
    balance: Annotated[int, typer.Option(min=0, help="Certificates that each authority has to sell.")] = 1000,
    issue_delay: Annotated[float, typer.Option(min=0, help="Seconds from an order to its certificates.")] = 2.0,
    allow_remote: Annotated[
        bool,
        typer.Option("--allow-remote", help="Listen beyond this machine; needs TLS and credentials of your own."),
    ] = False,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM certificate chain, to serve https.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM private key of that certificate.")] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Serve https, with a certificate of its own.")] = False,
    ca_out: Annotated[Path | None, typer.Option(help="Write the simulator's root certificate to this file.")] = None,
    client_ca: Annotated[
        Path | None, typer.Option(help="Demand a client certificate of these authorities at sign-in; needs TLS.")
    ] = None,
    access_ttl: Annotated[float, typer.Option(help="Seconds an access token lives.")] = 600.0,
    refresh_ttl: Annotated[float, typer.Option(help="Seconds a refresh token lives.")] = 7200.0,
    rotate_refresh: Annotated[
        bool,
        typer.Option("--rotate-refresh", help="Give a new refresh token each time; using an old one ends the login."),
    ] = False,
    clock_skew: Annotated[float, typer.Option(help="Seconds by which the simulator's clock is ahead.")] = 0.0,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", help="Form of certificates for CSRs: pem, crt, cer or p7b; pem if left out; may be repeated."
        ),
    ] = None,
    nuisance: Annotated[
        bool, typer.Option("--nuisance", help="Be slow, busy and forgetful now and then, as services are.")
    ] = False,
    faults: Annotated[
        Path | None, typer.Option(help="File with a JSON list of faults; docs/simulator.md describes it.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Where the dice of the faults start: the same again, the same.")] = 0,
    state: Annotated[
        Path | None,
        typer.Option(
            help="File to keep everything in, and to go on from; it holds private keys. In memory if left out."
        ),
    ] = None,
) -> None:
    """Run a simulator of the service with a certificate authority that nobody should trust.

    Example: sectigo-async serve -a :8831
    """
    refuse_in_a_shell(settings(ctx))
    # The variable is the one that the Go CLI reads.
    host, port = _address(addr or os.environ.get("SIAS_BIND_ADDR") or _DEFAULT_ADDRESS)
    remote = not is_loopback(host)
    own = username != "demo" and password_file is not None
    if remote and not (allow_remote and tls_cert and tls_key and own):
        raise typer.BadParameter(
            f"{host} is not this machine: add --allow-remote, --tls-cert, --tls-key, --username and --password-file",
            param_hint="--addr",
        )
    _check_tls_options(tls=tls, tls_cert=tls_cert, tls_key=tls_key, client_ca=client_ca)
    if not username or not math.isfinite(issue_delay):
        raise typer.BadParameter("a name and a number of seconds are needed", param_hint="--username, --issue-delay")
    if not (0 < access_ttl < _LONGEST and 0 < refresh_ttl < _LONGEST and abs(clock_skew) < _LONGEST):
        raise typer.BadParameter(
            "use seconds, more than 0 for a lifetime", param_hint="--access-ttl, --refresh-ttl, --clock-skew"
        )
    _check_trouble(formats or [], faults, nuisance=nuisance)
    _need_sandbox()

    async def job() -> None:
        from sectigo_async.pki import load_certificates, write_private
        from sectigo_async.sandbox import NUISANCE, SandboxConfig, SandboxServer

        password = await _password(password_file)
        _check_tls(tls_cert, tls_key)
        trouble = NUISANCE if nuisance else ()
        if faults is not None:
            trouble = await asyncio.to_thread(_read_faults, faults)
        config = SandboxConfig(
            username=username,
            password=password,
            balance=balance,
            issue_delay=issue_delay,
            access_ttl=access_ttl,
            refresh_ttl=refresh_ttl,
            rotate_refresh=rotate_refresh,
            clock_skew=clock_skew,
            client_ca=client_ca,
            formats=tuple(dict.fromkeys(formats or ["pem"])),
            faults=trouble,
            seed=seed,
            state=state,
        )
        async with AsyncExitStack() as stack:
            simulator = stack.enter_context(closing(_sandbox(config)))
            if client_ca is not None:
                load_certificates(client_ca)
            if ca_out is not None:
                write_private(ca_out, simulator.ca_pem(), overwrite=True)
            server = SandboxServer(simulator, host, port, ssl_certfile=tls_cert, ssl_keyfile=tls_key, tls=tls)
            await _listen(stack, server)
            print_text(server.url)
            _greet(config, server.url, own_password=password_file is not None, ca_out=ca_out)
            await server.serve_forever()

    run(settings(ctx), job)


def _check_tls_options(*, tls: bool, tls_cert: Path | None, tls_key: Path | None, client_ca: Path | None) -> None:
    if bool(tls_cert) is not bool(tls_key):
        raise typer.BadParameter("--tls-cert and --tls-key belong together", param_hint="--tls-cert")
    if client_ca is not None and not (tls or tls_cert):
        raise typer.BadParameter("--client-ca needs --tls, or --tls-cert and --tls-key", param_hint="--client-ca")


def _check_trouble(formats: Sequence[str], faults: Path | None, *, nuisance: bool) -> None:
    if unknown := set(formats) - _FORMATS:
        raise typer.BadParameter(f"{min(unknown)!r} is none of {', '.join(sorted(_FORMATS))}", param_hint="--format")
    if nuisance and faults is not None:
        raise typer.BadParameter("choose one", param_hint="--nuisance, --faults")


def _read_faults(file: Path) -> "tuple[FaultRule, ...]":
    from sectigo_async.sandbox import parse_faults

    try:
        return parse_faults(json.loads(file.read_bytes()))
    except OSError as error:
        problem = f"cannot read {file}: {error.strerror}"
    except (ValueError, RecursionError) as error:
        problem = f"{file} is no list of faults: {error}"
    raise FileError(problem, hint='it holds JSON like [{"route": "*", "fault": "rate-limit", "rate": 0.1}]')


def _greet(config: "SandboxConfig", url: str, *, own_password: bool, ca_out: Path | None) -> None:
    say("This is a simulator, not a certificate authority: trust nothing that it issues.")
    if config.faults:
        say("It makes trouble on purpose: /_sandbox/stats counts how often.")
    if config.state is not None:
        say(f"Everything is kept in {config.state}, private keys included: start it with that again, and it goes on.")
    if ca_out is not None:
        say(f"Its root certificate is in {ca_out}: trust it for TLS with SECTIGO_CA_BUNDLE={ca_out}.")
    secret = "from your file" if own_password else config.password
    say(f"Sign in as {config.username}, password {secret}. SECTIGO_ENDPOINT={url}. Stop it with Ctrl-C.")


def _sandbox(config: "SandboxConfig") -> "Sandbox":
    from sectigo_async.sandbox import Sandbox, StateError

    try:
        return Sandbox(config)
    except StateError as error:
        problem = str(error)
    raise FileError(problem, hint="--state takes a new file, or that of an earlier simulator which has ended")


async def _listen(stack: AsyncExitStack, server: "SandboxServer") -> None:
    try:
        await stack.enter_async_context(server)
    except OSError as error:
        problem = error.strerror or str(error)
    else:
        return
    raise ConfigurationError(problem, hint="choose another address with --addr; port 0 picks a free one")


def _check_tls(certificate: Path | None, key: Path | None) -> None:
    if certificate is None or key is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        problem = f"{certificate} and {key} are no certificate with its key: {error}"
    else:
        return
    raise FileError(problem, hint="give PEM files, the key without a password")


def demo(
    ctx: typer.Context,
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for keys and certificates; an earlier demo's is replaced.")
    ] = Path("demo-certs"),
) -> None:
    """Show everything once: order, wait, download, verify and revoke, against a simulator on this machine.

    Example: sectigo-async demo
    """
    refuse_in_a_shell(settings(ctx))
    _need_sandbox()
    from sectigo_async_cli.demo import Demo

    run(settings(ctx), Demo(out, settings(ctx)).run)


def _need_sandbox() -> None:
    try:
        import starlette
        import uvicorn
    except ImportError:
        say("error: the simulator is an extra. Install it with: pip install 'sectigo-async[sandbox]'")
        raise typer.Exit(exit_codes.FAILED) from None
    del starlette, uvicorn


def _address(text: str) -> tuple[str, int]:
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > 65535:  # noqa: PLR2004 - the highest port there is
        raise typer.BadParameter(f"{text!r} is not HOST:PORT", param_hint="--addr")
    return found["ipv6"] or found["host"] or "127.0.0.1", int(found["port"])


async def _password(file: Path | None) -> str:
    if file is None:
        return "demo-password"
    try:
        return (await read_secret_file(file)).reveal()
    except CredentialStoreError as error:
        problem = str(error)
    raise FileError(problem, hint="put the password in it, on one line")


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    add(app, serve)
    add(app, demo)
