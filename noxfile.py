"""Sessions for every Python at hand. `make test` and `make check` are the quick way for one."""

import hashlib
import json
import re
import sys
from pathlib import Path

import nox

nox.options.sessions = ["test", "check"]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
EXTRAS = ["cli", "fleet", "sandbox"]


def install_checkout(session: nox.Session) -> None:
    """Install this checkout and all that the tests need, each file by its hash."""
    session.install("--require-hashes", "-r", "requirements/dev.txt")
    session.install("--no-deps", "--no-build-isolation", "-e", ".")


@nox.session(python=PYTHONS)
def test(session: nox.Session) -> None:
    """Run the tests; pass arguments to pytest after `--`."""
    install_checkout(session)
    session.run("pytest", *session.posargs)


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """Run the tests with the newest version of every dependency, not the pinned ones."""
    session.install("--upgrade", "-e", ".[dev]")
    session.run("pytest", *session.posargs)


@nox.session(python=PYTHONS)
def oldest(session: nox.Session) -> None:
    """Run the tests with the lowest version of everything that the package asks for."""
    session.install("-c", str(lowest(session)), "-e", ".[dev]")
    session.run("pytest", *session.posargs)


@nox.session
def check(session: nox.Session) -> None:
    """Check style, types, import directions, and that no secret shows."""
    install_checkout(session)
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


@nox.session(python=PYTHONS)
@nox.parametrize("versions", [nox.param(name, id=name, tags=[name]) for name in ("lowest", "newest", "pinned")])
@nox.parametrize("extras", [nox.param(name, id=name or "none") for name in ["", *EXTRAS, "all"]])
def wheel(session: nox.Session, extras: str, versions: str) -> None:
    """Install the wheel in dist/ and nothing else, and test it from outside."""
    (file,) = Path("dist").glob("*.whl")
    constraints = {"newest": [], "pinned": ["-c", "constraints.txt"], "lowest": ["-c", str(lowest(session))]}
    session.install(*constraints[versions], f"{file}[{extras}]" if extras else str(file))
    session.run("python", "-m", "pip", "check")
    tested = {"SECTIGO_TEST_PYTHON": str(Path(session.bin, "python")), "SECTIGO_TEST_EXTRAS": extras}
    # pytest is that of the development environment, so that it brings nothing that the wheel forgot to ask for.
    session.run(sys.executable, "-m", "pytest", "-q", "tests/packaging/test_installed.py", env=tested, external=True)


def lowest(session: nox.Session) -> Path:
    """Write the lowest version of everything that the package asks for, as constraints."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    groups = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in EXTRAS)]
    bounds = (re.match(r"([\w-]+)(?:\[[\w,]+\])?>=([\w.]+)", line) for group in groups for line in group)
    file = Path(session.create_tmp(), "lowest.txt")
    file.write_text("".join(f"{bound[1]}=={bound[2]}\n" for bound in bounds if bound))
    return file


@nox.session
def sbom(session: nox.Session) -> None:
    """Write what the wheel in dist/ brings with it, every extra included, beside it: CycloneDX."""
    (file,) = Path("dist").glob("*.whl")
    session.install("--require-hashes", "-r", "requirements/release.txt")
    place = Path(session.create_tmp(), "installed")
    session.run("python", "-m", "venv", "--without-pip", "--clear", str(place))
    python = str(place / "bin/python")
    pip = ("python", "-m", "pip", "--quiet", "--python", python)
    session.run(*pip, "install", "--require-hashes", "-r", "requirements/all.txt")
    session.run(*pip, "install", "--no-deps", str(file))
    version = file.name.split("-")[1]
    bill = Path("dist/sectigo_async.cdx.json")
    options = ("--output-reproducible", "--pyproject", "pyproject.toml", "--mc-type", "library")
    session.run("cyclonedx-py", "environment", *options, "--output-file", str(bill), python)
    document = json.loads(bill.read_text())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    document["metadata"]["component"] |= {"version": version, "hashes": [{"alg": "SHA-256", "content": digest}]}
    bill.write_text(json.dumps(document, indent=2) + "\n")


@nox.session
def lock(session: nox.Session) -> None:
    """Renew requirements/ and constraints.txt from pyproject.toml; `-- --upgrade` takes the newest versions."""
    session.install("--require-hashes", "-r", "requirements/release.txt")
    # For every platform and Python, not those of this machine.
    compile_ = ("uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes")
    compile_ += ("--fork-strategy", "fewest", "--custom-compile-command", "make lock", *session.posargs)
    dev = Path("requirements/dev.txt")
    session.run(*compile_, "pyproject.toml", "--extra", "dev", "--output-file", str(dev))
    pins = sorted(line.split()[0] for line in dev.read_text().splitlines() if line[:1].isalnum())
    Path("constraints.txt").write_text("# Written by `make lock`.\n" + "\n".join(pins) + "\n")
    compile_ += ("--constraint", "constraints.txt", "--output-file")
    session.run(*compile_, "requirements/all.txt", "pyproject.toml", "--extra", "all")
    session.run(*compile_, "requirements/release.txt", "--group", "release")
