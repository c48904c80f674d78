"""Requests as clients ordinarily send them, and replies to them, without httpx and h11.

Those know all of HTTP and take several times as long. What is not plain here is left to them; what
is plain is read and written as they would.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Protocol

import attrs
import httpx

from ._faults import Fault, faulty

_LINE = r"[0-9A-Za-z-]+: ?[!-~](?:[ -~]*[!-~])?\r\n"
_HEAD = re.compile(rf"(GET|POST) (/[!-~]*) HTTP/1\.1\r\n((?:{_LINE})+)\r\n".encode())
_FIELD = re.compile(r"([^:]+): ?(.*)\r\n")
_WRITABLE = re.compile(_LINE)
# What is longer is refused anyway.
_LENGTH = re.compile(r"[0-9]{1,9}")

_NOTHING: Mapping[str, Any] = MappingProxyType({})
# They change how a message ends, or what becomes of its connection.
_FRAMING = frozenset({"connection", "expect", "transfer-encoding", "upgrade"})


class Asked(Protocol):
    """What the emulator looks at in a request, which may be httpx's."""

    @property
    def method(self) -> str:
        """In capitals."""
        ...

    @property
    def url(self) -> httpx.URL:
        """Where the request came to."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """By their names in small letters, whatever else finds them, too."""
        ...

    @property
    def content(self) -> bytes:
        """The body."""
        ...

    @property
    def extensions(self) -> Mapping[str, Any]:
        """Has "truncated" where the body was too long to be read."""
        ...


@attrs.frozen
class PlainHead:
    """The head of a plain request.

    Attributes:
        method: GET or POST.
        target: A path, and a query if there is one.
        fields: The headers as they were written.
        headers: The headers by their names in small letters.
        begin: Where the body begins in what was received.
        end: Where it ends, and the next request begins.
    """

    method: str
    target: bytes
    fields: list[tuple[str, str]]
    headers: Mapping[str, str]
    begin: int
    end: int


@attrs.frozen
class PlainRequest:
    """A plain request, whole."""

    head: PlainHead
    url: httpx.URL
    content: bytes

    @property
    def method(self) -> str:
        """GET or POST."""
        return self.head.method

    @property
    def headers(self) -> Mapping[str, str]:
        """By their names in small letters."""
        return self.head.headers

    @property
    def extensions(self) -> Mapping[str, Any]:
        """Nothing is to be said of it."""
        return _NOTHING

    def as_httpx(self) -> httpx.Request:
        """The same for those who know httpx's requests only."""
        return httpx.Request(self.method, self.url, headers=self.head.fields, content=self.content)


@attrs.frozen
class Reply:
    """What the emulator replies, and the fault that befalls it on its way."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    fault: Fault | None

    def as_httpx(self, request: httpx.Request) -> httpx.Response:
        """The same as httpx has it, as the fault leaves it."""
        response = httpx.Response(
            self.status, headers=self.headers, content=self.content, request=request
        )
        return response if self.fault is None else faulty(self.fault, response)


def read_head(received: bytes) -> PlainHead | None:
    """The head with which this begins, or None where it is not whole, or not plain."""
    if (found := _HEAD.match(received)) is None:
        return None
    method, target, lines = found.groups()
    fields: list[tuple[str, str]] = _FIELD.findall(lines.decode())
    headers = {name.lower(): value for name, value in fields}
    framing = _FRAMING.intersection(headers)
    # HTTP/1.1 does so anyway.
    if framing == {"connection"} and headers["connection"].lower() == "keep-alive":
        framing = frozenset()
    length = headers.get("content-length", "0")
    repeated = len(headers) < len(fields)
    if framing or repeated or "host" not in headers or not _LENGTH.fullmatch(length):
        return None
    begin = found.end()
    return PlainHead(method.decode(), target, fields, headers, begin, begin + int(length))


def write_reply(reply: Reply) -> bytes | None:
    """The whole reply to a plain request, or None where it is not plain."""
    if reply.fault is not None:
        return None
    lines = [f"{name}: {value}\r\n" for name, value in reply.headers.items()]
    if not all(map(_WRITABLE.fullmatch, lines)):
        return None
    # Of an empty body h11 says so in this way.
    end = f"Content-Length: {len(reply.content)}\r\n\r\n"
    if not reply.content:
        end = "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    return f"{_status_line(reply.status)}{''.join(lines)}{end}".encode() + reply.content


@lru_cache
def _status_line(status: int) -> str:
    return f"HTTP/1.1 {status} {httpx.codes.get_reason_phrase(status)}\r\n"
