"""The command tree and the global options."""

import io
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from sectigo_async import __version__
from sectigo_async_cli import exit_codes
from sectigo_async_cli.options import CsvOutput, JsonOutput, NoInput, Quiet, TableOutput
from sectigo_async_cli.streams import output_errors, print_text, say
from sectigo_async_cli.tree import Tree

app = typer.Typer(
    name="sectigo-async",
    cls=Tree,
    help="Order, download, find and revoke certificates of the Sectigo IoT Manager. Unofficial.\n\n"
    "Example: sectigo-async create -a 42 -d gw7.example.com --out certs/",
    epilog="Exit codes: " + ", ".join(f"{code} {text.split(':')[0]}" for code, text in exit_codes.MEANINGS.items()),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print_text(f"sectigo-async {__version__}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    *,
    username: Annotated[
        str | None, typer.Option("--username", "-u", help="Who signs in; or SECTIGO_USERNAME.")
    ] = None,
    password: Annotated[
        str | None, typer.Option("--password", "-p", help="Their password; better SECTIGO_PASSWORD.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", "-P", help="Profile to order under, id or name; or SECTIGO_PROFILE.")
    ] = None,
    environment: Annotated[
        str | None,
        typer.Option(
            "--environment",
            "--env",
            "-E",
            help="production, staging, docker or testing; or SECTIGO_ENVIRONMENT.",
        ),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", "--url", "-e", help="URL of the service; or SECTIGO_ENDPOINT.")
    ] = None,
    account: Annotated[
        str | None, typer.Option("--account", help="Account that `login` made; or SECTIGO_ACCOUNT.")
    ] = None,
    env_file: Annotated[
        Path | None,
        typer.Option("--env-file", help="Take SECTIGO_ variables from this file; none is read by itself."),
    ] = None,
    json_output: JsonOutput = False,
    table_output: TableOutput = False,
    csv_output: CsvOutput = False,
    quiet: Quiet = False,
    no_input: NoInput = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show every request, and a traceback with an error.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Take the global options, which stand before the command."""
    import attrs

    from sectigo_async import Secret
    from sectigo_async_cli.context import read_env_file, settings
    from sectigo_async_cli.options import with_options
    from sectigo_async_cli.run import reported

    del version
    if password is not None:
        say("warning: a password on the command line can be seen by others on this machine; use SECTIGO_PASSWORD")
    base = attrs.evolve(settings(ctx), debug=debug or settings(ctx).debug)
    if env_file is not None:
        with reported(base):
            base = read_env_file(base, env_file)
    # In a shell that was started with a password, another login is not to get it.
    another = any((username, endpoint, account, env_file))
    chosen = attrs.evolve(
        base,
        username=username or base.username,
        password=Secret(password) if password else None if another else base.password,
        profile=profile or base.profile,
        environment=environment or base.environment,
        endpoint=endpoint or base.endpoint,
        account=account or base.account,
    )
    _listen(debug=chosen.debug)
    ctx.obj = with_options(
        chosen,
        json_output=json_output,
        table_output=table_output,
        csv_output=csv_output,
        quiet=quiet,
        no_input=no_input,
    )


class _Talk(logging.Handler):
    """Says on stderr what the library logs."""

    def emit(self, record: logging.LogRecord) -> None:

        say(f"{record.levelname.lower()}: {record.getMessage()}")


_talk = _Talk(logging.WARNING)


def _listen(*, debug: bool) -> None:
    """Tell what the library warns of; with `debug`, all that it logs, which holds no secret."""
    logger = logging.getLogger("sectigo_async")
    logger.addHandler(_talk)
    logger.setLevel(logging.DEBUG if debug else logging.NOTSET)
    _talk.setLevel(logging.DEBUG if debug else logging.WARNING)


def run_app() -> None:
    """Run the command line."""
    _listen(debug=False)
    if sys.stderr is None:  # Usage errors would go to stdout instead.
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for argument in sys.argv[1:]:
        if not argument.isascii() and any("\ud800" <= char <= "\udfff" for char in argument):
            say(f"error: the argument {argument!r} is not text in this locale. Use a UTF-8 locale.")
            sys.exit(exit_codes.USAGE)
    with output_errors():  # Of a help text or of a usage error: commands report their own.
        app()
