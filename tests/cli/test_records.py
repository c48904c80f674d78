"""Reading events from files that anybody may have made: every line is accounted for."""

from __future__ import annotations

import codecs
import csv
import io
import json
import time
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from intercom_data_events.cli.importer.records import LONGEST, Format, Reader, SourceError

RAN = b'{"event_name": "ran", "user_id": "1"}'
FIELDS = {"event_name": "ran", "user_id": "1"}
HEADER = b"event_name,user_id,metadata.note\n"


def read(data, format=None, *, cuts=()):
    """All records of a file, fed in pieces, and the reader."""
    reader = Reader(format)
    records = []
    edges = [0, *sorted(cuts), len(data)]
    for begin, end in pairwise(edges):
        for batch in reader.feed(data[begin:end]):
            assert batch
            records += batch
    for batch in reader.close():
        assert batch
        records += batch
    return records, reader


def outcome(data, cuts):
    """Everything that can be seen of a reading, its failure included."""
    reader = Reader()
    seen = []
    try:
        edges = [0, *sorted(cuts), len(data)]
        for begin, end in pairwise(edges):
            for batch in reader.feed(data[begin:end]):
                seen += batch
        for batch in reader.close():
            seen += batch
    except SourceError as error:
        return repr(seen), str(error)
    return repr(seen), reader.lines, reader.format, reader.header


def events(data, **options):
    records, _ = read(data, **options)
    assert [record.problem for record in records if record.problem] == []
    return [record.fields for record in records]


def problem(line, format=Format.NDJSON):
    """What is wrong with a line, between two that are fine."""
    before, after = (RAN, RAN) if format is Format.NDJSON else (HEADER + b"ran,1,", b"ran,1,")
    records, _ = read(before + b"\n" + line + b"\n" + after, format)
    assert [record.problem is None for record in records] == [True, False, True]
    assert records[1].raw == line
    assert records[1].fields is None
    assert records[1].line == records[0].line + 1
    return records[1].problem


def refused(data, format=None):
    with pytest.raises(SourceError) as caught:
        read(data, format)
    return str(caught.value)


def test_each_line_of_ndjson_is_an_event():
    records, reader = read(RAN + b"\r\n\n# refused: no\n" + RAN)

    assert [(record.line, record.raw, record.fields) for record in records] == [
        (1, RAN, FIELDS),
        (4, RAN, FIELDS),
    ]
    assert (reader.format, reader.header, reader.lines) == (Format.NDJSON, None, 4)


def test_each_row_of_csv_is_an_event():
    records, reader = read(b"\n" + HEADER + b'ran,1,"a ""b"",\nc"\r\n,,\n\nran,2,42')

    assert [(record.line, record.fields) for record in records] == [
        (3, {**FIELDS, "metadata": {"note": 'a "b",\nc'}}),
        (7, {"event_name": "ran", "user_id": "2", "metadata": {"note": 42}}),
    ]
    assert records[0].raw == b'ran,1,"a ""b"",\nc"'
    assert (reader.format, reader.header, reader.lines) == (Format.CSV, HEADER[:-1], 7)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_found_from_the_header(delimiter):
    row = delimiter.join(['"event_name"', "user_id", '"metadata.a,b;c"', "metadata.x\n"])
    data = row + delimiter.join(["ran", "1", '"x,;\ty"', '5" pipe'])

    assert events(data.encode()) == [{**FIELDS, "metadata": {"a,b;c": "x,;\ty", "x": '5" pipe'}}]
    assert read(data.encode())[1].delimiter == delimiter


def test_comments_and_blank_lines_are_passed_over_before_the_format_is_found():
    assert read(b"# a\n\n \n" + RAN)[1].format is Format.NDJSON
    assert read(b"# a\n\n \n" + HEADER)[1].format is Format.CSV
    assert read(b"# a\n\n \n")[1].format is None
    assert read(b"")[0] == []


def test_a_byte_order_mark_is_no_part_of_the_text():
    records, _ = read(codecs.BOM_UTF8 + RAN)
    assert records[0].raw == RAN
    assert read(codecs.BOM_UTF8 + HEADER)[1].header == HEADER[:-1]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (RAN.decode().encode("utf-16"), "is UTF-16; convert it with: iconv -f UTF-16 -t UTF-8"),
        (codecs.BOM_UTF16_BE + RAN, "is UTF-16"),
        (RAN.decode().encode("utf-32"), "is UTF-32; convert it with: iconv -f UTF-32 -t UTF-8"),
        (b"PK\x03\x04 and so on", "Excel workbook (.xlsx)"),
        (b"PAR1 and so on", "looks like Parquet"),
        (b"\x1f\x8b and so on", "gzipped twice"),
        (RAN + b"\n\n" + RAN[:9] + b"\0" + RAN, "line 3: the text must not contain a NUL byte"),
        (b"a\0", "line 1: the text must not contain a NUL byte"),
        (RAN.decode().encode("utf-16-le"), "line 1: the text must not contain a NUL byte"),
        (RAN + b"\r" + RAN, "line 1: lines must not end in a lone carriage return"),
        (b"# comment\r" + RAN + b"\r", "a lone carriage return; convert them with: tr '\\r' '\\n'"),
        (HEADER.replace(b"\n", b"\r") + b"ran,1,\r" * 200_000, "a lone carriage return"),
        (
            b"\n[\n" + RAN,
            (
                "line 2: the file must not be a single JSON document; write one "
                "event per line, for example with jq -c '.[]'"
            ),
        ),
        (
            b'{\n  "event_name": "ran"\n}',
            "line 1: the file must not be a single JSON document; write one event per",
        ),
        (b"x" * (LONGEST + 1), "line 1: the header must be at most 1 MiB long"),
    ],
)
def test_what_is_no_text_of_events_is_told_as_what_it_looks_like(data, says):
    assert says in refused(data)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (
            b"userId,event_name",
            "line 1: the CSV header is invalid: columns must be ",
        ),
        (b"\n\nevent_name,user_id,plan", "line 3: the CSV header is invalid"),
        (b"event_name,email,email", "'email' must occur only once"),
        (b"event_name,created_at", "add user_id, id or email"),
        (b"user_id", "the column event_name is missing; add it, or rename one of: user_id"),
        (b'event_name,"user_id', "a quote that opens here is not closed within 1 MiB"),
        (b'event_name,"user_id"x', "line 1: the row is not valid CSV ("),
        (
            b"event_name,user_id,metadata.pr\xe9nom",
            "must be UTF-8, but has byte 0xe9 at position 31",
        ),
    ],
)
def test_a_header_that_cannot_be_used_ends_the_reading(header, says):
    assert says in refused(header + b"\nran,1\n", Format.CSV)


def test_the_records_before_what_ends_the_reading_are_handed_on():
    batches = Reader().feed(RAN + b"\n" + RAN + b"\0")

    assert [record.fields for record in next(batches)] == [FIELDS]
    with pytest.raises(SourceError, match="line 2"):
        next(batches)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"a": 1,}', "the line is not valid JSON ("),
        (
            b'{"a": 1',
            "the line is not valid JSON (Expecting ',' delimiter at column 8); write one event",
        ),
        (
            b"{",
            (
                "write one event per line, for example with jq -c '.[]' for an "
                "array, or jq -c . for objects"
            ),
        ),
        (
            b"[]",
            (
                "the line must be a JSON object; write one event per line, for "
                "example with jq -c '.[]'"
            ),
        ),
        (b"[1, 2", "at column 6"),
        (b"42", "the line must be a JSON object"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "must have the key 'c' only once"),
        (b'{"a": NaN}', "NaN is not valid JSON; leave out its key"),
        (b'{"a": -Infinity}', "-Infinity is not valid JSON; leave out its key"),
        (b'{"a": %s}' % (b"9" * 5000), "a number has thousands of digits"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": "caf\xe9"}', "byte 0xe9 at position 11; if it is Latin-1, convert it with: iconv"),
        (RAN + RAN, "Extra data"),
        (b'{"a": "\xed\xa0\x80"}', "the text must be UTF-8"),
    ],
)
def test_a_line_that_is_no_event_is_a_record_that_says_why(line, says):
    assert says in problem(line)


def test_pairs_of_surrogates_and_blanks_around_an_object_are_fine():
    assert events(b' {"a": "\\ud83d\\ude00\\u00e9"} ', format=Format.NDJSON) == [{"a": "😀é"}]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (b"ran,1", "the row must have 3 cells like the header, not 2"),
        (
            b"ran,1,a,b",
            (
                "the row must have 3 cells like the header, not 4; put quotes around "
                "a cell that contains ','"
            ),
        ),
        (b'ran,1,"a" b', "the row is not valid CSV ("),
        (b"ran,1,a\rb", "and put quotes around a cell that contains a line break"),
        (b'ran,1,"a', "a quote that opens here is not closed within 1 MiB"),
        (b"ran,1,caf\xe9", "the text must be UTF-8, but has byte 0xe9 at position 10"),
    ],
)
def test_a_row_that_is_no_event_is_a_record_that_says_why(row, says):
    assert says in problem(row, Format.CSV)


def test_a_cell_is_as_long_as_a_row_can_be():
    for note in ("x" * 1_000_000, "a line\n" * 140_000):
        records, _ = read(HEADER + b'ran,1,"%b"\nran,1,\n' % note.encode())
        assert [record.problem for record in records] == [None, None]
        assert records[0].fields["metadata"] == {"note": note}


def test_a_cell_that_is_not_what_its_column_says_is_told():
    records, _ = read(b"event_name,id,metadata.load:number\nran,1,much")

    assert records[0].problem == ("metadata.load:number must be a number such as 3.67, not 'much'")


def test_after_a_quote_that_is_never_closed_reading_goes_on_at_the_next_line():
    # More than is looked at for the end of the quote.
    rows = b"".join(b"ran,%d,%b\n" % (number, b"x" * 90) for number in range(20_000))
    records, reader = read(HEADER + b'ran,1,"open\n' + rows)

    assert [record.line for record in records if record.problem] == [2]
    assert records[0].raw == b'ran,1,"open'
    assert len(records) == 20_001
    assert reader.lines == 20_002


def test_lines_that_each_open_a_quote_take_time_in_proportion():
    def seconds(lines):
        # Of the processor, because other programs may have it in between.
        begin = time.thread_time()
        records, _ = read(HEADER + b'x","\n' * lines)
        assert len(records) == lines
        return time.thread_time() - begin

    seconds(1000)
    assert seconds(80_000) < 40 * seconds(8000)


def test_a_record_of_more_than_a_mebibyte_is_skipped_and_the_next_is_read():
    fits = b'{"a": "%s"}' % (b"x" * (LONGEST - 9))
    assert len(fits) == LONGEST
    records, reader = read(fits + b"\nx" + fits + b"\n" + RAN, cuts=range(0, 2 * LONGEST, 9999))

    assert [(record.line, len(record.raw), record.problem) for record in records] == [
        (1, LONGEST, None),
        (2, 0, "the line must have at most 1,048,576 bytes (1 MiB), not 1,048,577; shorten it"),
        (3, len(RAN), None),
    ]
    assert reader.lines == 3


def test_the_reasons_of_a_file_of_refused_rows_are_no_part_of_it():
    data = b'refused_because;event_name;user_id\n"no; ""really""";ran;1\nno;"ran\n'
    records, reader = read(data)

    assert reader.header == b"event_name;user_id"
    assert [(record.raw, record.fields) for record in records] == [
        (b"ran;1", FIELDS),
        (b'"ran', None),
    ]


def test_a_caller_can_stop_between_batches():
    batches = Reader().feed(b"{}\n" * 5_000)
    assert len(next(batches)) == 1000
    batches.close()


def test_batches_are_bounded():
    reader = Reader()
    sizes = [len(batch) for batch in reader.feed(b"{}\n" * 100_000)]

    assert sum(sizes) == 100_000
    assert max(sizes) <= 1000


def peak(pieces):
    """The most memory that reading took, in bytes, and what became of it."""
    tracemalloc.start()
    try:
        reader = Reader()
        count = 0
        for piece in pieces:
            for batch in reader.feed(piece):
                count += len(batch)
        for batch in reader.close():
            count += len(batch)
        return tracemalloc.get_traced_memory()[1], count, reader.lines
    finally:
        tracemalloc.stop()


MEGABYTE = 1_000_000


def in_pieces(begin, repeated, size):
    yield begin
    piece = repeated * (65536 // len(repeated))
    for _ in range(int(size) // len(piece)):
        yield piece


@pytest.mark.costly
@pytest.mark.parametrize(
    "pieces",
    [
        lambda: in_pieces(b'{"a": "', b"x", 60 * MEGABYTE),
        lambda: in_pieces(HEADER + b'ran,1,"', b"x", 60 * MEGABYTE),
        lambda: in_pieces(HEADER + b'ran,1,"', b"fifteen letters\n", 1.2 * MEGABYTE),
        lambda: in_pieces(HEADER, b'a dozen of",",,"\n', 1.2 * MEGABYTE),
        lambda: in_pieces(HEADER + b'ran,1,"', b'""', 20 * MEGABYTE),
        lambda: in_pieces(HEADER, b",", 20 * MEGABYTE),
        lambda: in_pieces(b"", b"\n", MEGABYTE // 4),
        lambda: in_pieces(b"", b" ", 20 * MEGABYTE),
    ],
    ids=["line", "cell", "quote", "quotes", "quotes within", "cells", "blank", "blanks"],
)
def test_memory_is_bounded_whatever_there_is(pieces):
    most, _, _ = peak(pieces())

    assert most < 20 * MEGABYTE


ODD_LINES = rb"""{"event_name": "ran"}

# no
{
[1]
ran,1,a
ran,1,"a,b"
ran,1,"a
b"
x","
""
"
ran,"1",""
,,
ran,1
a"b,c,d
refused_because,event_name,id"""
LINES = st.sampled_from(
    [*ODD_LINES.split(b"\n"), b" ", b"\xff", b'{"a":"\xc3\xa9"}', b"ran\xe9,1,2", b"a\rb", b"\0"]
)
TEXTS = st.builds(
    lambda begin, lines, ends, last: (
        begin + b"".join(a + b for a, b in zip(lines, ends, strict=False)) + last
    ),
    st.sampled_from([b"", RAN + b"\n", HEADER, codecs.BOM_UTF8 + HEADER, b"\xef", b"# x\r\n"]),
    st.lists(LINES, max_size=12),
    st.lists(st.sampled_from([b"\n", b"\r\n"]), min_size=12, max_size=12),
    LINES,
)
CUTS = st.lists(st.integers(0, 400), max_size=12)


@given(TEXTS, CUTS)
@example(b"\xef\xbb\xbf" + HEADER + b"ran,1,", [1, 2, 3, 4])
def test_how_the_file_is_cut_into_pieces_makes_no_difference(data, cuts):
    cuts = [min(cut, len(data)) for cut in cuts]
    expected = outcome(data, [])
    assert outcome(data, cuts) == expected
    assert outcome(data, range(len(data))) == expected


@given(TEXTS, CUTS)
def test_every_line_is_in_a_record_or_blank_or_a_comment_or_the_header(data, cuts):
    try:
        records, reader = read(data, cuts=[min(cut, len(data)) for cut in cuts])
    except SourceError:
        return
    text = data.removeprefix(codecs.BOM_UTF8)
    lines = text.removesuffix(b"\n").split(b"\n") if text else []
    assert reader.lines == len(lines)
    left = dict(enumerate((line.strip() for line in lines), 1))
    for record in records:
        assert (record.fields is None) == (record.problem is not None)
        for line in range(record.line, record.line + record.raw.count(b"\n") + 1):
            assert left.pop(line).endswith(record.raw.split(b"\n")[line - record.line].strip())
    if reader.header is not None:
        left = {line: text for line, text in left.items() if not text.endswith(reader.header)}
    assert all(not text.strip(b',"') or text.startswith(b"#") for text in left.values())


@given(st.binary(max_size=300) | TEXTS, st.sampled_from([None, *Format]))
def test_bytes_of_any_kind_are_read_or_refused_and_nothing_else(data, format):
    try:
        read(data, format)
    except SourceError as error:
        said = str(error)
    else:
        said = "line "
    assert "line " in said


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab\0é😀"), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text("abc\n"), JSON, max_size=4)), st.booleans())
def test_objects_written_as_lines_are_the_same_when_read(objects, ascii):
    data = "".join(json.dumps(fields, ensure_ascii=ascii) + "\n" for fields in objects).encode()

    assert events(data) == objects


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(
    st.lists(st.tuples(CELLS, CELLS | st.text('",;\t\n a')), max_size=6), st.sampled_from(",;\t")
)
def test_rows_as_the_standard_library_writes_them_are_read_as_it_reads_them(rows, delimiter):
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerows([("event_name", "user_id"), *rows])
    expected = [
        {name: cell for name, cell in zip(("event_name", "user_id"), row, strict=True) if cell}
        for row in rows
    ]

    assert events(file.getvalue().encode()) == [fields for fields in expected if fields]
