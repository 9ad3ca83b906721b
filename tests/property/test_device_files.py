"""Lists of devices: what was written is read, in every dialect; and any bytes end in a list or a typed error."""

import csv
import io
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sectigo_async import InvalidArgumentError
from sectigo_async.issuance.devices import DeviceList, device_key, read_devices

PIECES = [
    *(b"common_name", b"cn", b"dns_names", b"id", b"csr", b"ou", b"OU", b"state", b"sep=;\n", b"{", b"}", b'{"cn":'),
    *(
        b";",
        b",",
        b"\t",
        b"\n",
        b"\r\n",
        b"\r",
        b'"',
        b'""',
        b"'",
        b"=",
        b"[",
        b"]",
        b":",
        b'"a"',
        b"\\ud800",
        b"\\u0000",
    ),
    *(b"a.example", b"A.EXAMPLE", b"xn--bcher-kva.example", "bücher.example".encode(), b"*.", b"#REF!", b"1,23E+12"),
    *(
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xfe\xff",
        b"\xff",
        b"\0",
        b"\x1b[31m",
        b"\xc2\xa0",
        b"\xe2\x80\x8b",
        b" ",
        b"password",
    ),
]
like_a_list = st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join)
with_header = st.builds(
    bytes.__add__,
    st.sampled_from([b"cn;ou\n", b"id,cn,san\n", b"csr\tid\n", b"sep=,\ncn\n", b'{"cn": "a"}\n']),
    like_a_list,
)
any_bytes = st.binary(max_size=300) | like_a_list | with_header
encodings = st.sampled_from([None, None, "cp1252", "utf-16", "utf-16-le", "utf-8", "utf-7", "utf-32", "shift_jis"])


def assert_list_or_typed(data: bytes, encoding: str | None) -> None:
    """Check that bytes are read as a list whose parts hold what they promise, or refused in words."""
    found: DeviceList | InvalidArgumentError
    try:
        found = read_devices(data, encoding=encoding)
    except InvalidArgumentError as error:
        found = error
    if isinstance(found, InvalidArgumentError):
        assert str(found).isprintable()
        assert len(str(found)) <= 1200
        assert found.hint
        return
    assert found.devices or found.problems
    assert [problem.line for problem in found.problems] == sorted(problem.line for problem in found.problems)
    for problem in found.problems:
        assert str(problem).isprintable()
        assert len(str(problem)) < 600
        assert 1 <= problem.line <= len(data) + 1
    keys = [device.key for device in found.devices if device.key]
    assert len(set(keys)) == len(keys)
    for device in found.devices:
        assert device.common_name or device.csr
        assert device.key == device_key(device.name)
        assert all(name.isascii() and name == name.lower() for name in device.dns_names)
        assert all(name and value for name, value in device.parameters.items())


@settings(max_examples=500, deadline=None)
@given(any_bytes, encodings)
def test_any_bytes(data: bytes, encoding: str | None) -> None:
    assert_list_or_typed(data, encoding)


@pytest.mark.long
@pytest.mark.timeout(600)
@settings(max_examples=20_000, deadline=None)
@given(any_bytes, encodings)
def test_20_000_times_any_bytes(data: bytes, encoding: str | None) -> None:
    assert_list_or_typed(data, encoding)


@given(st.text(max_size=300), st.sampled_from(["base64", "idna", "utf-8"]) | st.text(max_size=20))
def test_any_text_as_an_encoding(text: str, encoding: str) -> None:
    assert_list_or_typed(text.encode("utf-8", "replace"), encoding)


@given(st.text(max_size=300))
@example("ẞ")
@example("İ.example")
@example("\u0345a\u0301")
@example("xn--\u00fc")
def test_a_key_is_its_own_key(text: str) -> None:
    key = device_key(text)

    assert device_key(key) == key
    assert device_key(f"\xa0{text} ") == key


values = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="'#\u00ad") | st.sampled_from(" ;,\t\"'"),
    max_size=12,
).map(lambda text: " ".join(text.split()).strip("'").strip())
names = st.from_regex(r"[a-z]([a-z0-9]{0,8}[a-z])?\.(example|bücher\.example)", fullmatch=True)
lists = st.lists(
    st.fixed_dictionaries({"san": st.lists(names, max_size=3), "organizationName": values, "ou;x,y": values}),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(
    lists,
    st.sampled_from([";", ",", "\t"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["\r\n", "\n", "\r"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_was_written_is_read(
    lines: list[dict[str, object]], delimiter: str, encoding: str, newline: str, quoting: int
) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator=newline, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(["id", "cn", "san", "organizationName", "ou;x,y"])
    for number, line in enumerate(lines):
        sans = newline.join(str(name) for name in line["san"])  # type: ignore[attr-defined]
        writer.writerow([number, "Gateway 7", sans, line["organizationName"], line["ou;x,y"]])

    found = read_devices(buffer.getvalue().encode(encoding))

    documents = "\n".join(json.dumps({"id": number, "cn": "Gateway 7"} | line) for number, line in enumerate(lines))
    same = read_devices(documents.encode())
    assert found.problems == same.problems == ()
    for number, line in enumerate(lines):
        for device in (found.devices[number], same.devices[number]):
            assert device.key == str(number)
            assert device.dns_names == tuple(dict.fromkeys(device_key(str(name)) for name in line["san"]))  # type: ignore[attr-defined]
            assert dict(device.parameters) == {name: text for name, text in line.items() if text and name != "san"}
