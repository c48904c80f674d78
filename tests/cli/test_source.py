"""What is read for an import: the same text, however it comes."""

from __future__ import annotations

import gzip
import os
import socket
import sys
import threading
import zlib
from io import TextIOWrapper

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercom_data_events.cli.exit_codes import StoppedError
from intercom_data_events.cli.importer.records import SourceError
from intercom_data_events.cli.importer.source import PIECE, Source


def pieces(name: str) -> list[bytes]:
    async def read() -> list[bytes]:
        with Source(name) as source:
            found = [piece async for piece in source]
            assert source.size is None or source.position == source.size
            return found

    return anyio.run(read)


@pytest.fixture
def file(tmp_path):
    def write(data: bytes) -> str:
        path = tmp_path / "events"
        path.write_bytes(data)
        return str(path)

    return write


@pytest.fixture
def stdin(monkeypatch):
    """Puts a descriptor in the place of standard input."""

    def put(descriptor: int) -> None:
        opened = os.fdopen(descriptor, "rb")
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(opened))

    yield put
    sys.stdin.close()


#: Members of gzip, each with padding behind it.
MEMBERS = st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 20)), min_size=1, max_size=5)


@given(MEMBERS)
def test_members_of_gzip_are_one_text(tmp_path_factory, members):
    path = tmp_path_factory.getbasetemp() / "members.gz"
    path.write_bytes(b"".join(gzip.compress(text) + b"\0" * zeros for text, zeros in members))
    assert b"".join(pieces(str(path))) == b"".join(text for text, _ in members)


@given(st.binary(min_size=1, max_size=400), st.data())
def test_gzip_that_is_cut_short_anywhere_is_told(tmp_path_factory, text, data):
    whole = gzip.compress(text)
    path = tmp_path_factory.getbasetemp() / "short.gz"
    path.write_bytes(whole[: data.draw(st.integers(1, len(whole) - 1))])
    with pytest.raises(StoppedError, match=r"short\.gz is truncated gzip data; create or download"):
        pieces(str(path))


def test_gzip_that_is_damaged_is_told(file):
    text = os.urandom(300_000)
    data = bytearray(gzip.compress(text))
    data[200_000:200_100] = bytes(100)
    with pytest.raises(SourceError, match="is damaged gzip data; create or download"):
        pieces(file(bytes(data)))


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE])
@pytest.mark.parametrize("compressed", [False, True])
def test_pieces_are_bounded_and_together_all_of_it(size, compressed, file):
    text = b"x" * size
    found = pieces(file(gzip.compress(text) if compressed else text))
    assert b"".join(found) == text
    assert all(0 < len(piece) <= PIECE for piece in found)


def test_what_decompresses_to_much_comes_in_small_pieces(file):
    packer = zlib.compressobj(wbits=31)
    data = b"".join(packer.compress(bytes(1024 * 1024)) for _ in range(64)) + packer.flush()
    found = pieces(file(data))
    assert sum(map(len, found)) == 64 * 1024 * 1024
    assert max(map(len, found)) <= PIECE


def test_a_pipe_that_gives_a_byte_at_a_time_is_read_all_the_same(stdin):
    text = gzip.compress(b"slowly")
    # A socket, since of its ends it is known when what was sent has been read.
    ours, theirs = socket.socketpair()
    stdin(theirs.detach())

    def send() -> None:
        with ours:
            for place in range(len(text)):
                ours.sendall(text[place : place + 1])

    sender = threading.Thread(target=send)
    sender.start()
    assert b"".join(pieces("-")) == b"slowly"
    sender.join()


def test_standard_input_can_be_a_file(stdin, file):
    stdin(os.open(file(b"text"), os.O_RDONLY))
    assert pieces("-") == [b"text"]


def test_a_pipe_by_name_is_a_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    # Both ends, so that neither opening waits.
    both = os.open(path, os.O_RDWR)
    os.write(both, b"text")
    with Source(str(path)) as source:
        assert (source.path, source.size) == (None, None)
        os.close(both)
        assert anyio.run(anext, aiter(source)) == b"text"


def test_devices_are_read_to_their_end():
    assert pieces("/dev/null") == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (".", r"^cannot read \.: is a directory; check the path and its permissions$"),
        (
            "missing",
            "^cannot read missing: no such file or directory; check the path and its permissions$",
        ),
        (
            "missing/file",
            (
                "^cannot read missing/file: no such file or directory; check the "
                "path and its permissions$"
            ),
        ),
        ("a\0b", "^cannot read a\0b: embedded null"),
        ("", "^cannot read : no such file or directory"),
    ],
)
def test_what_cannot_be_opened_is_told(name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=said):
        Source(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("{}/under", "not a directory"), ("{}" + "x" * 5000, "file name too long")],
)
def test_what_the_system_does_not_open_is_told_in_its_words(file, name, reason):
    with pytest.raises(SourceError, match=f"^cannot read .*: {reason}"):
        Source(name.format(file(b"text")))
