"""Nothing that a server sends is expanded, read or held before its size is bounded."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from time import perf_counter
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import httpx
import pytest
from callers import BACKENDS, LIBRARIES, NOW, Caller, every_driver
from raw_server import RawServer, each, listing_of

from intercom_data_events import (
    APIResponseError,
    APITimeoutError,
    AsyncDataEventsClient,
    Clock,
    ConfigurationError,
    DataEventsClient,
    InvalidResponseError,
    NotFoundError,
    UnprocessableEntityError,
)
from memory import peak_below

MIB = 1024 * 1024
TEXT = b"<p>This is not JSON, so the error has it as it was read.</p>" * 3
ZIPPED = gzip.compress(TEXT)
EVENT = {"event_name": "placed-order", "user_id": "1", "created_at": NOW}
ASKED = "gzip, deflate"

# httpx leaves generators of its own to the collector where a body is not read to its end, which
# trio reports.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def _bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(b" " * MIB) for _ in range(80)) + packer.flush()


#: Some 80 kB that decompress to 80 MiB.
BOMB = _bomb()


@attrs.frozen
class Answer:
    """An answer as it is sent; `encodings` are the values of Content-Encoding, one for a header."""

    encodings: tuple[str, ...]
    body: bytes
    status: int = 200

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [("Content-Encoding", value) for value in self.encodings]

    @property
    def raw(self) -> bytes:
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        head = f"HTTP/1.1 {self.status} Some\r\n{lines}Content-Length: {len(self.body)}\r\n\r\n"
        return head.encode() + self.body


class Once(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that a library has not read."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body

    async def __aiter__(self) -> Any:
        yield self._body


@attrs.frozen
class Way:
    """How an answer reaches a client."""

    backend: str
    kind: str
    library: Any = httpx

    def __str__(self) -> str:
        return f"{self.kind}-{self.library.__name__}-{self.backend}"

    def error(self, answer: Answer, seen: list[Any] | None = None, **options: Any) -> Any:
        """Returns the error of an event that gets the answer; None if it counts as accepted.

        Requests are added to `seen` before the answer is sent.
        """
        options = {"access_token": "token", "max_retries": 0, **options}
        seen = [] if seen is None else seen

        def reply(request: Any) -> bytes:
            seen.append(request)
            return answer.raw

        if self.kind in ("own", "fast"):
            with RawServer(each(reply)) as server:
                return self._error({**options, "base_url": server.url})

        def handle(request: Any) -> Any:
            seen.append(request)
            stream = self._stream(answer.body)
            return self.library.Response(answer.status, headers=answer.headers, stream=stream)

        transport = self.library.MockTransport(handle)
        if self.kind == "transport":
            return self._error({**options, "transport": transport})
        kind = "Client" if self.backend == "blocking" else "AsyncClient"
        client = getattr(self.library, kind)
        # As with brotli in the environment.
        given = client(transport=transport, headers={"Accept-Encoding": "gzip, br, zstd"})
        return self._error({**options, "http_client": given})

    def _stream(self, body: bytes) -> Any:
        if self.library is httpx:
            return Once(body)
        bases = self.library.SyncByteStream, self.library.AsyncByteStream
        return type("Once", bases, dict(vars(Once)))(body)

    def _error(self, options: dict[str, Any]) -> Any:
        try:
            if self.backend == "blocking":
                with DataEventsClient(**options) as client:
                    return client.create(**EVENT)
            return anyio.run(self._send, options, backend=self.backend)
        except (APIResponseError, APITimeoutError) as error:
            return error

    async def _send(self, options: dict[str, Any]) -> Any:
        async with AsyncDataEventsClient(**options) as client:
            if self.kind != "fast":
                return await client.create(**EVENT)
            (outcome,) = [outcome async for outcome in client.create_many([EVENT])]
            return outcome.error


OWN = [Way(backend, "own") for backend in BACKENDS]
WAYS = [
    *OWN,
    Way("asyncio", "fast"),
    *(Way(backend, "http_client") for backend in BACKENDS),
    *(Way("asyncio", kind, LIBRARIES[1]) for kind in ("http_client", "transport")),
    Way("blocking", "transport"),
]
every_way = pytest.mark.parametrize("way", WAYS, ids=str)

READ = {
    "not named": Answer((), TEXT),
    "named as nothing": Answer(("",), TEXT),
    "identity": Answer(("identity",), TEXT),
    "gzip": Answer(("gzip",), ZIPPED),
    "its older name": Answer(("x-gzip",), ZIPPED),
    "in capitals, with blanks": Answer((" GZip ,, identity",), ZIPPED),
    "in several headers": Answer(("identity", "gzip"), ZIPPED),
    "deflate": Answer(("deflate",), zlib.compress(TEXT)),
    "deflate without a header": Answer(("deflate",), zlib.compress(TEXT, wbits=-15)),
    "members": Answer(
        ("gzip",), gzip.compress(TEXT[:9]) + gzip.compress(b"") + gzip.compress(TEXT[9:])
    ),
    "padded": Answer(("gzip",), ZIPPED + bytes(99)),
    "many empty members": Answer(("gzip",), gzip.compress(b"") * 2000 + ZIPPED),
}
REFUSED = {
    "gzip twice": (("gzip, gzip",), gzip.compress(ZIPPED), "not 'gzip, gzip'"),
    "in two headers": (("gzip", "gzip"), gzip.compress(ZIPPED), "not 'gzip, gzip'"),
    "deflate in gzip": (
        ("deflate, x-gzip",),
        gzip.compress(zlib.compress(TEXT)),
        "not 'deflate, x",
    ),
    "brotli": (("br",), b"\x8f\x02\x80{}\x03", "not 'br'"),
    "zstandard": (("zstd",), b"(\xb5/\xfd\x04X\x11\0\0{}", "not 'zstd'"),
    "compress": (("compress",), b"{}", "not 'compress'"),
    "anything": (("*",), b"{}", "not '*'"),
    "a long name": (("a" * 5000,), b"{}", f"not '{'a' * 78}…"),
    "many names": (("gzip," * 5000,), b"{}", "not 'gzip, gzip, "),
    "damaged": (("gzip",), ZIPPED[:30] + bytes(9) + ZIPPED[39:], "it is damaged gzip data"),
    "a wrong sum": (("gzip",), ZIPPED[:-8] + bytes(8), "it is damaged gzip data"),
    "cut short": (("gzip",), ZIPPED[:-1], "it is truncated gzip data"),
    "a magic number": (("gzip",), ZIPPED[:2], "it is truncated gzip data"),
    "more after it": (("gzip",), ZIPPED + b"more", "it is damaged gzip data"),
    "another format": (("deflate",), ZIPPED, "it is damaged deflate data"),
    "not compressed": (("gzip",), b"{}", "it is damaged gzip data"),
}


@every_way
def test_one_of_the_codings_that_were_asked_for_is_read(way):
    for name, answer in READ.items():
        seen: list[Any] = []
        error = way.error(answer, seen)

        assert type(error) is InvalidResponseError, (name, error)
        assert error.response.content == TEXT, name
        assert [request.headers["accept-encoding"] for request in seen] == [ASKED], name
    # Other servers name a coding of nothing.
    for coding in ("gzip", "br", "gzip, gzip"):
        assert way.error(Answer((coding,), b"")) is None, coding


@every_way
def test_any_other_coding_is_an_error_that_names_it_and_the_remedy(way):
    for name, (encodings, body, words) in REFUSED.items():
        error = way.error(Answer(encodings, body))

        assert type(error) is InvalidResponseError, (name, error)
        assert words in str(error), name
        assert ("check the base URL and any proxy" in str(error)) == ("must be" in str(error)), name
        assert len(str(error)) < 1000
        assert error.may_have_been_processed


@every_way
def test_of_a_failure_in_another_coding_the_status_counts(way):
    for status, kind in ((404, NotFoundError), (422, UnprocessableEntityError)):
        for encodings in (("br",), ("gzip, gzip",), ("gzip",)):
            error = way.error(Answer(encodings, b"?!", status))

            assert type(error) is kind
            assert (error.message, error.codes) == (None, ())
            assert "check the base URL, the region and any proxy in between" in str(error)
            # Not Intercom's answer to one event name too many, which has no body.
            assert "120 active event names" not in str(error)
    assert "120 active event names" in str(way.error(Answer((), b"", 422)))


#: One for each kind of connection and driver.
SOME = [*OWN[:2], Way("asyncio", "fast"), Way("trio", "http_client"), WAYS[-2]]
some_ways = pytest.mark.parametrize("way", SOME, ids=str)


@some_ways
def test_a_success_is_read_up_to_the_largest_size(way):
    with peak_below(100 * MIB):
        error = way.error(Answer(("gzip",), BOMB))

    assert type(error) is InvalidResponseError
    assert "larger than 64 MiB" in str(error)
    assert len(error.response.content) == 64 * MIB


@every_way
def test_memory_is_bounded_however_much_an_answer_would_be(way):
    # Also of what decompresses to nothing, no more is read.
    nothing = b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + b"\0\0\0\xff\xff" * (MIB // 4)
    for answer, content in (
        (Answer(("gzip, gzip",), gzip.compress(BOMB)), b""),
        (Answer(("gzip, gzip",), gzip.compress(BOMB), 500), b""),
        (Answer(("gzip",), BOMB, 500), b" " * MIB),
        (Answer(("deflate",), BOMB[10:], 500), b" " * MIB),
        (Answer(("gzip",), nothing, 500), b""),
        (Answer((), b"x" * 2 * MIB, 500), b"x" * MIB),
    ):
        with peak_below(12 * MIB):
            error = way.error(answer)

        assert isinstance(error, APIResponseError)
        assert error.response.content == content


# The time limit, and the event loop.


class Ticking(Clock):
    """A clock on which a hundredth of a second passes with each look at it."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        self._now += 0.01
        return self._now


@pytest.mark.parametrize("way", [one for one in WAYS if one.kind != "fast"], ids=str)
def test_the_time_limit_is_kept_while_an_answer_is_decompressed(way):
    # It arrives in one piece, before half of the time is over.
    error = way.error(Answer(("gzip",), BOMB), timeout=5, clock=Ticking())

    assert type(error) is APITimeoutError


def test_the_time_limit_is_kept_on_the_fast_path_too():
    # Seconds of work, in which little is waited for.
    slow = gzip.compress(b"") * 500_000 + ZIPPED

    error = Way("asyncio", "fast").error(Answer(("gzip",), slow), timeout=0.2)

    assert type(error) is APITimeoutError


def run_beside(task, monkeypatch):
    """Has a task run beside each call, in the same event loop."""
    send = Way._send

    async def beside(self: Way, options: dict[str, Any]) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(task)
            with suppress(APIResponseError):
                await send(self, options)
            group.cancel_scope.cancel()

    monkeypatch.setattr(Way, "_send", beside)


@pytest.mark.parametrize("way", [one for one in SOME if one.backend != "blocking"], ids=str)
def test_other_tasks_have_their_turns_while_an_answer_is_decompressed(way, monkeypatch):
    turns = 0
    # Not counted are the turns before.
    answered: list[Any] = []

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += bool(answered)
            await anyio.lowlevel.checkpoint()

    run_beside(take_turns, monkeypatch)
    way.error(Answer(("gzip",), BOMB, 200), answered)

    # One for each piece of 64 KiB.
    assert turns > 900


#: What almost looks like the access token, in one of its encodings.
ALMOST = "dG9rOmFhYWFhYWF"
NEAR = b"".join(rb"\\\\\\\\\u{000000%02x}" % ord(c) for c in ALMOST)
SECRET = f"{ALMOST}hYWFhYWFhYWFhYWFhYQ=="


@pytest.mark.parametrize("way", [one for one in SOME if one.backend != "blocking"], ids=str)
def test_other_tasks_have_their_turns_while_the_token_is_searched(way, monkeypatch):
    answered: list[Any] = []
    longest = whole = 0.0

    async def take_turns() -> None:
        nonlocal longest, whole
        while True:
            before = perf_counter()
            await anyio.lowlevel.checkpoint()
            if answered:
                longest = max(longest, perf_counter() - before)
                whole += perf_counter() - before

    run_beside(take_turns, monkeypatch)
    way.error(Answer((), NEAR * (3 * MIB // len(NEAR))), answered, access_token=SECRET)

    # 48 pieces are searched; all at once they would take most of it.
    assert longest < whole / 2


@pytest.mark.parametrize("way", [one for one in WAYS if one.kind != "fast"], ids=str)
def test_the_time_limit_is_kept_while_the_token_is_searched(way):
    # 128 pieces.
    error = way.error(Answer((), bytes(8 * MIB)), timeout=0.9, clock=Ticking())

    assert type(error) is APITimeoutError


# Around it.


@every_driver
@pytest.mark.parametrize(
    ("answer", "connections"),
    [
        (Answer(("gzip",), gzip.compress(b"{}")), 1),
        (Answer(("gzip",), gzip.compress(b"{}")[:-1]), 2),
        (Answer(("br",), b"{}"), 2),
        (Answer(("gzip",), BOMB, 404), 2),
    ],
    ids=["whole", "cut short", "another coding", "too large"],
)
def test_only_after_a_whole_answer_its_connection_is_used_again(backend, answer, connections):
    def use(client: Any) -> Any:
        for _ in range(2):
            with suppress(APIResponseError):
                yield client.create(**EVENT)

    with RawServer(each(lambda _: answer.raw)) as server:
        options = {"base_url": server.url, "max_retries": 0, "clock": None}
        Caller(backend, options).steps(use)

        assert len(server.requests) == 2
        assert server.connections == connections


@every_driver
@pytest.mark.parametrize("kind", ["own", "transport"])
def test_a_query_whose_answer_is_cut_off_is_asked_again(backend, kind):
    def script(connection: Any) -> None:
        connection.request()
        whole = listing_of("1")
        cut = {0: whole[:-1], 1: b""}.get(connection.number, whole)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(whole), cut)

    with RawServer(script) as server:
        call = Caller(backend, {"base_url": server.url})
        made = httpx.HTTPTransport if backend == "blocking" else httpx.AsyncHTTPTransport
        given = {"transport": made()} if kind == "transport" else {}
        (event,) = call(lambda client: client.list(user_id="1"), **given)

    assert event.event_name == "of-1"
    assert server.connections == 3


@every_driver
def test_what_a_callers_hook_has_read_is_taken_as_it_is_within_bounds(backend):
    for status, text in ((200, TEXT), (500, b"x" * 3 * MIB)):
        if backend == "blocking":
            hook: Any = httpx.Response.read
        else:
            hook = httpx.Response.aread

        def answer(_: Any, status: int = status, text: bytes = text) -> httpx.Response:
            headers = {"Content-Encoding": "gzip, gzip"}
            stream = Once(gzip.compress(gzip.compress(text)))
            return httpx.Response(status, headers=headers, stream=stream)

        kind = httpx.Client if backend == "blocking" else httpx.AsyncClient
        given = kind(transport=httpx.MockTransport(answer), event_hooks={"response": [hook]})
        error = Way(backend, "own")._error(
            {"access_token": "token", "max_retries": 0, "http_client": given}
        )

        assert error.response.content == text[:MIB]


@pytest.mark.parametrize("name", ["Accept-Encoding", "accept-encoding", "ACCEPT-ENCODING"])
def test_the_codings_are_not_a_callers_to_ask_for(name):
    said = f"headers must not contain {name!r}; it is always 'gzip, deflate'"
    with pytest.raises(ConfigurationError, match=said):
        DataEventsClient("token", headers={name: "br"})
    with DataEventsClient("token") as client, pytest.raises(ConfigurationError, match=said):
        client.with_options(headers={name: "identity"})


# JSON.


def listed(body: bytes, **more: Any) -> Any:
    """Returns the first page of a listing whose answer is this JSON."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=body))
    with DataEventsClient("token", transport=transport, max_retries=0) as client:
        return next(client.list(user_id="1", **more).pages())


@pytest.mark.parametrize("value", [b"{}", b"[]", b"0", b'""', b'{"a":{}}'])
def test_an_answer_of_too_many_values_is_not_decoded(value):
    body = b'{"events":[' + b",".join([value] * 500_001) + b"]}"
    with peak_below(60 * MIB), pytest.raises(InvalidResponseError) as caught:
        listed(body)

    assert "it has more than 500,000 values" in str(caught.value)


@pytest.mark.parametrize("count", [249_990, 499_990])
def test_however_small_the_objects_of_an_answer_they_take_less_than_100_mb(count):
    body = b'{"events":[],"more":[' + b",".join([b'{"a":0}'] * count) + b"]}"
    with peak_below(100_000_000), suppress(InvalidResponseError):
        assert len(listed(body).additional_properties["more"]) == count


@pytest.mark.parametrize("wide", ["\U0001f600".encode(), b"\\ud83d\\ude00", "\u3042".encode()])
def test_a_character_beyond_ascii_does_not_make_a_long_answer_take_many_times_its_size(wide):
    def body(size: int) -> bytes:
        return b'{"events":[],"more":"%s%s"}' % (b"a" * size, wide)

    text = body(20 * MIB)
    with peak_below(60 * MIB), pytest.raises(InvalidResponseError) as caught:
        listed(text)

    assert "it has non-ASCII characters and more than 16 MiB" in str(caught.value)
    for honest in (body(MIB), text.replace(wide, b"\\n")):
        assert len(listed(honest).additional_properties["more"]) > MIB


@pytest.mark.parametrize("limit", [0, 640, 4300, 100_000])
def test_an_integer_of_many_digits_is_a_string_of_them(limit):
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(limit)
    try:
        page = listed(
            b'{"events":[],"many":%s,"some":%s,"few":%s}' % (b"9" * 50_000, b"9" * 900, b"9" * 600)
        )
        few = int("9" * 600)
    finally:
        sys.set_int_max_str_digits(before)

    some: object = "9" * 900 if limit == 640 else int("9" * 900)
    assert page.additional_properties == {"many": "9" * 50_000, "some": some, "few": few}


def test_no_more_events_are_read_than_are_wanted():
    page = listed(b'{"events":[{"id":"1"},{"id":"2"},0,{"id":"3"}]}', limit=1)

    assert [event.id for event in page.events] == ["1"]
    assert page.additional_properties == {}


def test_a_next_page_of_too_long_an_address_is_not_requested():
    body = b'{"events":[],"pages":{"next":"https://a/?%s"}}' % (b"a" * 8 * MIB)
    with peak_below(60 * MIB):
        assert listed(body).next is None


def failed(body: bytes) -> Any:
    """Returns the error of a failure with this body."""
    return Way("blocking", "transport").error(Answer((), body, 404))


def test_the_words_of_a_failure_are_searched_within_bounds():
    many = b"{}," * 20_000
    reason = b'{"code":"not_found","message":"User Not Found"}'
    assert failed(b'{"errors":[%s]}' % reason).codes == ("not_found",)
    # Nothing is said of it, and it is not taken for text either.
    assert failed(b'{"errors":[%s%s]}' % (many, reason)).message is None
    assert failed(b"[" * 15_000).message is None
    # A page is text, however many commas it has.
    page = b"<!doctype html><title>Sign in</title><script>[%s]</script>" % many
    assert failed(page).message == "Sign in"
