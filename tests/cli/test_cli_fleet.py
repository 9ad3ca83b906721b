"""Bulk runs on several machines at the command line: issue --ledger, worker, and what asks their ledger."""

import asyncio
import csv
import io
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest

from sectigo_async.fleet import Database, PostgresLedger
from sectigo_async.issuance import Keys, Run
from sectigo_async.models import OrderKind
from tests.cli.conftest import PROGRAM, environment
from tests.fleet import conftest as of_fleets
from tests.fleet.helpers import device, order, with_schema
from tests.fleet.postgres import APP_PASSWORD, Postgres

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(180)]

postgres = of_fleets.postgres
database = of_fleets.database

Call = Callable[..., "subprocess.CompletedProcess[str]"]

PATIENCE = 40.0
DOWN = "postgresql://ops@127.0.0.1:1/sectigo"


@attrs.frozen
class Hosts:
    """Hosts that share a folder, on which the command line runs.

    Attributes:
        call: runs a command.
        folder: what they share.
        server: a simulator.
        ledger: the database, without a password.
    """

    call: Call
    folder: Path
    server: str
    ledger: str

    @property
    def settings(self) -> dict[str, str]:
        return {"SECTIGO_ENDPOINT": self.server, "SECTIGO_USERNAME": "demo", "SECTIGO_PASSWORD": "demo-password"}

    def run(self, line: str, **extra: str) -> "subprocess.CompletedProcess[str]":
        """Run a command line; `LEDGER` in it is the database."""
        words = shlex.split(line.replace("LEDGER", shlex.quote(self.ledger)))
        return self.call(self.folder, *words, **self.settings | extra)

    def start(self, line: str, **extra: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [PROGRAM, *shlex.split(line.replace("LEDGER", shlex.quote(self.ledger)))],
            cwd=self.folder,
            env=environment(self.folder, **self.settings | extra),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @contextmanager
    def worker(self, line: str = "worker --ledger LEDGER --out out", **extra: str) -> Iterator[list[str]]:
        """Have a worker while the block runs, and see that it ends well; give what it said, at the end."""
        said: list[str] = []
        process = self.start(line, **extra)
        try:
            yield said
            process.terminate()
            stdout, stderr = process.communicate(timeout=PATIENCE)
            said.append(stderr)
            assert (process.returncode, stdout) == (0, ""), stderr
        finally:
            process.kill()
            process.communicate()

    def devices(self, count: int) -> None:
        names = [f"unit{number}.example.com" for number in range(count)]
        (self.folder / "devices.csv").write_text("\n".join(["common_name", *names, ""]))

    def status(self, **extra: str) -> Any:
        result = self.run("ledger status LEDGER", **extra)
        assert result.returncode == 0, result.stderr
        (document,) = json.loads(result.stdout)
        return document

    def prepare(self, *, unknown: Sequence[Any] = (), names: Sequence[str] = ("a", "b")) -> None:
        """Put a list into the ledger, of which orders are of unknown outcome."""

        async def work() -> None:
            run = Run(endpoint=self.server, username="demo", profile_id=42, keys=Keys.LOCAL)
            async with PostgresLedger.open(Database.at(self.ledger), run) as ledger:
                await ledger.amend(new=map(device, names))
                for one, name in zip(unknown, names, strict=False):
                    await ledger.intend(one, [name])

        asyncio.run(work())


@pytest.fixture
def hosts(call: Call, server: str, database: str, tmp_path: Path) -> Hosts:
    return Hosts(call, tmp_path, server, database)


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.2)


ISSUE = "issue devices.csv -p 42 --out out --ledger LEDGER"


def test_a_list_is_issued_for_by_workers_and_told_of_from_anywhere(hosts: Hosts) -> None:
    hosts.devices(30)
    with hosts.worker() as first, hosts.worker() as second:
        issued = hosts.run(ISSUE)
        assert issued.returncode == 0, issued.stderr
        document = json.loads(issued.stdout)
        again = hosts.run(ISSUE)
        assert again.returncode == 0, again.stderr
        at_work = hosts.status()

    assert (document["done"], document["failed"], document["results"]) == (30, 0, "out/results.csv")
    assert "30 to order" in issued.stderr
    assert "0 to order, 30 done" in again.stderr
    with (hosts.folder / "out" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["done"] * 30
    assert len(list((hosts.folder / "out").glob("unit*/privkey.pem"))) == 30
    assert "at work at the run of profile 42 with keys local by demo at" in first[0]
    for said in (*first, *second):
        assert "no more is ordered here: interrupted" in said
        assert "Traceback" not in said
    assert (at_work["inUse"], at_work["workers"], at_work["done"], at_work["openChunks"]) == (True, 2, 30, 0)
    elsewhere = hosts.folder / "elsewhere"
    elsewhere.mkdir()
    with_nothing = hosts.call(
        elsewhere, "ledger", "status", SECTIGO_LEDGER=hosts.ledger, SECTIGO_ENDPOINT="", SECTIGO_USERNAME=""
    )
    (stands,) = json.loads(with_nothing.stdout)
    assert (stands["inUse"], stands["workers"], stands["done"]) == (False, 0, 30)
    assert (stands["directory"], stands["profileId"], stands["unknownOrders"]) == (hosts.ledger, 42, [])
    assert not list(elsewhere.iterdir())
    table = hosts.run("ledger status LEDGER --table").stdout
    assert "Workers" in table
    assert "{" not in table
    (row,) = csv.DictReader(io.StringIO(hosts.run("ledger status LEDGER --csv").stdout))
    assert (row["directory"], row["done"]) == (hosts.ledger, "30")


def test_whoever_looks_on_may_leave_and_the_workers_go_on(hosts: Hosts) -> None:
    hosts.devices(3)
    looking = hosts.start(ISSUE)
    wait_until(lambda: len(chunks_of(hosts)) == 1)
    looking.send_signal(signal.SIGINT)
    stdout, stderr = looking.communicate(timeout=PATIENCE)
    assert looking.returncode == 130, stderr
    assert json.loads(stdout)["planned"] == 3
    assert stderr.splitlines()[-1] == "the workers go on; the same command looks on again"

    with hosts.worker():
        wait_until(lambda: hosts.status()["done"] == 3)
        again = hosts.run(ISSUE)

    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["done"] == 3


def chunks_of(hosts: Hosts) -> list[Any]:
    with psycopg.connect(hosts.ledger) as connection:
        try:
            return connection.execute("SELECT chunk FROM sectigo_chunks").fetchall()
        except psycopg.errors.UndefinedTable:
            return []


def test_where_no_worker_is_at_work_it_is_said_and_waited_no_longer_than_told(hosts: Hosts) -> None:
    hosts.devices(1)

    result = hosts.run(f"{ISSUE} --timeout 11")

    assert result.returncode == 8, result.stderr
    assert "no worker is at work: start `sectigo-async worker`" in result.stderr
    assert "nothing has happened for 11 s" in result.stderr
    assert json.loads(result.stdout)["planned"] == 1


@pytest.fixture
def secret_url(postgres: Postgres, database: str) -> str:
    """The URL of the database for a role with a password, which may make tables."""
    with psycopg.connect(database) as connection:
        connection.execute("GRANT CREATE ON SCHEMA public TO app")
    return postgres.app_url(database.rpartition("/")[2])


WITH_URL = [
    "issue devices.csv -p 42 --out out --ledger URL",
    "worker --ledger URL --out out",
    "ledger status URL",
    "ledger rebuild out devices.csv -p 42 --ledger URL",
    "reconcile --ledger URL",
]


@pytest.mark.parametrize("line", WITH_URL)
@pytest.mark.parametrize("place", ["canary-1:{}@127.0.0.1/name", "/name?user=ops&password={}", "/?sslpassword={}"])
def test_a_password_in_an_argument_is_refused_and_not_repeated(hosts: Hosts, line: str, place: str) -> None:
    hosts.devices(1)
    url = f"postgresql://{place.format('canary-password')}"

    result = hosts.run(line.replace("URL", shlex.quote(url)))

    assert result.returncode == 2, result.stderr
    assert "PGPASSFILE" in result.stderr
    assert "SECTIGO_LEDGER" in result.stderr
    assert "canary" not in result.stdout + result.stderr
    assert not (hosts.folder / "out").exists()


@pytest.mark.parametrize("line", WITH_URL)
@pytest.mark.parametrize(
    "url", ["mysql://ops:canary-password@db/name", "postgresql://ops:canary/password@db/name", "postgresql://%zz"]
)
def test_what_is_no_url_of_a_database_is_refused_and_not_repeated(hosts: Hosts, line: str, url: str) -> None:
    hosts.devices(1)

    result = hosts.run(line.replace("URL", shlex.quote(url)))

    assert result.returncode == 2, result.stderr
    assert "the URL of the ledger is none" in result.stderr
    assert "canary" not in result.stdout + result.stderr
    assert not (hosts.folder / "out").exists()


def test_the_password_of_the_ledger_comes_from_the_environment_and_shows_nowhere(
    hosts: Hosts, secret_url: str
) -> None:
    hosts.devices(2)
    (hosts.folder / "variables").write_text(f"SECTIGO_LEDGER={secret_url}\n")
    issue = ISSUE.replace(" --ledger LEDGER", "")
    with hosts.worker("worker --out out", SECTIGO_LEDGER=secret_url) as said:
        issued = hosts.run(issue, SECTIGO_LEDGER=secret_url)
        assert issued.returncode == 0, issued.stderr
    from_file = hosts.run("--env-file variables ledger status")
    audit = hosts.run("--debug ledger status", SECTIGO_LEDGER=secret_url)
    shown = secret_url.replace(f":{APP_PASSWORD}", "")
    # As a line to be copied has it.
    named = hosts.run(f"ledger status {shown}", SECTIGO_LEDGER=secret_url)
    reconciled = hosts.run(f"reconcile --ledger {shown}", SECTIGO_LEDGER=secret_url)
    wrong = hosts.run("ledger status", SECTIGO_LEDGER=secret_url.replace(APP_PASSWORD, f"{APP_PASSWORD}-not"))
    dry = hosts.run(f"--env-file variables {issue} --dry-run")

    for result in (from_file, audit, named):
        assert result.returncode == 0, result.stderr
        (document,) = json.loads(result.stdout)
        assert (document["done"], document["directory"]) == (2, shown)
    assert (reconciled.returncode, reconciled.stdout.strip()) == (0, "[]"), reconciled.stderr
    assert wrong.returncode == 1
    assert "password authentication failed" in wrong.stderr
    assert json.loads(dry.stdout)["done"] == 2
    results = (issued, from_file, audit, named, reconciled, wrong, dry)
    assert APP_PASSWORD not in "".join([*said, *(result.stdout + result.stderr for result in results)])
    (hosts.folder / "variables").unlink()
    for path in hosts.folder.rglob("*"):
        assert not path.is_file() or APP_PASSWORD.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("missing", ["psycopg", "procrastinate"])
@pytest.mark.parametrize("line", [*WITH_URL, "worker --out out"])
def test_without_its_extra_each_command_says_how_to_install_it(tmp_path: Path, missing: str, line: str) -> None:
    words = shlex.split(line.replace("URL", DOWN))
    code = f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = {words!r}\n"
    code += "from sectigo_async_cli import main; main()"

    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path, SECTIGO_LEDGER=DOWN),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert result.returncode == 1
    assert "pip install 'sectigo-async[fleet]'" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_worker_needs_a_database(hosts: Hosts) -> None:
    result = hosts.run("worker --out out")

    assert result.returncode == 2
    assert "name the database, or set SECTIGO_LEDGER" in result.stderr


def test_a_worker_that_keeps_keys_elsewhere_ends_and_says_so(hosts: Hosts) -> None:
    hosts.devices(1)
    put_in(hosts)

    worker = hosts.run("worker --ledger LEDGER --out elsewhere")
    with hosts.worker():
        assert hosts.run(ISSUE).returncode == 0
    issue = hosts.run(ISSUE.replace("--out out", "--out elsewhere"))

    for result in (worker, issue):
        assert result.returncode == 1, result.stderr
        out, elsewhere = hosts.folder / "out", hosts.folder / "elsewhere"
        assert f"the keys of this run are kept in {out}, and {elsewhere} is another place" in result.stderr
        assert "the same --out" in result.stderr
    assert hosts.status()["done"] == 1


def test_a_mistaken_directory_is_mended_by_the_right_one_as_long_as_nothing_is_ordered(hosts: Hosts) -> None:
    hosts.devices(1)
    looking = hosts.start(ISSUE.replace("--out out", "--out tpyo"))
    wait_until(lambda: len(chunks_of(hosts)) == 1)
    looking.terminate()
    looking.communicate(timeout=PATIENCE)
    assert hosts.run(f"{ISSUE} --timeout 2").returncode == 8

    with hosts.worker():
        issued = hosts.run(ISSUE)

    assert issued.returncode == 0, issued.stderr
    assert (hosts.folder / "out" / "unit0.example.com" / "privkey.pem").exists()


def put_in(hosts: Hosts) -> None:
    """Put the list in, and look on no further."""
    looking = hosts.start(ISSUE)
    wait_until(lambda: len(chunks_of(hosts)) == 1)
    looking.terminate()
    _, stderr = looking.communicate(timeout=PATIENCE)
    assert looking.returncode == 130, stderr


def test_who_is_not_the_user_of_a_run_is_told_whose_it_is(hosts: Hosts) -> None:
    hosts.devices(1)
    put_in(hosts)

    other = hosts.run("worker --ledger LEDGER --out out", SECTIGO_USERNAME="somebody")
    refused = hosts.run("worker --ledger LEDGER --out out", HOME="alone", SECTIGO_PASSWORD="wrong")
    reconcile = hosts.run("reconcile --ledger LEDGER", SECTIGO_USERNAME="somebody")
    profile = hosts.run(ISSUE.replace("-p 42", "-p 117"))
    keys = hosts.run(f"{ISSUE} --keys server")

    assert (other.returncode, refused.returncode, reconcile.returncode) == (2, 4, 2), refused.stderr
    for result in (other, reconcile):
        assert f"is of demo at {hosts.server}, not of somebody at {hosts.server}" in result.stderr
        assert "sign in as who ordered" in result.stderr.lower()
    for result, what in ((profile, "profile 117 with keys local"), (keys, "profile 42 with keys server")):
        assert result.returncode == 1, result.stderr
        assert "holds a run of profile 42 with keys local by demo" in result.stderr
        assert f"not of {what} by demo" in result.stderr
    assert hosts.status()["planned"] == 1


@pytest.mark.parametrize(
    "line",
    [
        ISSUE,
        f"{ISSUE} --dry-run",
        "ledger status LEDGER",
        "ledger rebuild out devices.csv -p 42 --ledger LEDGER",
        "reconcile --ledger LEDGER",
    ],
)
def test_a_database_that_is_down_is_named_with_what_to_do(hosts: Hosts, line: str) -> None:
    hosts.devices(1)
    (hosts.folder / "out").mkdir()

    result = attrs.evolve(hosts, ledger=DOWN).run(line)

    assert result.returncode == 1, result.stderr
    assert f"cannot use the ledger {DOWN}" in result.stderr
    assert "efused" in result.stderr
    assert "see that the database is up; then run the same command again" in result.stderr.lower()
    assert result.stdout == ""


def test_a_worker_waits_for_a_database_that_is_down(hosts: Hosts) -> None:
    process = attrs.evolve(hosts, ledger=DOWN).start("worker --ledger LEDGER --out out")
    assert process.stderr is not None
    first = process.stderr.readline()
    process.terminate()
    _, rest = process.communicate(timeout=PATIENCE)

    assert process.returncode == 0, rest
    assert f"cannot use the ledger {DOWN}" in first
    assert "no more is ordered here: interrupted" in rest


def test_a_dry_run_leaves_no_trace_in_an_empty_database(hosts: Hosts) -> None:
    hosts.devices(2)

    result = hosts.run(f"{ISSUE} --dry-run")

    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["toOrder"] == ["unit0.example.com", "unit1.example.com"]
    with psycopg.connect(hosts.ledger) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    assert not (hosts.folder / "out").exists()


def test_what_has_no_ledger_has_no_status(hosts: Hosts) -> None:
    empty = hosts.run("ledger status LEDGER")
    nothing = hosts.run("ledger status")

    assert empty.returncode == 1
    assert "nothing stands in the ledger yet" in empty.stderr
    assert nothing.returncode == 2
    assert "name the directory that issue had as --out, or set SECTIGO_LEDGER" in nothing.stderr


def test_a_status_can_warn_of_what_is_paid_for_and_not_saved(hosts: Hosts) -> None:
    hosts.prepare(unknown=[order(1, sent_at=datetime.now(UTC) - timedelta(hours=30))])

    plain = hosts.run("ledger status LEDGER")
    late = hosts.run("ledger status LEDGER --check")
    in_time = hosts.run("ledger status LEDGER --check --max-age 2d")

    assert (plain.returncode, late.returncode, in_time.returncode) == (0, 5, 0)
    assert f"{hosts.ledger}: 1 devices are ordered, or may be, and not saved, the first since" in late.stderr
    (document,) = json.loads(late.stdout)
    assert (document["unknown"], document["unknownOrders"]) == (1, ["order-1"])
    assert document["oldestOpen"].startswith(f"{datetime.now(UTC) - timedelta(hours=30):%Y-%m-%d}")


def test_a_person_decides_what_became_of_an_order(hosts: Hosts) -> None:
    bought = hosts.run("create -a 42 -d a.example.com --batch-name fleet-a")
    batch = json.loads(bought.stdout)["batchId"]
    now = datetime.now(UTC)
    orders = [
        order(1, kind=OrderKind.CREATE, batch_name="fleet-a", key_sha256=frozenset(), sent_at=now, after=1),
        order(2, sent_at=now, after=batch),
    ]
    hosts.prepare(unknown=orders, names=("a", "b", "c"))

    nobody = hosts.run("reconcile --ledger LEDGER order-3 --not-ordered")
    misfit = hosts.run(f"reconcile --ledger LEDGER order-2 --batch {batch}")
    looked = hosts.run("reconcile --ledger LEDGER order-2")
    assert (nobody.returncode, misfit.returncode, looked.returncode) == (2, 2, 6), looked.stderr
    assert f"there is no order 'order-3'; `sectigo-async ledger status {hosts.ledger}`" in nobody.stderr
    assert f"sectigo-async reconcile --ledger {hosts.ledger} order-2 --not-ordered" in looked.stderr
    placed = hosts.run(f"reconcile --ledger LEDGER order-1 --batch {batch}")
    not_placed = hosts.run("reconcile --ledger LEDGER order-2 --not-ordered")
    known = hosts.run("reconcile --ledger LEDGER order-2 --not-ordered")

    assert (placed.returncode, not_placed.returncode, known.returncode) == (0, 0, 2), placed.stderr
    (document,) = json.loads(placed.stdout)
    assert (document["state"], document["batchId"]) == ("ordered", batch)
    assert json.loads(not_placed.stdout)[0]["state"] == "not ordered"
    stands = hosts.status()
    assert (stands["ordered"], stands["planned"], stands["unknown"]) == (1, 2, 0)


def test_the_line_to_be_copied_names_the_schema(hosts: Hosts) -> None:
    with psycopg.connect(hosts.ledger) as connection:
        connection.execute('CREATE SCHEMA "site a"')
    site = attrs.evolve(hosts, ledger=with_schema(hosts.ledger, "site a"))
    site.prepare(unknown=[order(1, sent_at=datetime.now(UTC))])

    looked = site.run("reconcile --ledger LEDGER")
    assert looked.returncode == 6, looked.stderr
    (line,) = [part for part in looked.stderr.split("`") if part.endswith("--not-ordered")]
    decided = site.run(line.removeprefix("sectigo-async "))

    assert decided.returncode == 0, decided.stderr
    assert site.status()["unknown"] == 0


def test_what_a_directory_has_is_taken_in_and_what_is_open_is_fetched(
    hosts: Hosts, serve: Callable[..., AbstractContextManager[str]]
) -> None:
    with serve("--issue-delay", "3") as url:
        slow = attrs.evolve(hosts, server=url)
        slow.devices(2)
        first = slow.run("issue devices.csv -p 42 --out out --timeout 30")
        assert first.returncode == 0, first.stderr
        slow.devices(4)
        left = slow.run("issue devices.csv -p 42 --out out --timeout 0.2")
        assert left.returncode == 8, left.stderr
        # The ledger of the directory is lost; what became of its orders the service knows.
        for file in (slow.folder / "out" / ".sectigo-async").glob("ledger*"):
            file.unlink()
        rebuild = "ledger rebuild out devices.csv -p 42 --after 0 --ledger LEDGER"
        while (rebuilt := slow.run(rebuild)).returncode == 8:
            time.sleep(0.2)
        assert rebuilt.returncode == 0, rebuilt.stderr
        slow.devices(5)
        with slow.worker():
            issued = slow.run(ISSUE)
        audited = slow.run("ledger audit LEDGER --after 0")

    document = json.loads(rebuilt.stdout)
    assert (document["done"], document["ordered"], document["untouched"]) == (2, 2, 0)
    assert issued.returncode == 0, issued.stderr
    assert "1 to order" in issued.stderr
    assert json.loads(issued.stdout)["done"] == 5
    assert (audited.returncode, json.loads(audited.stdout)) == (0, []), audited.stderr
