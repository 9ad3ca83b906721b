"""Renewing what a bulk run issued: a new key, a new folder, one link, and never two orders for one certificate."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from sectigo_async.pki import load_key

Run = Callable[..., Any]
SOON = ("--within", "3000d")
QUICK = ("--settle", "1")


@pytest.fixture
def bulk(serve: "Callable[..., AbstractContextManager[str]]", bare: Run, tmp_path: Path) -> Iterator[Run]:
    """The command line signed in to a simulator, and three devices issued in `c`."""
    login = {"SECTIGO_USERNAME": "demo", "SECTIGO_PASSWORD": "demo-password"}
    (tmp_path / "d.csv").write_text("common_name,id\ngw1.example.com,\ngw2.example.com,Zwei\ngw3.example.com,\n")
    with serve("--issue-delay", "0.1") as url:
        run = partial(bare, SECTIGO_ENDPOINT=url, **login)
        issued = run("issue", "d.csv", "-p", "42", "--out", "c", *QUICK)
        assert issued.returncode == 0, issued.stderr
        yield run


LAG = {"route": "GET /api/v1/batches/{id}", "fault": "lag", "seconds": 600}


def strike(run: Run, *rules: dict[str, object]) -> None:
    """Have the simulator make trouble; none, without rules."""
    (url,) = [one["value"] for one in json.loads(run("validate").stdout) if one["name"] == "SECTIGO_ENDPOINT"]
    assert httpx.put(f"{url}/_sandbox/faults", json=list(rules)).status_code == 200


def licenses(run: Run) -> int:
    return int(json.loads(run("licenses").stdout)["ordered"])


def link(folder: Path) -> str:
    return str((folder / "live").readlink())


def certificate(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())


def folders(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if not path.name.startswith(".") and path.is_dir())


def test_a_renewal_brings_a_new_key_in_a_folder_of_its_own_and_turns_the_link(bulk: Run, tmp_path: Path) -> None:
    first = {folder: certificate(folder) for folder in folders(tmp_path / "c")}
    (tmp_path / "c" / "gw1.example.com" / "cert.pem").chmod(0o644)
    (tmp_path / "c" / "gw1.example.com" / "privkey.pem").chmod(0o640)

    idle = bulk("renew", "c", *QUICK)
    assert (idle.returncode, licenses(bulk)) == (0, 3), idle.stderr
    assert {folder.name: link(folder) for folder in first} == dict.fromkeys([folder.name for folder in first], ".")
    renewed = bulk("renew", "c", *SOON, *QUICK)

    assert (renewed.returncode, licenses(bulk)) == (0, 6), renewed.stderr
    assert json.loads(renewed.stdout)["installed"] == [f"c/{folder.name}" for folder in first]
    for folder, before in first.items():
        assert link(folder) == "generation-2"
        new = certificate(folder / "live")
        assert new.public_key() != before.public_key()
        assert new.public_key() == load_key((folder / "live" / "privkey.pem").read_bytes()).public_key()
        assert certificate(folder) == before
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "c/gw1.example.com/live").iterdir()}
    assert modes == {
        "cert.pem": 0o644,
        "chain.pem": 0o600,
        "fullchain.pem": 0o600,
        "issue.json": 0o600,
        "privkey.pem": 0o640,
    }
    told = {
        folder.name: json.loads((folder / "live" / "issue.json").read_text()).get("id")
        for folder in folders(tmp_path / "c")
    }
    assert sorted(filter(None, told.values())) == ["Zwei"]

    again = bulk("renew", "c", *SOON, *QUICK)
    assert (again.returncode, licenses(bulk)) == (0, 9), again.stderr
    assert {link(folder) for folder in first} == {"generation-3"}

    (turned,) = [folder for folder in first if folder.name == "gw1.example.com"]
    (turned / "live").unlink()
    (turned / "live").symlink_to("generation-2")
    back = bulk("renew", "c", "--within", "300d", *QUICK)
    assert (back.returncode, licenses(bulk)) == (0, 9), back.stderr
    late = bulk("renew", "c", *SOON, *QUICK)
    assert (late.returncode, licenses(bulk)) == (5, 11), late.stderr
    assert "c/gw1.example.com was renewed before, and its link leads to the former files" in late.stderr
    assert link(turned) == "generation-2"


def test_keys_made_by_the_service_are_renewed_with_a_password_of_their_own(
    serve: "Callable[..., AbstractContextManager[str]]", bare: Run, tmp_path: Path
) -> None:
    login = {"SECTIGO_USERNAME": "demo", "SECTIGO_PASSWORD": "demo-password"}
    (tmp_path / "d.csv").write_text("common_name,serialNumber\ngw1.example.com,SN-0001\n")
    with serve("--issue-delay", "0.1") as url:
        run = partial(bare, SECTIGO_ENDPOINT=url, **login)
        assert run("issue", "d.csv", "-p", "117", "--keys", "server", "--out", "c", *QUICK).returncode == 0
        renewed = run("renew", "c", *SOON, *QUICK)

    folder = tmp_path / "c" / "gw1.example.com"
    assert renewed.returncode == 0, renewed.stderr
    names = {path.name for path in (folder / "live" / "").iterdir()}
    assert {"bundle.p12", "bundle.p12.password", "privkey.pem", "cert.pem"} <= names
    passwords = {(place / "bundle.p12.password").read_text() for place in (folder, folder / "live")}
    assert len(passwords) == 2


def test_what_was_ordered_yesterday_is_not_ordered_again_today(
    serve: "Callable[..., AbstractContextManager[str]]", bare: Run, tmp_path: Path
) -> None:
    login = {"SECTIGO_USERNAME": "demo", "SECTIGO_PASSWORD": "demo-password"}
    (tmp_path / "d.csv").write_text("common_name\ngw1.example.com\n")
    with serve("--issue-delay", "3") as url:
        run = partial(bare, SECTIGO_ENDPOINT=url, **login)
        assert run("issue", "d.csv", "-p", "42", "--out", "c", *QUICK).returncode == 0
        yesterday = run("renew", "c", *SOON, *QUICK, "--timeout", "0.1")
        assert (yesterday.returncode, licenses(run)) == (8, 2), yesterday.stderr
        assert link(tmp_path / "c" / "gw1.example.com") == "."
        today = run("renew", "c", *SOON, *QUICK)

        assert (today.returncode, licenses(run)) == (0, 2), today.stderr
    assert link(tmp_path / "c" / "gw1.example.com") == "generation-2"


def test_no_more_than_so_many_are_ordered_and_those_that_expire_next_come_first(bulk: Run) -> None:
    some = bulk("renew", "c", *SOON, *QUICK, "--max-orders", "2")

    assert (some.returncode, licenses(bulk)) == (8, 5), some.stderr
    assert "1 more are due" in some.stderr
    assert len(json.loads(some.stdout)["installed"]) == 2
    looked = bulk("renew", "c", *SOON, "--dry-run")
    assert (looked.returncode, licenses(bulk)) == (0, 5)
    assert json.loads(looked.stdout)["planned"] == 3


HOOK = (
    "import os, sys; print(sys.stdin.read()); print([n for n in os.environ if n.startswith('SECTIGO')]); sys.exit({})"
)


def test_the_deploy_hook_runs_once_after_changes_and_again_if_it_failed(bulk: Run, tmp_path: Path) -> None:
    def hook(code: int) -> str:
        path = tmp_path / f"hook{code}.py"
        path.write_text(HOOK.format(code))
        return f"{sys.executable} {path}"

    failed = bulk("renew", "c", *SOON, *QUICK, "--deploy-hook", hook(3))
    assert failed.returncode == 5, failed.stderr
    assert "the deploy hook failed with exit code 3" in failed.stderr
    assert "c/gw1.example.com\n" in failed.stderr
    assert "[]" in failed.stderr
    well = bulk("renew", "c", *QUICK, "--deploy-hook", hook(0))
    assert (well.returncode, well.stderr.count("c/gw1.example.com\n")) == (0, 1), well.stderr
    idle = bulk("renew", "c", *QUICK, "--deploy-hook", hook(0))
    assert (idle.returncode, idle.stderr.count("c/gw1.example.com\n")) == (0, 0), idle.stderr
    assert licenses(bulk) == 6
    missing = bulk("renew", "c", *SOON, "--deploy-hook", "/no/such/program")
    assert (missing.returncode, licenses(bulk)) == (2, 6)


def test_superseded_certificates_are_revoked_in_a_step_of_its_own_and_once(bulk: Run, tmp_path: Path) -> None:
    old = {f"{certificate(folder).serial_number:X}" for folder in folders(tmp_path / "c")}
    assert bulk("renew", "c", *SOON, *QUICK).returncode == 0

    early = bulk("renew", "c", "--revoke-superseded")
    assert (early.returncode, json.loads(early.stdout)) == (0, [])
    looked = bulk("renew", "c", "--revoke-superseded", "--after", "0d", "--dry-run")
    assert {one["serialNumber"] for one in json.loads(looked.stdout)} == old
    done = bulk("renew", "c", "--revoke-superseded", "--after", "0d")

    assert done.returncode == 0, done.stderr
    assert {one["serialNumber"] for one in json.loads(done.stdout)} == old
    for serial in old:
        assert json.loads(bulk("find", "-s", serial).stdout)["items"][0]["status"] == "REVOKED"
    for folder in folders(tmp_path / "c"):
        serial = f"{certificate(folder / 'live').serial_number:X}"
        assert json.loads(bulk("find", "-s", serial).stdout)["items"][0]["status"] != "REVOKED"
    again = bulk("renew", "c", "--revoke-superseded", "--after", "0d")
    assert (again.returncode, json.loads(again.stdout)) == (0, [])


def test_what_cannot_be_renewed_is_named_and_keeps_nothing_else(bulk: Run, tmp_path: Path) -> None:
    changes: list[dict[str, object]] = [
        {"endpoint": "https://elsewhere.example"},
        {"keys": "csr"},
        {"parameters": {"serialNumber!": "x"}},
    ]
    for folder, change in zip(folders(tmp_path / "c"), changes, strict=True):
        path = folder / "issue.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    (tmp_path / "e.csv").write_text("common_name\ngw4.example.com\n")
    assert bulk("issue", "e.csv", "-p", "42", "--out", "c", *QUICK).returncode == 0

    renewed = bulk("renew", "c", *SOON, *QUICK)

    assert (renewed.returncode, licenses(bulk)) == (5, 5), renewed.stderr
    assert "gw1.example.com cannot be renewed: it was issued by https://elsewhere.example" in renewed.stderr
    assert "cannot be renewed: its key is not here" in renewed.stderr
    assert "serialNumber!: cannot stand in a CSR" in renewed.stderr
    assert json.loads(renewed.stdout)["installed"] == ["c/gw4.example.com"]


def test_a_place_without_certificates_is_told(bulk: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in ("empty", "nowhere"):
        told = bulk("renew", place)
        assert told.returncode == 1, told.stderr
        assert place in told.stderr
    assert bulk("renew", "c", "--after", "3d").returncode == 2
    assert bulk("renew", "c", "--revoke-superseded", "--deploy-hook", "true").returncode == 2
    assert bulk("renew", "c", "--within", "soon").returncode == 2


def test_a_copy_of_a_folder_orders_no_second_renewal(bulk: Run, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "c" / "gw1.example.com", tmp_path / "c" / "gw1.example.com.bak", symlinks=True)

    result = bulk("renew", "c", *SOON, *QUICK)

    assert (result.returncode, licenses(bulk)) == (5, 6), result.stderr
    assert "c/gw1.example.com.bak: the name" in result.stderr


def test_a_folder_that_was_renamed_while_its_renewal_was_ordered_gets_it(bulk: Run, tmp_path: Path) -> None:
    strike(bulk, LAG)
    ordered = bulk("renew", "c", *SOON, *QUICK, "--timeout", "0.5")
    assert ordered.returncode == 8, ordered.stderr
    strike(bulk)
    (tmp_path / "c" / "gw1.example.com").rename(tmp_path / "c" / "renamed")

    result = bulk("renew", "c", *SOON, *QUICK)

    assert (result.returncode, licenses(bulk)) == (0, 6), result.stderr
    assert link(tmp_path / "c" / "renamed") == "generation-2"


def test_a_lost_link_is_made_again_to_the_newest_that_is_not_revoked(bulk: Run, tmp_path: Path) -> None:
    """A copy without links, a ZIP for example, loses them."""
    folder = tmp_path / "c" / "gw1.example.com"
    assert bulk("renew", "c", *SOON, *QUICK).returncode == 0
    assert bulk("renew", "c", "--revoke-superseded", "--after", "0h").returncode == 0
    (folder / "live").unlink()

    assert bulk("renew", "c", *QUICK).returncode == 0

    assert link(folder) == "generation-2"
    assert (folder / "revoked").exists()


def test_one_odd_folder_keeps_no_other_from_being_renewed(bulk: Run, tmp_path: Path) -> None:
    path = tmp_path / "c" / "gw1.example.com" / "issue.json"
    path.write_text(path.read_text().replace('"profile_id": 42', '"profile_id": 999'))
    huge = tmp_path / "c" / "zwei" / "issue.json"
    huge.write_text(huge.read_text().replace('"profile_id": 42', f'"profile_id": {10**30}'))

    result = bulk("renew", "c", *SOON, *QUICK)

    assert (result.returncode, licenses(bulk)) == (5, 4), result.stderr
    assert "c/gw1.example.com cannot be renewed: " in result.stderr
    assert "c/zwei cannot be renewed: profile_id" in result.stderr
    assert link(tmp_path / "c" / "gw3.example.com") == "generation-2"


def test_a_generation_that_is_gone_is_told_with_the_way_out(bulk: Run, tmp_path: Path) -> None:
    folder = tmp_path / "c" / "gw1.example.com"
    assert bulk("renew", "c", *SOON, *QUICK).returncode == 0
    shutil.rmtree(folder / "generation-2")

    result = bulk("renew", "c", *QUICK)

    assert result.returncode == 5
    assert "leads to generation-2, which is gone: turn it to one that is there" in result.stderr


def test_a_renewal_of_unknown_outcome_is_found_and_a_lost_ledger_of_renewals_made_anew(
    bulk: Run, tmp_path: Path
) -> None:
    strike(bulk, {"route": "POST /api/v1/batches/upload", "fault": "lost-reply", "times": 1}, LAG)
    unknown = bulk("renew", "c", *SOON, *QUICK)
    assert unknown.returncode == 6, unknown.stderr
    assert "or decide with `sectigo-async reconcile --ledger c`" in " ".join(unknown.stderr.split())
    strike(bulk)

    (found,) = json.loads(bulk("reconcile", "--ledger", "c").stdout)
    assert found["state"] == "ordered"
    shutil.rmtree(tmp_path / "c/.sectigo-async/renewal/42-local/.sectigo-async")
    refused = bulk("renew", "c", *SOON, *QUICK)
    assert (refused.returncode, licenses(bulk)) == (5, 6), refused.stderr
    rebuilt = bulk("ledger", "rebuild", "c", "d.csv", "-p", "42", "--after", "0")
    assert json.loads(rebuilt.stdout)["ordered"] == 3, rebuilt.stderr

    result = bulk("renew", "c", *SOON, *QUICK)

    assert (result.returncode, licenses(bulk)) == (0, 6), result.stderr


def test_a_renewal_goes_to_no_folder_of_another_device(bulk: Run, tmp_path: Path) -> None:
    strike(bulk, LAG)
    assert bulk("renew", "c", *SOON, *QUICK, "--timeout", "0.5").returncode == 8
    strike(bulk)
    (tmp_path / "c" / "gw1.example.com").rename(tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "c" / "gw3.example.com", tmp_path / "c" / "gw1.example.com", symlinks=True)

    result = bulk("renew", "c", *QUICK)

    assert result.returncode == 5, result.stderr
    assert "gw1.example.com is gone: the renewed certificate stays in " in result.stderr
    assert certificate(tmp_path / "c/gw1.example.com/live") == certificate(tmp_path / "c/gw3.example.com")
    assert link(tmp_path / "c" / "gw3.example.com") == "generation-2"


def test_a_copy_takes_no_renewal_from_the_original(bulk: Run, tmp_path: Path) -> None:
    strike(bulk, LAG)
    assert bulk("renew", "c", *SOON, *QUICK, "--timeout", "0.5").returncode == 8
    strike(bulk)
    shutil.copytree(tmp_path / "c" / "gw1.example.com", tmp_path / "c" / "gw1.example.com.bak", symlinks=True)

    assert bulk("renew", "c", *QUICK).returncode == 0

    assert link(tmp_path / "c" / "gw1.example.com") == "generation-2"
    assert link(tmp_path / "c" / "gw1.example.com.bak") == "."
