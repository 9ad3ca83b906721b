"""Doctor: what is in order on this machine and what is not, with what to do about it."""

import getpass
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import attrs
import typer

from sectigo_async import SectigoClient, SectigoError, SystemClock
from sectigo_async.config import is_loopback
from sectigo_async.credentials import Item, KeyringStore, Login, Resolved
from sectigo_async.errors import CredentialStoreError
from sectigo_async.variables import VARIABLES
from sectigo_async_cli import exit_codes
from sectigo_async_cli.context import Settings, settings
from sectigo_async_cli.options import register as add
from sectigo_async_cli.run import busy, run

_OLDEST_PYTHON = (3, 11)
_SKEW = 60.0
_EXTRAS = ("cli", "sandbox")
_PRODUCTION = "https://iot.sectigo.com"
_SHAREABLE = frozenset({"production", "staging", "docker", "testing", "auto", "keyring", "file", "memory", "default"})
"""Values of settings that tell nothing of who and where this is."""
_COLUMNS = {"check": "Check", "status": "Status", "detail": "What was found, and what to do"}


@attrs.frozen
class _Finding:
    """What one check found.

    Attributes:
        check: what was looked at.
        status: `ok`, `note` or `failed`.
        detail: what was found.
        advice: what to do about it.
    """

    check: str
    status: str
    detail: str
    advice: str = ""


def doctor(
    ctx: typer.Context,
    *,
    share: Annotated[
        bool, typer.Option("--share", help="Mask names, hosts and paths, so that it can be shown to others.")
    ] = False,
) -> None:
    """Look whether all is in order: Python, settings, keyring, network, TLS, clock and login. Nothing is ordered.

    Example: sectigo-async doctor --share
    """
    chosen = settings(ctx)

    async def job() -> None:
        with busy(chosen, "looking"):
            findings = [finding async for finding in _examine(chosen)]
        mask = _masker(chosen) if share else str
        documents = [{name: mask(text) for name, text in attrs.asdict(finding).items()} for finding in findings]
        rows = [told | {"detail": "\n-> ".join(filter(None, (told["detail"], told["advice"])))} for told in documents]
        chosen.output.emit(documents, _COLUMNS, rows=rows, prose=("detail",))
        if any(finding.status == "failed" for finding in findings):
            raise typer.Exit(exit_codes.FAILED)

    run(chosen, job)


async def _examine(chosen: Settings) -> AsyncIterator[_Finding]:
    yield _python()
    yield _packages("packages", "", "pip install --upgrade sectigo-async")
    for extra in _EXTRAS:
        yield _packages(f"extra {extra}", extra, f"pip install 'sectigo-async[{extra}]'")
    try:
        found = chosen.resolve()
    except SectigoError as error:
        yield _problem("settings", error)
        return
    for name, setting in found.settings.items():
        if setting.value:
            yield _Finding(name, "ok", f"{setting.value} ({chosen.source(name, setting.source)})")
    yield await _keyring(found)
    yield _proxy(found)
    async for finding in _service(chosen):
        yield finding


def _python() -> _Finding:
    told = (
        f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} {platform.machine()}"
    )
    if sys.version_info < _OLDEST_PYTHON:
        return _Finding("Python", "failed", told, "install Python 3.11 or newer")
    return _Finding("Python", "ok", told)


def _packages(check: str, extra: str, install: str) -> _Finding:
    """Look for what this package needs, or one of its extras, by what it declares itself."""
    found, missing = [], []
    for requirement in importlib.metadata.requires("sectigo-async") or ():
        of_extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        if (of_extra[1] if of_extra else "") != extra or name == "sectigo-async":
            continue
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return _Finding(check, "note" if extra else "failed", f"not installed: {', '.join(missing)}", install)
    return _Finding(check, "ok", ", ".join(found))


def _problem(check: str, error: SectigoError) -> _Finding:
    return _Finding(check, "failed", str(error), error.hint)


async def _keyring(found: Resolved) -> _Finding:
    store = found.credentials.store
    needed = isinstance(store, KeyringStore)
    keyring = store if isinstance(store, KeyringStore) else KeyringStore()
    try:
        await keyring.load(Login(found.config.endpoint, "doctor of sectigo-async"), Item.PASSWORD)
    except CredentialStoreError as error:
        return _Finding("keyring", "failed" if needed else "note", str(error), error.hint)
    return _Finding("keyring", "ok", "it answers" if needed else "it answers; the login is kept elsewhere")


def _proxy(found: Resolved) -> _Finding:
    names = [name for name in os.environ if name.lower() in {"https_proxy", "http_proxy", "all_proxy", "no_proxy"}]
    named = [name for name in sorted(names) if os.environ[name]]
    host = urlsplit(found.config.endpoint).hostname or ""
    if not named:
        return _Finding("proxy", "ok", "none is set")
    told = f"{', '.join(named)} set"
    return _Finding("proxy", "ok", f"{told}; not used for this machine" if is_loopback(host) else told)


async def _service(chosen: Settings) -> AsyncIterator[_Finding]:
    try:
        client = chosen.client()
    except SectigoError as error:
        yield _problem("TLS", error)
        return
    async with client:
        endpoint = client.config.endpoint
        try:
            probe = await client.probe()
        except SectigoError as error:
            yield _problem("endpoint", error)
            return
        yield _Finding("endpoint", "ok", f"{endpoint} answers in {probe.seconds * 1000:.0f} ms")
        yield _tls(endpoint, probe.tls_version)
        yield _clock(probe.clock_skew)
        yield await _login(chosen, client)


def _tls(endpoint: str, version: str) -> _Finding:
    if version:
        return _Finding("TLS", "ok", version)
    if is_loopback(urlsplit(endpoint).hostname or ""):
        return _Finding("TLS", "ok", "none, and none is needed on this machine")
    return _Finding("TLS", "note", "unknown")


def _clock(skew: float | None) -> _Finding:
    if skew is None:
        return _Finding("clock", "note", "the service does not tell its time")
    told = f"{abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} the service's"
    if abs(skew) > _SKEW:
        return _Finding("clock", "note", told, "set the clock of this machine, for example with NTP")
    return _Finding("clock", "ok", "right to within a minute")


async def _login(chosen: Settings, client: SectigoClient) -> _Finding:
    credentials = chosen.resolve().credentials
    advice = "sign in with `sectigo-async login`"
    if not credentials.is_known:
        return _Finding("login", "failed", "nobody is signed in", advice)
    shared = credentials.share(client.config.endpoint, SystemClock())
    try:
        for token in (await shared.access_token(), await shared.stored_refresh_token()):
            if token is not None and token.left(SystemClock()) != 0:
                return _Finding("login", "ok", f"{credentials.username or 'the user'} is signed in")
        if await credentials.find_password(shared) is not None:
            return _Finding("login", "ok", "there is a password to sign in with", "try it with `sectigo-async auth`")
    except CredentialStoreError as error:
        return _problem("login", error)
    return _Finding("login", "failed", "the login has ended", advice)


def _masker(chosen: Settings) -> Callable[[str], str]:
    """Return what masks the names, hosts and paths of this machine, of the options and of the settings."""
    words = _words_to_mask(chosen)
    longest_first = sorted((word for word in words if len(word) > 1), key=len, reverse=True)

    def mask(text: str) -> str:
        for word in longest_first:
            pattern = rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])"
            text = re.sub(pattern, f"<{words[word]}>", text, flags=re.IGNORECASE)
        text = re.sub(r"(?<!:)(?<![\w<>/:.])(?:~|\.{1,2}|[A-Za-z]:)?[/\\][^\s'\",;)]+", "<PATH>", text)
        # What follows the name of a path is a part of it.
        return re.sub(r"(<(?:HOME|PATH|ENDPOINT|FILE)>)[/\\][^\s'\",;)]*", r"\1", text)

    return mask


def _words_to_mask(chosen: Settings) -> dict[str, str]:
    """Return the words that may tell who and where this is, and what to write in their place."""
    words = {platform.node(): "HOST"}
    with suppress(KeyError, OSError, ImportError):  # A container may know neither name nor home.
        words[getpass.getuser()] = "USER"
    with suppress(RuntimeError):
        words[str(Path.home())] = "HOME"
    given = {variable.name: chosen.environ.get(variable.name) or "" for variable in VARIABLES}
    options = {"USERNAME": chosen.username, "ENDPOINT": chosen.endpoint, "ACCOUNT": chosen.account}
    options |= {"ENVIRONMENT": chosen.environment, "PROFILE": chosen.profile}
    told = [(name.removeprefix("SECTIGO_"), value) for name, value in given.items()] + list(options.items())
    with suppress(SectigoError):
        found = chosen.resolve()
        told += [(name.removeprefix("SECTIGO_"), setting.value) for name, setting in found.settings.items()]
    for name, value in told:
        if not value or value in _SHAREABLE:
            continue
        host = urlsplit(value).hostname or ""
        if name != "ENDPOINT":
            words[value] = name
        elif not (is_loopback(host) or value.rstrip("/").lower() == _PRODUCTION):
            words |= {value: name, host: name}
    if chosen.env_file is not None:
        words[str(chosen.env_file)] = "FILE"
    return words


def register(app: typer.Typer) -> None:
    """Add this command to `app`."""
    add(app, doctor)
