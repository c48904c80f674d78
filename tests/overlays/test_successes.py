"""An accepted event is a success whatever the body; an unreadable reading is asked for again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import httpx
import pytest
from callers import every_driver, every_library

from intercom_data_events import (
    APIConnectionError,
    DataEventsClient,
    IntercomError,
    InvalidResponseError,
)
from intercom_data_events.tracker import Tracker

#: Seconds after which whatever has not happened is stuck.
PATIENCE = 10

# httpx leaves generators of its own to the collector where a body is not read to its end, which
# trio reports.
leaves_to_the_collector = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

HTML = b"<html><body>Sign in to this network</body></html>"
ERRORS = b'{"type": "error.list", "errors": [{"code": "some_code", "message": "No"}]}'
HERE = "https://api.intercom.io/events"
GZIP = {"Content-Encoding": "gzip"}


@attrs.frozen
class Answer:
    """An answer as it comes: its body part by part, which can end in an error."""

    status: int
    parts: tuple[bytes, ...] = ()
    headers: dict[str, str] = attrs.field(factory=dict)
    ends_in: type[httpx.TransportError | OSError] | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)


class Scripted(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Gives answers one after another, the last one for ever; its answers are of one library."""

    def __init__(self, *answers: Answer, library: Any = httpx) -> None:
        self._answers = list(answers)
        self._library = library
        self.requests: list[Any] = []

    def handle_request(self, request: Any) -> Any:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        library = self._library

        class Body(library.SyncByteStream, library.AsyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                yield from answer.parts
                if answer.ends_in is not None:
                    name = answer.ends_in.__name__
                    error = getattr(library, name, answer.ends_in)("the body has ended")
                    if isinstance(error, library.TransportError):
                        error.request = request
                    raise error

            async def __aiter__(self) -> Any:
                for part in self:
                    yield part

        return library.Response(answer.status, headers=answer.headers, stream=Body())

    async def handle_async_request(self, request: Any) -> Any:
        return self.handle_request(request)

    def of_its_library(self) -> Any:
        """A transport that the library takes for one of its own."""
        if self._library is httpx:
            return self
        return self._library.MockTransport(self.handle_request)


def create(client: Any) -> Any:
    return client.create("placed-order", user_id="1")


def create_summary(client: Any) -> Any:
    return client.create_summary(
        user_id="1", event_name="invited-friend", count=3, first=1389913941, last=1671028894
    )


def outcome(
    calling: Any,
    use: Callable[[Any], Any],
    *answers: Answer,
    library: Any = httpx,
    **options: Any,
) -> Any:
    """What became of a call: the error it ended in, how many requests it took, and its waits."""
    transport = Scripted(*answers, library=library)
    call = calling(transport.of_its_library())
    error = None
    try:
        call(use, **options)
    except IntercomError as caught:
        error = caught
    return error, len(transport.requests), len(call.clock.waits)


# Sending.


def answered(status: int, *bodies: bytes) -> list[Answer]:
    return [Answer(status, (body,) if body else ()) for body in bodies]


EMPTY = (b"", b" ", b" \r\n\t\n")
#: JSON that reports no failure.
HARMLESS = (
    b"{}",
    b"null",
    b"[]",
    b'{"type": "event"}',
    b' {"type": "event.list", "events": []}\n',
    b'{"errors": []}',
    b'{"errors": null}',
    b'"accepted"',
    b"true",
    b"5",
)
#: To an event, the described status, whatever follows it.
DESCRIBED = [
    *answered(202, *EMPTY, *HARMLESS, HTML, ERRORS, b"Accepted", b"\xff\xfe", b'{"type": "ev'),
    Answer(202, (b"not gzip",), GZIP),
    Answer(202, (b"\x1f\x8b\x08\x00",), GZIP),
    Answer(202, (b"?",), {"Content-Encoding": "br, gzip"}),
    Answer(202, (b" " * 2**20,) * 66),
    Answer(202, (b"{",), {"Content-Length": "5000"}, httpx.RemoteProtocolError),
    Answer(202, (), {"Content-Length": "5"}, httpx.ReadTimeout),
    Answer(202, (b"It is ",), {}, httpx.ReadTimeout),
    Answer(202, (b"It is ",), {}, httpx.ReadError),
    Answer(202, (b"It is ",), {}, ConnectionResetError),
]
OTHER = [
    answer for status in (200, 201, 203, 204, 207, 299)
    for answer in answered(status, *EMPTY, *HARMLESS)
]  # fmt: skip
#: A proxy's page, or a list of errors under a status of success.
FALSE = [
    answer
    for status in (200, 201, 203, 207)
    for answer in answered(
        status,
        HTML,
        b"OK",
        b"Please sign in",
        b'{"type": "event", ',
        b"\xff\xfe\x00",
        ERRORS,
        b'{"type": "error.list", "errors": []}',
        b'{"type": "error.list"}',
        b'{"errors": [{"code": "some_code"}]}',
        b'{"errors": [{}]}',
        b'{"errors": ["no"]}',
    )
]


def test_an_event_that_was_accepted_is_accepted_whatever_the_body(calling):
    for answer in [*DESCRIBED, *OTHER]:
        error, requests, waits = outcome(calling, create, answer)

        assert error is None, answer.status
        assert (requests, waits) == (1, 0), (answer.status, answer.body[:60])


def test_a_success_that_is_no_json_or_lists_errors_is_an_error_and_not_repeated(calling):
    for use in (create, create_summary):
        for answer in FALSE:
            error, requests, _ = outcome(calling, use, answer)

            assert type(error) is InvalidResponseError, (use.__name__, answer)
            assert error.may_have_been_processed, (use.__name__, answer)
            assert error.response.content == answer.body
            assert (error.tries, requests) == (1, 1), (use.__name__, answer)


def test_a_summary_that_was_accepted_is_accepted(calling):
    for answer in [*OTHER, *answered(202, *EMPTY, *HARMLESS)]:
        error, requests, _ = outcome(calling, create_summary, answer)

        assert error is None, answer
        assert requests == 1, answer


@every_driver
@every_library
@leaves_to_the_collector
def test_each_driver_takes_a_202_whose_body_cannot_be_read_for_a_success(calling, library):
    for answer in DESCRIBED[-9:]:
        error, requests, _ = outcome(calling, create, answer, library=library)

        assert error is None, (answer.headers, answer.ends_in)
        assert requests == 1
        raw, transport = [], Scripted(answer, library=library)

        def use(client: Any, raw: list[Any] = raw) -> Any:
            raw.append((yield create(client.with_raw_response)))

        calling(transport.of_its_library()).steps(use)
        assert [(one.status_code, one.parsed) for one in raw] == [(202, None)]


def test_a_tracker_sends_an_event_once_that_was_accepted(tmp_path):
    for number, answer in enumerate([*DESCRIBED[-5:], *answered(200, b"{}", b""), Answer(204)]):
        for outbox in (None, tmp_path / str(number)):
            transport = Scripted(answer)
            with (
                DataEventsClient("token", transport=transport, max_retries=0) as client,
                Tracker(client, outbox, close_timeout=0) as tracker,
            ):
                tracker.track("placed-order", user_id="1")
                assert tracker.flush(PATIENCE), answer.status
                assert tracker.counters.sent == 1, answer.status

            assert len(transport.requests) == 1, answer.status


def test_create_many_takes_it_for_a_success_too(calling):
    for answer in [*DESCRIBED[-5:], *answered(200, b"{}", b""), Answer(204)]:
        events = [{"event_name": "a", "user_id": "1", "created_at": second} for second in (5, 6)]
        transport = Scripted(answer)

        found = list(calling(transport)(lambda client, e=events: client.create_many(e)))

        assert [one.status for one in found] == ["accepted"] * 2, answer.status
        assert len(transport.requests) == 2


# Reading.


def listing(*names: str, next_page: str | None = None) -> Answer:
    events = [{"event_name": name, "created_at": 1671028894} for name in names]
    body = {"type": "event.list", "events": events, "pages": {"next": next_page}}
    return Answer(200, (json.dumps(body).encode(),))


SUMMED = Answer(200, (b'{"type": "event.summary", "events": [{"name": "a"}]}',))
#: What a server or a proxy answers with for a while.
UNREADABLE = [
    *answered(
        200,
        *EMPTY,
        b"null",
        b"[]",
        b'["event"]',
        b'"events"',
        b"5",
        b"true",
        b'{"type": "event.list", "eve',
        b'{"type": "event.list", "events": [{"event_name": "a", "created_at": 1}',
        HTML,
        b"upstream connect error",
        b"\xff\xfe\x00",
    ),
    *answered(201, b"", HTML),
    *answered(202, b"", b"null"),
    Answer(204),
    Answer(206, (b'{"type": "event.list", "eve',)),
    Answer(200, (b"not gzip",), GZIP),
    Answer(200, (b"\x1f\x8b\x08\x00garbage",), GZIP),
]


def name_of(found: Any) -> str:
    """The name of the only event of whatever a reading returned."""
    found = getattr(found, "parsed", found)
    (event,) = getattr(found, "events", found)
    return getattr(event, "event_name", None) or event.name


READINGS = {
    "list": (lambda client: client.list(user_id="1"), listing("a")),
    "summary": (lambda client: client.summary(user_id="1"), SUMMED),
    "raw list": (lambda client: client.with_raw_response.list(user_id="1"), listing("a")),
    "raw summary": (lambda client: client.with_raw_response.summary(user_id="1"), SUMMED),
}


def test_an_unreadable_reading_is_asked_for_again(calling):
    for name, (use, good) in READINGS.items():
        for bad in UNREADABLE:
            transport = Scripted(bad, bad, good)
            call = calling(transport)

            assert name_of(call(use)) == "a", (name, bad)
            assert len(transport.requests) == 3, (name, bad)
            assert len(call.clock.waits) == 2
            assert call.clock.waits[0] <= 0.5
            assert call.clock.waits[1] <= 1


def test_a_reading_that_stays_unreadable_is_an_error_that_holds_the_last_answer(calling):
    for name, (use, _) in READINGS.items():
        for bad in UNREADABLE:
            for retries in (0, 2):
                error, requests, waits = outcome(
                    calling, use, Answer(503), Answer(503), bad, max_retries=retries + 2
                )

                case = name, bad, retries
                assert type(error) is InvalidResponseError, case
                assert (error.tries, requests, waits) == (retries + 3,) * 2 + (retries + 2,), case
                assert error.response.status_code == bad.status, case
                assert not error.may_have_been_processed
                if "Content-Encoding" not in bad.headers:
                    assert error.response.content == bad.body, case


def test_without_retries_it_is_an_error_at_once(calling):
    for name, (use, _) in READINGS.items():
        for bad in UNREADABLE:
            error, requests, waits = outcome(calling, use, bad, max_retries=0)

            assert type(error) is InvalidResponseError, (name, bad)
            assert (error.tries, requests, waits) == (1, 1, 0), (name, bad)


def test_it_waits_as_long_as_such_an_answer_asks_within_the_deadline(calling):
    asking = Answer(200, (HTML,), {"Retry-After": "60"})
    use, good = READINGS["summary"]
    call = calling(Scripted(asking, good))
    assert name_of(call(use)) == "a"
    assert call.clock.waits == [60]

    error, requests, waits = outcome(calling, use, asking, deadline=100)

    assert type(error) is InvalidResponseError
    assert (requests, waits) == (2, 1)


@every_driver
@every_library
@leaves_to_the_collector
def test_in_the_middle_of_a_listing_a_page_is_asked_for_again(calling, library):
    first = listing("a", next_page=f"{HERE}?before=5")
    for bad in UNREADABLE[::3]:
        transport = Scripted(first, bad, bad, listing("b"), library=library)

        events = calling(transport.of_its_library())(lambda client: client.list(user_id="1"))

        assert [event.event_name for event in events] == ["a", "b"], bad
        assert [request.url.query for request in transport.requests[1:]] == [b"before=5"] * 3


@every_driver
def test_a_page_that_stays_unreadable_ends_the_listing_after_the_events_before_it(calling):
    transport = Scripted(listing("a", next_page=f"{HERE}?before=5"), Answer(200, (HTML,)))
    seen = []

    async def aread(events: Any) -> None:
        async for event in events:
            seen.append(event.event_name)  # noqa: PERF401  # what came before an error counts

    def read(client: Any) -> Any:
        events = client.list(user_id="1")
        if hasattr(events, "__aiter__"):
            return aread(events)
        seen.extend(event.event_name for event in events)
        return None

    with pytest.raises(InvalidResponseError) as caught:
        calling(transport)(read, max_retries=2)

    assert seen == ["a"]
    assert caught.value.tries == 3
    assert len(transport.requests) == 4


def test_a_listing_that_is_cut_off_by_the_connection_is_still_asked_for_again(calling):
    use, good = READINGS["list"]
    for kind in (httpx.ReadError, ConnectionResetError):
        cut = Answer(200, (b'{"type": "event.list", "ev',), {}, kind)

        assert outcome(calling, use, cut, good) == (None, 2, 1)
        assert type(outcome(calling, use, cut)[0]) is APIConnectionError
