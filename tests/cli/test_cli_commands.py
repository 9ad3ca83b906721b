"""Every command and flag, piped: the document, the exit code, and what is said."""

import csv
import io
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import typer.main

from sectigo_async.pki import Archive, generate_key, load_key, make_csr
from sectigo_async_cli.app import app
from sectigo_async_cli.options import commands_of
from sectigo_async_cli.tree import COMMANDS

Run = Callable[..., "subprocess.CompletedProcess[str]"]

PEM = {"privkey.pem", "cert.pem", "chain.pem", "fullchain.pem"}
BATCH = {"batchId", "status", "batchName", "size"}
AUTHORITY = {"id", "profileId", "profileName", "balance"}
CHAIN = "certs/base.example.com/chain.pem"
FOUND = {"deviceId", "commonName", "serialNumber", "creationDate", "status"}
UNPACKED = {"commonName", "serialNumber", "notAfter", "keyMatch", "nameMatch", "chain", "chainDetail", "directory"}
PASSWORD = "--password-file base.example.com.p12.password"  # noqa: S105 - of a simulator
DOWN = "postgresql://ops@127.0.0.1:1/name"


@attrs.frozen
class Base:
    """What an earlier `create --out` left in a folder, and the values that cases name in braces."""

    folder: Path
    values: dict[str, str]


@pytest.fixture(scope="module")
def base(call: Run, tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = tmp_path_factory.mktemp("base")

    def do(line: str) -> Any:
        result = call(folder, *shlex.split(line))
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    batch = do("create -a 42 -d base.example.com --out certs")["batchId"]
    (item,) = do("find -n base.example.com")["items"]
    do("csr -d one.example.com --san www.one.example.com")
    do("csr -d two.example.com")
    (folder / "devices.csv").write_text("common_name\nthree.example.com\nfour.example.com\n")
    do("issue devices.csv -p 42 --out many")
    return Base(folder, {"batch": str(batch), "serial": item["serialNumber"], "chain": CHAIN})


# A command line; its exit code; the keys of the document, in a list for a list of them, or a pattern for text; and
# words that it says on stderr.
CASES: list[tuple[str, int, object, str]] = [
    # What the Go CLI has, in every spelling.
    ("auth", 0, r"user authenticated and credentials cached\n", ""),
    ("auth --debug", 0, r"credentials are valid until .* UTC\n", ""),
    ("auth -C", 0, r"/.*\n", ""),
    ("auth --json", 0, {"account", "username", "endpoint", "environment", "source", "validUntil", "shared"}, ""),
    ("auth -d --json", 0, {"state", "validUntil"}, ""),
    ("auth --cache --json", 0, {"cache"}, ""),
    ("authorities", 0, [AUTHORITY], ""),
    ("authorities -b", 0, [AUTHORITY | {"availableBalance"}], ""),
    ("authorities --balances", 0, [AUTHORITY | {"availableBalance"}], ""),
    ("licenses", 0, {"ordered", "issued"}, ""),
    ("profiles", 0, [{"profileId", "algorithms", "ca"}], ""),
    ("profiles -i 42", 0, {"profileName", "profileId", "rawProfileConfig"}, ""),
    ("profile --id 42 --params", 0, [{"name", "required", "validationPattern", "title"}], ""),
    ("profiles -i 42 -p", 0, [{"name"}], ""),
    ("profiles -i 4711", 3, "", "error: "),
    ("organization", 0, {"organizationId", "organizationName"}, ""),
    ("issue devices.csv -p 42 --out new --batch-size 1 --max-open 2 --timeout 60", 0, {"done", "failed"}, ""),
    ("issue devices.csv -p 42 --out new --keys server --max-concurrency 2 --retry-failed", 0, {"done"}, "2 to order"),
    ("issue devices.csv -p 42 --out new --on-ambiguous resubmit --settle 1 --skip-invalid", 0, {"done"}, ""),
    ("renew many --within 3000d --dry-run --max-orders 1 --retry-failed --trust {chain}", 0, {"planned"}, ""),
    ("renew many --deploy-hook true --settle 1 --on-ambiguous resubmit --timeout 9", 0, {"due"}, ""),
    ("renew many --revoke-superseded --after 3d", 0, [], ""),
    ("ledger status many", 0, [{"directory", "done", "inUse", "oldestOpen"}], ""),
    ("ledger status many --check --max-age 2d", 0, [{"directory"}], ""),
    ("ledger status new", 1, "", "there is no ledger in new"),
    ("ledger audit many --after 0 --timeout 60 --csv", 0, r"(?s)(batchId,.*)?", ""),
    (
        "ledger rebuild many devices.csv --profile 42 --after 0 --trust {chain}",
        0,
        {"done", "known", "untouched", "damaged"},
        "known before: 2",
    ),
    ("ledger rebuild new devices.csv -p 42 --keys server --encoding utf-8 --timeout 9", 0, {"done"}, "from here: 2"),
    ("reconcile --ledger many", 0, [], ""),
    # Databases that are none, or down; test_cli_fleet.py has one.
    ("worker --out new", 2, "", "SECTIGO_LEDGER"),
    ("worker --out new --ledger postgresql://ops:secret@db/name", 2, "", "shows in the list of processes"),
    (f"issue devices.csv -p 42 --out new --ledger {DOWN}", 1, "", f"cannot use the ledger {DOWN}"),
    ("ledger rebuild many devices.csv -p 42 --ledger many", 2, "", "does not begin with postgresql://"),
    (f"ledger status {DOWN}", 1, "", f"cannot use the ledger {DOWN}"),
    (f"ledger audit {DOWN}", 1, "", f"cannot use the ledger {DOWN}"),
    (f"reconcile --ledger {DOWN}", 1, "", f"cannot use the ledger {DOWN}"),
    ("issue devices.csv --profile 42 --out new --dry-run --encoding utf-8", 0, {"toOrder", "balance"}, ""),
    ("issue devices.csv -p 42 --out new --mode 0640 --group root --trust {chain} --dry-run", 0, {"toOrder"}, ""),
    ("batches -i {batch}", 0, BATCH, ""),
    ("batches --id {batch} --info", 0, {"active", "success", "failed"}, ""),
    ("batches -i {batch} -I", 0, {"active", "success", "failed"}, ""),
    ("batches -i {batch} --status", 0, r"READY_FOR_DOWNLOAD\n", ""),
    ("batches -i {batch} -s", 0, r"READY_FOR_DOWNLOAD\n", ""),
    ("download -i {batch} -o new/", 0, r"downloaded batch \d+ to new/\d+\.zip\nafter unzipping, .*\n", ""),
    ("download --id {batch} --outdir new", 0, r"downloaded batch .*\n.*\n", ""),
    ("find -n base.example.com", 0, {"totalCount", "items"}, ""),
    ("find --common-name base.example.com", 0, {"totalCount", "items"}, ""),
    ("find -s {serial}", 0, {"totalCount", "items"}, ""),
    ("find --serial-number {serial}", 0, {"totalCount", "items"}, ""),
    ("find -n nobody.example.com", 0, {"totalCount", "items"}, ""),
    ("validate", 0, [{"name", "value", "source"}], ""),
    ("create -a 42 -d go.example.com -p secrtpasswrd -b go", 0, BATCH, "warning: a password"),
    (
        "create -a 85 -d go.example.com -p secrtpasswrd -c DE -s Berlin -l Berlin --organization X",
        0,
        BATCH,
        "ordered",
    ),
    (
        "create -a 42 -d go.example.com -p secrtpasswrd -c DE",
        0,
        BATCH,
        "left out, since the profile takes no country",
    ),
    ("upload -p 42 one.example.com.csr", 0, BATCH, "1 CSR, which spends 1 licence"),
    ("revoke -p 42 -r 'KeyCompromise' -s {serial}", 0, r"", ""),
    # What it does not have.
    ("create --authority 1 --domain by-authority.example.com", 0, BATCH, "kept in by-authority.example.com.p12.pass"),
    ("-P 'trisa profile' create -d by-name.example.com", 0, BATCH, "ordered batch"),
    ("create -a 42 -d san.example.com --san a.example.com --san b.example.com --batch-name x", 0, BATCH, "ordered"),
    ("create -a 42 -d o.example.com --password-out my.secret --quiet", 0, BATCH, "kept in my.secret"),
    ("create -a 117 -d 'gateway 7' --param serialNumber=SN-0001 --param deviceType=camera", 0, BATCH, "ordered"),
    ("create -a 42 --param commonName=p.example.com --param dNSName=p.example.com", 0, BATCH, "ordered"),
    ("create -a 42 -d w.example.com --wait --timeout 30", 0, BATCH, "READY_FOR_DOWNLOAD"),
    ("create -a 42 -d w.example.com --out made", 0, BATCH, "w.example.com is in made/w.example.com"),
    (f"create -a 42 -d f.example.com {PASSWORD} --country DE --state B --locality B", 0, BATCH, "left out"),
    ("create -a 42 -d f.example.com -p '' --password-out q", 0, BATCH, "kept in q"),
    ("create -a 42 -d base.example.com --out certs --password-out q", 1, "", "nothing in it is replaced"),
    ("create -a 117 -d 'Gateway 7' --san gw7.example.com --param serialNumber=SN-7", 0, BATCH, "ordered"),
    ("create -a 42 -d f.example.com --out one.example.com.csr", 1, "", "not a directory"),
    ("create -a 42 -d f.example.com --show-password", 2, "", "on a terminal alone"),
    ("create -a 42 -d f.example.com -p secrtpasswrd --password-stdin", 2, "", "in one way"),
    ("create -a 42 -d f.example.com --param dNSName", 2, "", "KEY=VALUE"),
    ("create -a 42 -d f.example.com --param commonName=x", 2, "", "given twice"),
    ("create -a 42 -d f.example.com --param pkcs12Password=short", 2, "", "must have 8 to 64"),
    ("create -a 42 -d f.example.com --param shoeSize=44", 2, "", "takes no such parameter"),
    ("create -a 42 -d 'not a name'", 2, "", "must be a domain name"),
    ("create -a 42 -d f.example.com --timeout nan", 2, "", "--timeout"),
    ("create -a 42 -d f.example.com -p secrtpasswrd --password-out x", 2, "", "made for you"),
    (f"create -a 42 -d f.example.com {PASSWORD} --param pkcs12Password=another-one", 2, "", "given twice"),
    ("create -a 42 -d f.example.com --san a.example.com --param dNSName=b.example.com", 2, "", "given twice"),
    (f"create -a 42 -d f.example.com --password-out {'x' * 300}", 1, "", "error: cannot use xxx"),
    ("create -a 42", 2, "", "--domain"),
    ("create -d f.example.com", 2, "", "-P or SECTIGO_PROFILE"),
    ("-P TRISA create -d f.example.com", 2, "", "neither an id nor the name"),
    ("upload -p 42 one.example.com.csr two.example.com.csr", 0, BATCH, "2 CSRs, which spend 2 licences"),
    ("upload --profile 42 -q one.example.com.csr", 0, BATCH, "ordered batch"),
    ("-P 42 upload one.example.com.csr", 0, BATCH, "ordered batch"),
    ("upload -p 42 one.example.com.csr one.example.com.csr", 2, "", "each would be paid for"),
    ("upload -p 42 certs/base.example.com/cert.pem", 1, "", "no certificate signing request"),
    ("upload -p 42", 2, "", "FILE"),
    ("wait {batch}", 0, [BATCH | {"processing"}], "READY_FOR_DOWNLOAD"),
    ("wait {batch} {batch} --timeout 5 --quiet", 0, [BATCH], ""),
    ("wait 999999", 3, [], "error: "),
    ("wait {batch} --timeout inf", 2, "", "--timeout"),
    ("wait {batch} 999999", 5, [BATCH], "error: "),
    ("inspect", 2, "", "FILE"),
    ("unpack", 2, "", "ARCHIVE"),
    ("expiring", 2, "", "DIR"),
    ("profiles --params", 2, "", "--id"),
    ("batches -i {batch} --watch", 0, BATCH | {"processing"}, ""),
    ("batches -i {batch} -w -s", 2, "", "choose one"),
    ("batches -i {batch} -s --json", 0, {"batchId", "status"}, ""),
    ("batches", 0, [{"orderId", "state", "batchId", "batchName", "sentAt"}], ""),
    ("batches --unknown", 0, [], ""),
    ("batches --unknown -i {batch}", 2, "", "takes no id"),
    ("batches --unknown --watch", 2, "", "choose one"),
    ("batches --info", 2, "", "--id"),
    ("reconcile", 0, [], ""),
    ("reconcile --settle 60 --scan 10 --timeout 5", 0, [], ""),
    ("reconcile deadbeef", 2, "", "there is no order 'deadbeef'"),
    ("reconcile --not-ordered", 2, "", "name the one order"),
    ("reconcile --batch 24", 2, "", "name the one order"),
    ("reconcile deadbeef --batch 24 --not-ordered", 2, "", "choose one"),
    ("download -i {batch} -o new --json", 0, {"batchId", "file"}, ""),
    (
        f"download -i {{batch}} -o new --extract {PASSWORD}",
        0,
        r"downloaded .*\nextracted base.* to new/base\S*\n",
        "",
    ),
    (f"download -i {{batch}} -o new -x {PASSWORD} --force --json", 0, {"batchId", "file", "certificates"}, ""),
    ("download -i {batch} -o new -x --key one.example.com.key", 1, "", "--password-file"),
    ("download -i {batch} --key one.example.com.key", 2, "", "--extract"),
    (f"unpack certs/{{batch}}.zip --out new {PASSWORD}", 0, [UNPACKED], ""),
    (f"unpack certs/{{batch}}.zip -o new {PASSWORD} --combined --force", 0, [UNPACKED], ""),
    ("unpack certs/{batch}.zip -o new", 1, "", "--password-file"),
    (
        "unpack certs/base.example.com/fullchain.pem -o new --key certs/base.example.com/privkey.pem",
        0,
        [UNPACKED],
        "",
    ),
    ("unpack certs/base.example.com/cert.pem -o new --trust certs/base.example.com/cert.pem", 0, [UNPACKED], ""),
    (
        "unpack certs/base.example.com/fullchain.pem -o new --key one.example.com.key",
        1,
        [UNPACKED],
        "no key here fits",
    ),
    ("csr -d three.example.com", 0, {"commonName", "dnsNames", "key", "keyFile", "csrFile"}, "sectigo-async upload"),
    (
        "csr --domain r.example.com --algorithm rsa-2048 --key-out k -o r",
        0,
        {"key", "keyFile", "csrFile"},
        "upload -p PROFILE r",
    ),
    ("csr -d four.example.com --san www.four.example.com", 0, {"dnsNames"}, "upload -p PROFILE four.example.com.csr"),
    ("csr -d n.example.com --key one.example.com.key --out n.csr", 0, {"keyFile"}, "upload -p PROFILE n.csr"),
    ("csr -d s.example.com -c DE -s B -l B --organization X", 0, {"csrFile"}, "upload"),
    ("csr -d one.example.com", 1, "", "one.example.com.csr is there already"),
    ("csr -d one.example.com -o new.csr", 1, "", "one.example.com.key is there already"),
    ("csr -d 'gateway 7'", 1, "", "is not a DNS name"),
    ("csr -d 'gateway 7' --san gw7.example.com", 0, {"dnsNames"}, "upload"),
    ("csr -d gerät.example.com", 1, "", "as xn--"),
    ("csr -d x.example.com --san ../../etc/passwd", 1, "", "is not a DNS name"),
    ("csr -d x.example.com -c Germany", 1, "", "error: no request"),
    ("csr", 2, "", "--domain"),
    ("csr -d x.example.com --algorithm dsa", 2, "", "--algorithm"),
    ("inspect certs/{batch}.zip", 0, [{"file", "kind"}], "--password-file"),
    (f"inspect certs/{{batch}}.zip {PASSWORD}", 0, [{"file", "kind"}], ""),
    ("inspect certs/base.example.com/cert.pem", 0, [{"commonName", "serialNumber", "notAfter", "sha256"}], ""),
    ("inspect one.example.com.csr", 0, [{"commonName", "dnsNames", "key"}], ""),
    ("inspect one.example.com.key", 0, [{"file", "kind", "key"}], ""),
    ("inspect base.example.com.p12.password", 1, "", "error: "),
    ("inspect nowhere", 1, "", "cannot read nowhere"),
    ("expiring certs", 0, [], ""),
    ("expiring certs --within 9000d", 0, [{"commonName", "serialNumber", "notAfter", "file"}], ""),
    ("expiring certs --within 9000d --check", 1, [{"commonName"}], ""),
    ("expiring certs --check", 0, [], ""),
    ("expiring certs --within soon", 2, "", "--within"),
    ("expiring nowhere", 1, "", "neither a directory nor a file"),
    ("revoke --profile 42 certs/base.example.com --reason superseded", 0, r"", ""),
    ("revoke -p 42 certs/base.example.com/fullchain.pem", 0, r"", ""),
    ("revoke -p 42 --serial-number {serial} --json", 0, {"serialNumber", "status", "reason"}, ""),
    ("revoke -p 42 -s {serial} certs", 2, "", "in one way"),
    ("revoke -p 42", 2, "", "--serial-number"),
    ("revoke -s {serial}", 2, "", "--profile"),
    ("revoke -p 42 -s AF01", 3, "", "error: "),
    ("revoke -p 42 one.example.com.csr", 1, "", "no certificate"),
    ("doctor", 0, [{"check", "status", "detail", "advice"}], ""),
    ("doctor --share", 0, [{"check", "status", "detail", "advice"}], ""),
    ("shell", 2, "", "terminal"),
    ("authorities --json --csv", 2, "", "one format"),
    ("athorities", 2, "", "authorities"),
    ("authorities --balnces", 2, "", "--balances"),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_commands(call: Run, base: Base, tmp_path: Path, case: tuple[str, int, object, str]) -> None:
    line, code, document, said = case
    folder = tmp_path / "work"
    shutil.copytree(base.folder, folder)

    result = call(folder, *shlex.split(line.format(**base.values)))

    assert result.returncode == code, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    if isinstance(document, str):
        assert re.fullmatch(document, result.stdout), result.stdout
    else:
        assert_document(json.loads(result.stdout), document)


def assert_document(found: Any, document: object) -> None:
    if isinstance(document, list):
        assert isinstance(found, list)
        assert bool(found) == bool(document)
        assert all(keys <= set(one) for keys in document for one in found), found
    else:
        assert isinstance(document, set)
        assert document <= set(found)


def tree() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the commands with each of their options, as the names that may be used for it."""
    for name, command in commands_of(typer.main.get_command(app)).items():
        for parameter in command.params:
            if parameter.opts and parameter.opts[0].startswith("-"):
                yield name, tuple(parameter.opts)


def test_the_cases_leave_nothing_out() -> None:
    elsewhere = {"login", "logout", "serve", "demo"}
    everywhere = {"--json", "--table", "--csv", "--quiet", "--no-input", "--help"}
    used: dict[str, set[str]] = {}
    names = sorted({name for name, _ in tree()}, key=len, reverse=True)
    for line, *_ in CASES:
        words = shlex.split(line)
        command = next((name for name in names if f" {name} " in f" {line} "), "")
        used.setdefault("profiles" if command == "profile" else command, set()).update(words)

    for name, options in tree():
        if name not in elsewhere | {"profile"} and not everywhere & set(options):
            missing = "--password-stdin" in options  # Cases have no standard input; another test has.
            assert missing or used[name] & set(options), f"no case uses {name} {options[0]}"


def test_every_command_has_an_example_in_its_help() -> None:
    for name, command in commands_of(typer.main.get_command(app)).items():
        assert f"Example: sectigo-async {'profiles' if name == 'profile' else name}" in command.help


def test_the_help_says_of_a_command_what_the_command_says() -> None:
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert COMMANDS[name][1] == ("" if command.hidden else command.short_help)


FOR_PEOPLE = {"prompt_toolkit", "questionary", "humanize", "regex", "keyring", "rich.table", "click"}
NOT_LOADED = {
    "--version": FOR_PEOPLE | {"typer", "asyncio", "httpx", "attr", "cryptography", "starlette"},
    "--help": FOR_PEOPLE | {"asyncio", "httpx", "attr", "cryptography", "starlette"},
    "batches --help": FOR_PEOPLE | {"cryptography", "starlette"},
    "licenses": FOR_PEOPLE | {"cryptography", "starlette"},
}


@pytest.mark.parametrize("line", list(NOT_LOADED))
def test_nothing_is_loaded_that_a_piped_command_does_not_need(call: Run, tmp_path: Path, line: str) -> None:
    code = "import sys, atexit; atexit.register(lambda: print(*sys.modules, file=open('loaded', 'w')))\n"
    (tmp_path / "sitecustomize.py").write_text(code)

    result = call(tmp_path, *line.split(), PYTHONPATH=str(tmp_path))

    assert result.returncode == 0, result.stderr
    assert not NOT_LOADED[line] & set((tmp_path / "loaded").read_text().split())


def test_what_is_unpacked(call: Run, base: Base, tmp_path: Path, openssl: Run) -> None:
    shutil.copytree(base.folder, tmp_path, dirs_exist_ok=True)
    archive = f"certs/{base.values['batch']}.zip"
    password = (tmp_path / "base.example.com.p12.password").read_text().strip()

    result = call(tmp_path, "unpack", archive, "-o", "new", "--combined", "--password-stdin", stdin=f"{password}\n")

    assert result.returncode == 0, result.stderr
    made = tmp_path / "new" / "base.example.com"
    assert {path.name for path in made.iterdir()} == PEM | {"bundle.p12", "combined.pem"}
    assert {path.stat().st_mode & 0o777 for path in made.iterdir()} == {0o600}
    assert (made / "privkey.pem").read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    for name in PEM:
        assert (made / name).read_bytes() == (tmp_path / "certs" / "base.example.com" / name).read_bytes()
    opened = openssl("pkcs12", "-in", str(made / "bundle.p12"), "-nodes", "-passin", f"pass:{password}")
    assert opened.returncode == 0, opened.stderr
    key = load_key((made / "combined.pem").read_bytes())
    (found,) = Archive.from_file(made / "combined.pem").open(keys=[key], names=["base.example.com"])
    assert found.sound
    again = call(tmp_path, "unpack", archive, "-o", "new", "--combined", "--password-stdin", stdin=f"{password}\n")
    assert again.returncode == 0, "what is there already is left alone"


def test_the_request_that_is_made(call: Run, tmp_path: Path, openssl: Run) -> None:
    result = call(
        tmp_path, "csr", "-d", "gw.example.com", "--san", "b.example.com", "-c", "DE", "--organization", "Ü"
    )

    assert json.loads(result.stdout)["dnsNames"] == ["gw.example.com", "b.example.com"]
    assert (tmp_path / "gw.example.com.key").stat().st_mode & 0o777 == 0o600
    shown = openssl("req", "-in", str(tmp_path / "gw.example.com.csr"), "-noout", "-text", "-verify")
    assert shown.returncode == 0, shown.stderr
    assert "DNS:gw.example.com, DNS:b.example.com" in shown.stdout
    assert "prime256v1" in shown.stdout
    before = (tmp_path / "gw.example.com.key").read_bytes()
    assert call(tmp_path, "csr", "-d", "gw.example.com").returncode == 1
    assert (tmp_path / "gw.example.com.key").read_bytes() == before


def test_upload_from_standard_input_beside_a_file(call: Run, tmp_path: Path) -> None:
    (tmp_path / "a.csr").write_bytes(make_csr(generate_key(), "a.example.com"))
    text = make_csr(generate_key(), "b.example.com").decode() + make_csr(generate_key(), "c.example.com").decode()

    result = call(tmp_path, "upload", "-p", "42", "a.csr", "-", stdin=text)

    assert json.loads(result.stdout)["size"] == 3
    assert "3 CSRs, which spend 3 licences" in result.stderr


def test_passwords_from_standard_input_and_from_a_file(call: Run, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("password from a file\n")
    for name, options, stdin, password in (
        ("in", ["--password-stdin"], "password from stdin\n", "password from stdin"),
        ("file", ["--password-file", "kept"], "", "password from a file"),
    ):
        made = call(tmp_path, "create", "-a", "42", "-d", f"{name}.example.com", "--out", name, *options, stdin=stdin)
        assert made.returncode == 0, made.stderr
        assert password not in made.stdout + made.stderr
        batch = json.loads(made.stdout)["batchId"]
        (found,) = Archive.from_file(tmp_path / name / f"{batch}.zip").open(password=password)
        assert found.key is not None
    assert not list(tmp_path.glob("*.password"))


def test_a_generated_password_opens_what_was_ordered(call: Run, tmp_path: Path) -> None:
    ordered = call(tmp_path, "create", "-a", "42", "-d", "gw.example.com", "--wait")
    kept = tmp_path / "gw.example.com.p12.password"
    batch = str(json.loads(ordered.stdout)["batchId"])
    extracted = call(tmp_path, "download", "-i", batch, "-x", "--password-file", kept.name, "--json")

    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.read_text().strip() not in ordered.stdout + ordered.stderr + extracted.stdout
    (certificate,) = json.loads(extracted.stdout)["certificates"]
    assert certificate["keyMatch"] is True
    assert Path(tmp_path, certificate["directory"], "privkey.pem").exists()


def test_expiring_names_each_certificate_once_the_next_one_first(call: Run, base: Base) -> None:
    result = call(base.folder, "expiring", "certs", "certs", "certs/base.example.com/cert.pem", "--within", "9000d")

    (found,) = json.loads(result.stdout)
    assert found["serialNumber"] == base.values["serial"]
    assert "locked" not in found["file"]


def test_what_is_revoked_already_is_a_success(call: Run, tmp_path: Path) -> None:
    call(tmp_path, "create", "-a", "42", "-d", "twice.example.com", "--out", ".")
    first = call(tmp_path, "revoke", "-p", "42", "twice.example.com", "-r", "superseded", "--json")
    second = call(tmp_path, "revoke", "-p", "42", "twice.example.com", "-r", "superseded", "--json")

    assert (first.returncode, second.returncode) == (0, 0)
    assert json.loads(first.stdout)["reason"] == "superseded"
    assert json.loads(second.stdout)["reason"] is None
    assert "already" in second.stderr


@pytest.fixture
def never(serve: Callable[..., Any]) -> Iterator[dict[str, str]]:
    """A simulator that takes its time."""
    with serve("--issue-delay", "600") as url:
        yield {"SECTIGO_ENDPOINT": url}


def test_pending_and_what_to_do(call: Run, never: dict[str, str], tmp_path: Path) -> None:
    ordered = call(tmp_path, "create", "-a", "117", "-d", "slow", "--param", "serialNumber=SN-1", **never)
    assert ordered.returncode == 0, ordered.stderr
    batch = str(json.loads(ordered.stdout)["batchId"])

    waited = call(tmp_path, "wait", batch, "--timeout", "0.1", **never)
    (tmp_path / "slow.p12.password").unlink()
    created = call(
        *(tmp_path, "create", "-a", "117", "-d", "slow", "--param", "serialNumber=SN-2", "--out", "."),
        *("--timeout", "0.1"),
        **never,
    )

    assert waited.returncode == created.returncode == 8
    assert [document["batchId"] for document in json.loads(waited.stdout)] == [int(batch)]
    assert "sectigo-async wait" in created.stderr.splitlines()[-1]
    assert "do not order again" in created.stderr
    assert call(tmp_path, "batches", "-i", batch, **never).returncode == 0
    assert call(tmp_path, "download", "-i", batch, **never).returncode == 8


def test_formats_before_and_after_the_command(call: Run, base: Base) -> None:
    before = call(base.folder, "--csv", "authorities")
    after = call(base.folder, "authorities", "--csv")
    table = call(base.folder, "--json", "authorities", "--table")

    assert before.stdout == after.stdout
    rows = list(csv.DictReader(io.StringIO(after.stdout)))
    assert [row["profileName"] for row in rows] == ["TRISA Profile", "TRISA End Entity Certificate", "IoT Device"]
    assert "TRISA End Entity Certificate" in table.stdout
    assert "{" not in table.stdout
    assert "\x1b" not in table.stdout, "no colours in a pipe"


def test_doctor_tells_what_to_do(call: Run, tmp_path: Path) -> None:
    result = call(tmp_path, "doctor", SECTIGO_ENDPOINT="http://127.0.0.1:1")

    assert result.returncode == 1
    (endpoint,) = [one for one in json.loads(result.stdout) if one["check"] == "endpoint"]
    assert endpoint["status"] == "failed"
    assert endpoint["advice"]


def test_doctor_measures_the_clock(call: Run, serve: Callable[..., Any], tmp_path: Path) -> None:
    with serve("--clock-skew", "600") as url:
        result = call(tmp_path, "doctor", SECTIGO_ENDPOINT=url)

    (clock,) = [one for one in json.loads(result.stdout) if one["check"] == "clock"]
    assert (clock["status"], clock["detail"]) == ("note", "600 s behind the service's")


def test_doctor_shares_no_names_and_paths(call: Run, tmp_path: Path) -> None:
    (tmp_path / "secret-name.pem").write_text("")
    settings = {"SECTIGO_CA_BUNDLE": str(tmp_path / "secret-name.pem"), "SECTIGO_USERNAME": "jane.doe"}

    shown = call(tmp_path, "doctor", **settings)
    shared = call(tmp_path, "doctor", "--share", **settings)

    assert "jane.doe" in shown.stdout
    for word in ("jane.doe", str(tmp_path), "secret-name", "demo-password"):
        assert word not in shared.stdout + shared.stderr


def test_doctor_sees_tls(call: Run, serve: Callable[..., Any], tmp_path: Path) -> None:
    with serve("--tls", "--ca-out", str(tmp_path / "ca.pem")) as url:
        trusted = call(tmp_path, "doctor", SECTIGO_ENDPOINT=url, SECTIGO_CA_BUNDLE="ca.pem")
        untrusted = call(tmp_path, "doctor", SECTIGO_ENDPOINT=url)

    found = {one["check"]: one for one in json.loads(trusted.stdout)}
    assert found["TLS"]["detail"].startswith("TLSv1.")
    failed = {one["check"]: one for one in json.loads(untrusted.stdout)}["endpoint"]
    assert "certificate verify failed" in failed["detail"]
    assert "SECTIGO_CA_BUNDLE" in failed["advice"]
