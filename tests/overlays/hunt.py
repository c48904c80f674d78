"""Makes every failure there is, and looks for the access token in all that a failure shows.

A *failure* is a function that yields exceptions; a new one is one line, or a function with a
decorator. An *observer* returns what it sees of an exception, or of what was logged. As a program,
this prints what Sentry would be sent, with its defaults, that has the token in it, of all failures
or of those named; its exit code is 1 if there is any.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import html
import json
import logging
import os
import pickle
import re
import secrets
import sqlite3
import ssl
import sys
import tempfile
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote, unquote

import anyio
import httpx
import httpx2
import trustme
from callers import Refusing
from raw_server import Connection, RawServer

import intercom_data_events
from intercom_data_events import (
    AsyncDataEventsClient,
    Clock,
    DataEventsClient,
    Event,
    IntercomError,
)
from intercom_data_events.emulator import Emulator, Fault
from intercom_data_events.outbox import _binding
from intercom_data_events.tracker import AsyncTracker, Tracker

#: Made anew each time, so that no line of source has it. It ends with what is escaped somewhere.
TOKEN = f"dG9rOm{secrets.token_hex(16)}/+_:-.&<'\"%\\="
#: The password of a proxy.
PASSWORD = secrets.token_urlsafe(24)
# Characters of a part that gives a secret away.
_PART = 16
_OURS = str(Path(intercom_data_events.__path__[0]))
_TESTS = str(Path(__file__).parent)
_SECRETS = (
    TOKEN,
    PASSWORD,
    base64.b64encode(f"me:{PASSWORD}".encode()).decode(),
)
_PARTS = [one[at : at + _PART] for one in _SECRETS for at in range(len(one) - _PART + 1)]

#: How a server may write what it repeats.
ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "plain": str.encode,
    "JSON": lambda text: json.dumps(text)[1:-1].encode(),
    "JSON of PHP": lambda text: json.dumps(text)[1:-1].replace("/", "\\/").encode(),
    "JSON of Rails": lambda text: (
        json.dumps(text)[1:-1].replace("&", "\\u0026").replace("<", "\\u003c").encode()
    ),
    "JSON of the last character": lambda text: f"{text[:-8]}{_units(text[-8:])}".encode(),
    "JSON of all": lambda text: _units(text).encode(),
    "JSON in capitals": lambda text: _units(text).upper().replace("\\U", "\\u").encode(),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1].encode(),
    "a string of JavaScript": lambda text: "".join(f"\\x{ord(c):02x}" for c in text).encode(),
    "a URL": lambda text: quote(text, safe="").encode(),
    "a URL in small letters": lambda text: "".join(f"%{ord(c):02x}" for c in text).encode(),
    "a URL in a URL": lambda text: quote(quote(text, safe=""), safe="").encode(),
    "HTML": lambda text: html.escape(text).encode(),
    "HTML of numbers": lambda text: "".join(f"&#{ord(c)};" for c in text).encode(),
    "HTML of hexadecimal numbers": lambda text: "".join(f"&#x{ord(c):X};" for c in text).encode(),
    "HTML of names": lambda text: (
        html.escape(text).replace("=", "&equals;").replace("/", "&sol;").replace("+", "&plus;")
    ).encode(),
    "HTML in HTML": lambda text: html.escape(html.escape(text).replace("=", "&#61;")).encode(),
    "HTML in JSON": lambda text: html.escape(text).replace("&", "\\u0026").encode(),
    "HTML in a URL": lambda text: quote("".join(f"&#{ord(c)};" for c in text), safe="").encode(),
    "a repr": lambda text: repr(text.encode()).encode(),
    "its beginning": lambda text: text[:20].encode(),
    "its beginning as JSON": lambda text: _units(text)[:-17].encode(),
}
#: Of whole bodies, also between other letters.
WIDE = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")


def _units(text: str) -> str:
    return "".join(f"\\u{ord(c):04x}" for c in text)


def _plain(text: str) -> str:
    """Undoes every encoding, one in another, too."""
    before = None
    text = text.replace("\0", "").replace("\\x00", "")
    while text != before:
        before = text
        text = re.sub(r"\\+u([0-9a-fA-F]{4})", lambda one: chr(int(one[1], 16)), text)
        text = re.sub(r"\\+x([0-9a-fA-F]{2})", lambda one: chr(int(one[1], 16)), text)
        text = re.sub(r"\\+([/\"'\\])", r"\1", text)
        text = html.unescape(unquote(text))
    return text


def given_away(shown: str) -> bool:
    """Whether a text shows a secret, or a part of one that is long enough."""
    if _PARTS[0][:6] not in shown and not re.search(r"[\\%&\0]", shown):
        return any(part in shown for part in _PARTS)
    return any(part in text for text in (shown, _plain(shown)) for part in _PARTS)


# The failures.

FAILURES: dict[str, Callable[[], Iterator[BaseException]]] = {}


def failure(make: Callable[[], Iterator[BaseException]]) -> Callable[[], Iterator[BaseException]]:
    """Adds a function that yields exceptions to the failures."""
    FAILURES[make.__name__] = make
    return make


def caught(function: Callable[..., object], *arguments: Any, **options: Any) -> BaseException:
    """The exception of a call, which must fail; what it returns is awaited, or iterated."""
    try:
        found = function(*arguments, **options)
        if asyncio.iscoroutine(found):
            anyio.run(lambda: found)
        elif isinstance(found, intercom_data_events.EventList):
            list(found)
    except BaseException as error:  # noqa: BLE001  # interrupts are meant, too
        return error
    raise AssertionError(f"{function} has not failed")


async def acaught(function: Callable[..., Any], *arguments: Any, **options: Any) -> BaseException:
    """The awaiting twin."""
    try:
        await function(*arguments, **options)
    except Exception as error:  # noqa: BLE001  # whatever it is
        return error
    raise AssertionError(f"{function} has not failed")


def event(user: str) -> Event:
    return Event("placed-order", user_id=user, created_at=1_700_000_000)


# Failures of settings.

WRONG = {
    "version": "yesterday",
    "region": "mars",
    "base_url": "ftp://nowhere",
    "timeout": -1,
    "deadline": 0,
    "max_retries": -1,
    "pace": 1,
    "quota_share": 2,
    "headers": {"Authorization": f"Bearer {TOKEN}"},
    "enabled": "on",
    "transport": object(),
    "http_client": object(),
    "clock": 1,
    "allow_http": 1,
}


@failure
def wrong_settings() -> Iterator[BaseException]:
    for kind in (DataEventsClient, AsyncDataEventsClient):
        for name, value in WRONG.items():
            yield caught(kind, TOKEN, **{name: value})
        yield caught(kind, TOKEN, base_url="http://elsewhere.example")
        yield caught(kind, TOKEN, headers={"X-Token": f"{TOKEN}\n"})
        yield caught(kind, TOKEN, headers={"X-Token": TOKEN, "X": 1})
        yield caught(kind, TOKEN, no_such_setting=1)
        for name in ("VERSION", "REGION", "BASE_URL", "ALLOW_HTTP", "DISABLED"):
            with mock.patch.dict(os.environ, {f"INTERCOM_{name}": "wrong"}):
                yield caught(kind, TOKEN)
        for name in ("version", "timeout", "deadline", "max_retries", "pace", "headers"):
            yield caught(kind(TOKEN).with_options, **{name: WRONG[name]})


class _Text(str):
    """A token of a class of its own."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"token {self}"

    __str__ = str.__str__


WRONG_TOKENS = [
    f"{TOKEN}\n",
    f"\ufeff{TOKEN}",
    f"{TOKEN} ",
    f"{TOKEN}é",
    TOKEN.encode(),
    [TOKEN],
    (TOKEN, TOKEN),
    {"token": TOKEN},
    _Text(f"{TOKEN}\n"),
    Path(TOKEN),
]


@failure
def wrong_tokens() -> Iterator[BaseException]:
    for kind in (DataEventsClient, AsyncDataEventsClient):
        for token in WRONG_TOKENS:
            yield caught(kind, token)
            yield caught(kind, access_token=token)
        with mock.patch.dict(os.environ, INTERCOM_ACCESS_TOKEN=f"{TOKEN}\n"):
            yield caught(kind)


def _fails(error: BaseException, *_: object) -> str:
    token = TOKEN  # noqa: F841  # a caller's function holds it like this
    raise error


async def _afails(error: BaseException, *_: object) -> str:
    token = TOKEN  # noqa: F841  # as above
    raise error


class UnshowableError(OSError):
    """A caller's error that cannot be shown."""

    def __str__(self) -> str:
        return "down"

    def __repr__(self) -> str:
        raise TypeError("no repr")


def _done(token: object) -> asyncio.Future[object]:
    future = asyncio.get_running_loop().create_future()
    future.set_result(token)
    return future


@failure
def functions_for_tokens() -> Iterator[BaseException]:
    transport = Emulator().transport()
    functions: list[Callable[[], Any]] = [
        *(functools.partial(lambda token: token, token) for token in WRONG_TOKENS),
        functools.partial(_fails, OSError("no such file")),
        functools.partial(_fails, httpx.ConnectError("down")),
        functools.partial(_fails, KeyError("token"), TOKEN),
        functools.partial(os.stat, "nowhere"),
    ]
    for function in functions:
        with DataEventsClient(function, transport=transport, max_retries=0) as client:
            yield caught(client.create, "a", user_id="1")
    with DataEventsClient(functools.partial(_afails, OSError()), transport=transport) as client:
        yield caught(client.create, "a", user_id="1")
    functions += [
        functools.partial(_afails, OSError("no such file")),
        functools.partial(_afails, httpx.ConnectError("down")),
        functools.partial(_afails, KeyError("token"), TOKEN),
        functools.partial(_done, f"{TOKEN}\n"),
        functools.partial(anyio.sleep_forever),
    ]

    async def run() -> list[BaseException]:
        found = []
        for function in functions:
            options = {"transport": transport, "max_retries": 0, "timeout": 0.01}
            async with AsyncDataEventsClient(function, **options) as client:
                found.append(await acaught(client.create, "a", user_id="1"))
        return found

    yield from anyio.run(run)


# Failures of requests: what a server answers, by the id of the contact.


def answer(
    status: str = "401 Unauthorized", body: bytes = b"", headers: bytes = b"", length: int = 0
) -> bytes:
    """A whole answer, or one that is cut off, with a length."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {length or len(body)}\r\n"
    return head.encode() + headers + b"\r\n" + body


def listed(text: bytes) -> bytes:
    """Intercom's own list of errors, which repeats a text."""
    parts = (b'{"type":"error.list","request_id":"', b'","errors":[{"code":"', b'","message":"')
    return b"".join((parts[0], text, parts[1], text, parts[2], text, b'","field":"', text, b'"}]}'))


ANSWERS: dict[str, Callable[[bytes], bytes]] = {
    "list": lambda text: answer(body=listed(text)),
    "page": lambda text: answer("502 x", b"<html><h1>No token " + text + b"</h1></html>"),
    "text": lambda text: answer("404 x", b"x" * 480 + text),
    "problem": lambda text: answer("400 x", b'{"title": "' + text + b'", "detail": {"a": 1}}'),
    "reason": lambda text: answer(f"403 {text.decode()}"),
    "header": lambda text: answer(headers=b"X-Echo: " + text + b"\r\n"),
    "name": lambda text: answer(headers=b"X-" + re.sub(rb"[^\w]", b"-", text) + b": 1\r\n"),
    "known": lambda text: answer(
        "429 x",
        headers=b"".join(
            name + b": " + text + b"\r\n"
            for name in (b"X-Request-Id", b"Retry-After", b"Intercom-Version", b"Location", b"Date")
        ),
    ),
    "moved": lambda text: answer("302 x", headers=b"Location: https://" + text + b"/\r\n"),
    "cut": lambda text: answer(body=listed(text), length=10_000),
    "cut success": lambda text: answer("200 OK", listed(text), length=10_000),
    "success": lambda text: answer("200 OK", b"<h1>" + text + b"</h1>"),
    "success of errors": lambda text: answer("200 OK", listed(text)),
    "success of another type": lambda text: answer("200 OK", b'["' + text + b'"]'),
    "success of odd events": lambda text: answer("200 OK", b'{"events": "' + text + b'"}'),
    "no status": lambda text: b"HTTP/1.1 " + text + b"\r\n\r\n",
    "no HTTP": lambda text: text + b"\r\n\r\n",
    "no header": lambda text: b"HTTP/1.1 200 OK\r\n" + text + b"\r\n\r\n",
    "odd header": lambda text: b"HTTP/1.1 200 OK\r\nA b: " + text + b"\r\n\r\n",
    "odd length": lambda text: b"HTTP/1.1 200 OK\r\nContent-Length: " + text + b"\r\n\r\n",
    "odd chunk": lambda text: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + text + b"\r\n\r\n"
    ),
    "success of an odd coding": lambda text: answer(
        "200 OK", b"{}", b"Content-Encoding: " + text + b"\r\n"
    ),
    "success that is damaged": lambda text: answer("200 OK", text, b"Content-Encoding: gzip\r\n"),
    "nothing": lambda _: b"",
}


def repeating(connection: Connection) -> None:
    """Answers as the contact's id says, with the token of the request."""
    while True:
        request = connection.request()
        text = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        connection.send(ANSWERS[request.user_id or ""](text))
        if request.user_id not in ("list", "page", "text", "header", "success"):
            return


def without_tls(connection: Connection) -> None:
    """Answers a handshake in HTTP."""
    connection.await_bytes()
    connection.send(answer("400 Bad Request"))


def silent(connection: Connection) -> None:
    """Reads a request, and answers nothing."""
    connection.request()
    connection.hold()


def blocking(**options: Any) -> Callable[..., list[BaseException]]:
    """A sender through a blocking client."""

    def run(users: list[str], **more: Any) -> list[BaseException]:
        made = {name: make() for name, make in options.items()}
        with DataEventsClient(TOKEN, max_retries=0, **made, **more) as client:
            return [
                caught(call, user) for user in users for call in (_created(client), _read(client))
            ]

    return run


def _created(client: Any) -> Callable[[str], Any]:
    # Of a known success, an event is not read; so what fails as one is read.
    def create(user: str) -> Any:
        if user.startswith("success"):
            return client.summary(user_id=user)
        return client.create("placed-order", user_id=user)

    return create


def _read(client: Any) -> Callable[[str], Any]:
    return lambda user: client.contact(user_id=user).summary()


def awaiting(backend: str, **options: Any) -> Callable[..., list[BaseException]]:
    """A sender through an async client."""

    async def run(users: list[str], more: dict[str, Any]) -> list[BaseException]:
        made = {name: make() for name, make in options.items()}
        async with AsyncDataEventsClient(TOKEN, max_retries=0, **made, **more) as client:
            return [
                await acaught(call, user)
                for user in users
                for call in (_created(client), _read(client))
            ]

    return lambda users, **more: anyio.run(run, users, more, backend=backend)


def fast(users: list[str], **more: Any) -> list[BaseException]:
    """A sender through create_many, and so through aiohttp."""

    async def run() -> list[BaseException]:
        found: list[BaseException] = []
        async with AsyncDataEventsClient(TOKEN, max_retries=0, **more) as client:
            for user in users:
                if user.startswith("success"):
                    continue  # Whatever the body of a success, the event is accepted.
                outcomes = client.create_many([event(user)])
                try:
                    found += [one.error async for one in outcomes if one.error is not None]
                except IntercomError as error:
                    found.append(error)
        return found

    return anyio.run(run)


SENDERS: dict[str, Callable[..., list[BaseException]]] = {
    "blocking": blocking(),
    "asyncio": awaiting("asyncio"),
    "trio": awaiting("trio"),
    "http_client of httpx2": blocking(http_client=httpx2.Client),
    "async http_client": awaiting("asyncio", http_client=httpx.AsyncClient),
    "transport": blocking(transport=httpx.HTTPTransport),
    "fast": fast,
}


@functools.cache
def untrusted() -> ssl.SSLContext:
    """The TLS context of a server whose certificate nothing trusts."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


def _sender(name: str, send: Callable[..., list[BaseException]]) -> None:
    def answers() -> Iterator[BaseException]:
        with RawServer(repeating) as server:
            yield from send(list(ANSWERS), base_url=server.url)

    def proxies() -> Iterator[BaseException]:
        with RawServer(repeating) as server, RawServer(refusing_tunnels) as refusing:
            address = server.url.replace("://", f"://me:{PASSWORD}@")
            asked = refusing.url.replace("://", f"://me:{PASSWORD}@")
            own = {"HTTP_PROXY": address, "HTTPS_PROXY": asked, "NO_PROXY": ""}
            with mock.patch.dict(os.environ, own):
                yield from send(list(ANSWERS), base_url="http://a.test", allow_http=True)
                yield from send(["list"], base_url="https://a.test")
            wrong = {"HTTP_PROXY": f"http://me:{PASSWORD}@ho st:1", "NO_PROXY": ""}
            with mock.patch.dict(os.environ, wrong):
                yield from send(["list"], base_url="http://a.test", allow_http=True)

    def connections() -> Iterator[BaseException]:
        with Refusing() as url:
            yield from send(["list"], base_url=url)
        with RawServer(silent) as server:
            yield from send(["list"], base_url=server.url, timeout=0.05)
        with RawServer(lambda one: one.start_tls(untrusted()), scheme="https") as server:
            yield from send(["list"], base_url=server.url)
        with RawServer(without_tls, scheme="https") as server:
            yield from send(["list"], base_url=server.url)

    FAILURES[f"answers through {name}"] = answers
    FAILURES[f"connections through {name}"] = connections
    if "http_client" not in name and name != "transport":
        FAILURES[f"proxies of {name}"] = proxies


def refusing_tunnels(connection: Connection) -> None:
    """A proxy that lets nothing through, and repeats its password."""
    given = connection.request().headers.get("proxy-authorization", "")
    connection.send(answer(f"407 {given}", given.encode(), f"X-Echo: {given}\r\n".encode()))


for _name, _send in SENDERS.items():
    _sender(_name, _send)


@failure
def encodings() -> Iterator[BaseException]:
    def client(status: int, text: bytes, body: bytes) -> DataEventsClient:
        headers = {"X-Echo": text, "X-Request-Id": text}
        # Made anew each time, as reading uses it up.
        transport = httpx.MockTransport(
            lambda _: httpx.Response(status, headers=headers, content=body)
        )
        return DataEventsClient(TOKEN, transport=transport, max_retries=0)

    for encode in ENCODINGS.values():
        text = encode(TOKEN)
        for body in (listed(text), b"<h1>Bearer " + text + b"</h1>", text):
            yield caught(client(400, text, body).create, "a", user_id="1")
            yield caught(client(502, text, body).summary, user_id="1")
            yield caught(client(200, text, body).list, user_id="1")
    for wide in WIDE:
        for encode in (ENCODINGS["JSON"], ENCODINGS["JSON of all"]):
            body = listed(encode(TOKEN)).decode().encode(wide)
            yield caught(client(400, b"", body).create, "a", user_id="1")
            yield caught(client(200, b"", body).list, user_id="1")


# Failures of the caller's own code.


@failure
def hooks_and_transports() -> Iterator[BaseException]:
    def told(request: httpx.Request) -> httpx.Response:
        text = request.headers["authorization"].encode()
        return httpx.Response(401, headers={"X-Echo": text}, content=listed(text))

    def quotes(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError(f"{request.headers['authorization']}", request=request)

    def chained(request: httpx.Request) -> httpx.Response:
        try:
            quotes(request)
        except httpx.ReadError as error:
            inner = ExceptionGroup("both", [error, OSError(request.headers["authorization"])])
            raise httpx.ConnectError("down", request=request) from inner
        raise AssertionError

    def noted(request: httpx.Request) -> httpx.Response:
        error = OSError("down")
        error.add_note(request.headers["authorization"])
        raise error

    def another(response: httpx.Response) -> None:
        request = httpx.Request("GET", "https://a.test", headers=response.request.headers)
        httpx.Response(500, request=request, content=TOKEN.encode()).raise_for_status()

    hooks: list[tuple[str, Callable[..., Any]]] = [
        ("response", lambda one: one.raise_for_status()),
        ("response", lambda one: (one.read(), one.raise_for_status())),
        ("response", another),
        ("response", lambda _: _fails(RuntimeError("a hook"))),
        ("request", lambda _: _fails(RuntimeError("a hook"))),
        ("request", lambda _: _fails(IntercomError("a hook"))),
        ("request", quotes),
    ]
    for place, hook in hooks:
        transport = httpx.MockTransport(told)
        with httpx.Client(transport=transport, event_hooks={place: [hook]}) as own:
            client = DataEventsClient(TOKEN, http_client=own, max_retries=0)
            yield caught(client.create, "a", user_id="1")
            yield from _tracked(http_client=own)
    handles = (
        quotes,
        chained,
        noted,
        lambda _: _fails(RuntimeError("a transport")),
        lambda _: _fails(UnshowableError(TOKEN)),
    )
    for handle in handles:
        client = DataEventsClient(TOKEN, transport=httpx.MockTransport(handle), max_retries=0)
        yield caught(client.create, "a", user_id="1")
        yield from _tracked(transport=httpx.MockTransport(handle))


# Interruptions in the middle of an answer.


class Interrupting(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that repeats the token, and is interrupted."""

    def __init__(self, text: bytes, error: BaseException) -> None:
        self._text, self._error = text, error

    def __iter__(self) -> Iterator[bytes]:
        yield self._text
        raise self._error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._text
        raise self._error


class Interrupted(Clock):
    """A clock at which Ctrl-C comes when it was asked so often."""

    def __init__(self, left: int) -> None:
        self._left = left

    def monotonic(self) -> float:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        return super().monotonic()


@failure
def interruptions() -> Iterator[BaseException]:
    text = TOKEN.encode()
    for interruption in (KeyboardInterrupt(), SystemExit(), RuntimeError("a stream")):
        given = {"stream": Interrupting(text, interruption), "extensions": {"reason_phrase": text}}
        transport = httpx.MockTransport(lambda _, given=given: httpx.Response(500, **given))
        with DataEventsClient(TOKEN, transport=transport) as client:
            yield caught(client.create, "a", user_id="1")
    with RawServer(repeating) as server:
        for turn in range(40):
            clock = Interrupted(turn)
            with DataEventsClient(
                TOKEN, base_url=server.url, clock=clock, max_retries=0, deadline=9
            ) as client:
                error = caught(client.create, "a", user_id="list")
                yield error
                if not isinstance(error, KeyboardInterrupt):
                    break


@failure
def cancellations() -> Iterator[BaseException]:
    def half(connection: Connection) -> None:
        text = connection.request().headers["authorization"].encode()
        connection.send(
            answer(f"500 {text.decode()}", listed(text), b"X-A: " + text + b"\r\n", 10_000)
        )
        connection.server.tell("half")
        connection.hold()

    async def run(kind: str, url: str, server: RawServer, found: list[BaseException]) -> None:
        async def call() -> None:
            client = AsyncDataEventsClient(
                TOKEN, base_url=url, **({"http_client": own} if kind == "own" else {})
            )
            try:
                if kind == "fast":
                    async for _ in client.create_many([event("1")]):
                        pass
                else:
                    await client.create("a", user_id="1")
            except BaseException as error:
                found.append(error)
                raise

        async with httpx.AsyncClient() as own, anyio.create_task_group() as group:
            group.start_soon(call)
            await anyio.to_thread.run_sync(server.wait, "half")
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()

    for kind, backend in (("", "asyncio"), ("", "trio"), ("own", "asyncio"), ("fast", "asyncio")):
        found: list[BaseException] = []
        with RawServer(half) as server:
            anyio.run(run, kind, server.url, server, found, backend=backend)
        assert found
        yield from found


# Failures around the client.


def _tracked(**options: Any) -> Iterator[BaseException]:
    """The errors that a tracker tells."""
    told: list[BaseException] = []
    client = DataEventsClient(TOKEN, max_retries=0, **options)
    tracker = Tracker(client, on_error=lambda _, error: told.append(error), close_timeout=0)
    tracker.track("placed-order", user_id="1")
    tracker.flush(timeout=0.05)
    tracker.close()
    yield from told
    if (failing := tracker.counters.failing) is not None:
        yield RuntimeError(failing)


@failure
def outboxes() -> Iterator[BaseException]:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "text").write_text("not a database, but a text that is long enough for one" * 99)
        with sqlite3.connect(folder / "other") as other:
            other.execute("CREATE TABLE a (b)")
        other.close()
        client = DataEventsClient(TOKEN, transport=Emulator().transport())
        async_client = AsyncDataEventsClient(TOKEN, transport=Emulator().transport())
        bound = folder / "bound"
        down = Emulator(faults=[Fault.reset()] * 99).transport()
        with Tracker(
            DataEventsClient(TOKEN, transport=down), outbox=bound, close_timeout=0
        ) as tracker:
            tracker.track("placed-order", user_id="1")
        strange = DataEventsClient(f"{TOKEN[::-1]}", transport=Emulator().transport())
        places = (folder, folder / "no" / "such", folder / "text", folder / "other")
        for place in places:
            yield caught(Tracker, client, outbox=place)
            yield caught(_opened, async_client, outbox=place)
            yield caught(Tracker, TOKEN, outbox=place)
            yield caught(_binding.Binding("https://a.test", TOKEN).bind, None, place, 1.0)  # type: ignore[arg-type]
        yield caught(Tracker, strange, outbox=bound)
        yield caught(Tracker, client, outbox=bound, workspace="\ud800")
        for name, value in {
            "outbox": 1, "workspace": 1, "concurrency": 0, "max_queued": 0, "when_full": 1,
            "on_error": 1, "before_send": 1, "metadata": 1, "meter_provider": 1,
            "unknown_contact_patience": "x",
        }.items():  # fmt: skip
            yield caught(Tracker, client, **{name: value})
        with mock.patch.object(os, "urandom", side_effect=OSError("no entropy")):
            yield caught(Tracker, client, outbox=folder / "new")


async def _opened(client: Any, **options: Any) -> None:
    async with AsyncTracker(client, **options):
        pass


@failure
def tasks_of_celery() -> Iterator[BaseException]:
    from celery import Celery

    from intercom_data_events.celery import send_event

    app = Celery("shop", broker="memory://")
    app.conf.task_always_eager = True
    faults = [Fault.reset()] * 99
    for options in (
        {"access_token": f"{TOKEN}\n"},
        {"access_token": TOKEN, "no_such_setting": 1},
        {"access_token": TOKEN, "timeout": -1},
        {"access_token": TOKEN, "max_retries": 0, "transport": Emulator(faults=faults).transport()},
        [TOKEN],
    ):
        app.conf.intercom_data_events = options
        send = app.tasks[send_event.name]
        send.__dict__.pop("_client", None)
        with contextlib.suppress(AttributeError):
            del send._client
        yield caught(send, event("1"))
        yield send.apply((event("1"),)).result
    send.__dict__.pop("_client", None)


@failure
def commands() -> Iterator[BaseException]:
    from intercom_data_events.cli import app

    failed: list[BaseException] = []

    def note(error: BaseException, **_: object) -> int:
        failed.append(error)
        return 1

    with (
        tempfile.TemporaryDirectory() as made,
        RawServer(repeating) as server,
        mock.patch.object(app, "_failed", note),
        mock.patch.dict(os.environ, INTERCOM_BASE_URL=server.url),
    ):
        events, journal = Path(made, "events.ndjson"), Path(made, "journal")
        lines = json.dumps({"event_name": "a", "user_id": "list", "created_at": 1_700_000_000})
        events.write_text(f"{lines}\n")
        outbox = str(Path(made, "outbox"))
        Tracker(DataEventsClient(f"other{TOKEN}"), outbox=outbox).close(timeout=0)
        for token in (TOKEN, f"{TOKEN}\n"):
            with mock.patch.dict(os.environ, INTERCOM_ACCESS_TOKEN=token):
                for command in (
                    ["list", "--user-id", "success", "--max-retries", "0"],
                    ["summary", "--user-id", "page", "--max-retries", "0"],
                    ["track", "a", "--user-id", "list", "--max-retries", "0"],
                    ["import", str(events), "--journal", str(journal), "--max-retries", "0"],
                    ["import", str(events), "--journal", str(journal), "--deadline", "0"],
                    ["import", str(events), "--journal", made],
                    ["outbox", "drain", outbox, "--max-time", "0"],
                    ["outbox", "drain", made],
                ):
                    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
                        app.run(command)
    assert len(failed) > 9
    yield from failed


# The observers.


def chain(error: BaseException | None, seen: set[int] | None = None) -> Iterator[BaseException]:
    """An exception and all that led to it."""
    seen = set() if seen is None else seen
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    yield error
    for one in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())):
        yield from chain(one, seen)


def matters(file: str, *, whole: bool) -> bool:
    """Whether a frame may not show the token: one of ours, or, of our errors, any but a test's."""
    return file.startswith(_OURS) or (whole and not file.startswith(_TESTS))


def frames(error: BaseException) -> Iterator[str]:
    """The local variables of the frames."""
    whole = isinstance(error, IntercomError)
    waiting = [traceback.TracebackException.from_exception(error, capture_locals=True)]
    # Sentry shows the items of mappings and sequences, whatever their repr is.
    for one in chain(error):
        for frame, line in traceback.walk_tb(one.__traceback__):
            if matters(frame.f_code.co_filename, whole=whole):
                where = f"{frame.f_code.co_filename}:{line} {frame.f_code.co_qualname}"
                for name, value in frame.f_locals.items():
                    yield f"{where} {name} = {_opened_up(value)}"
    while waiting:
        one = waiting.pop()
        for frame in one.stack:
            if matters(frame.filename, whole=whole):
                yield f"{frame.filename}:{frame.lineno} {frame.name} {frame.locals}"
        waiting += [found for found in (one.__cause__, one.__context__) if found is not None]
        waiting += getattr(one, "exceptions", None) or []


def _opened_up(value: object, depth: int = 0) -> str:
    if depth < 5 and isinstance(value, dict):
        items = (f"{key!r}: {_opened_up(one, depth + 1)}" for key, one in value.items())
        return ", ".join(items)
    if depth < 5 and isinstance(value, list | tuple | set | frozenset):
        return ", ".join(_opened_up(one, depth + 1) for one in value)
    return repr(value)


def words(error: BaseException) -> Iterator[str]:
    """What our errors, and what led to them, say and hold."""
    if not isinstance(error, IntercomError):
        return
    for one in chain(error):
        yield f"{type(one).__name__}: {one} {one!r} {one.args} {vars(one)}"
        response: Any = getattr(one, "response", None)
        if response is not None:
            yield f"{response!r} {response.headers.multi_items()} {response.headers.raw!r}"
            if isinstance(one, IntercomError) or response.is_stream_consumed:
                yield f"{response.content!r}"
                yield response.text
        request: Any = getattr(one, "_request", None)
        if request is not None:
            yield f"{request.headers.raw!r} {request.url}"
    yield "".join(traceback.format_exception(error))


def pickles(error: BaseException) -> Iterator[str]:
    """The pickle of an error of ours, and what is read of it."""
    if isinstance(error, IntercomError):
        pickled = pickle.dumps(error)
        yield pickled.decode("latin-1")
        yield from words(pickle.loads(pickled))


OBSERVERS = (frames, words, pickles)


class Records(logging.Handler):
    """Keeps what was logged."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{self.format(record)} {record.args!r} {record.exc_info!r}")


@contextlib.contextmanager
def all_logged() -> Iterator[list[str]]:
    """The lines that the package and Celery log meanwhile, from DEBUG on."""
    records = Records()
    loggers = [logging.getLogger(name) for name in ("intercom_data_events", "celery")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(records)
        logger.setLevel(logging.DEBUG)
    try:
        yield records.lines
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(records)
            logger.setLevel(level)


def _trim(error: BaseException) -> None:
    """Removes the frames of tests from the beginning, because showing them takes long."""
    while error.__traceback__ is not None:
        if not error.__traceback__.tb_frame.f_code.co_filename.startswith(_TESTS):
            return
        error.__traceback__ = error.__traceback__.tb_next


def findings(
    make: Callable[[], Iterator[BaseException]],
    observers: tuple[Callable[[BaseException], Iterator[str]], ...] = OBSERVERS,
) -> tuple[int, list[str]]:
    """How many exceptions a failure has, and what shows the token of them."""
    number, found = 0, []
    with all_logged() as lines:
        for error in make():
            number += 1
            _trim(error)
            for observe in observers:
                found += [
                    f"{observe.__name__} of {type(error).__name__}: {shown[:2000]}"
                    for shown in observe(error)
                    if given_away(shown)
                ]
    return number, found + [f"logged: {line}" for line in lines if given_away(line)]


# Sentry, with its defaults.


def _sentry() -> Callable[[BaseException], Iterator[str]]:
    import sentry_sdk
    from sentry_sdk.transport import Transport

    sent: list[Any] = []

    class Keeping(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            sent.extend(item.payload.json for item in envelope.items)

    sentry_sdk.init(dsn="https://key@sentry.test/1", transport=Keeping)

    def sentry(error: BaseException) -> Iterator[str]:
        whole = isinstance(error, IntercomError)
        sentry_sdk.capture_exception(error)
        sentry_sdk.get_isolation_scope().clear_breadcrumbs()
        for item in sent:
            for one in (item.get("exception") or {}).get("values") or []:
                shown = one.get("stacktrace") or {}
                for frame in shown.get("frames") or []:
                    if matters(frame["abs_path"], whole=whole):
                        where = (frame["filename"], frame["lineno"], frame["function"])
                        yield "\n".join(map(str, (*where, *_leaves(frame.get("vars")))))
                if whole:
                    yield f"{one.get('type')}: {one.get('value')}"
            for crumb in (item.get("breadcrumbs") or {}).get("values") or []:
                # What Sentry notes of answers that callers' own clients get, is not ours to say.
                if crumb.get("category") == "httplib":
                    crumb["data"].pop("reason", None)
            rest = {name: value for name, value in item.items() if name != "exception"}
            yield "\n".join(map(str, _leaves(rest)))
        sent.clear()

    return sentry


def _leaves(value: Any) -> Iterator[object]:
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _leaves(one)
    else:
        yield value


def main() -> None:
    sentry = _sentry()
    wanted = sys.argv[1:] or FAILURES
    shown = {name: findings(FAILURES[name], (sentry,)) for name in wanted}
    json.dump(shown, sys.stdout)
    sys.exit(any(found for _, found in shown.values()))


if __name__ == "__main__":
    main()
