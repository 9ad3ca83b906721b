"""Where it would hurt: closed pipes, interruptions, what cannot be written, and what must not be given away."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sectigo_async.pki import Archive

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]
PROGRAM = str(Path(sys.executable).with_name("sectigo-async"))
LOGIN = {"SECTIGO_USERNAME": "demo", "SECTIGO_PASSWORD": "demo-password"}
CREATE = "PUT /api/v1/batches/createSingleCertBatch"
SECONDS = 20


@pytest.fixture
def shell(server: str, tmp_path: Path) -> Run:
    """Run a line of bash, `sectigo-async` being the one under test."""

    def execute(line: str) -> "subprocess.CompletedProcess[str]":
        path = f"{Path(PROGRAM).parent}:{os.environ['PATH']}"
        settings = LOGIN | {"SECTIGO_ENDPOINT": server, "HOME": str(tmp_path), "PATH": path}
        return subprocess.run(
            ["/bin/bash", "-c", line],
            cwd=tmp_path,
            env=settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )

    return execute


@pytest.mark.parametrize("reader", ["| true", ">&-", ">/dev/full"])
def test_what_was_ordered_is_fetched_whatever_becomes_of_the_output(shell: Run, tmp_path: Path, reader: str) -> None:
    result = shell(f"sectigo-async create -a 42 -d pipe.example.com --out certs {reader}; exit ${{PIPESTATUS[0]}}")

    assert (tmp_path / "certs/pipe.example.com/privkey.pem").exists(), result.stderr
    assert result.returncode == (0 if reader == "| true" else 5)
    assert "ordered batch" in result.stderr


@pytest.mark.parametrize(("line", "code"), [("wait 999999", 3), ("expiring certs --within 9000d --check", 1)])
def test_a_closed_pipe_hides_no_failure(shell: Run, line: str, code: int) -> None:
    shell("sectigo-async create -a 42 -d pipe.example.com --out certs")

    result = shell(f"sectigo-async {line} | true; exit ${{PIPESTATUS[0]}}")

    assert result.returncode == code
    assert "Broken pipe" not in result.stderr


def test_usage_errors_never_reach_stdout(shell: Run) -> None:
    result = shell("sectigo-async authorities --nonsense 2>&-")

    assert (result.returncode, result.stdout) == (2, "")


def test_expiring_tells_what_it_could_not_read(call: Run, tmp_path: Path) -> None:
    (tmp_path / "gone.pem").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.pem")

    found = call(tmp_path, "expiring", ".")
    checked = call(tmp_path, "expiring", ".", "--check")

    assert "gone.pem" in found.stderr
    assert (found.returncode, checked.returncode) == (0, 1)
    assert "is not a file" in call(tmp_path, "inspect", "pipe.pem").stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize(
    "arguments", [["upload", "-p", "42", "-"], ["create", "-a", "42", "-d", "x.example.com", "--password-stdin"]]
)
def test_standard_input_that_never_ends_can_be_interrupted(
    server: str, tmp_path: Path, arguments: list[str], number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [PROGRAM, *arguments],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SECTIGO_ENDPOINT": server, **LOGIN},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(1.5)  # There is no sign from outside that it has begun to read.
    process.send_signal(number)
    process.wait(SECONDS)
    stdout, stderr = process.communicate()

    assert process.returncode == 130, stderr
    assert stdout == ""
    assert stderr.startswith("interrupted")
    assert len(stderr.splitlines()) == 1


def test_the_way_on_can_be_copied(call: Run, serve: Callable[..., Any], server: str, tmp_path: Path) -> None:
    options = ("--param", "serialNumber=SN-1", "--out", "my certs", "--timeout", "0.1")
    with serve("--issue-delay", "600") as url:
        stopped = call(tmp_path, "create", "-a", "117", "-d", "way on", *options, SECTIGO_ENDPOINT=url)
    assert stopped.returncode == 8, stopped.stderr
    wait, download = re.findall("`sectigo-async (.*?)`", stopped.stderr)

    assert shlex.split(wait)[0] == "wait"
    assert shlex.split(download)[3:5] == ["-o", "my certs"]
    batch = json.loads(call(tmp_path, "create", "-a", "42", "-d", "w.example.com", "--wait").stdout)["batchId"]
    line = re.sub(r"-i \d+", f"-i {batch}", download).replace(next(tmp_path.glob("way*.password")).name, "w.password")
    (tmp_path / "w.password").write_bytes((tmp_path / "w.example.com.p12.password").read_bytes())
    assert call(tmp_path, *shlex.split(line), SECTIGO_ENDPOINT=server).returncode == 0


@pytest.mark.parametrize("extra", [{"SECTIGO_TRUST_ANCHORS": "nowhere"}, {}])
def test_what_cannot_be_kept_is_not_ordered(call: Run, tmp_path: Path, service: Any, extra: dict[str, str]) -> None:
    running = service(
        {
            "GET /api/v1/authorities/allowed": (200, []),
            "GET /api/v1/profiles/42/parameters": (200, []),
            CREATE: (201, {"batchId": 24}),
        }
    )

    out = "certs" if extra else "/proc/nowhere"
    result = call(tmp_path, "create", "-a", "42", "--out", out, "-d", "x", SECTIGO_ENDPOINT=running.url, **extra)

    assert result.returncode != 0
    assert CREATE not in running.seen


@pytest.mark.parametrize("answer", [(403, {"message": "no"}), (200, {"a": "b"})])
def test_a_numeric_id_needs_no_list_of_authorities(call: Run, tmp_path: Path, service: Any, answer: Any) -> None:
    running = service({"GET /api/v1/authorities/allowed": answer, CREATE: (201, {"batchId": 24, "size": 1})})
    running.replies["GET /api/v1/profiles/42/parameters"] = (501, {"message": "no"})

    result = call(tmp_path, "create", "-a", "42", "-d", "x.example.com", SECTIGO_ENDPOINT=running.url)

    assert result.returncode == 0, result.stderr


def test_the_common_name_stays_a_dns_name(call: Run, tmp_path: Path) -> None:
    params = ("--param", "commonName=cn.example.com", "--san", "www.example.com")

    call(tmp_path, "create", "-a", "42", *params, "--out", ".")

    (item,) = json.loads(call(tmp_path, "inspect", "cn.example.com/cert.pem").stdout)
    assert item["dnsNames"] == ["cn.example.com", "www.example.com"]


def test_changes_come_as_lines(call: Run, tmp_path: Path) -> None:
    batch = str(json.loads(call(tmp_path, "create", "-a", "42", "-d", "l.example.com", "--wait").stdout)["batchId"])

    lines = call(tmp_path, "batches", "-i", batch, "--watch").stdout.splitlines()
    rows = call(tmp_path, "batches", "-i", batch, "--watch", "--csv").stdout.splitlines()

    assert [json.loads(line)["batchId"] for line in lines] == [int(batch)] * len(lines)
    assert rows[0].startswith("batchId,")
    assert all(row.startswith(batch) for row in rows[1:])


def test_the_names_of_csv_columns_are_escaped_too(call: Run, tmp_path: Path, service: Any) -> None:
    running = service({"GET /api/v1/authorities/allowed": (200, [{"id": 1, "=cmd|' /C calc'!A0\x1b[2J": 1}])})

    header = call(tmp_path, "authorities", "--csv", SECTIGO_ENDPOINT=running.url).stdout.splitlines()[0]

    assert "'=cmd" in header
    assert "\x1b" not in header


def test_a_request_that_cannot_be_written_leaves_no_key(call: Run, tmp_path: Path) -> None:
    (tmp_path / "x.example.com.csr").write_text("mine")

    assert call(tmp_path, "csr", "-d", "x.example.com").returncode == 1
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["x.example.com.csr"]


def test_unpacking_goes_on_past_a_certificate_whose_key_differs(call: Run, tmp_path: Path) -> None:
    for name in ("one", "two"):
        call(tmp_path, "csr", "-d", f"{name}.example.com")
    ordered = call(tmp_path, "upload", "-p", "42", "one.example.com.csr", "two.example.com.csr")
    batch = str(json.loads(ordered.stdout)["batchId"])
    call(tmp_path, "download", "-i", batch)
    keys = [word for name in ("one", "two") for word in ("--key", f"{name}.example.com.key")]
    (tmp_path / "out" / "one.example.com").mkdir(parents=True)
    (tmp_path / "out" / "one.example.com" / "privkey.pem").write_text("another key")

    result = call(tmp_path, "unpack", f"{batch}.zip", "-o", "out", "--force", *keys)

    assert result.returncode == 5, result.stderr
    assert [one["commonName"] for one in json.loads(result.stdout)] == ["two.example.com"]
    assert (tmp_path / "out/one.example.com/privkey.pem").read_text() == "another key"
    assert (tmp_path / "out/two.example.com/privkey.pem").exists()


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ([], {"SECTIGO_ENDPOINT": "https://ca.acme.example", "SECTIGO_ENVIRONMENT": ""}),
        ([], {"SECTIGO_ENDPOINT": "https://CA.Acme.example/x/acme", "SECTIGO_ENVIRONMENT": "staging"}),
        ([], {"SECTIGO_ENVIRONMENT": "acme"}),
        ([], {"SECTIGO_CREDENTIAL_STORE": "acme"}),
        ([], {"SECTIGO_CA_BUNDLE": "/etc/acme/ca.pem", "SECTIGO_USERNAME": "jane@acme"}),
        (["--account", "acme"], {}),
        (["--env-file", "Acme Corp/prod.env"], {}),
    ],
)
def test_doctor_shares_no_names(call: Run, tmp_path: Path, options: list[str], settings: Mapping[str, str]) -> None:
    (tmp_path / "Acme Corp").mkdir()
    (tmp_path / "Acme Corp/prod.env").write_text("SECTIGO_PROFILE=4711\n")

    result = call(tmp_path, *options, "doctor", "--share", **settings)

    assert json.loads(result.stdout)
    assert "acme" not in (result.stdout + result.stderr).lower()
    assert str(tmp_path) not in result.stdout


def test_serve_reads_the_address_that_the_go_cli_reads(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [PROGRAM, "serve"],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SIAS_BIND_ADDR": "127.0.0.1:0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    url = process.stdout.readline()
    process.terminate()
    process.communicate(timeout=SECONDS)

    assert not url.endswith(":8831\n")
    assert process.returncode == 130


def test_an_extracted_bundle_is_the_key_that_was_ordered(call: Run, tmp_path: Path) -> None:
    call(tmp_path, "create", "-a", "42", "-d", "b.example.com", "--out", "certs")
    password = (tmp_path / "b.example.com.p12.password").read_text().strip()

    (found,) = Archive.from_file(tmp_path / "certs/b.example.com/bundle.p12").open(password=password)

    assert found.key_match


def test_a_slip_in_a_secret_parameter_is_not_repeated(call: Run, tmp_path: Path) -> None:
    result = call(tmp_path, "create", "-a", "42", "-d", "x.example.com", "--param", "pkcs12Password:hunter2")

    assert result.returncode == 2
    assert "hunter2" not in result.stdout + result.stderr


def test_watching_ends_when_nobody_reads(shell: Run, serve: Callable[..., Any]) -> None:
    with serve("--issue-delay", "600") as url:
        shell(f"SECTIGO_ENDPOINT={url} sectigo-async create -a 42 -d x.example.com")
        started = time.monotonic()
        shell(f"SECTIGO_ENDPOINT={url} timeout 40 sectigo-async batches -i 24 --watch --csv | true")

    assert time.monotonic() - started < SECONDS


def test_expiring_sees_a_certificate_beside_a_locked_key_and_tells_of_damage(
    call: Run, tmp_path: Path, openssl: Run
) -> None:
    call(tmp_path, "create", "-a", "42", "-d", "l.example.com", "--out", ".")
    made = tmp_path / "l.example.com"
    locked = openssl("pkcs8", "-topk8", "-in", f"{made}/privkey.pem", "-passout", "pass:x", "-v2", "aes256")
    (tmp_path / "both").mkdir()
    (tmp_path / "both/both.pem").write_text((made / "cert.pem").read_text() + locked.stdout)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/cert.pem").write_text((made / "cert.pem").read_text()[:200])

    both = call(tmp_path, "expiring", "both", "--within", "500w", "--check")
    damaged = call(tmp_path, "expiring", "damaged", "--within", "500w", "--check")

    assert [one["commonName"] for one in json.loads(both.stdout)] == ["l.example.com"]
    assert (both.returncode, damaged.returncode) == (1, 1)
    assert "damaged/cert.pem" in damaged.stderr
    kinds = [one["kind"] for one in json.loads(call(tmp_path, "inspect", "both/both.pem").stdout)]
    assert kinds == ["certificate", "locked"]


def test_the_readme_works_as_written(call: Run, tmp_path: Path) -> None:
    text = Path(__file__).parents[2].joinpath("README.md").read_text()
    section = text[text.index("## The command line") : text.index("## More")]
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("sectigo-async ")]
    (tmp_path / "devices.csv").write_text("common_name\nm1.example.com\nm2.example.com\n")
    elsewhere = {"serve", "login", "shell", "logout"}
    batch = ""
    for line in lines:
        words = shlex.split(line)[1:]
        if words[0] in elsewhere:
            continue
        result = call(tmp_path, *(batch if word == "ID" else word for word in words))
        assert result.returncode == 0, (line, result.stderr)
        if words[0] == "upload":
            batch = str(json.loads(result.stdout)["batchId"])
            call(tmp_path, "wait", batch)
    assert batch


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("gap", [0.0005, 0.004, 0.02])
def test_a_storm_of_signals_hides_nothing(
    serve: Callable[..., Any], tmp_path: Path, number: signal.Signals, gap: float
) -> None:
    with serve("--issue-delay", "600") as url:
        process = subprocess.Popen(
            [PROGRAM, "create", "-a", "42", "-d", "storm.example.com", "--wait"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SECTIGO_ENDPOINT": url, **LOGIN},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        seen = ""
        while "CREATED" not in seen:
            seen += process.stderr.readline()
        for _ in range(20):
            process.send_signal(number)
            time.sleep(gap)
        _, stderr = process.communicate(timeout=SECONDS)

    assert process.returncode == 130, stderr
    assert "go on with `sectigo-async wait 24`" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    "prepare",
    [
        lambda out: out.symlink_to("/nonexistent/dir"),
        lambda out: (out.mkdir(), (out / "x.example.com").touch()),
        lambda out: (out.mkdir(), (out / "x.example.com").symlink_to("nowhere")),
        lambda out: (
            (out / "x.example.com").mkdir(parents=True),
            (out / "x.example.com/cert.pem").write_text("mine"),
        ),
    ],
)
def test_what_is_in_the_way_is_found_before_ordering(
    call: Run, tmp_path: Path, service: Any, prepare: Callable[[Path], object]
) -> None:
    prepare(tmp_path / "out")
    running = service({"GET /api/v1/authorities/allowed": (200, []), CREATE: (201, {"batchId": 24})})
    running.replies["GET /api/v1/profiles/42/parameters"] = (501, {"message": "no"})

    result = call(tmp_path, "create", "-a", "42", "-d", "x.example.com", "--out", "out", SECTIGO_ENDPOINT=running.url)

    assert result.returncode == 1, result.stderr
    assert "othing was ordered" in result.stderr
    assert CREATE not in running.seen


@pytest.mark.parametrize("place", ["out/x.example.com/privkey.pem", "nowhere/password"])
def test_a_password_has_a_place_of_its_own(call: Run, tmp_path: Path, place: str) -> None:
    (tmp_path / "out/x.example.com").mkdir(parents=True)

    result = call(tmp_path, "create", "-a", "42", "-d", "x.example.com", "--password-out", place, "--out", "out")

    assert result.returncode == 1
    assert "othing was ordered" in result.stderr
    assert not (tmp_path / place).exists()


@pytest.mark.parametrize("status", [401, 403, 413, 429])
def test_every_refusal_says_that_nothing_was_ordered(call: Run, tmp_path: Path, service: Any, status: int) -> None:
    running = service({"GET /api/v1/authorities/allowed": (200, []), CREATE: (status, {"message": "no"})})
    running.replies["GET /api/v1/profiles/42/parameters"] = (501, {"message": "no"})

    result = call(tmp_path, "create", "-a", "42", "-d", "x.example.com", SECTIGO_ENDPOINT=running.url)

    assert result.returncode in {1, 4}
    assert "othing was ordered" in result.stderr
    assert not list(tmp_path.glob("*.password"))


def test_what_cannot_be_opened_beside_the_rest_is_a_failure(call: Run, tmp_path: Path) -> None:
    for name in ("one", "two"):
        call(tmp_path, "create", "-a", "42", "-d", f"{name}.example.com", "--out", name)
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        for name in ("one", "two"):
            archive.write(tmp_path / name / f"{name}.example.com/bundle.p12", f"{name}.p12")

    result = call(tmp_path, "unpack", "both.zip", "-o", "out", "--password-file", "one.example.com.p12.password")

    assert result.returncode == 5
    assert [one["commonName"] for one in json.loads(result.stdout)] == ["one.example.com"]
    assert "'two.p12' is not opened by this password" in result.stderr


def test_der_forms_of_what_people_have(call: Run, tmp_path: Path, openssl: Run) -> None:
    call(tmp_path, "csr", "-d", "d.example.com")
    openssl("req", "-in", "d.example.com.csr", "-outform", "DER", "-out", "d.der")
    openssl("pkey", "-in", "d.example.com.key", "-outform", "DER", "-out", "key.der")
    openssl("genpkey", "-algorithm", "ed25519", "-out", "ed.key")
    openssl("req", "-x509", "-key", "ed.key", "-subj", "/CN=ed", "-days", "3", "-out", "ed.pem")
    (tmp_path / "both.pem").write_text((tmp_path / "ed.pem").read_text() + (tmp_path / "ed.key").read_text())
    (tmp_path / "empty").touch()

    assert json.loads(call(tmp_path, "inspect", "d.der").stdout)[0]["commonName"] == "d.example.com"
    assert json.loads(call(tmp_path, "inspect", "key.der").stdout)[0]["key"] == "EC P-256"
    assert json.loads(call(tmp_path, "upload", "-p", "42", "d.der").stdout)["size"] == 1
    kinds = [one["kind"] for one in json.loads(call(tmp_path, "inspect", "both.pem").stdout)]
    assert kinds == ["certificate", "unusable private key"]
    unpacked = call(tmp_path, "unpack", "both.pem", "-o", "out")
    assert unpacked.returncode == 5
    assert "neither EC nor RSA" in unpacked.stderr
    assert "empty" in call(tmp_path, "inspect", "empty").stderr
    assert (
        "d.example.com.csr: not an EC or RSA private key"
        in call(tmp_path, "unpack", "ed.pem", "--key", "d.example.com.csr").stderr
    )
    assert call(tmp_path, "csr", "-d", "q.example.com", "--key-out", "k", "--out", "k").returncode == 2
    assert not (tmp_path / "k").exists()
