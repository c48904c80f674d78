"""Decompresses gzip and deflate in pieces of bounded size, so that a few bytes cannot fill memory.

It imports only the standard library, because answers, imported files and the scripts' descriptions
are all read with it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from intercom_data_events._validation import short_repr

#: Bytes of a decompressed piece.
PIECE = 64 * 1024
#: The value of ``Accept-Encoding``: what :class:`Inflater` can decompress.
ACCEPTED = "gzip, deflate"
# zlib's numbers for the formats, both with the largest window.
_WBITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
# Bytes that are given to zlib at once. It copies the rest of them after each piece and each member,
# which takes quadratic time.
_STEP = 4 * 1024


class InflateError(ValueError):
    """Compressed bytes are damaged, truncated, or in a coding that was not requested."""


def coding_of(values: Iterable[str]) -> str | None:
    """Returns the coding of a body; None if it is not compressed.

    Args:
        values: The values of all ``Content-Encoding`` headers.

    Raises:
        InflateError: There are several codings, or an unknown one.
    """
    named = [name.strip(" \t") for value in values for name in value.split(",")]
    codings = [name for name in named if name.lower() not in ("", "identity")]
    if not codings:
        return None
    if len(codings) > 1 or codings[0].lower() not in _WBITS:
        # Not in lower case, because an access token in it would not be found and removed.
        given = short_repr(", ".join(codings))
        raise InflateError(f"its Content-Encoding must be either gzip or deflate, not {given}")
    return codings[0].lower()


class Inflater:
    """Decompresses one body or file, a piece at a time.

    Args:
        coding: "gzip" (or "x-gzip"), of one or more members, or "deflate", with or without a
        header.
    """

    def __init__(self, coding: str = "gzip") -> None:
        self._coding = coding
        self._stream: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Takes the next bytes and yields what they decompress to, in pieces of at most `PIECE`.

        Iterate to the end before you feed more. Pieces may be empty. Each takes little time, so a
        caller that checks the clock after each can keep a time limit.

        Raises:
            InflateError: The bytes are damaged, or something else follows the last member.
        """
        for start in range(0, len(data), _STEP):
            yield from self._step(data[start : start + _STEP])

    def close(self) -> None:
        """Checks that the compressed bytes are complete.

        Raises:
            InflateError: They are truncated.
        """
        if self._stream is not None and not self._stream.eof:
            raise InflateError(f"truncated {self._coding} data")

    def _step(self, data: bytes) -> Iterator[bytes]:
        while True:
            if self._stream is None or self._stream.eof:
                # Zeros are padding; another member may follow them.
                data = data.lstrip(b"\0") if self._stream else data
                if not data:
                    return
                wbits = _WBITS[self._coding]
                # Observed: servers send deflate without zlib's header. The lower half of its first
                # byte is the method, 8.
                is_raw = self._coding == "deflate" and data[0] & 0x0F != 8
                self._stream = zlib.decompressobj(wbits=-wbits if is_raw else wbits)
            try:
                piece = self._stream.decompress(data, PIECE)
            except zlib.error as error:
                raise InflateError(f"damaged {self._coding} data") from error
            yield piece
            if self._stream.eof:
                data = self._stream.unused_data
            elif not (data := self._stream.unconsumed_tail) and len(piece) < PIECE:
                return
