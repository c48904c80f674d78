"""Reads rows from single pages of a database whose pages do not all belong together.

If a process has lost its log, and others have checkpointed theirs, the tree of a table is no longer
consistent. Then its leaves, which hold the rows, are read one by one. The file format is described
at https://www.sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_LEAF_OF_TABLE = 0x0D
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}

Value = bytes | int | float | None


def rows(content: bytes) -> Iterator[tuple[int, list[Value]]]:
    """Yields the number of each row of any table, and its columns; strings as bytes."""
    size = int.from_bytes(content[16:18]) or 1024
    size = 65536 if size == 1 else size
    for start in range(0, len(content) - size + 1, size):
        # The first page begins with the header of the file.
        header = start + (100 if start == 0 else 0)
        if content[header] != _LEAF_OF_TABLE:
            continue
        for index in range(int.from_bytes(content[header + 3 : header + 5])):
            pointer = header + 8 + 2 * index
            cell = int.from_bytes(content[pointer : pointer + 2])
            try:
                yield _row(content, size, start + cell, start + size)
            except (IndexError, struct.error, ValueError):
                continue  # These bytes are not a row.


def _row(content: bytes, size: int, place: int, end: int) -> tuple[int, list[Value]]:
    length, place = _varint(content, place)
    number, place = _varint(content, place)
    usable = size - content[20]
    local = _local(length, usable)
    payload = content[place : min(place + local, end)]
    if local < length:
        page = int.from_bytes(content[place + local : place + local + 4])
        while page and len(payload) < length:
            begin = (page - 1) * size
            page = int.from_bytes(content[begin : begin + 4])
            payload += content[begin + 4 : begin + usable]
    if len(payload) < length:
        raise ValueError("the row is truncated")
    return (number - 2**64 if number >= 2**63 else number), list(_columns(payload[:length]))


def _local(length: int, usable: int) -> int:
    """Returns how many bytes of a row are in its leaf; the rest is in a chain of pages."""
    if length <= usable - 35:
        return length
    least = (usable - 12) * 32 // 255 - 23
    most = least + (length - least) % (usable - 4)
    return most if most <= usable - 35 else least


def _columns(payload: bytes) -> Iterator[Value]:
    end, place = _varint(payload, 0)
    value = end
    while place < end:
        kind, place = _varint(payload, place)
        if kind in _INTEGERS:
            length = _INTEGERS[kind]
            yield int.from_bytes(payload[value : value + length], signed=True)
        elif kind == 7:
            length = 8
            yield struct.unpack(">d", payload[value : value + 8])[0]
        elif kind >= 12:
            length = (kind - 12) // 2
            yield payload[value : value + length]
        else:
            length = 0
            yield {0: None, 8: 0, 9: 1}[kind] if kind in (0, 8, 9) else None
        value += length


def _varint(content: bytes, place: int) -> tuple[int, int]:
    number = 0
    for index in range(8):
        byte = content[place + index]
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            return number, place + index + 1
    return number << 8 | content[place + 8], place + 9
