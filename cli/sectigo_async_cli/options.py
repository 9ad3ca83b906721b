"""How a command is added to the tree, and the options that several or all of them take."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sectigo_async_cli.context import Settings

JsonOutput = Annotated[bool, typer.Option("--json", help="Write JSON.")]
TableOutput = Annotated[bool, typer.Option("--table", help="Write tables for people.")]
CsvOutput = Annotated[bool, typer.Option("--csv", help="Write CSV.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Leave out notes and progress.")]
NoInput = Annotated[bool, typer.Option("--no-input", help="Ask nothing, even on a terminal.")]

San = Annotated[list[str] | None, typer.Option("--san", help="A further DNS name; may be repeated.")]
Organization = Annotated[str | None, typer.Option("--organization", help="Organisation in the subject.")]
Country = Annotated[str | None, typer.Option("--country", "-c", help="Country, two letters.")]
State = Annotated[str | None, typer.Option("--state", "-s", help="State or province.")]
Locality = Annotated[str | None, typer.Option("--locality", "-l", help="City or locality.")]


def _finite(seconds: float) -> float:
    if not math.isfinite(seconds):
        raise typer.BadParameter("a number of seconds is needed")
    return seconds


LONGEST = 366 * 86400
"""Seconds that anything may be told to take."""

WaitLimit = Annotated[
    float, typer.Option("--timeout", min=0, max=LONGEST, callback=_finite, help="Seconds to wait at most.")
]
BatchId = Annotated[int | None, typer.Option("--id", "-i", min=0, help="Id of the batch.")]

Settle = Annotated[
    float,
    typer.Option(
        "--settle",
        min=0,
        max=LONGEST,
        callback=_finite,
        help="Seconds after which what was sent has surely run, if it ever does.",
    ),
]

EVERYWHERE = {
    "json_output": JsonOutput,
    "table_output": TableOutput,
    "csv_output": CsvOutput,
    "quiet": Quiet,
    "no_input": NoInput,
}


def with_options(
    chosen: "Settings", *, json_output: bool, table_output: bool, csv_output: bool, quiet: bool, no_input: bool
) -> "Settings":
    """Return settings with the options that every command takes.

    Raises:
        typer.BadParameter: more than one format is chosen.
    """
    import attrs

    from sectigo_async_cli.output import Format

    formats = {Format.JSON: json_output, Format.TABLE: table_output, Format.CSV: csv_output}
    wanted = [format_ for format_, given in formats.items() if given]
    if len(wanted) > 1:
        raise typer.BadParameter("choose one format", param_hint="--json, --table, --csv")
    output = attrs.evolve(
        chosen.output,
        format=wanted[0] if wanted else chosen.output.format,
        quiet=quiet or chosen.output.quiet,
    )
    return attrs.evolve(chosen, output=output, no_input=no_input or chosen.no_input)


def commands_of(program: Any, before: str = "") -> dict[str, Any]:
    """Return the commands of a tree by their full names, those of its groups too."""
    found: dict[str, Any] = {}
    for name, command in program.commands.items():
        inner = commands_of(command, f"{before}{name} ") if hasattr(command, "commands") else {}
        found |= inner or {f"{before}{name}": command}
    return found


def register(
    app: typer.Typer, function: Callable[..., None], *, name: str | None = None, hidden: bool = False
) -> None:
    """Add a command, with the options that every command takes."""

    @functools.wraps(function)
    def command(ctx: typer.Context, **given: object) -> None:
        from sectigo_async_cli.context import settings

        everywhere = {option: bool(given.pop(option)) for option in EVERYWHERE}
        ctx.obj = with_options(settings(ctx), **everywhere)
        function(ctx, **given)

    signature = inspect.signature(function)
    added = [
        inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for option, annotation in EVERYWHERE.items()
    ]
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *added]
    )
    command.__annotations__ = function.__annotations__ | EVERYWHERE
    first_line = (inspect.getdoc(function) or "").split("\n", 1)[0]
    app.command(name, hidden=hidden, short_help=first_line)(command)
