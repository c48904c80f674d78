"""Through aiohttp, requests after the first are prepared: they keep each promise of the first."""

from __future__ import annotations

import gzip
import re
from collections import Counter

import aiohttp
import anyio
import pytest
from raw_server import ACCEPTED, EARLY_HINTS, NO_CONTENT, RawServer, over_tls
from secrecy import TOKEN, shown_token

from intercom_data_events import APITimeoutError, AsyncDataEventsClient

MIB = 1024 * 1024
FAILED = b"HTTP/1.1 500 Internal Server Error\r\n"
SAID = b'{"type":"error.list","errors":[{"code":"broken","message":"It broke"}]}'
SOME = FAILED + b"Content-Length: %d\r\n\r\n" % len(SAID) + SAID
#: What a server answers, and whether it closes the connection then.
ANSWERS = {
    "accepted": (ACCEPTED, False),
    "nothing": (NO_CONTENT, False),
    "a body": (b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}", False),
    "a failure": (SOME, False),
    "a length and more": (SOME + b"more", False),
    "less than its length": (SOME[:-9], True),
    "chunks": (FAILED + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", False),
    "chunks without an end": (FAILED + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", True),
    "a wrong chunk": (FAILED + b"Transfer-Encoding: chunked\r\n\r\nx\r\nabc\r\n", True),
    "no length": (FAILED + b"\r\n" + SAID, True),
    "two lengths": (FAILED + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", True),
    "a hint before": (EARLY_HINTS * 3 + SOME, False),
    "to go on": (b"HTTP/1.1 100 Continue\r\n\r\n" + SOME, False),
    "another protocol": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", False),
    "a redirect": (
        b"HTTP/1.1 307 Moved\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", False
    ),
    "a cookie": (ACCEPTED[:-2] + b"Set-Cookie: a=b\r\n\r\n", False),
    "to close": (SOME.replace(b"\r\n", b"\r\nConnection: close\r\n", 1), True),
    "an older protocol": (SOME.replace(b"1.1", b"1.0"), True),
    "a long line": (SOME.replace(b"\r\n", b"\r\nA: " + b"x" * 50_000 + b"\r\n", 1), False),
    "too long a line": (FAILED + b"A: " + b"x" * MIB + b"\r\n\r\n", True),
    "too long a body": (FAILED + b"\r\n" + b"x" * 20 * MIB, True),
    "packed too much": (
        FAILED + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"x" * 100 * MIB, 1), True
    ),
    "wrongly packed": (FAILED + b"Content-Encoding: gzip\r\n\r\nabc", True),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", True),
    "nothing at all": (b"", True),
    "half a head": (FAILED, True),
    "the token": (FAILED + f"A: {TOKEN}\r\nContent-Length: 64\r\n\r\n{TOKEN:64}".encode(), False),
}  # fmt: skip


class Service(RawServer):
    """Accepts events, but for those of contacts that get an answer of their own."""

    def __init__(self, answers=(), tls=None, unasked=None):
        script = self._serve if tls is None else over_tls(self._serve, tls)
        super().__init__(script, scheme="http" if tls is None else "https")
        self.answers = dict(answers)
        self.unasked = unasked

    def _serve(self, connection):
        while True:
            content, ends = self.answers.get(connection.request().user_id, (ACCEPTED, False))
            if content is None:
                connection.hold()
            connection.send(content)
            if self.unasked is not None and connection.number == 0:
                self.wait("waiting")
                connection.send(self.unasked)
                self.tell("unasked")
            if ends:
                return

    @property
    def came_by(self):
        """The connections of the requests, in their order."""
        return [request.connection for request in self.requests]


def send(server, number=5, **options):
    """Sends so many events one after another; returns what is told of each, in their order."""

    async def run():
        settings = {"base_url": server.url, "pace": False, "max_retries": 0, "timeout": 20}
        async with AsyncDataEventsClient(TOKEN, **settings | options) as client:
            return [outcome async for outcome in client.create_many(events, concurrency=1)]

    events = [
        {"event_name": "ran", "user_id": str(user), "created_at": 1_767_268_800}
        for user in range(number)
    ]
    return [shown(one) for one in sorted(anyio.run(run), key=lambda one: one.position)]


def shown(outcome):
    """What a caller sees of an outcome, but for the contact and the port."""
    error = outcome.error
    if error is None:
        return outcome.status
    assert not shown_token(error)
    text = re.sub(r"127\.0\.0\.1:\d+|'\d'", "…", str(error))
    cause = type(error.__cause__)
    return outcome.status, type(error), cause, text, error.may_have_been_processed


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_means_the_same_as_to_the_first_request(name):
    with Service({"0": ANSWERS[name]}) as server:
        first, *others = send(server)
    assert others == ["accepted"] * 4
    with Service({"1": ANSWERS[name]}) as server:
        before, second, *others = send(server)
    assert second == first
    assert [before, *others] == ["accepted"] * 4
    # What is sent is the same, too, but for the event: no cookie, no other address.
    heads = {(one.method, one.target, *one.headers.items()) for one in server.requests}
    assert len(heads) == 1


def test_requests_after_the_first_are_prepared(monkeypatch):
    """If this fails with a new aiohttp: see that the others pass with it in ``_CAN_PREPARE``."""
    made = Counter()
    original = aiohttp.ClientSession._request

    def counted(*arguments, **options):
        made["requests"] += 1
        return original(*arguments, **options)

    monkeypatch.setattr(aiohttp.ClientSession, "_request", counted)
    with Service() as server:
        assert send(server) == ["accepted"] * 5
    assert made["requests"] == 1


def test_an_attempt_ends_in_time_and_its_connection_is_not_used_again():
    with Service({"1": (None, False)}) as server:
        before, (status, error, _, _, possibly), *others = send(server, timeout=0.3)
    assert [before, *others] == ["accepted"] * 4
    assert (status, error, possibly) == ("failed", APITimeoutError, True)
    assert server.came_by == [0, 0, 1, 1, 1]


def test_a_connection_that_was_closed_or_has_unread_bytes_is_not_used_again():
    unasked = SOME.replace(b"500", b"401")
    for answer in ((ACCEPTED, True), (ACCEPTED + unasked, False)):
        with Service({"1": answer}) as server:
            assert send(server, max_retries=2)[2:] == ["accepted"] * 3
        assert server.came_by[-3:] == [1, 1, 1]


@pytest.mark.parametrize("has_been_read", [False, True])
def test_an_answer_that_was_not_asked_for_is_not_taken_for_the_next(has_been_read):
    async def events():
        yield {"event_name": "ran", "user_id": "0"}
        # The first one has its answer by now.
        await anyio.sleep(0.1)
        server.tell("waiting")
        server.wait("unasked")
        if has_been_read:
            await anyio.sleep(0.1)
        yield {"event_name": "ran", "user_id": "1"}

    async def run():
        options = {"base_url": server.url, "pace": False, "max_retries": 1}
        async with AsyncDataEventsClient(TOKEN, **options) as client:
            return [one.status async for one in client.create_many(events(), concurrency=1)]

    with Service(unasked=SOME) as server:
        assert anyio.run(run) == ["accepted"] * 2
    assert server.came_by == [0, 1]


def test_over_tls_connections_are_used_again(server_context, authority, tmp_path, monkeypatch):
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    with Service(tls=server_context) as server:
        assert send(server) == ["accepted"] * 5
    assert server.came_by == [0] * 5
