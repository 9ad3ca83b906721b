"""Ordering with a key made by the service: create."""

import asyncio
from pathlib import Path
from typing import Annotated

import attrs
import typer

from sectigo_async import Batch, Secret, SectigoClient, SectigoError
from sectigo_async.errors import BatchFailed, FileError
from sectigo_async.files import check_directory, exists
from sectigo_async.parameters import make_password
from sectigo_async.pki import Archive, safe_name, write_private
from sectigo_async_cli import exit_codes
from sectigo_async_cli.context import Settings, settings
from sectigo_async_cli.options import Country, Locality, Organization, San, State, WaitLimit
from sectigo_async_cli.options import register as add
from sectigo_async_cli.ordering import agree, left_to_order, show_order, tell, ways_out
from sectigo_async_cli.output import record
from sectigo_async_cli.progress import follow, last_seen, warn_if_partial
from sectigo_async_cli.run import noting, report, run_client
from sectigo_async_cli.stdin import PasswordFile, PasswordStdin, check_one_way, given_password
from sectigo_async_cli.streams import say, spinner
from sectigo_async_cli.targets import Target, order_target
from sectigo_async_cli.unpacking import DOWNLOAD_LIMIT, Unpacking
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


def create(
    ctx: typer.Context,
    *,
    authority: Annotated[
        int | None, typer.Option("--authority", "-a", min=0, help="Id of the profile or authority to order under.")
    ] = None,
    domain: Annotated[
        str | None, typer.Option("--domain", "-d", help="Common name, and DNS name, of the certificate.")
    ] = None,
    san: San = None,
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
    organization: Organization = None,
    country: Country = None,
    state: State = None,
    locality: Locality = None,
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
    timeout: WaitLimit = 1800.0,
) -> None:
    """Order one certificate with a key made by the service. This spends a licence.

    On a terminal it asks for what is missing, by the rules of the profile.

    Example: sectigo-async create -a 42 -d gw7.example.com --out certs/
    """
    chosen = settings(ctx)
    password = password or None  # An empty one is one left out, as in the Go CLI.
    check_one_way(password, password_stdin, password_file)
    given_by_you = password is not None or password_stdin or password_file is not None
    _check_use(chosen, password_out, show=show_password, given_by_you=given_by_you)
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
        with noting("nothing was ordered"):
            if not chosen.interactive and not given["commonName"] and not param:
                raise typer.BadParameter("missing: name the certificate with --domain", param_hint="--domain")
            own = Secret(password) if password else await given_password(stdin=password_stdin, file=password_file)
            target = await order_target(chosen, client, authority, "--authority")
            rules = await Rules.of_profile(client, target.profile_id)
            params = from_options(rules, given, san or [], param or [])
            if own is not None:
                if PASSWORD in params:
                    raise typer.BadParameter(f"{PASSWORD} is given twice", param_hint="--param")
                params[PASSWORD] = own
            incomplete = chosen.interactive and is_incomplete(rules, params)
            if incomplete:
                await ask_for(rules, params)
            add_dns_name(rules, params)
            order = _Order(
                chosen=chosen,
                client=client,
                target=target,
                rules=rules,
                params=params,
                batch_name=batch_name,
                password_out=password_out,
                show_password=show_password,
                out=out,
            )
            await order.prepare(asked=target.asked or incomplete)
        batch = await order.place()
        if wait or out is not None:
            await _finish(chosen, order, batch, timeout)
        else:
            show_order(chosen.output, batch)

    run_client(ctx, job)


def _check_use(chosen: Settings, password_out: Path | None, *, show: bool, given_by_you: bool) -> None:
    if given_by_you and (password_out is not None or show):
        raise typer.BadParameter("is for a password made for you", param_hint="--password-out, --show-password")
    if show and not chosen.talks_to_a_terminal:
        raise typer.BadParameter("a password is shown on a terminal alone", param_hint="--show-password")


@attrs.define(kw_only=True)
class _Order:
    """One order of one certificate.

    Attributes:
        chosen: the options.
        client: places it.
        target: what to order under.
        rules: what the profile asks of it.
        params: its parameters; a password that is made is added.
        batch_name: name of the batch; a unique one where not given.
        password_out: where a password that is made is kept; by the common name where not given.
        show_password: whether that is shown on the terminal, too.
        out: where its files are written, if they are to be.
    """

    chosen: Settings
    client: SectigoClient
    target: Target
    rules: Rules
    params: Params
    batch_name: str | None
    password_out: Path | None
    show_password: bool
    out: Path | None
    _kept: Path | None = attrs.field(default=None, init=False)

    @property
    def name(self) -> str:
        """What is ordered."""
        return str(self.params.get("commonName") or "certificate")

    async def prepare(self, *, asked: bool) -> None:
        """Check all that can be known before money is spent, have it confirmed, and keep a password that is made.

        Args:
            asked: whether a person was asked for parts of it, and is to confirm the whole.
        """
        if self.out is not None:
            await Unpacking(directory=self.out).prepare(self.chosen, self.name)
        kept = self._kept = await self._make_password()
        refuse(await self.rules.check(self.params), self.target.profile_id)
        if asked:
            await _confirm(self.target, self.params, kept, left=await left_to_order(self.client, self.target))
        password = self.params.get(PASSWORD)
        if kept is not None and isinstance(password, Secret):
            # Durable before the order: without it the key that is ordered is lost.
            # On the loop, so that it is not left half way; nothing else runs on it.
            write_private(kept, password.reveal().encode() + b"\n")

    async def place(self) -> Batch:
        """Place the order."""
        password, kept = self.params.get(PASSWORD), self._kept
        with ways_out(self.chosen, self.target.profile_id, password_file=kept):
            batch = await self.client.batches.create(
                authority_id=self.target.order_id, name=self.batch_name, params=self.params
            )
        if kept is not None and isinstance(password, Secret):
            say(f"the PKCS#12 password is kept in {kept}")
            if self.show_password:
                say(f"PKCS#12 password: {password.reveal()}")
        tell(self.chosen, batch)
        return batch

    async def _make_password(self) -> Path | None:
        """Make a password where the profile takes one and none is given; return where it is to be kept."""
        if PASSWORD in self.params or not self.rules.takes(PASSWORD):
            return None
        path = self.password_out or Path(f"{safe_name(self.name)}.p12.password")
        if not await asyncio.to_thread(exists, path.parent):
            raise FileError(f"the directory {path.parent} is not there", hint="make it, or name another file")
        await asyncio.to_thread(check_directory, path.parent)
        if self.out is not None and _is_within(path, self.out / safe_name(self.name)):
            raise FileError(f"{path} is where the certificate's files go", hint="name another with --password-out")
        if await asyncio.to_thread(exists, path):
            raise FileError(
                f"{path} is there already",
                hint="it may hold the password of an earlier order: name another with --password-out",
            )
        self.params[PASSWORD] = await asyncio.to_thread(make_password, self.rules.get(PASSWORD))
        return path

    def way_on(self, number: int) -> str:
        """Return the commands that go on with the order, to be copied."""
        wait = self.chosen.command("wait", str(number))
        if self.out is None:
            return wait
        password = [] if self._kept is None else ["--password-file", str(self._kept)]
        where = ["-i", str(number), "-o", str(self.out)]
        return f"{wait} and {self.chosen.command('download', *where, '--extract', *password)}"

    def unpacking(self, directory: Path) -> Unpacking:
        """Return how to unpack what was ordered to a directory."""
        password = self.params.get(PASSWORD)
        return Unpacking(
            directory=directory,
            password=password if isinstance(password, Secret) else None,
            names={self.name, *str(self.params.get("dNSName", "")).split("\n")} - {""},
        )


def _is_within(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


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
    await agree(f"Order this? It spends one licence{left}.")


async def _finish(chosen: Settings, order: _Order, batch: Batch, limit: float) -> None:
    """Wait for a batch that was ordered, fetch and unpack it, and show what became of it.

    Raises:
        typer.Exit: it cannot be fetched or unpacked.
    """
    number = batch.batch_id
    way_on = f"batch {number} was ordered: go on with {order.way_on(number)}; do not order again"
    code = exit_codes.DONE
    with noting(way_on):
        (result,) = await follow(chosen, order.client, [number], timeout=limit)
        if isinstance(result, Batch):
            warn_if_partial(result)
            if order.out is not None:
                code = await _fetch(chosen, order.client, number, order.unpacking(order.out), way_on)
    show_order(chosen.output, last_seen(result) or batch)
    if isinstance(result, SectigoError):
        if not isinstance(result, BatchFailed):
            result.hint = way_on
        raise result
    if code != exit_codes.DONE:
        raise typer.Exit(code)


async def _fetch(chosen: Settings, client: SectigoClient, number: int, unpacking: Unpacking, way_on: str) -> int:
    """Download and unpack what was ordered; return the exit code for how that went."""
    try:
        path = await client.batches.download_to(number, unpacking.directory, timeout=DOWNLOAD_LIMIT)
        unpacked = await unpacking.run(chosen, await asyncio.to_thread(Archive.from_file, path))
        for document in unpacked.documents:
            say(f"{document['commonName']} is in {document['directory']}, chain: {document['chain']}")
        unpacked.report(chosen)
    except SectigoError as error:
        error.hint = f"{error.hint}; {way_on}" if error.hint else way_on
        report(error, chosen)
    except typer.Exit:
        pass
    else:
        return exit_codes.DONE
    return exit_codes.PARTLY_DONE


def register(app: typer.Typer) -> None:
    """Add this command to `app`."""
    add(app, create)
