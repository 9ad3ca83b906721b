"""Lists of devices as people have them: what is read, what is refused, and how it is told."""

import csv
import io
import json
import zipfile
from contextlib import suppress

import pytest

from sectigo_async import InvalidArgumentError
from sectigo_async.issuance.devices import Device, DeviceList, device_key, read_devices


def read(text: str, **options: str) -> DeviceList:
    return read_devices(text.encode(), **options)


def told(found: DeviceList) -> list[str]:
    return [str(problem) for problem in found.problems]


def only(found: DeviceList) -> Device:
    assert told(found) == []
    (device,) = found.devices
    return device


def refusal(data: bytes, **options: str) -> InvalidArgumentError:
    with pytest.raises(InvalidArgumentError) as caught:
        read_devices(data, **options)
    assert caught.value.hint
    return caught.value


GERMAN = (
    "common_name;dns_names;organizationName;localityName\r\n"
    'bücher.example;"bücher.example, www.bücher.example";Müller & Söhne;Köln\r\n'
    "GW7.Example.com;;Müller & Söhne;\r\n"
    ";;;\r\n"
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_as_german_excel_writes_it(encoding: str) -> None:
    found = read_devices(GERMAN.encode(encoding))

    assert told(found) == []
    assert found.empty_lines == 1
    first, second = found.devices
    assert first == Device(
        key="xn--bcher-kva.example",
        name="bücher.example",
        common_name="bücher.example",
        dns_names=("xn--bcher-kva.example", "www.xn--bcher-kva.example"),
        parameters={"organizationName": "Müller & Söhne", "localityName": "Köln"},
        line=2,
    )
    assert second.common_name == "GW7.Example.com"
    assert second.dns_names == ("gw7.example.com",)
    assert second.parameters == {"organizationName": "Müller & Söhne"}


def test_big_endian_utf_16_is_read_by_its_mark() -> None:
    assert len(read_devices(b"\xfe\xff" + GERMAN.encode("utf-16-be")).devices) == 2


def test_a_list_of_old_windows_is_refused_with_a_preview_and_read_when_named() -> None:
    data = GERMAN.encode("cp1252")

    error = refusal(data, name="devices.csv")

    assert str(error).startswith("devices.csv is not UTF-8: line 2 ")
    assert "Müller & Söhne" in str(error)
    assert "--encoding cp1252" in error.hint
    assert 'encoding="cp1252"' in error.hint
    assert read_devices(data, encoding="cp1252").devices == read(GERMAN).devices


def test_a_preview_shows_no_line_that_may_hold_a_password() -> None:
    data = "common_name;keyPassword\ngw7.example.com;s3cr3tü\n".encode("cp1252")

    error = refusal(data)

    assert "s3cr3t" not in str(error)
    assert "'ü'" in str(error)


def test_a_preview_of_a_long_line_shows_where_it_breaks() -> None:
    data = f"common_name,x\ngw7.example.com,{'a' * 5000} Köln {'b' * 5000}\n".encode("cp1252")

    assert "Köln" in str(refusal(data))


def test_a_list_without_header_shows_no_further_values() -> None:
    error = refusal(b"gw7.example.com;canary-93b1;canary-93b1\n")

    assert "'gw7.example.com'" in str(error)
    assert "canary-93b1" not in str(error)


def test_a_device_shows_no_values_of_its_parameters() -> None:
    device = only(read("cn,keyPassword\na.example,canary-93b1\n"))

    assert "canary-93b1" not in repr(device)
    assert "keyPassword" in repr(device)


@pytest.mark.parametrize(
    "name", ["", "no-such", "base64", "idna", "unicode_escape", "undefined", "a\0b", "\ud800", "utf-8\n\x1b[31m" * 99]
)
def test_an_encoding_that_is_none(name: str) -> None:
    error = refusal(b"common_name\na.example\n", encoding=name)

    assert str(error).isprintable()


def test_an_encoding_that_does_not_fit() -> None:
    assert "'ascii'" in str(refusal(GERMAN.encode(), encoding="ascii"))
    assert "UTF-16" in refusal(GERMAN.encode("utf-16-le")).hint
    refusal(b"\xff\xfea")


@pytest.mark.parametrize("suffix", [".xlsx", ".xls"])
def test_a_spreadsheet_is_refused_with_the_way_out(suffix: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
    data = buffer.getvalue() if suffix == ".xlsx" else b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)

    for options in ({}, {"encoding": "cp1252"}):
        error = refusal(data, **options)
        assert suffix in str(error)
        assert "CSV UTF-8" in error.hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n \n\xa0\n", "is empty"),
        (";;;\n", "no column common_name"),
        ("sep=;\n", "is empty"),
        ("common_name;x\n", "no devices"),
        ("common_name;x\n;\n\n", "no devices"),
        ("gw7.example.com\ngw8.example.com\n", "no column common_name"),
        ('[\n{"common_name": "a"}\n]', "no column common_name"),
        ("cn,CommonName\na,b\n", "'cn' and 'CommonName' are both the common name"),
        ("cn,SAN,dNSName\na,b,c\n", "'SAN' and 'dNSName' are both the DNS names"),
        ("cn,ou,ou\na,b,c\n", "'ou' stands there twice"),
        ("cn,Country,COUNTRY\na,b,c\n", "'Country' and 'COUNTRY' differ in upper and lower case only"),
        ("cn,o\x1b[31mu\na,b\n", "cannot be the name of a column"),
        ('cn,"ou\na,b\n', "never closed"),
        ("cn" + "," * 1000 + "\na\n", "more than 1000 columns"),
        ("cn\na\0.example\n", "zero bytes"),
    ],
)
def test_what_cannot_be_read_as_a_whole(text: str, words: str) -> None:
    error = refusal(text.encode())

    assert words in str(error)
    assert str(error).isprintable()


def test_a_list_that_is_too_large() -> None:
    assert "64 MiB" in str(refusal(b"common_name\n" + b"a" * (64 * 1024 * 1024)))


@pytest.mark.parametrize("name", ["common_name", "CN", "cn", "commonName", "common name", "Common Name"])
def test_spellings_of_the_common_name(name: str) -> None:
    assert only(read(f"{name},x\na.example,1\n")).common_name == "a.example"


@pytest.mark.parametrize("name", ["dns_names", "dNSName", "dnsName", "SAN", "sans"])
def test_spellings_of_the_dns_names(name: str) -> None:
    assert only(read(f"cn,{name}\nGateway 7,a.example\n")).dns_names == ("a.example",)


@pytest.mark.parametrize("delimiter", [";", ",", "\t"])
def test_the_header_tells_the_delimiter(delimiter: str) -> None:
    text = '"Organisation, Abteilung"|common_name|ou\n"Müller; Söhne,\t"|a.example|x\n'.replace("|", delimiter)

    device = only(read(text))

    assert device.common_name == "a.example"
    assert device.parameters == {"Organisation, Abteilung": "Müller; Söhne,", "ou": "x"}


def test_one_column_needs_no_delimiter() -> None:
    found = read("common_name\na.example\nb.example")

    assert [device.common_name for device in found.devices] == ["a.example", "b.example"]


def test_the_first_line_may_name_the_delimiter() -> None:
    found = read("\ufeffsep=|\r\ncn|a;b;c\r\na.example|1;2\r\n")

    assert only(found).parameters == {"a;b;c": "1;2"}
    assert only(found).line == 3


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('cn;san\na;"b.example, c.example\r\nB.EXAMPLE  d.example"\n', ("b.example", "c.example", "d.example")),
        ("cn,san\na,b.example;c.example\n", ("b.example", "c.example")),
        ('cn;san\na;"b.example;c.example"\n', None),
        ("cn\tsan\na\tb.example;c.example,d.example\n", ("b.example", "c.example", "d.example")),
        ("cn,san\na,*.Bücher.example _sip.b.example\n", ("*.xn--bcher-kva.example", "_sip.b.example")),
    ],
)
def test_several_dns_names_in_a_cell(text: str, names: tuple[str, ...] | None) -> None:
    found = read(text)

    if names is None:
        assert "'b.example;c.example' cannot be a DNS name" in told(found)[0]
    else:
        assert only(found).dns_names == names


@pytest.mark.parametrize(
    ("common_name", "names"),
    [("Gateway 7", ()), ("*.example.com", ("*.example.com",)), ("gw_7", ("gw_7",)), ("☃ und mehr", ())],
)
def test_without_dns_names_the_common_name_is_one_where_it_can_be(common_name: str, names: tuple[str, ...]) -> None:
    assert only(read(f"cn\n{common_name}\n")).dns_names == names


@pytest.mark.parametrize(
    "name", ["https://a.example", "a.example:443", "a..example", "-a.example", "x" * 64, "ä" * 300]
)
def test_a_dns_name_that_can_be_none(name: str) -> None:
    found = read(f"cn,san\na,{name}\n")

    assert not found.devices
    assert told(found)[0].startswith("line 2: ")
    assert "cannot be a DNS name; write it" in told(found)[0]


def test_lines_are_those_of_the_file() -> None:
    text = (
        "\r\n"  # 1
        "cn,san,note\r\n"  # 2
        'a,"a.example\r\nb.example\n\nc.example",x\r\n'  # 3 to 6
        "\r\n"  # 7
        "b,not/a/name,\r\n"  # 8
        '"b2","",#REF!\r\n'  # 9
        "c,c.example,\r"  # 10, an old Mac's
        "d,d.example,\n"  # 11
    )

    found = read(text)

    assert [(device.name, device.line) for device in found.devices] == [("a", 3), ("c", 10), ("d", 11)]
    assert [problem.line for problem in found.problems] == [8, 9]
    assert found.empty_lines == 2


def test_a_quotation_mark_that_is_never_closed_is_told_where_it_opens() -> None:
    text = 'cn,san\na,"a.example\nb.example"\nc,"c.example\nd,d.example\n'

    found = read(text)

    assert told(found) == ["line 4: a quotation mark opens here that is never closed"]
    assert [device.name for device in found.devices] == ["a", "d"]


def test_a_quotation_mark_that_swallows_lines_is_told_where_it_opens() -> None:
    text = 'cn,san,ou\n"a","a.example\nx.example",x\nb,"b.example,x\n"c","c.example",""\nd,#N/A,\n'

    found = read(text)

    assert told(found)[0].startswith("line 4: a quotation mark opens here and is closed in line 5 only")
    assert told(found)[1].startswith("line 6: ")
    assert [device.name for device in found.devices] == ["a", "c"]


@pytest.mark.parametrize("cell", ['"say "hi""', '"a" b'])
def test_text_behind_a_quoted_cell_is_told(cell: str) -> None:
    assert "inside a cell, write it twice" in told(read(f"cn,x\na,{cell}\n"))[0]


def test_quotation_marks_and_blanks_as_people_use_them() -> None:
    device = only(read('cn, x, y\n"a" , "say ""hi"", you", 5" pipe\n'))

    assert device.parameters == {"x": 'say "hi", you', "y": '5" pipe'}


def test_unseen_surroundings_are_trimmed() -> None:
    device = only(read("cn;x\n\u200b\xa0 a.example \u200e\ufeff;\xa0y z\xa0\n"))

    assert (device.common_name, device.parameters) == ("a.example", {"x": "y z"})


@pytest.mark.parametrize("char", ["\x1b", "\x07", "\x85", "\u202e", "\u200b", "\n", "\t"])
def test_a_control_character_is_a_problem_and_is_not_repeated(char: str) -> None:
    found = read(f'cn;x\na;"one{char}two"\n')

    (problem,) = told(found)
    assert f"U+{ord(char):04X}" in problem
    assert problem.isprintable()


@pytest.mark.parametrize(
    "value",
    [
        *("1,23E+12", "1.23457E+15", "-1E-05", "1e+15", "########", "#N/A", "#NV", "#NAME?", "#VALUE!", "#WERT!"),
        *("#REF!", "#BEZUG!", "#DIV/0!", "#¿NOMBRE?"),
    ],
)
@pytest.mark.parametrize("column", ["cn", "id", "san", "serial"])
def test_what_a_spreadsheet_mangled_is_refused_in_any_column(column: str, value: str) -> None:
    row = {"cn": "a.example", "id": "7", "san": "a.example", "serial": "x"} | {column: value}

    found = read(";".join(row) + "\n" + ";".join(row.values()) + "\n")

    assert not found.devices
    (problem,) = told(found)
    assert problem.startswith(f"line 2: '{column}': '{value}' is a ")


@pytest.mark.parametrize("value", ["1E5", "12E45678", "#7", "#hello?", "1.5", "E+12", "00123"])
def test_what_looks_nearly_so_is_kept(value: str) -> None:
    assert only(read(f"cn;serial\na;{value}\n")).parameters == {"serial": value}


def test_cells_beyond_the_header_or_below_no_name() -> None:
    found = read("cn,,ou,\na,,b,\nb,x,,\nc,,d,,,\ne,,f,,g\nh\n")

    assert [device.name for device in found.devices] == ["a", "c", "h"]
    assert told(found) == [
        "line 3: column 2: it has a value, and the header has no name for it",
        "line 5: it has 5 cells, and the header names 4; put a cell with ',' in it in quotation marks",
    ]


@pytest.mark.parametrize("size", [64 * 1024 + 1, 200_000])
def test_a_cell_that_is_too_long_is_one_problem_of_its_line(size: int) -> None:
    limit = csv.field_size_limit()

    found = read(f'cn;x\na;"{"x" * size}\n{"y" * size}"\nb;{"x" * 64 * 1024}\nc;#REF!\n')

    assert [device.name for device in found.devices] == ["b"]
    assert [problem.line for problem in found.problems] == [2, 5]
    assert "longer than 64 KiB" in told(found)[0]
    assert csv.field_size_limit() == limit


def test_a_line_without_common_name() -> None:
    assert told(read("cn;ou\n;x\n")) == ["line 2: it has no common name"]


def test_a_csr_needs_no_common_name() -> None:
    found = read("csr;id;cn;ou\na.csr;;;x\nb.csr;;;\nc.csr;GW 7;;\nd.csr;;d.example;\n")

    assert told(found) == []
    assert [device.csr for device in found.devices] == ["a.csr", "b.csr", "c.csr", "d.csr"]
    assert [device.common_name for device in found.devices] == ["", "", "", "d.example"]
    assert [device.key for device in found.devices] == ["", "", "gw 7", "d.example"]
    assert only(read("csr\na.csr\n")).dns_names == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("bücher.example", "XN--BCHER-KVA.example"),
        ("bücher.example", "Bu\u0308cher\u3002Example"),
        ("gw7.example.com", "GW7.example.COM"),
        ("Gateway Süd 7", "GATEWAY SU\u0308D 7"),
        ("*.example.com", "*.EXAMPLE.com"),
    ],
)
def test_the_same_device_twice(one: str, other: str) -> None:
    assert device_key(f" {one}\xa0") == device_key(other)

    for header, lines in (("cn", (one, other)), ("id;cn", (f"{one};a", f"{other};b"))):
        (problem,) = told(read(f"{header}\n{lines[0]}\nunlike\n{lines[1]}\n".replace("unlike", "unlike;c")))[-1:]
        assert problem.startswith("line 4: ")
        assert "line 2" in problem


def test_ids_tell_devices_of_one_name_apart() -> None:
    found = read("id;cn\n1;a.example\n2;a.example\n;a.example\n;A.example\n")

    assert [(device.key, device.name) for device in found.devices] == [
        ("1", "1"),
        ("2", "2"),
        ("a.example", "a.example"),
    ]
    assert [problem.line for problem in found.problems] == [5]


def test_a_twin_of_a_line_that_is_wrong_is_told_at_once() -> None:
    found = read("cn;ou\na.example;#REF!\nA.example;\n")

    assert [problem.line for problem in found.problems] == [2, 3]


def test_all_problems_of_a_line_are_told() -> None:
    assert len(told(read("cn;san;a;b\n;x/y z/y;#REF!;1E+12\n"))) == 5


def report(*values: str) -> str:
    """Return a cell as our reports write it."""
    buffer = io.StringIO()
    csv.writer(buffer).writerow([f"'{value}" if value[:1] in tuple("=+-@\t\r\n") else value for value in values])
    return buffer.getvalue()


def test_our_own_reports_are_lists() -> None:
    names = ["line", "id", "common_name", "dns_names", "State", "formula", "state", "batch_id", "serial_number"]
    names += ["not_after", "folder", "error", "warning"]
    ours = ("failed", "7", "1.23E+12", "2027-01-01", "gw", "#REF!\n\x1b[31m", "x" * 70_000)

    device = only(read(report(*names) + report("2", "-7", "a.example", "a.example", "Bayern", "=1+1", *ours)))

    assert device == Device(
        key="-7",
        name="-7",
        common_name="a.example",
        dns_names=("a.example",),
        parameters={"State": "Bayern", "formula": "=1+1"},
        line=2,
    )


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("'=1+1", "=1+1"),
        ("' -7", "-7"),
        ("'+49 89", "+49 89"),
        ("'@home", "@home"),
        ("'s-Hertogenbosch", "'s-Hertogenbosch"),
        ("'t Hof = 2", "'t Hof = 2"),
        ("''=x", "''=x"),
        ("O'=x", "O'=x"),
        ("=1+1", "=1+1"),
        ("'", "'"),
    ],
)
def test_only_the_apostrophe_that_protects_is_taken_off(cell: str, value: str) -> None:
    assert only(read(f"cn;x\na;{cell}\n")).parameters == {"x": value}


def test_json_lines() -> None:
    records = [
        {"commonName": "bücher.example", "SAN": ["Bücher.example", "b.example"], "count": 12345678901234567890},
        {"id": "7", "common_name": " b ", "dns_names": "b.example; c.example", "ou": "", "x": "'=1", "state": "done"},
    ]

    found = read("\ufeff\n" + "\r\n\r\n".join(json.dumps(record) for record in records))

    assert told(found) == []
    assert found.empty_lines == 2
    first, second = found.devices
    assert first.dns_names == ("xn--bcher-kva.example", "b.example")
    assert first.parameters == {"count": "12345678901234567890"}
    assert first.line == 2
    assert second == Device(
        key="7",
        name="7",
        common_name="b",
        dns_names=("b.example", "c.example"),
        line=4,
        parameters={"x": "'=1", "state": "done"},
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"cn": "a"', "no JSON object"),
        ('{"cn": "a"} {"cn": "b"}', "no JSON object"),
        ('["cn"]', "no JSON object"),
        ("cn;x", "no JSON object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"cn": 1.5}', "'cn': write the value as a text"),
        ('{"cn": null}', "'cn': write the value as a text"),
        ('{"cn": true}', "'cn': write the value as a text"),
        ('{"cn": NaN}', "'cn': write the value as a text"),
        ('{"cn": ["a"]}', "'cn': write the value as a text"),
        ('{"cn": "a", "ou": {"x": "y"}}', "'ou': write the value as a text"),
        ('{"cn": "a", "san": ["a.example", 1.5]}', "'san': write the value as a text"),
        ('{"cn": "a", "san": ["a.example b.example"]}', "'a.example b.example' cannot be a DNS name"),
        ('{"cn": "a", "cn": "b"}', "'cn' stands there twice"),
        ('{"cn": "a", "OU": "x", "ou": "y"}', "differ in upper and lower case only"),
        ('{"cn": "a\\u0000"}', "U+0000"),
        ('{"cn": "\\ud800"}', "U+D800"),
        ('{"cn": "a", "\\u001b": "b"}', "cannot be the name"),
        ('{"cn": "a", "ou": "1.23E+12"}', "a spreadsheet shortened"),
        ('{"ou": "x"}', "no common name"),
    ],
)
def test_a_json_line_that_is_wrong(line: str, words: str) -> None:
    found = read(f'{{"cn": "first"}}\n{line}\n{{"cn": "last"}}\n')

    assert [device.name for device in found.devices] == ["first", "last"]
    (problem,) = told(found)
    assert problem.startswith("line 2: ")
    assert words in problem
    assert problem.isprintable()


def test_ten_thousand_devices_and_hostile_shapes_take_no_time() -> None:
    header = b"cn;san\n"
    size = 200_000
    assert len(read_devices(header + b"".join(b"gw%d.example.com;\n" % n for n in range(10_000))).devices) == 10_000
    for shape in (
        b'"',
        b'"""x\n',
        b'"a"b\n',
        b'a;"b\n',
        b'  "',
        b'"a\nb";c\n',
        b" ",
        b'"";',
        b";",
        b'{"cn":',
        b"[",
        b"a ",
    ):
        for data in (
            header + shape * (size // len(shape)),
            header + b'a;"' + shape * (size // len(shape)),
            shape * 9999,
        ):
            with suppress(InvalidArgumentError):
                read_devices(data)
