"""Views with other options share their client's connections; contacts bind its verbs."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import anyio
import httpx
import pytest

from intercom_data_events import (
    API_VERSION,
    AsyncDataEventsClient,
    DataEventsClient,
    Event,
    IdentityError,
    InvalidInputError,
    TimestampError,
)

ACCEPTED = httpx.Response(202)
OTHER = "2.13" if API_VERSION == "2.14" else "2.14"
CREATE = {"event_name": "placed-order", "user_id": "1"}
SUMMARY = {"event_name": "invited-friend", "count": 3, "first": 1389913941, "last": 1671028894}


# Options of one call.


def test_options_hold_for_their_view_alone(answering):
    call, transport = answering(ACCEPTED)

    def use(client):
        view = client.with_options(
            version=OTHER, timeout=5, max_retries=0, headers={"X-Trace": "1"}
        )
        further = view.with_options(headers={"X-Span": "2"})
        return [one.create(**CREATE) for one in (view, further, client)]

    async def each(results):
        for result in results:
            await result

    call(lambda client: each(found) if (found := use(client))[0] is not None else None)

    assert [
        (
            request.headers["intercom-version"],
            request.extensions["timeout"]["read"],
            request.headers.get("x-trace"),
            request.headers.get("x-span"),
        )
        for request in transport.requests
    ] == [(OTHER, 5, "1", None), (OTHER, 5, "1", "2"), (API_VERSION, 30, None, None)]


def test_closing_a_view_leaves_the_client_open(emulator):
    client = DataEventsClient("token", transport=emulator.transport())
    with client.with_options(timeout=5) as view:
        view.create(**CREATE)
    view.create(**CREATE)
    client.create(**CREATE)
    client.close()

    with pytest.raises(RuntimeError, match="closed"):
        client.create(**CREATE)
    with pytest.raises(RuntimeError, match="closed"):
        view.create(**CREATE)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_closing_an_async_view_leaves_the_client_open(emulator, backend):
    async def use():
        client = AsyncDataEventsClient("token", transport=emulator.transport())
        async with client.with_options(timeout=5) as view:
            await view.create(**CREATE)
        await client.create(**CREATE)
        await client.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await view.create(**CREATE)

    anyio.run(use, backend=backend)


def test_a_client_that_was_never_used_can_be_closed_and_stays_so(emulator):
    client = DataEventsClient("token", transport=emulator.transport())
    client.close()

    with pytest.raises(RuntimeError, match="closed"):
        client.create(**CREATE)


def test_an_http_client_of_ones_own_is_never_closed(emulator):
    with httpx.Client(transport=emulator.transport()) as own:
        with DataEventsClient("token", http_client=own) as client:
            client.create(**CREATE)
        assert not own.is_closed


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_async_http_client_of_ones_own_is_never_closed(emulator, backend):
    async def use():
        async with httpx.AsyncClient(transport=emulator.transport()) as own:
            async with AsyncDataEventsClient("token", http_client=own) as client:
                await client.create(**CREATE)
                assert client.rate_limit.limit == 1667
            assert not own.is_closed

    anyio.run(use, backend=backend)


def test_a_view_keeps_what_a_subclass_adds(emulator):
    class Client(DataEventsClient):
        app = "none"

    client = Client("token", transport=emulator.transport())
    client.app = "shop"

    assert client.with_options(timeout=5).app == "shop"


def test_a_client_can_be_closed_twice(emulator):
    client = DataEventsClient("token", transport=emulator.transport())
    client.create(**CREATE)
    client.close()
    client.close()


def test_hooks_and_headers_of_an_http_client_of_ones_own_still_work(call):
    seen = []

    def hook(request):
        seen.append((request.headers["x-app"], request.headers["user-agent"]))

    async def async_hook(request):
        hook(request)

    own = call.http_client(
        transport=httpx.MockTransport(lambda request: httpx.Response(202)),
        headers={"X-App": "shop"},
        event_hooks={"request": [hook if call.backend == "blocking" else async_hook]},
    )
    call(lambda client: client.create(**CREATE), http_client=own)

    assert len(seen) == 1
    assert seen[0][0] == "shop"
    assert seen[0][1].startswith("intercom-data-events/")


# The whole answer.


def test_a_raw_answer_has_everything(call, emulator):
    answer = call(lambda client: client.with_raw_response.send(Event(**CREATE)))

    assert answer.status_code == 202
    assert answer.headers["X-RateLimit-Limit"] == "1667"
    assert answer.content == b""
    assert answer.text == ""
    assert answer.parsed is None
    assert answer.request_id == answer.headers["x-request-id"]


def test_a_raw_listing_is_one_page(call):
    call(lambda client: client.create(**CREATE, created_at=1671028890))
    call(lambda client: client.create(**CREATE, created_at=1671028891))

    answer = call(lambda client: client.with_raw_response.list(user_id="1", per_page=1))

    assert len(answer.parsed.events) == 1
    assert answer.parsed.next
    assert b"event.list" in answer.content


@pytest.mark.parametrize("bound", ["client", "raw client", "contact"])
def test_excess_metadata_can_be_dropped_wherever_events_are_created(call, emulator, bound):
    metadata = {f"key_{number}": number for number in range(12)}

    def use(client):
        arguments = {"metadata": metadata, "drop_excess_metadata": True, "created_at": 1671028894}
        if bound == "contact":
            return client.contact(user_id="1").create("placed-order", **arguments)
        creating = client if bound == "client" else client.with_raw_response
        return creating.create("placed-order", user_id="1", **arguments)

    call(use)

    assert list(emulator.requests[0].json["metadata"]) == list(metadata)[:10]


def test_a_raw_listing_can_go_on_from_a_cursor(call):
    call(lambda client: client.create(**CREATE, created_at=1671028890))
    first = call(lambda client: client.with_raw_response.list(user_id="1")).parsed
    call(lambda client: client.create(**CREATE, created_at=1671028891))

    newer = call(lambda client: client.with_raw_response.list(since=first.since)).parsed

    assert len(newer.events) == 1


def test_an_answer_shows_neither_its_headers_nor_its_content(call):
    call(lambda client: client.create(**CREATE, created_at=1671028890))
    answer = call(lambda client: client.with_raw_response.list(user_id="1"))

    assert "rate" not in repr(answer).lower()
    assert b"placed-order" in answer.content
    assert "before=" not in repr(answer.parsed)


def test_a_raw_failure_is_an_error_all_the_same(answering):
    call, _ = answering(httpx.Response(404))

    with pytest.raises(Exception, match="404"):
        call(lambda client: client.with_raw_response.create(**CREATE))


# One contact.


@pytest.mark.parametrize(
    ("identity", "sent", "asked"),
    [
        ({"user_id": "1"}, {"user_id": "1"}, {"user_id": "1"}),
        ({"email": "a@b.co"}, {"email": "a@b.co"}, {"email": "a@b.co"}),
        ({"id": "63a0"}, {"id": "63a0"}, {"intercom_user_id": "63a0"}),
    ],
)
def test_the_verbs_can_be_bound_to_a_contact(call, emulator, identity, sent, asked):
    call(
        lambda client: client.contact(**identity).create(
            "invited-friend", created_at=1671028894, metadata={"invite_code": "ADDAFRIEND"}
        )
    )
    (event,) = call(lambda client: client.contact(**identity).list(per_page=5))
    summary = call(lambda client: client.contact(**identity).summary())

    create, listing, summing = emulator.requests
    assert create.json == {
        "event_name": "invited-friend",
        "created_at": 1671028894,
        **sent,
        "metadata": {"invite_code": "ADDAFRIEND"},
    }
    assert dict(listing.query) == {"type": "user", **asked, "per_page": "5"}
    assert dict(summing.query) == {"type": "user", **asked, "summary": "true"}
    assert event.metadata == {"invite_code": "ADDAFRIEND"}
    assert [(item.name, item.count) for item in summary.events] == [("invited-friend", 1)]


def test_a_summary_is_imported_for_a_contact_bound_by_user_id(call):
    call(lambda client: client.contact(user_id="1").create_summary(**SUMMARY))
    (item,) = call(lambda client: client.contact(user_id="1").summary()).events

    assert (item.name, item.count) == ("invited-friend", 3)
    assert item.first == datetime(2014, 1, 16, 23, 12, 21, tzinfo=UTC)
    assert item.last == datetime(2022, 12, 14, 14, 41, 34, tzinfo=UTC)

    with pytest.raises(IdentityError, match="user_id"):
        call(lambda client: client.contact(email="a@b.co").create_summary(**SUMMARY))


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        ({}, "none is given"),
        ({"user_id": "1", "id": "2"}, "user_id and id are given"),
        ({"user_id": 1}, "'1'"),
        ({"email": " "}, "empty"),
    ],
)
def test_a_contact_is_bound_by_exactly_one_identity(call, identity, said):
    with pytest.raises(IdentityError, match=said):
        call(lambda client: client.contact(**identity))


def test_a_contact_shows_who_it_is(call):
    shown = repr(call(lambda client: client.contact(user_id="1")))

    assert "user_id='1'" in shown
    assert "token" not in shown


# Importing a summary.


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        ({"user_id": None}, IdentityError, "user_id"),
        ({"user_id": ""}, IdentityError, "user_id"),
        ({"event_name": ""}, InvalidInputError, "event_name"),
        ({"count": 0}, InvalidInputError, "count"),
        ({"count": True}, InvalidInputError, "count"),
        ({"count": 1.5}, InvalidInputError, "count"),
        ({"first": 1671028895}, InvalidInputError, "first is later than last"),
        ({"first": 1389913941000}, TimestampError, "first.*1000"),
        ({"last": datetime(2022, 1, 1)}, TimestampError, "last.*time zone"),  # noqa: DTZ001  # tested
    ],
)
def test_a_summary_is_checked_before_it_is_sent(call, emulator, wrong, kind, said):
    with pytest.raises(kind, match=said):
        call(lambda client: client.create_summary(**{"user_id": "1", **SUMMARY, **wrong}))

    assert emulator.requests == ()


# The rate limit.


def test_the_rate_limit_is_what_the_last_answer_said(emulator):
    client = DataEventsClient("token", transport=emulator.transport())
    assert client.rate_limit is None

    client.create(**CREATE)
    client.with_options(version="Preview").create(**CREATE)

    assert client.rate_limit.limit == 1667
    assert client.rate_limit.remaining == 1665
    assert client.rate_limit.reset_at == datetime.fromtimestamp(1671028900, UTC).replace(second=50)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-RateLimit-Limit": "1667"},
        {"X-RateLimit-Limit": "many", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "1"},
        {"X-RateLimit-Limit": "1", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "1e99"},
        {"X-RateLimit-Limit": "1", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "9" * 30},
    ],
)
def test_headers_that_say_no_rate_limit_are_none(headers):
    transport = httpx.MockTransport(lambda request: httpx.Response(202, headers=headers))
    client = DataEventsClient("token", transport=transport)

    client.create(**CREATE)

    assert client.rate_limit is None


def test_the_rate_limit_of_an_answer_that_says_none_leaves_the_last_one(answering):
    said = {"X-RateLimit-Limit": "10", "X-RateLimit-Remaining": "9", "X-RateLimit-Reset": "1"}
    answers = [httpx.Response(202, headers=said), ACCEPTED]
    client = DataEventsClient(
        "token", transport=httpx.MockTransport(lambda request: answers.pop(0))
    )

    client.create(**CREATE)
    client.create(**CREATE)

    assert client.rate_limit.remaining == 9


# Many at once.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_makes_connections_of_its_own(emulator):
    with emulator.serve() as url, DataEventsClient("token", base_url=url) as client:
        client.create("a", user_id="parent", created_at=1671028890)
        children = []
        for number in range(3):
            child = os.fork()
            if child == 0:
                # Nothing but the exit code may leave the child: it is a copy of the test run.
                whose = {client.summary(user_id="parent").user_id for _ in range(20)}
                client.create("a", user_id=f"child {number}", created_at=1671028890)
                os._exit(0 if whose == {"parent"} else 1)
            children.append(child)
        codes = [os.waitpid(child, 0)[1] for child in children]
        client.create("a", user_id="parent", created_at=1671028891)

    assert codes == [0, 0, 0]
    assert sorted(event.user_id for event in emulator.events) == [
        "child 0",
        "child 1",
        "child 2",
        "parent",
        "parent",
    ]


def test_one_client_serves_many_threads(emulator):
    from concurrent.futures import ThreadPoolExecutor

    with (
        emulator.serve() as url,
        DataEventsClient("token", base_url=url) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        list(pool.map(lambda n: client.create("a", user_id=str(n)), range(100)))

    assert {event.user_id for event in emulator.events} == {str(n) for n in range(100)}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_one_client_serves_many_tasks(emulator, backend):
    async def use(url):
        async with (
            AsyncDataEventsClient("token", base_url=url) as client,
            anyio.create_task_group() as tasks,
        ):
            for number in range(50):
                tasks.start_soon(lambda n=str(number): client.create("a", user_id=n))

    with emulator.serve() as url:
        anyio.run(use, url, backend=backend)

    assert len(emulator.events) == 50
