"""A caller's own connections of httpx or httpx2: the same outcomes, errors and bounds with either.

Every test runs with both libraries, most of them through each driver. What a caller's own client
has to do with one library alone is beside it in test_contract.py, marked with ``every_library``.
"""

from __future__ import annotations

import copy
import gzip
import json
import pickle
from collections.abc import Callable
from typing import Any

import anyio
import attrs
import httpx
import httpx2
import pytest
from callers import LIBRARIES, Caller, Refusing, every_driver, every_library
from secrecy import TOKEN, reachable, shown_token

from intercom_data_events import (
    APIConnectionError,
    APITimeoutError,
    AsyncDataEventsClient,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    DataEventsClient,
    IntercomError,
    InvalidResponseError,
    NotFoundError,
    ServerError,
)
from intercom_data_events.emulator import Emulator, Fault
from intercom_data_events.tracker import Tracker

pytestmark = every_library

# Both leave generators of their own to the collector where a body is not read to its end, which
# trio reports.
leaves_to_the_collector = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

HERE = "https://api.intercom.io/events"
EVENTS = b'{"type": "event.list", "events": [{"event_name": "a", "created_at": 1671028894}]}'
NOT_FOUND = b'{"type": "error.list", "errors": [{"code": "not_found", "message": "No such"}]}'

#: How an own connection is given to a client.
WAYS = ("http_client", "transport")


def create(client: Any) -> Any:
    return client.create("placed-order", user_id="1")


def create_summary(client: Any) -> Any:
    return client.create_summary(
        user_id="1", event_name="invited-friend", count=3, first=1389913941, last=1671028894
    )


def list_events(client: Any) -> Any:
    return client.list(user_id="1")


def raised(call: Caller, use: Callable[[Any], Any] = create, **options: Any) -> IntercomError:
    with pytest.raises(IntercomError) as caught:
        call(use, **options)
    return caught.value


@pytest.fixture
def call(backend, library):
    """A client without connections: each test passes them."""
    return Caller(backend, {}, library=library)


def own(call: Caller, way: str, answer: Callable[[Any], Any], **options: Any) -> dict[str, Any]:
    """The option that gives a client connections which a function answers."""
    transport = call.library.MockTransport(answer)
    if way == "transport":
        return {"transport": transport}
    return {"http_client": call.http_client(transport=transport, **options)}


# What is accepted, and what is not.


@every_driver
@pytest.mark.parametrize("way", WAYS)
def test_every_verb_works_through_either(call, way):
    emulator = Emulator(clock=call.clock)
    transport = call.library.MockTransport(emulator.transport().handle_request)
    given = {"transport": transport}
    if way == "http_client":
        given = {"http_client": call.http_client(transport=transport)}

    def use(client):
        yield create(client)
        yield create_summary(client)
        outcomes = yield client.create_many(
            {"event_name": "a", "user_id": str(number), "created_at": 1671028894}
            for number in range(30)
        )
        raw = yield client.with_raw_response.create("b", user_id="1")
        listed = yield client.list(user_id="1", per_page=1)
        summary = yield client.summary(user_id="1")
        return outcomes, raw, listed, summary

    outcomes, raw, listed, summary = call.steps(use, **given)

    assert [one.status for one in outcomes] == ["accepted"] * 30
    assert raw.status_code == 202
    assert {event.event_name for event in listed} == {"placed-order", "a", "b"}
    assert {event.name for event in summary.events} == {"placed-order", "a", "b", "invited-friend"}
    assert {request.headers["authorization"] for request in emulator.requests} == {"Bearer token"}


@pytest.mark.parametrize("option", WAYS)
def test_a_client_takes_its_own_kind_of_either_library(library, option):
    names = ("Client", "AsyncClient")
    if option == "transport":
        names = ("HTTPTransport", "AsyncHTTPTransport")
    blocking, awaiting = (getattr(library, name)() for name in names)

    for kind, good, bad in (
        (DataEventsClient, blocking, awaiting),
        (AsyncDataEventsClient, awaiting, blocking),
    ):
        kind("token", **{option: good})
        for wrong in (bad, type(good), library, "a client"):
            with pytest.raises(ConfigurationError, match=f"{option} must be an httpx") as caught:
                kind("token", **{option: wrong})
            # Both libraries are named.
            must = str(caught.value).partition(", not")[0]
            assert "httpx2." in must
            assert ("Async" in must) is (kind is AsyncDataEventsClient)


def test_a_timeout_of_either_library_holds_with_connections_of_either(library):
    timeouts: tuple[Any, ...] = (httpx.Timeout(9, connect=2, pool=None),)
    timeouts += (httpx2.Timeout(9, connect=2, pool=None),)
    for timeout in timeouts:
        for way in WAYS:
            seen = []

            def answer(request, seen=seen):
                seen.append(request.extensions["timeout"])
                return library.Response(202)

            call = Caller("blocking", {}, library=library)
            call(create, timeout=timeout, deadline=60, **own(call, way, answer))
            call(
                lambda client, timeout=timeout: create(client.with_options(timeout=timeout)),
                deadline=60,
                **own(call, way, answer),
            )

            # The deadline is the limit of the phase that has none.
            phases = {"connect": 2, "read": 9, "write": 9, "pool": 60}
            assert seen == [phases, phases], (type(timeout).__module__, way)


@every_driver
def test_its_own_timeout_holds_within_what_is_left_of_the_deadline(call, library):
    seen = []

    def answer(request):
        seen.append(request.extensions["timeout"])
        return library.Response(202)

    for timeout in (library.Timeout(3, read=500), None, 7):
        given = own(call, "http_client", answer, timeout=timeout)
        call(create, deadline=60, **given)
        call(create, deadline=60, timeout=5, **own(call, "http_client", answer, timeout=timeout))

    fives = dict.fromkeys(("connect", "read", "write", "pool"), 5)
    assert seen[::2] == [
        {"connect": 3, "read": 60, "write": 3, "pool": 3},
        dict.fromkeys(fives, 60),
        dict.fromkeys(fives, 7),
    ]
    assert seen[1::2] == [fives] * 3


def test_a_client_with_either_cannot_be_pickled(library):
    for options in (
        {"transport": library.MockTransport(print)}, {"http_client": library.Client()}
    ):  # fmt: skip
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(DataEventsClient("token", **options))


# What is sent.


@every_driver
def test_what_it_adds_to_requests_is_sent_and_what_the_settings_say_holds(call, library):
    seen = []

    def answer(request):
        seen.append(request)
        if request.method == "GET":
            return library.Response(200, content=EVENTS)
        return library.Response(202, headers={"Set-Cookie": "route=b; Path=/"})

    given = own(
        call, "http_client", answer,
        headers={"X-App": "shop", "User-Agent": "shop", "Intercom-Version": "1.0"},
        cookies={"route": "a"},
        params={"app": "shop"},
        base_url="https://elsewhere.example/base",
        auth=("user", "password"),
        follow_redirects=True,
    )  # fmt: skip

    def use(client):
        yield create(client)
        yield create(client)
        yield list_events(client)

    call.steps(use, headers={"X-App": "settings"}, **given)

    first, second, listing = seen
    assert {type(request).__module__ for request in seen} == {library.__name__}
    assert [str(request.url) for request in seen[:2]] == [f"{HERE}?app=shop"] * 2
    assert listing.url.params["user_id"] == "1"
    for request in seen:
        assert request.url.host == "api.intercom.io"
        assert request.headers.get_list("authorization") == ["Bearer token"]
        assert len(request.headers.get_list("intercom-version")) == 1
        assert request.headers["intercom-version"] != "1.0"
        assert request.headers["user-agent"].startswith("intercom-data-events/")
        assert request.headers.get_list("x-app") == ["settings"]
    assert first.headers["cookie"] == "route=a"
    # Its cookies are the caller's business: it keeps those of answers.
    assert "route=b" in second.headers["cookie"]
    assert json.loads(first.content)["event_name"] == "placed-order"
    assert first.headers["content-length"] == str(len(first.content))


@every_driver
@pytest.mark.parametrize("way", WAYS)
def test_no_redirect_is_followed(call, library, way):
    seen = []

    def answer(request):
        seen.append(str(request.url))
        return library.Response(307, headers={"Location": "https://evil.example/"})

    options = {"follow_redirects": True} if way == "http_client" else {}
    error = raised(call, **own(call, way, answer, **options))

    assert (error.status_code, error.response.headers["location"]) == (307, "https://evil.example/")
    assert seen == [HERE]


# What is answered.


@every_driver
def test_headers_are_of_the_same_type_whatever_sends(call, library):
    headers = [(b"X-Route", b"a"), (b"X-Route", b"b"), (b"X-Caf\xe9", b"\xe9")]
    answers = iter([library.Response(202, headers=headers), library.Response(401, headers=headers)])
    given = own(call, "http_client", lambda request: next(answers))

    def use(client):
        raw = yield client.with_raw_response.create("placed-order", user_id="1")
        with pytest.raises(IntercomError) as caught:
            yield create(client)
        return raw.headers, caught.value.response.headers

    for found in call.steps(use, **given):
        assert type(found) is httpx.Headers
        assert found.raw[:3] == headers
        assert found["x-route"] == "a, b"


@every_driver
def test_a_compressed_answer_is_read(call, library):
    def answer(request):
        return library.Response(
            200,
            headers={"Content-Encoding": "gzip"},
            stream=library.ByteStream(gzip.compress(EVENTS)),
        )

    (event,) = call(list_events, **own(call, "http_client", answer))

    assert event.event_name == "a"


@every_driver
@leaves_to_the_collector
def test_an_answer_that_cannot_be_decompressed_is_an_error_that_names_it(call, library):
    def answer(request):
        return library.Response(
            200, headers={"Content-Encoding": "gzip"}, stream=library.ByteStream(b"not gzip")
        )

    error = raised(call, list_events, max_retries=1, **own(call, "http_client", answer))

    assert type(error) is InvalidResponseError
    assert error.tries == 2
    assert isinstance(error.__cause__, library.DecodingError)


@every_driver
@leaves_to_the_collector
def test_an_answer_that_is_too_large_when_decompressed_is_not_read_to_its_end(call, library):
    bomb = gzip.compress(b" " * (80 * 2**20), compresslevel=1)
    pieces = [bomb[at : at + 65536] for at in range(0, len(bomb), 65536)]
    sent = []

    class Body(library.SyncByteStream, library.AsyncByteStream):
        def __iter__(self):
            for piece in pieces:
                sent.append(piece)
                yield piece

        async def __aiter__(self):
            for piece in self:
                yield piece

    def answer(request):
        return library.Response(200, headers={"Content-Encoding": "gzip"}, stream=Body())

    error = raised(call, list_events, **own(call, "http_client", answer))

    assert type(error) is InvalidResponseError
    assert "larger than 64 MiB" in str(error)
    assert error.tries == 1
    assert len(sent) < len(pieces)


# What goes wrong.


@attrs.frozen
class Ends:
    """How a request ends that meets an exception each time; `kind` is None for the exception."""

    kind: type[Exception] | None
    possible: bool
    tries: int


NOT_SENT = Ends(APIConnectionError, possible=False, tries=3)
POSSIBLY_SENT = Ends(APIConnectionError, possible=True, tries=3)
#: By the names that both libraries have; one that is not here ends as its base does.
ENDS = {
    "ConnectError": NOT_SENT,
    "ProxyError": NOT_SENT,
    "ConnectTimeout": Ends(APITimeoutError, possible=False, tries=3),
    "PoolTimeout": Ends(APITimeoutError, possible=False, tries=3),
    "TimeoutException": Ends(APITimeoutError, possible=True, tries=3),
    "UnsupportedProtocol": Ends(APIConnectionError, possible=False, tries=1),
    "LocalProtocolError": Ends(APIConnectionError, possible=True, tries=1),
    "HTTPError": Ends(APIConnectionError, possible=True, tries=1),
    "RequestError": POSSIBLY_SENT,
    # Of an answer that a transport of the caller's turns into an error.
    "HTTPStatusError": Ends(ConflictError, possible=False, tries=1),
    # Not about this request.
    "InvalidURL": Ends(APIConnectionError, possible=True, tries=1),
    "Exception": Ends(None, possible=True, tries=1),
}


def exceptions(library: Any) -> list[type[Exception]]:
    """All that a library raises."""
    found = [one for one in vars(library).values() if isinstance(one, type)]
    return [one for one in found if issubclass(one, Exception)]


def made(kind: type[Exception], request: Any, library: Any) -> Exception:
    """An exception as a transport raises it."""
    if issubclass(kind, library.HTTPStatusError):
        response = library.Response(409, request=request)
        response.read()
        return kind("it said so", request=request, response=response)
    try:
        return kind("it said so")
    except TypeError:
        return kind()


def test_both_libraries_have_the_exceptions_that_are_told_apart(library):
    names = {kind.__name__ for kind in exceptions(library)} | {"Exception"}

    assert ENDS.keys() - names == set()
    assert len(names) > 25


@every_driver
@pytest.mark.parametrize("way", WAYS)
def test_each_exception_of_a_library_ends_a_request_as_it_should(call, library, way):
    for kind in exceptions(library):
        expected = next(ENDS[base.__name__] for base in kind.__mro__ if base.__name__ in ENDS)
        raises = []

        def answer(request, kind=kind, raises=raises):
            raises.append(made(kind, request, library))
            raise raises[-1]

        with pytest.raises(Exception) as caught:  # noqa: PT011  # its type is checked below
            call(create, max_retries=2, access_token=TOKEN, **own(call, way, answer))

        error = caught.value
        assert len(raises) == expected.tries, kind
        if expected.kind is None:
            assert error is raises[-1], kind
            assert error.__notes__ == ["POST /events may have been processed."]
            continue
        assert type(error) is expected.kind, kind
        assert (error.tries, error.may_have_been_processed) == (expected.tries, expected.possible)
        assert error.__cause__ is raises[-1], kind
        assert shown_token(error) == [], kind
        assert not [thing for thing in reachable(error) if TOKEN in repr(thing)], kind
        for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
            assert (type(twin), str(twin)) == (type(error), str(error)), kind


@every_driver
def test_an_exception_within_a_body_ends_a_reading_as_it_should(call, library):
    for kind in exceptions(library):
        if not issubclass(kind, library.TransportError):
            continue

        class Body(library.SyncByteStream, library.AsyncByteStream):
            def __iter__(self, kind=kind):
                yield b'{"type": "event.li'
                raise kind("it said so")

            async def __aiter__(self):
                for piece in self:
                    yield piece

        def answer(request, Body=Body):  # noqa: N803  # a class
            return library.Response(200, stream=Body())

        error = raised(call, list_events, max_retries=1, **own(call, "http_client", answer))

        late = issubclass(kind, library.TimeoutException)
        assert type(error) is (APITimeoutError if late else APIConnectionError), kind
        assert type(error.__cause__) is kind
        assert not error.may_have_been_processed
        # An accepted event is accepted.
        accepted = own(
            call, "http_client", lambda request, body=Body: library.Response(202, stream=body())
        )
        assert call(create, **accepted) is None


def over_a_socket(call: Caller, way: str, **options: Any) -> None:
    """Creates a summary by sockets of the caller's own, and closes those."""
    blocking = call.backend == "blocking"
    if way == "transport":
        names = ("HTTPTransport", "AsyncHTTPTransport")
        # Its client closes it.
        call(create_summary, transport=getattr(call.library, names[not blocking])(), **options)
        return

    async def run() -> None:
        async with call.http_client() as own:
            options["http_client"] = own
            async with AsyncDataEventsClient("token", clock=call.clock, **options) as client:
                await create_summary(client)

    if not blocking:
        anyio.run(run, backend=call.backend)
        return
    with call.http_client() as own:
        call(create_summary, http_client=own, **options)


@every_driver
@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_cannot_be_reached_has_got_nothing(call, library, way):
    with Refusing() as nowhere, pytest.raises(APIConnectionError) as caught:
        over_a_socket(call, way, base_url=nowhere)

    error = caught.value
    assert type(error) is APIConnectionError
    assert type(error.__cause__) is library.ConnectError
    # A summary is repeated only where it was certainly not processed.
    assert (error.tries, error.may_have_been_processed) == (5, False)


@every_driver
@pytest.mark.parametrize("way", WAYS)
def test_over_a_socket_each_fault_ends_a_request_as_it_should(call, library, way):
    for fault, expected in (
        (Fault.reset(), (APIConnectionError, True, library.ReadError)),
        (Fault.reset(processed=True), (APIConnectionError, True, library.ReadError)),
        (Fault.failing(503), (ServerError, True, type(None))),
        (Fault.failing(400), (BadRequestError, False, type(None))),
        (Fault(name="a trickle", body=b"{}", trickle=0.001), None),
        (Fault.rate_limited(retry_after=1), None),
    ):
        emulator = Emulator(faults=[fault, None])
        ended = None
        with emulator.serve() as url:
            try:
                over_a_socket(call, way, base_url=url)
            except IntercomError as error:
                ended = type(error), error.may_have_been_processed, type(error.__cause__)

        assert ended == expected, fault.name


# Hooks.


def hooked(call: Caller, library: Any, kind: str, hook: Any, *responses: Any) -> dict[str, Any]:
    """An http_client with a hook, which gives the responses one after another."""
    given = iter(responses)
    return own(call, "http_client", lambda request: next(given), event_hooks={kind: [hook]})


def reading(backend: str, then: Callable[[Any], object] = lambda response: None) -> Any:
    """A hook that reads an answer's body first."""

    def read(response):
        response.read()
        then(response)

    async def aread(response):
        await response.aread()
        then(response)

    return read if backend == "blocking" else aread


@every_driver
def test_hooks_get_requests_and_responses_of_their_own_library(call, library):
    seen = []

    def answer(request):
        return library.Response(202)

    hooks = {kind: [call.hook(seen.append)] for kind in ("request", "response")}
    call(create, **own(call, "http_client", answer, event_hooks=hooks))

    request, response = seen
    assert isinstance(request, library.Request)
    assert isinstance(response, library.Response)
    assert response.request is request
    assert json.loads(request.content)["event_name"] == "placed-order"
    assert request.headers["authorization"] == "Bearer token"


@every_driver
def test_what_a_hook_puts_on_a_request_is_sent(call, library):
    seen = []

    def sign(request):
        request.headers["X-Signature"] = "signed"

    def answer(request):
        seen.append(request.headers.get("x-signature"))
        return library.Response(503 if len(seen) == 1 else 202)

    hooks = {"request": [call.hook(sign)]}
    call(create, **own(call, "http_client", answer, event_hooks=hooks))

    assert seen == ["signed", "signed"]


@every_driver
@pytest.mark.parametrize("reads", [True, False], ids=["reads the body", "raises before the body"])
def test_a_hook_that_raises_for_a_status_gives_the_typed_error_of_that(call, library, reads):
    def raises(response):
        response.raise_for_status()

    hook = reading(call.backend, raises) if reads else call.hook(raises)
    responses = [
        library.Response(503, content=b"Down"),
        library.Response(404, stream=library.ByteStream(NOT_FOUND)),
    ]

    error = raised(call, access_token=TOKEN, **hooked(call, library, "response", hook, *responses))

    assert type(error) is NotFoundError
    assert (error.tries, error.may_have_been_processed) == (2, True)  # by the 503
    assert error.response.content == (NOT_FOUND if reads else b"")
    assert type(error.response.headers) is httpx.Headers
    assert type(error.__cause__) is library.HTTPStatusError
    assert shown_token(error) == []
    assert not [thing for thing in reachable(error) if TOKEN in repr(thing)]


@every_driver
def test_a_body_that_a_hook_has_read_is_read_all_the_same(call, library):
    class Once(library.SyncByteStream, library.AsyncByteStream):
        def __init__(self, body):
            self._pieces = iter([body])

        def __iter__(self):
            yield from self._pieces

        async def __aiter__(self):
            for piece in self._pieces:
                yield piece

    for headers, body in (({}, EVENTS), ({"Content-Encoding": "gzip"}, gzip.compress(EVENTS))):
        response = library.Response(200, headers=headers, stream=Once(body))
        given = hooked(call, library, "response", reading(call.backend), response)

        (event,) = call(list_events, **given)

        assert event.event_name == "a", headers


@every_driver
@pytest.mark.parametrize("kind", ["request", "response"])
def test_an_exception_of_a_hooks_own_is_raised_as_it_is(call, library, kind):
    problem = KeyError("unwilling")

    def unwilling(subject):
        raise problem

    given = hooked(call, library, kind, call.hook(unwilling), library.Response(202))
    with pytest.raises(KeyError) as caught:
        call(create, **given)

    assert caught.value is problem
    assert call.clock.waits == []


@every_driver
@pytest.mark.parametrize("nested", LIBRARIES, ids=lambda one: f"nested {one.__name__}")
def test_what_a_hook_meets_with_a_request_of_its_own_says_nothing_of_the_events(
    call, library, nested
):
    """A nested request that was certainly not sent does not mean that the event was not."""

    def refuse(request):
        raise nested.ConnectError("refused", request=request)

    def asks_elsewhere(response):
        with nested.Client(transport=nested.MockTransport(refuse)) as other:
            other.get("https://elsewhere.example")

    given = hooked(call, library, "response", call.hook(asks_elsewhere), library.Response(200))
    error = raised(call, create_summary, **given)

    assert type(error) is APIConnectionError
    assert (error.tries, error.may_have_been_processed) == (1, True)
    assert type(error.__cause__) is nested.ConnectError


@every_driver
def test_a_hook_that_raises_for_the_status_of_another_answer_says_nothing_of_the_events(
    call, library
):
    def asks_elsewhere(response):
        elsewhere = library.MockTransport(lambda request: library.Response(404))
        with library.Client(transport=elsewhere) as other:
            other.get("https://elsewhere.example").raise_for_status()

    given = hooked(call, library, "response", call.hook(asks_elsewhere), library.Response(200))
    error = raised(call, create_summary, **given)

    assert type(error) is APIConnectionError
    assert (error.tries, error.may_have_been_processed) == (1, True)


# The token's function.


@every_driver
def test_a_function_for_the_token_that_fails_sends_nothing(call, library):
    def token():
        raise library.ReadTimeout("vault slow")

    async def token_to_await():
        raise library.ReadTimeout("vault slow")

    seen = []
    for function in [token] if call.backend == "blocking" else [token, token_to_await]:
        with pytest.raises(ConfigurationError, match="vault slow") as caught:
            call(create, access_token=function, **own(call, "http_client", seen.append))
        assert not caught.value.may_have_been_processed
        assert isinstance(caught.value.__cause__, library.ReadTimeout)
    assert seen == []


# The tracker.


def test_a_tracker_sends_through_either_and_tells_transient_from_permanent(library, tmp_path):
    refusal = b'{"type": "error.list", "errors": [{"code": "data_invalid"}]}'
    statuses = {"0": [503, 202], "1": [422], "2": [202]}

    def answer(request):
        found = statuses[json.loads(request.content)["user_id"]]
        status = found.pop(0) if len(found) > 1 else found[0]
        return library.Response(status, content=b"" if status == 202 else refusal)

    for outbox in (None, tmp_path / "outbox"):
        with (
            library.Client(transport=library.MockTransport(answer)) as http_client,
            DataEventsClient("token", http_client=http_client) as client,
            Tracker(client, outbox) as tracker,
        ):
            for user in statuses:
                tracker.track("placed-order", user_id=user)
            assert tracker.flush(10)
            assert (tracker.counters.sent, tracker.counters.refused) == (2, 1)
