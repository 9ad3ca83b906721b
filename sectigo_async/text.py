"""Foreign text, made fit to be shown."""

LONGEST_LINE = 300


def one_line(text: str, longest: int = LONGEST_LINE) -> str:
    """Return foreign text fit for an error message: one line, printable, of bounded length."""
    clean = "".join(char if char.isprintable() else " " for char in text)
    clean = " ".join(clean.split())
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


def fits_a_header(token: str) -> bool:
    """Say whether a token can stand in a header field: not empty, visible ASCII, no blanks."""
    return bool(token) and token.isascii() and token.isprintable() and " " not in token
