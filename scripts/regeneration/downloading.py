"""Downloading a description from an address that a person names.

The server may send anything, for as long as it likes: the bytes, the time and the ways that it can
lead to are bounded before it is asked.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus

import httpx

from client_parts import ACCEPTED, InflateError, Inflater, coding_of, is_loopback
from regeneration import RegenerationError

#: Of a description, decompressed. Intercom's have 1.5 MB.
MAX_BYTES = 64 * 1024 * 1024
#: For one wait, and for all of a download with its redirects.
_STEP_SECONDS = 60
_DOWNLOAD_SECONDS = 300
_MAX_REDIRECTS = 5
_LAST_PORT = 65_535
#: What an address may have besides the place that it names: user and password, a query, a fragment.
_USER = re.compile(r"(?<=//)[^?#]*@")
_MORE = re.compile(r"[?#].*", re.DOTALL)


class DownloadError(RegenerationError):
    """A description cannot be fetched."""


class MissingError(DownloadError):
    """The server has nothing at an address: 404 or 410."""


def is_address(location: str) -> bool:
    """Whether a location is an http(s) address, and not a path."""
    return re.match(r"https?://", location, re.IGNORECASE) is not None


def shown(address: str) -> str:
    """Returns an address as messages name it: without user, password and query."""
    return _MORE.sub("?…", _USER.sub("", address))


def download(address: str) -> bytearray:
    """Returns what is at an address, decompressed.

    Redirects are followed on the same scheme, host and port alone.

    Args:
        address: An https address; http only where it leads to this machine.

    Raises:
        MissingError: There is nothing at this address.
        DownloadError: It cannot be reached, takes too long, is too large, or leads elsewhere.
    """
    try:
        return asyncio.run(_within_time(address))
    except TimeoutError as error:
        problem = f"it took longer than {_DOWNLOAD_SECONDS} s; try again later"
        raise DownloadError(f"{shown(address)}: cannot be fetched: {problem}") from error
    except DownloadError as error:
        raise type(error)(f"{shown(address)}: cannot be fetched: {error}") from error
    except (httpx.InvalidURL, UnicodeError) as error:
        # What these say repeats parts of the address.
        problem = "this is not an address; check its spelling"
        raise DownloadError(f"{shown(address)}: cannot be fetched: {problem}") from error
    except (httpx.HTTPError, InflateError, ImportError, ValueError) as error:
        # httpx raises the last two for proxies in the environment that it cannot use.
        problem = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DownloadError(f"{shown(address)}: cannot be fetched: {problem}") from error


async def _within_time(address: str) -> bytearray:
    # Awaited, since a wait for a name, a header or a byte can be ended from outside only so.
    async with asyncio.timeout(_DOWNLOAD_SECONDS):
        headers = {"Accept-Encoding": ACCEPTED}
        async with httpx.AsyncClient(timeout=_STEP_SECONDS, headers=headers) as client:
            return await _follow(client, client.build_request("GET", address))


async def _follow(client: httpx.AsyncClient, request: httpx.Request) -> bytearray:
    begin = request.url
    if not begin.host or (begin.port or 0) > _LAST_PORT:
        raise httpx.InvalidURL("there is no such host or port")
    if begin.scheme != "https" and not is_loopback(begin.host):
        raise DownloadError(
            "it must begin with https://, since others can change what http:// brings"
        )
    # Followed here, because httpx reads the bodies of redirects, however large.
    for _ in range(_MAX_REDIRECTS + 1):
        answer = await client.send(request, stream=True)
        try:
            if answer.next_request is None:
                _check_status(answer.status_code)
                return await _body(answer)
            request = answer.next_request
        finally:
            await answer.aclose()
        if _origin(request.url) != _origin(begin):
            raise DownloadError(
                f"it redirects to another server, {shown(str(request.url))}; if you trust that, "
                "pass its address instead"
            )
    raise DownloadError(f"it redirects more than {_MAX_REDIRECTS} times; pass the last address")


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    # httpx leaves out the port where it is the scheme's own.
    return url.scheme, url.host, url.port


def _check_status(status: int) -> None:
    if 200 <= status <= 299:
        return
    try:
        problem = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        problem = str(status)
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise MissingError(f"{problem}; check its spelling")
    raise DownloadError(f"{problem}; try again later, or pass another address")


async def _body(answer: httpx.Response) -> bytearray:
    """Reads an answer, of which no more than is allowed is decompressed."""
    coding = coding_of(answer.headers.get_list("content-encoding"))
    inflater = None if coding is None else Inflater(coding)
    body = bytearray()
    # As it was sent: httpx decompresses as often as an answer says, and without end.
    async for chunk in answer.aiter_raw():
        for piece in [chunk] if inflater is None else inflater.feed(chunk):
            body += piece
            if len(body) > MAX_BYTES:
                raise DownloadError(
                    f"it is larger than {MAX_BYTES:,} bytes, decompressed; Intercom's descriptions "
                    "are smaller"
                )
    if inflater is not None:
        inflater.close()
    return body
