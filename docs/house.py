"""Draws docs/images/house.svg from the layers that import-linter enforces: `make reference`.

With --check it only says whether that is stale. Boxes are dark and their text is light, so that the picture can be
read on any ground.
"""

import sys
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs/images/house.svg"
WHAT = {
    "fleet": "bulk runs on several machines",
    "issuance": "bulk runs: list, plan, ledger, renewal",
    "client": "wires everything, owns what it opened",
    "resources": "the verbs: batches, certificates and so on",
    "waiting": "what a status means, when to look again",
    "transport": "the only sender: time-out, retries, token",
    "auth": "tokens, sign-in",
    "exchange": "one request, once",
    "journal": "orders, before sent",
    "credentials": "who signs in; keyring, file, memory",
    "connections": "leased; TLS, proxies",
    "wire": "requests and replies; no I/O",
    "parameters": "the rules of an order",
    "config": "where, how patient",
    "models": "what is told",
    "pki": "keys, archives",
    "variables": "SECTIGO_...",
    "files": "private; whole or not at all",
    "secrets": "masked everywhere",
    "errors": "one tree, each with a way out",
    "clock": "time, injected",
    "text": "foreign text",
    "threads": "off the loop",
}
LEFT, TOP, COLUMN, ROW, GAP = 8, 8, 560, 48, 8
SIDE, SIDE_WIDTH = LEFT + COLUMN + 44, 180
MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,monospace"
SANS = "system-ui,-apple-system,Segoe UI,Roboto,sans-serif"
OUTER, INNER, BESIDE, LINE = "#5c4a8a", "#2f4a86", "#1f6b5c", "#808080"


def main() -> int:
    """Write the picture, or check it."""
    drawn = draw(_layers())
    if "--check" not in sys.argv[1:]:
        PICTURE.write_text(drawn, encoding="utf-8")
        return 0
    if PICTURE.read_text(encoding="utf-8") == drawn:
        return 0
    print("docs/images/house.svg is stale: make reference", file=sys.stderr)
    return 1


def _layers() -> list[list[str]]:
    """Return the modules of each layer, the highest first."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[name.strip().removeprefix("sectigo_async.") for name in layer.split("|")] for layer in layers]


def draw(layers: list[list[str]]) -> str:
    """Return the picture."""
    cli = (LEFT, TOP, COLUMN, ROW)
    first = TOP + ROW + 24
    places: dict[str, tuple[float, float, float, float]] = {}
    for level, layer in enumerate(layers):
        width = (COLUMN - GAP * (len(layer) - 1)) / len(layer)
        for index, name in enumerate(layer):
            places[name] = (LEFT + index * (width + GAP), first + level * (ROW + GAP), width, ROW)
    bottom = first + len(layers) * (ROW + GAP) - GAP
    talks, time = places["connections"], places["clock"]
    tall = 3 * ROW + 2 * GAP
    testing, service = (SIDE, first, SIDE_WIDTH, tall), (SIDE, talks[1], SIDE_WIDTH, ROW)
    sandbox = (SIDE, bottom - tall, SIDE_WIDTH, tall)
    parts = [_box(cli, OUTER, "sectigo_async_cli", "the command line; uses public names only")]
    parts += [_box(place, INNER, name, WHAT.get(name, "")) for name, place in places.items()]
    parts += [
        _box(testing, BESIDE, "testing", "for your own tests:", "a clock, and what stores", "and ledgers must do"),
        _box(service, OUTER, "the service", "or the sandbox in its place"),
        _box(
            sandbox,
            BESIDE,
            "sandbox",
            "the simulator, with a CA",
            "of its own; shares nothing",
            "else with the client",
        ),
        _arrow(f"M {LEFT + COLUMN / 2:g} {TOP + ROW} V {first - 3:g}"),
        _arrow(f"M {SIDE} {first + tall / 2:g} H {LEFT + COLUMN + 3}"),
        _arrow(f"M {LEFT + COLUMN} {talks[1] + ROW / 2:g} H {SIDE - 3}", dashed=True),
        _arrow(f"M {SIDE + SIDE_WIDTH / 2:g} {bottom:g} v 18 H {time[0] + time[2] / 2:g} V {bottom + 3:g}"),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE + SIDE_WIDTH + 8} {bottom + 26:g}" role="img">\n'
        "<title>The layers of sectigo-async: each imports only what stands below it</title>\n"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0L8 4L0 8z" fill="{LINE}"/></marker></defs>\n{"".join(parts)}</svg>\n'
    )


def _box(place: tuple[float, float, float, float], colour: str, name: str, *lines: str) -> str:
    left, top, width, height = place
    middle, start = left + width / 2, top + height / 2 - 9 * len(lines) + 5
    said = "".join(
        f'<tspan x="{middle:g}" dy="18" font-family="{SANS}" font-size="13" font-weight="400">{escape(line)}</tspan>'
        for line in lines
    )
    return (
        f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="6" fill="{colour}"/>\n'
        f'<text x="{middle:g}" y="{start:g}" text-anchor="middle" fill="#ffffff" font-family="{MONO}" '
        f'font-size="15" font-weight="600">{name}{said}</text>\n'
    )


def _arrow(path: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<path d="{path}" fill="none" stroke="{LINE}" stroke-width="1.6" marker-end="url(#tip)"{dash}/>\n'


if __name__ == "__main__":
    sys.exit(main())
