"""Gzip as the input of an import: known by its bytes, whole or refused, never too much at once."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from itertools import pairwise

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercom_data_events.cli.exit_codes import StoppedError
from intercom_data_events.cli.importer.records import SourceError
from intercom_data_events.cli.importer.source import PIECE, Source
from memory import peak_below

RAN = b'{"event_name": "ran", "user_id": "1"}\n'


def pieces(path):
    """What a source gives, one piece after another."""

    async def main():
        with Source(str(path)) as source:
            return [piece async for piece in source]

    return anyio.run(main)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("gzip") / "events"


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5), st.integers(0, 600))
def test_members_after_each_other_and_padding_are_one_text(path, text, places, padding):
    edges = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    members = [gzip.compress(text[begin:end]) for begin, end in pairwise(edges)]
    path.write_bytes(b"".join(members) + bytes(padding))

    assert b"".join(pieces(path)) == text


def test_large_gzip_comes_in_pieces(path):
    text = RAN * 100_000
    path.write_bytes(gzip.compress(text[:1_000_000]) + gzip.compress(text[1_000_000:]))

    found = pieces(path)

    assert b"".join(found) == text
    assert max(map(len, found)) <= PIECE


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda data: data[:-3], "truncated"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: data[:500] + bytes(50) + data[550:], "damaged"),
        (lambda data: data + b"something else", "damaged"),
    ],
)
def test_gzip_that_is_not_whole_is_told(path, change, complaint):
    data = gzip.compress(b"".join(RAN.replace(b"1", b"%d" % n) for n in range(20_000)))
    path.write_bytes(change(data))

    with pytest.raises(
        StoppedError if complaint == "truncated" else SourceError,
        match=f"is {complaint} gzip data; create or download it again",
    ):
        pieces(path)


@given(st.binary(min_size=1, max_size=20), st.integers(0, 60))
def test_gzip_with_something_wrong_in_it_is_read_or_refused_and_nothing_else(path, change, place):
    data = bytearray(gzip.compress(RAN * 3, mtime=0))
    data[place : place + len(change)] = change
    path.write_bytes(data)

    with contextlib.suppress(SourceError, StoppedError):
        pieces(path)


def test_memory_is_bounded_where_little_gzip_is_much_text(path):
    squeeze = zlib.compressobj(9, wbits=31)
    data = b"".join(squeeze.compress(b"x" * 1_000_000) for _ in range(200))
    path.write_bytes(data + squeeze.flush())

    async def main():
        size = 0
        with Source(str(path)) as source:
            async for piece in source:
                size += len(piece)
        return size

    with peak_below(10_000_000):
        assert anyio.run(main) == 200_000_000
