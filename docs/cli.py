"""Writes docs/cli.md from the command tree: `make reference`. With --check it only says whether that is stale."""

import sys
from pathlib import Path
from typing import Any

import typer.main

from sectigo_async_cli.app import app
from sectigo_async_cli.exit_codes import MEANINGS
from sectigo_async_cli.options import EVERYWHERE, commands_of

PAGE = Path(__file__).with_name("cli.md")
INTRODUCTION = """\
# The command line

This page is made from the program itself by `make reference`.

```
sectigo-async [OPTIONS] COMMAND [ARGS]...
```

## Output

Data goes to stdout, everything else to stderr. On a terminal, data is shown as tables, with times told from now and
states in colour (`NO_COLOR` turns that off). Where a terminal is too narrow for a table, records are shown instead,
so that nothing is cut. In a pipe, each command prints what the Go client's `sectigo` prints: a JSON document, or its
text. `--json`, `--table` and `--csv` choose one form for every place. In JSON, a command that has a text prints a
document instead.

Text of the service, and of files, may be hostile. What a terminal would obey is written out, and a CSV cell that a
spreadsheet would run begins with an apostrophe.

## Questions

Where stdin, stdout and stderr are terminals (and `TERM` is not `dumb`), what is missing is asked for, and `revoke`
asks before it revokes. An order is confirmed only if something was asked for it. Nothing is ever asked with
`--no-input`, where the variable `CI` is set, or in a pipe: there, what is missing is a usage error.

Patterns of the service that the answers have to match are Java's. One that cannot be used here is said to be not
checked, and never stops an order.

## Passwords

`-p VALUE` works as in the Go CLI, with a warning, since others on the machine can see it. Every other secret comes by
a question, with `--password-stdin`, or with `--password-file`. Where `create` makes a PKCS#12 password, it is kept in
a file of mode 0600 before the order is sent.

"""


def main() -> int:
    """Write the page, or check it."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == text:
        return 0
    print("docs/cli.md is stale: make reference", file=sys.stderr)
    return 1


def page() -> str:
    """Return the page."""
    group: Any = typer.main.get_command(app)
    everywhere = {f"--{name.removesuffix('_output').replace('_', '-')}" for name in EVERYWHERE}
    parts = [INTRODUCTION, "## Exit codes\n\n| Code | Meaning |\n|---|---|\n"]
    parts += [f"| {code} | {meaning} |\n" for code, meaning in MEANINGS.items()]
    parts.append("\n## Options before the command\n\n" + _options(group, set()))
    parts.append("\nThese may stand behind the command too: " + ", ".join(f"`{one}`" for one in sorted(everywhere)))
    parts.append(".\n\n## Commands\n\n")
    shown = {name: command for name, command in commands_of(group).items() if not command.hidden}
    parts += [f"- [`{name}`](#{name.replace(' ', '-')}): {command.short_help}\n" for name, command in shown.items()]
    parts.append("- `profile`: another spelling of `profiles`.\n")
    parts += [_command(name, command, everywhere) for name, command in shown.items()]
    return "".join(parts)


def _command(name: str, command: Any, everywhere: set[str]) -> str:
    text, _, example = command.help.partition("Example: ")
    arguments = [one.metavar for one in command.params if not one.opts[0].startswith("-")]
    usage = " ".join(["sectigo-async", name, "[OPTIONS]", *arguments])
    options = _options(command, everywhere)
    return f"\n### {name}\n\n{text.strip()}\n\n```\n{usage}\n\n{example.strip()}\n```\n" + (
        options and f"\n{options}"
    )


def _options(command: Any, left_out: set[str]) -> str:
    rows = []
    for one in command.params:
        if left_out & set(one.opts) or "--help" in one.opts:
            continue
        names = sorted((*one.opts, *one.secondary_opts), key=lambda name: (name.startswith("--"), name))
        flag = getattr(one, "is_flag", False) or not one.opts[0].startswith("-")
        value = "" if flag else f" {_value(one)}"
        shown = f"{', '.join(names)}{value}" if one.opts[0].startswith("-") else one.metavar
        default = None if flag else getattr(one.default, "value", one.default)
        told = f" Default: {default}." if isinstance(default, int | float | str) and default != "" else ""
        cells = (cell.replace("|", r"\|") for cell in (f"`{shown}`", f"{one.help or ''}{told}"))
        rows.append(f"| {' | '.join(cells)} |\n")
    return "| Option | Meaning |\n|---|---|\n" + "".join(rows) if rows else ""


def _value(one: Any) -> str:
    choices = getattr(one.type, "choices", None)
    if choices:
        return "|".join(str(getattr(choice, "value", choice)) for choice in choices)
    kinds = {"text": "TEXT", "str": "TEXT", "integer": "NUMBER", "int": "NUMBER", "float": "NUMBER", "path": "PATH"}
    return str(one.metavar or kinds.get(one.type.name.removesuffix(" range"), one.type.name.upper()))


if __name__ == "__main__":
    sys.exit(main())
