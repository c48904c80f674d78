"""Downloads a description from an address that the maintainer gives.

The server is not trusted: the size, the time and the redirects of a download are limited.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus

import httpx

from client_parts import ACCEPTED, InflateError, Inflater, coding_of, is_loopback
from regeneration import RegenerationError

#: The largest description, decompressed. Intercom's have 1.5 MB.
MAX_BYTES = 64 * 1024 * 1024
#: The timeouts for one network operation and for a whole download with its redirects.
_STEP_SECONDS = 60
_DOWNLOAD_SECONDS = 300
_MAX_REDIRECTS = 5
_LAST_PORT = 65_535
#: The parts of an address that can be secret: user and password; query and fragment.
_USER = re.compile(r"(?<=//)[^?#]*@")
_MORE = re.compile(r"[?#].*", re.DOTALL)


class DownloadError(RegenerationError):
    """A description could not be downloaded."""


class MissingError(DownloadError):
    """The server answered 404 or 410: there is nothing at the address."""


def is_address(location: str) -> bool:
    """Returns whether a location is an http(s) address and not a path."""
    return re.match(r"https?://", location, re.IGNORECASE) is not None


def shown(address: str) -> str:
    """Returns an address for messages: without user, password, query and fragment."""
    return _MORE.sub("?…", _USER.sub("", address))


def download(address: str) -> bytearray:
    """Downloads and decompresses the document at an address.

    Redirects are followed only to the same scheme, host and port.

    Args:
        address: An https address, or an http address of this machine.

    Raises:
        MissingError: There is nothing at this address.
        DownloadError: The server cannot be reached, the download takes too long or is too large, or
            the server redirects to another server.
    """
    try:
        return asyncio.run(_within_time(address))
    except TimeoutError as error:
        problem = f"it took longer than {_DOWNLOAD_SECONDS} s; try again later"
        raise DownloadError(f"{shown(address)}: cannot be fetched: {problem}") from error
    except DownloadError as error:
        raise type(error)(f"{shown(address)}: cannot be fetched: {error}") from error
    except (httpx.InvalidURL, UnicodeError) as error:
        # The messages of these errors repeat parts of the address.
        problem = "the address is not valid; check its spelling"
        raise DownloadError(f"{shown(address)}: cannot be fetched: {problem}") from error
    except (httpx.HTTPError, InflateError, ImportError, ValueError) as error:
        # httpx raises the last two if it cannot use a proxy that the environment names.
        problem = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DownloadError(f"{shown(address)}: cannot be fetched: {problem}") from error


async def _within_time(address: str) -> bytearray:
    # Asynchronous, because only then can a timeout end a wait for a name, a header or a byte.
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
            "the address must begin with https://, because data sent over http:// can be modified "
            "in transit"
        )
    # httpx would read the whole body of each redirect, however large.
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
                f"it redirects to another server, {shown(str(request.url))}; if you trust that "
                "server, pass its address"
            )
    raise DownloadError(f"it redirects more than {_MAX_REDIRECTS} times; pass the final address")


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    # httpx leaves out the default port of a scheme, so equal origins compare equal.
    return url.scheme, url.host, url.port


def _check_status(status: int) -> None:
    if 200 <= status <= 299:
        return
    try:
        problem = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        problem = str(status)
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise MissingError(f"{problem}; check the spelling of the address")
    raise DownloadError(f"{problem}; try again later, or pass another address")


async def _body(answer: httpx.Response) -> bytearray:
    """Reads an answer and decompresses it, up to the limit."""
    coding = coding_of(answer.headers.get_list("content-encoding"))
    inflater = None if coding is None else Inflater(coding)
    body = bytearray()
    # The raw bytes: httpx would decompress as many times as an answer says, and without a limit.
    async for chunk in answer.aiter_raw():
        for piece in [chunk] if inflater is None else inflater.feed(chunk):
            body += piece
            if len(body) > MAX_BYTES:
                raise DownloadError(
                    f"it must not be larger than {MAX_BYTES:,} bytes when decompressed; check that "
                    "the address is that of a description"
                )
    if inflater is not None:
        inflater.close()
    return body
