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
    """Check style, types, import directions, and that no secret shows."""
    session.install("-c", "constraints.txt", "-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("pyright", "--pythonpath", f"{session.bin}/python")
    session.run("python", "tests/typing/completeness.py")
    session.run("lint-imports")
    session.run("pytest", "-q", "-m", "canary")


@nox.session
def audit(session: nox.Session) -> None:
    """Ask the advisory database about every pinned version; it needs the network."""
    # In an environment of its own: it brings many packages that nothing else here needs.
    session.install("-c", "constraints.txt", "pip-audit==2.10.1")
    # Strict: a version that the database does not answer for is a failure, not a pass.
    session.run("pip-audit", "--strict", "--disable-pip", "--no-deps", "-r", "constraints.txt", *session.posargs)
