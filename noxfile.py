"""Sessions for every Python at hand. `make test` and `make check` are the quick way for one."""

import nox

nox.options.sessions = ["test", "check"]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


@nox.session(python=PYTHONS)
def test(session: nox.Session) -> None:
    """Run the tests; pass arguments to pytest after `--`."""
    session.install("-c", "constraints.txt", "-e", ".[dev]")
    session.run("pytest", *session.posargs)


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """Run the tests with the newest version of every dependency, not the pinned ones."""
    session.install("--upgrade", "-e", ".[dev]")
    session.run("pytest", *session.posargs)


@nox.session
def check(session: nox.Session) -> None:
    """Check style, types and import directions."""
    session.install("-c", "constraints.txt", "-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports")
