"""Wrong use and bad days: one clear line, the right exit code, no traceback, no half-written file."""

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[str]"]


def one_line(result: "subprocess.CompletedProcess[str]", code: int) -> str:
    """Check that a command failed as it should and return what it said."""
    assert result.returncode == code, (result.stdout, result.stderr)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if not line.startswith("warning:")]
    assert len(errors) == 1, result.stderr
    assert errors[0].startswith("error: ")
    return errors[0]


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "words"),
    [
        (["licenses"], {"SECTIGO_PASSWORD": "wrong"}, 4, ["refused", "SECTIGO_PASSWORD"]),
        (["auth"], {"SECTIGO_PASSWORD": "wrong"}, 4, ["refused", "SECTIGO_PASSWORD"]),
        (["licenses"], {"SECTIGO_PASSWORD": ""}, 4, ["no password", "SECTIGO_PASSWORD"]),
        (["licenses"], {"SECTIGO_USERNAME": ""}, 4, ["no user name", "SECTIGO_USERNAME"]),
        (["licenses"], {"SECTIGO_ENDPOINT": "http://127.0.0.1:1"}, 1, ["cannot connect", "SECTIGO_ENDPOINT"]),
        (["licenses"], {"SECTIGO_ENDPOINT": "nonsense"}, 2, ["not a URL", "https://"]),
        (["licenses"], {"SECTIGO_ENDPOINT": "https://ca.example.com"}, 2, ["testing", "serve"]),
        (
            ["licenses"],
            {"SECTIGO_ENDPOINT": "https://ca.example.com", "SECTIGO_ENVIRONMENT": ""},
            2,
            ["which environment is ca.example.com? Say it"],
        ),
        (["licenses"], {"SECTIGO_ENVIRONMENT": "moon"}, 2, ["moon", "production"]),
        (["profiles", "-i", "4711"], {}, 3, ["4711"]),
        (["profiles", "-i", "4711", "-p"], {}, 3, ["4711"]),
        (["batches", "-i", "999999"], {}, 3, ["999999"]),
        (["download", "-i", "999999"], {}, 3, ["999999"]),
        (["create", "-a", "4711", "-d", "a.example.com", "-p", "secrtpasswrd"], {}, 3, ["4711"]),
        (["create", "-a", "85", "-d", "a.example.com", "-p", "secrtpasswrd"], {}, 2, ["countryName", "localityName"]),
        (["create", "-a", "42", "-d", "a.example.com", "-p", "short"], {}, 2, ["pkcs12Password"]),
        (["upload", "-p", "42", "missing.csr"], {}, 1, ["missing.csr"]),
        (["upload", "-p", "42", "."], {}, 1, ["not a file"]),
        (["upload", "-p", "42", "garbage.csr"], {}, 1, ["certificate signing request"]),
        (["upload", "-p", "42", "binary.csr"], {}, 1, ["certificate signing request"]),
        (["upload", "-p", "42", "cut.csr"], {}, 1, ["request 1 is damaged"]),
        (["find"], {}, 2, ["common name", "serial number"]),
        (["find", "-s", "xyz"], {}, 2, ["xyz", "hexadecimal"]),
        (["revoke", "-p", "42", "-s", "AF01"], {}, 3, ["AF01"]),
        (["revoke", "-p", "42", "-s", "no"], {}, 2, ["'no'"]),
    ],
)
def test_errors_in_one_line(
    run: Run, tmp_path: Path, *, arguments: list[str], settings: dict[str, str], code: int, words: list[str]
) -> None:
    (tmp_path / "garbage.csr").write_text("hello")
    (tmp_path / "binary.csr").write_bytes(bytes(range(256)))
    (tmp_path / "cut.csr").write_text(
        "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n"
    )

    said = one_line(run(*arguments, **settings), code)

    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "-d", "a.example.com"],
        ["create", "-a", "42"],
        ["create", "-a", "many", "-d", "a.example.com"],
        ["upload", "a.csr"],
        ["upload", "-p", "42"],
        ["batches", "--info"],
        ["batches", "-i", "-4"],
        ["batches", "-i", "24", "-I", "-s"],
        ["download"],
        ["profiles", "--params"],
        ["revoke", "-p", "42"],
        ["revoke", "-p", "42", "-s", "AF01", "-r", "7"],
        ["revoke", "-p", "42", "-s", "AF01", "-r", "because"],
        ["-P", "TRISA", "create", "-d", "a.example.com"],
        ["serve", "-a", "nonsense"],
        ["serve", "-a", "127.0.0.1:99999"],
        ["serve", "-a", "0.0.0.0:0"],
        ["serve", "-a", "0.0.0.0:0", "--allow-remote"],
        ["serve", "--issue-delay", "-1"],
        ["nonsense"],
        ["--nonsense"],
    ],
)
def test_usage_errors(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)

    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr
    assert "Traceback" not in result.stderr


def test_not_ready_is_pending_and_leaves_no_file(run: Run, slow_server: str, tmp_path: Path) -> None:
    slow = {"SECTIGO_ENDPOINT": slow_server}
    ordered = run("create", "-a", "42", "-d", "a.example.com", "-p", "secrtpasswrd", **slow)
    assert ordered.returncode == 0
    before = set(tmp_path.rglob("*"))

    said = one_line(run("download", "-i", "24", "-o", ".", **slow), 8)

    assert "not ready" in said
    assert set(tmp_path.rglob("*")) == before


def test_zero_balance(run: Run, slow_server: str) -> None:
    slow = {"SECTIGO_ENDPOINT": slow_server}
    arguments = ("create", "-a", "3", "-d", "a.example.com", "-p", "secrtpasswrd")
    results = [run("create", "-a", "42", "-d", "b.example.com", "-p", "secrtpasswrd", **slow) for _ in range(3)]

    assert "balance" in one_line(results[-1], 1)
    assert "serialNumber" in one_line(run(*arguments, **slow), 2)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a folder that not even its owner may write to")
def test_unwritable_directory_is_told_before_anything_is_downloaded(run: Run) -> None:
    said = one_line(run("download", "-i", "24", "-o", "/proc/nowhere"), 1)

    assert "/proc/nowhere" in said


def test_a_file_where_a_directory_is_meant(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    said = one_line(run("download", "-i", "24", "-o", "file"), 1)

    assert "not a directory" in said
    assert (tmp_path / "file").read_text() == "mine"


def test_a_request_without_dns_name_is_warned_of(
    run: Run, openssl: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    made = openssl(
        *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-subj", "/CN=gw7.example.com", "-keyout", "gw7.key", "-out", "gw7.csr"),
    )
    assert made.returncode == 0, made.stderr

    result = run("upload", "-p", "42", "gw7.csr")

    assert result.returncode == 0
    assert result.stderr.startswith("warning: no DNS name in the CSR of gw7.example.com")


def test_a_reader_that_had_enough_is_no_error(run: Run, server: str, tmp_path: Path) -> None:
    del run, server
    script = "from sectigo_async_cli.output import print_text\nfrom sectigo_async_cli.run import run\n"
    script += "from sectigo_async_cli.context import Settings\n"
    script += "async def job():\n    for _ in range(100000): print_text('x' * 100)\nrun(Settings(), job)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()

    assert b"BrokenPipe" not in process.stderr.read()
    process.stderr.close()
    process.wait(10)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(start: Start, how: signal.Signals) -> None:
    process = start("serve", "-a", ":0")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    process.send_signal(how)
    _, errors = process.communicate(timeout=10)

    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted"
    assert "Traceback" not in errors


def test_port_that_is_taken(start: Start, server: str) -> None:
    process = start("serve", "-a", server.removeprefix("http://"))
    output, errors = process.communicate(timeout=10)

    assert process.returncode == 2
    assert output == ""
    assert errors.startswith("error: cannot listen on")


def test_debug_shows_where_and_still_no_secret(run: Run) -> None:
    result = run("--debug", "-p", "canary-93b1", "licenses")

    assert result.returncode == 4
    assert "Traceback" in result.stderr
    assert "canary-93b1" not in result.stderr


def test_debug_shows_each_request_beside_the_data(run: Run) -> None:
    quiet, talkative = run("licenses"), run("--debug", "licenses")

    assert quiet.stderr == ""
    assert talkative.returncode == 0
    assert talkative.stdout == quiet.stdout
    assert re.search(r"^debug: GET /api/v1/devices: 200, \d+ ms, attempt 1$", talkative.stderr, re.MULTILINE)
    assert "demo-password" not in talkative.stderr


@pytest.mark.parametrize("command", ["", "auth", "authorities", "create", "upload", "batches", "download", "serve"])
def test_help_has_an_example(run: Run, command: str) -> None:
    result = run(*command.split(), "--help")

    assert result.returncode == 0
    assert ("Example: sectigo-async" if command else "Exit codes:") in result.stdout


def orders(server: str) -> int:
    return int(httpx.get(f"{server}/_sandbox/stats", trust_env=False).json()["orders"])


def test_a_private_key_beside_a_request_is_not_sent(
    run: Run, tmp_path: Path, openssl: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    made = openssl(
        *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=one"),
        *("-addext", "subjectAltName=DNS:one.example", "-keyout", "one.key", "-out", "one.csr"),
    )
    assert made.returncode == 0, made.stderr
    both = (tmp_path / "one.key").read_bytes() + (tmp_path / "one.csr").read_bytes()
    (tmp_path / "both.pem").write_bytes(both)
    seen = bytearray()

    class Service(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.extend(self.rfile.read(int(self.headers["content-length"])))
            answer = b'{"accessToken":"a.b.c","batchId":7}'
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Service) as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        result = run("upload", "-p", "42", "both.pem", SECTIGO_ENDPOINT=f"http://127.0.0.1:{service.server_port}")
        service.shutdown()
        thread.join()

    assert result.returncode == 0, result.stderr
    assert b"BEGIN CERTIFICATE REQUEST" in seen
    assert b"PRIVATE" not in seen


@pytest.mark.parametrize("redirect", [">&-", ">/dev/full"])
def test_an_order_whose_document_cannot_be_written_tells_its_id(server: str, tmp_path: Path, redirect: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    before = orders(server)

    result = shell(f"create -a 42 -d out.example.com -p secrtpasswrd {redirect}", server, tmp_path)

    assert orders(server) == before + 1
    assert result.returncode == 5
    assert "ordered batch " in result.stderr
    assert "unexpected" not in result.stderr
    read = shell(f"licenses {redirect}", server, tmp_path)
    assert read.returncode == 1
    assert read.stderr.startswith("error: cannot write the output")
    assert "Traceback" not in shell(f"--version {redirect}", server, tmp_path).stderr


def shell(line: str, server: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    settings = {"SECTIGO_ENDPOINT": server, "SECTIGO_USERNAME": "demo", "SECTIGO_PASSWORD": "demo-password"}
    program = Path(sys.executable).with_name("sectigo-async")
    return subprocess.run(  # noqa: S602 - redirections are the shell's
        f"{program} {line}",
        shell=True,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)} | settings,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_json_is_json_in_any_encoding(run: Run) -> None:
    ordered = run(
        *("create", "-a", "42", "-d", "enc.example.com", "-p", "secrtpasswrd", "-b", "Gerät"),
        PYTHONIOENCODING="ascii",
    )

    assert json.loads(ordered.stdout)["batchName"] == "Gerät"


@pytest.mark.parametrize(
    ("arguments", "code"), [(["-a", "4711", "-d", "x.example.com"], 3), (["-a", "85", "-d", "x.example.com"], 2)]
)
def test_a_refused_order_leaves_no_password_behind(run: Run, tmp_path: Path, arguments: list[str], code: int) -> None:
    said = one_line(run("create", *arguments), code)

    assert "othing was ordered" in said
    assert "`sectigo-async " in said
    assert not list(tmp_path.glob("*.password"))
    assert run("create", "-a", "42", "-d", "x.example.com").returncode == 0


def test_a_pipe_or_a_device_is_no_file_to_upload(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    assert "not a file" in one_line(run("upload", "-p", "42", "fifo"), 1)
    assert "not a file" in one_line(run("upload", "-p", "42", "/dev/zero"), 1)


def test_a_request_that_is_cut_short_behind_a_good_one_is_noticed(
    run: Run, server: str, tmp_path: Path, openssl: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    made = openssl(
        *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-subj", "/CN=one", "-keyout", "one.key", "-out", "one.csr"),
    )
    assert made.returncode == 0, made.stderr
    whole = (tmp_path / "one.csr").read_text()
    (tmp_path / "cut.csr").write_text(whole + whole[: len(whole) // 2])
    before = orders(server)

    assert "cut short" in one_line(run("upload", "-p", "42", "cut.csr"), 1)
    assert orders(server) == before


def test_an_argument_that_is_no_text(server: str, tmp_path: Path) -> None:
    result = shell("create -a 42 -d $(printf '\\377\\376.com')", server, tmp_path)

    assert result.returncode == 2
    assert "not text" in result.stderr
    assert not list(tmp_path.glob("*.password"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a home that not even its owner may write to")
def test_auth_does_not_claim_to_have_kept_what_it_could_not(run: Run) -> None:
    result = run("auth", HOME="/proc")

    assert result.stdout == "user authenticated and credentials not cached\n"
    assert "cannot be shared" in result.stderr
    state = run("auth", "--debug", HOME="/dev/null")
    assert state.stdout == "credentials are expired or invalid\n"
    assert "is not used: cannot read" in state.stderr


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--tls-key", "/etc/hostname"], 2, "belong together"),
        (["--tls-cert", "nope", "--tls-key", "nope"], 1, "no certificate with its key"),
        (["--username", ""], 2, "name"),
        (["--issue-delay", "nan"], 2, "--issue-delay"),
        (["-a", "[::1:0"], 2, "HOST:PORT"),
        (["--password-file", "nope"], 1, "cannot read"),
        (["--access-ttl", "0"], 2, "--access-ttl"),
        (["--refresh-ttl", "nan"], 2, "--refresh-ttl"),
        (["--clock-skew", "inf"], 2, "--clock-skew"),
        (["--client-ca", "nope"], 2, "--tls"),
        (["--tls", "--client-ca", "nope"], 1, "cannot read nope"),
        (["--tls", "--ca-out", "nowhere/ca.pem"], 1, "nowhere"),
    ],
)
def test_options_of_the_simulator_that_do_not_work(run: Run, options: list[str], code: int, words: str) -> None:
    result = run("serve", *options)

    assert result.returncode == code
    assert words in " ".join(result.stderr.split())
    assert "unexpected" not in result.stderr


def test_version(run: Run) -> None:
    from sectigo_async import __version__

    assert run("--version").stdout == f"sectigo-async {__version__}\n"


def test_a_simulator_makes_trouble_by_a_file(serve: Callable[..., Any], run: Run, tmp_path: Path) -> None:
    file = tmp_path / "faults.json"
    file.write_text('[{"route": "GET /api/v1/devices", "fault": "error-before", "status": 500}]')
    with serve("--faults", str(file)) as url:
        result = run("licenses", SECTIGO_ENDPOINT=url)
        assert (result.returncode, "having a bad day (500" in result.stderr) == (1, True)
        assert run("organization", SECTIGO_ENDPOINT=url).returncode == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "is no list of faults"),
        ('[{"route": "*", "fault": "plague"}]', "unknown fault 'plague'"),
        (None, "cannot read"),
    ],
)
def test_a_wrong_file_of_faults_is_told(run: Run, tmp_path: Path, text: str | None, words: str) -> None:
    file = tmp_path / "faults.json"
    if text is not None:
        file.write_text(text)
    result = run("serve", "-a", ":0", "--faults", str(file))
    assert (result.returncode, words in result.stderr) == (1, True), result.stderr
