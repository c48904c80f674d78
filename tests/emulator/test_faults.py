"""What goes wrong on purpose, as clients of every kind meet it."""

from __future__ import annotations

import gzip
import math
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterable
from functools import partial
from itertools import islice
from queue import SimpleQueue
from typing import Literal, NoReturn

import anyio
import anyio.to_thread
import httpx
import pytest
import trustme

from intercom_data_events.clock import Clock
from intercom_data_events.emulator import (
    FAULTS,
    EmulatedContact,
    Emulator,
    EmulatorCounts,
    Fault,
    ManualClock,
    random_faults,
)

from .conftest import NOW, ORIGIN
from .drivers import (
    DRIVERS,
    EVENT,
    HEADERS,
    PATIENCE,
    SOCKETS,
    Ask,
    Drive,
    ask_list,
    create,
)

SHORT_PATIENCE = 0.05


@pytest.fixture
def drive() -> Drive:
    """In process, for what the emulator decides before anything is sent."""
    return DRIVERS["in process"]


@pytest.fixture(params=["in process", "in process, asyncio", "socket"])
def sent(request: pytest.FixtureRequest) -> Drive:
    """What carries answers out has code of its own for each of these."""
    return DRIVERS[request.param]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(float(NOW))


def faulty(*faults: Fault | None, clock: Clock | None = None) -> Emulator:
    return Emulator(clock=clock or ManualClock(float(NOW)), faults=faults)


def stored(emulator: Emulator) -> list[int]:
    return [event.created_at - NOW for event in emulator.events]


Outcome = int | type[httpx.TransportError]

#: A fault, what a client meets that creates an event, and whether the event is stored.
OUTCOMES: list[tuple[Fault, Outcome, bool]] = [
    (Fault.slow(0.2), 202, True),
    (Fault.slow(0.2, processed=False), 502, False),
    (Fault.slow(math.inf), httpx.ReadTimeout, True),
    (Fault.slow(math.inf, processed=False), httpx.ReadTimeout, False),
    (Fault.reset(), httpx.ReadError, False),
    (Fault.reset(processed=True), httpx.ReadError, True),
    (Fault.cut_short(), httpx.RemoteProtocolError, True),
    (Fault.trickling(0.005), 202, True),
    (Fault.trickling(math.inf), httpx.ReadTimeout, True),
    (Fault.failing(), 500, False),
    (Fault.failing(408), 408, False),
    (Fault.failing(500), 500, False),
    (Fault.failing(500, processed=True), 500, True),
    (Fault.failing(502, html=True), 502, False),
    (Fault.failing(503), 503, False),
    (Fault.failing(504, processed=True, html=True), 504, True),
    (Fault.failing(520), 520, False),
    (Fault.failing(524, processed=True, html=True), 524, True),
    (Fault.rate_limited(), 429, False),
    (Fault.rate_limited(retry_after=1), 429, False),
    (Fault.other_version(), 202, True),
    (Fault.misleading("elsewhere"), 202, True),
    (
        Fault(name="a cut page", status=503, body=b"Down", connection="cut"),
        httpx.RemoteProtocolError,
        True,
    ),
    (
        Fault(name="late reset", delay=3, connection="reset", processed=False),
        httpx.ReadError,
        False,
    ),
    (
        Fault(name="a trickle cut", body=b"Down", trickle=1, connection="cut"),
        httpx.RemoteProtocolError,
        True,
    ),
    (Fault(name="one byte cut", body=b"D", connection="cut"), httpx.RemoteProtocolError, True),
]


@pytest.mark.parametrize("name", DRIVERS)
def test_a_fault_befalls_one_request_and_then_all_is_well(name: str) -> None:
    plan = [one for fault, _, _ in OUTCOMES for one in (fault, None)]
    emulator = faulty(*plan)
    asks: list[Ask] = []
    for _, outcome, _ in OUTCOMES:
        patience = SHORT_PATIENCE if outcome is httpx.ReadTimeout else PATIENCE
        asks += [create(len(asks), patience=patience), create(len(asks) + 1)]

    met = DRIVERS[name](emulator, *asks)

    outcomes = [
        (fault.name, one.status if one.failure is None else type(one.failure))
        for (fault, _, _), one in zip(OUTCOMES, met[::2], strict=True)
    ]
    assert outcomes == [(fault.name, outcome) for fault, outcome, _ in OUTCOMES]
    well = (202, b"", None)
    assert [(one.status, one.body, one.failure) for one in met[1::2]] == [well] * len(OUTCOMES)
    unprocessed = {2 * number for number, (_, _, processed) in enumerate(OUTCOMES) if not processed}
    assert stored(emulator) == [number for number in range(len(plan)) if number not in unprocessed]
    assert emulator.counts == EmulatorCounts(
        requests=len(plan),
        processed=len(plan) - len(unprocessed),
        stored=len(plan) - len(unprocessed),
        faults=Counter(fault.name for fault, _, _ in OUTCOMES),
    )
    assert len(emulator.requests) == len(plan)


def test_the_usual_faults_are_all_tried_above() -> None:
    tried = [fault for fault, _, _ in OUTCOMES]
    assert [fault for fault in FAULTS if fault not in tried] == []


def test_none_of_the_usual_faults_delays_an_event_for_longer_than_a_second(drive: Drive) -> None:
    for fault in FAULTS:
        clock = ManualClock()
        drive(faulty(fault, clock=clock), create())
        assert sum(clock.waits) <= 1, fault.name


def test_a_plan_is_followed_in_its_order_and_ends(drive: Drive) -> None:
    emulator = faulty(Fault.failing(503), None, Fault.rate_limited(), None, Fault.failing(500))
    met = drive(emulator, *(create(second) for second in range(7)))
    assert [one.status for one in met] == [503, 202, 429, 202, 500, 202, 202]
    assert stored(emulator) == [1, 3, 5, 6]
    assert emulator.counts.faults == {"503": 1, "429": 1, "500": 1}


def test_a_failure_has_no_body_unless_it_is_to_be_html(sent: Drive) -> None:
    statuses = [408, 500, 503, 520]
    pages = [Fault.failing(status, html=True) for status in statuses]
    met = sent(faulty(*map(Fault.failing, statuses), *pages), *[create()] * 8)
    assert [one.status for one in met] == statuses * 2
    for plain, page in zip(met[:4], met[4:], strict=True):
        assert (plain.body, plain.headers.get("Content-Type")) == (b"", None)
        assert page.headers["Content-Type"] == "text/html"
        assert page.body.startswith(b"<html>")


def test_a_failure_before_processing_shows_nothing_of_the_api(sent: Drive) -> None:
    (met,) = sent(faulty(Fault.failing(502)), create())
    assert {"Date"} <= {name.title() for name in met.headers}
    for name in ("X-Request-Id", "Intercom-Version", "X-RateLimit-Limit"):
        assert name not in met.headers


def test_a_failure_after_processing_still_shows_the_api(drive: Drive) -> None:
    (met,) = drive(faulty(Fault.failing(500, processed=True)), create())
    assert met.headers["X-RateLimit-Remaining"] == "1666"
    assert "X-Request-Id" in met.headers


def test_a_refusal_stays_one_when_something_else_goes_wrong(drive: Drive) -> None:
    emulator = faulty(Fault.slow(2), Fault.reset(processed=True))
    slow, reset = drive(emulator, Ask(json={}), Ask(json={}))
    assert (slow.status, slow.json["type"]) == (400, "error.list")
    assert isinstance(reset.failure, httpx.ReadError)
    assert emulator.counts == EmulatorCounts(
        requests=2, refused=2, faults={"slow": 1, "reset after processing": 1}
    )


@pytest.mark.parametrize(
    ("retry_after", "sent"),
    [
        (None, None),
        (7, "7"),
        (1.5, "1.5"),
        ("Wed, 14 Dec 2022 14:41:47 GMT", "Wed, 14 Dec 2022 14:41:47 GMT"),
    ],
)
def test_a_429_on_purpose_says_when_to_come_back_only_where_it_is_told_to(
    drive: Drive, retry_after: float | str | None, sent: str | None
) -> None:
    (met,) = drive(faulty(Fault.rate_limited(retry_after=retry_after)), create())
    assert (met.status, met.headers.get("Retry-After")) == (429, sent)
    assert met.headers["Content-Type"].startswith("application/json")
    assert met.json["type"] == "error.list"
    assert met.json["errors"] == [{"code": "rate_limit_exceeded", "message": "Exceeded rate limit"}]
    assert not [name for name in met.headers if name.lower().startswith("x-ratelimit")]


def test_another_version_is_named_than_the_one_asked_for(drive: Drive) -> None:
    emulator = faulty(Fault.other_version(), Fault.other_version("2.99"))
    met = drive(emulator, create(), create(), create())
    assert [one.headers["Intercom-Version"] for one in met[:2]] == ["1.0", "2.99"]
    assert met[2].headers["Intercom-Version"] not in ("1.0", "2.99")


def test_a_slow_answer_comes_after_its_delay_and_not_before(
    sent: Drive, clock: ManualClock
) -> None:
    emulator = faulty(Fault.slow(3.5), None, clock=clock)
    slow, quick = sent(emulator, create(1), create(2))
    assert clock.waits == [3.5]
    # It was made before it was waited for.
    assert slow.headers["Date"] == "Wed, 14 Dec 2022 14:41:40 GMT"
    assert quick.headers["Date"] == "Wed, 14 Dec 2022 14:41:43 GMT"


@pytest.mark.parametrize("fault", [Fault.slow(60), Fault.trickling(60)], ids=["slow", "trickling"])
@pytest.mark.parametrize("name", [name for name in DRIVERS if name not in SOCKETS])
def test_in_process_no_client_waits_for_longer_than_its_own_timeout(
    clock: ManualClock, name: str, fault: Fault
) -> None:
    emulator = faulty(fault, fault, clock=clock)
    impatient, patient = DRIVERS[name](emulator, create(1, patience=2.5), create(2, patience=None))
    assert isinstance(impatient.failure, httpx.ReadTimeout)
    assert patient.failure is None
    assert clock.waits[:2] == [2.5, 60]
    assert set(clock.waits[2:]) <= {60}


def test_half_of_an_answer_that_is_cut_short_arrives(sent: Drive) -> None:
    emulator = faulty(None, None, Fault.cut_short())
    _, whole, cut = sent(emulator, create(), ask_list(), ask_list())
    assert (cut.status, cut.headers["Content-Length"]) == (200, str(len(whole.body)))
    assert cut.body == whole.body[: len(whole.body) // 2]
    assert isinstance(cut.failure, httpx.RemoteProtocolError)


def test_of_an_answer_too_short_to_be_cut_not_even_the_status_arrives(sent: Drive) -> None:
    faults = [Fault(name="cut", body=body, connection="cut") for body in (b"", b"D")]
    for met in sent(faulty(*faults), create(), create()):
        assert met.status is None
        assert isinstance(met.failure, httpx.RemoteProtocolError)


class SteppedClock(Clock):
    """A clock on which each wait ends when a test says so."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.waiting = threading.Event()
        self._steps: SimpleQueue[None] = SimpleQueue()

    def step(self) -> None:
        self._steps.put(None)

    def alarm(self) -> SteppedAlarm:
        return SteppedAlarm(self)

    def async_alarm(self) -> AsyncSteppedAlarm:
        return AsyncSteppedAlarm(self)

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.waiting.set()
        self._steps.get(timeout=PATIENCE)


class SteppedAlarm:
    def __init__(self, clock: SteppedClock) -> None:
        self._clock = clock

    def set(self) -> None:
        raise AssertionError("nobody else ends these waits")

    def wait(self, seconds: float, /) -> None:
        self._clock.wait(seconds)


class AsyncSteppedAlarm:
    def __init__(self, clock: SteppedClock) -> None:
        self._clock = clock

    def set(self) -> None:
        raise AssertionError("nobody else ends these waits")

    async def wait(self, seconds: float, /) -> None:
        await anyio.to_thread.run_sync(self._clock.wait, seconds)


def test_a_trickling_answer_comes_byte_by_byte(sent: Drive) -> None:
    clock = SteppedClock()
    emulator = faulty(Fault(name="trickling", body=b"bytes", trickle=3.0), clock=clock)
    # The next byte is let go when the one before has been read.
    (met,) = sent(emulator, Ask(json=EVENT, before_part=clock.step))
    assert met.parts == [b"b", b"y", b"t", b"e", b"s"]
    assert clock.waits == [3.0] * 5
    assert (met.status, met.failure) == (202, None)


def test_a_list_that_trickles_is_whole(sent: Drive, clock: ManualClock) -> None:
    emulator = faulty(None, None, Fault.trickling(0.5), clock=clock)
    _, whole, trickled = sent(emulator, create(), ask_list(), ask_list())
    assert trickled.json == whole.json
    assert clock.waits == [0.5] * len(whole.body)


def test_an_empty_answer_that_trickles_is_filled_with_blanks(
    drive: Drive, clock: ManualClock
) -> None:
    (met,) = drive(faulty(Fault.trickling(), clock=clock), create())
    assert met.body.isspace()
    assert clock.waits == [1.0] * len(met.body)


def follow(link: str) -> Ask:
    return Ask(method="GET", path=httpx.URL(link).raw_path.decode())


Pages = Literal["elsewhere", "again", "overlapping"]


def listing(drive: Drive, pages: Pages, **query: str) -> tuple[Emulator, str, list[int]]:
    """The `next` link of a first page of five events, which misleads, and what is on that page."""
    emulator = faulty(*[None] * 5, Fault.misleading(pages))
    *_, met = drive(emulator, *(create(second) for second in range(5)), ask_list(**query))
    assert met.status == 200
    return emulator, met.json["pages"]["next"], seconds(met.json)


def seconds(document: dict[str, list[dict[str, int]]]) -> list[int]:
    return [event["created_at"] - NOW for event in document["events"]]


def test_the_next_page_is_said_to_be_on_another_host(drive: Drive) -> None:
    emulator, link, first = listing(drive, "elsewhere", per_page="2")
    assert httpx.URL(link).host == "elsewhere.example"
    (met,) = drive(emulator, follow(link))
    assert (first, seconds(met.json)) == ([4, 3], [2, 1])


def test_the_next_page_is_the_same_again(drive: Drive) -> None:
    emulator, link, first = listing(drive, "again", per_page="2")
    (met,) = drive(emulator, follow(link))
    assert (first, seconds(met.json)) == ([4, 3], [4, 3])
    (met,) = drive(emulator, follow(met.json["pages"]["next"]))
    assert seconds(met.json) == [2, 1]


@pytest.mark.parametrize(
    ("size", "found"),
    [
        (1, [[4], [4], [3], [2], [1], [0]]),
        (2, [[4, 3], [3, 2], [1, 0]]),
        (4, [[4, 3, 2, 1], [1, 0]]),
    ],
)
def test_the_next_page_begins_with_the_last_event_of_this(
    drive: Drive, size: int, found: list[list[int]]
) -> None:
    emulator, link, first = listing(drive, "overlapping", per_page=str(size))
    pages = [first]
    following: str | None = link
    while following is not None:
        (met,) = drive(emulator, follow(following))
        pages.append(seconds(met.json))
        following = met.json["pages"].get("next")
    assert pages == found


@pytest.mark.parametrize("pages", ["elsewhere", "again", "overlapping"])
def test_nothing_else_than_a_next_link_misleads(drive: Drive, pages: Pages) -> None:
    fault = Fault.misleading(pages)
    asks = [create(), ask_list(), ask_list(summary="true"), ask_list(type="company")]
    emulator = faulty(*[fault] * 4)
    misled = drive(emulator, *asks)
    wanted = drive(faulty(), *asks)
    assert [one.status for one in misled] == [one.status for one in wanted] == [202, 200, 200, 400]
    assert "next" not in misled[1].json["pages"]
    assert misled[2].json == wanted[2].json
    assert emulator.counts.refused == 1


def test_a_body_of_a_faults_own_is_sent_as_it_is(sent: Drive) -> None:
    headers = {"Content-Encoding": "gzip"}
    zipped, broken = gzip.compress(b"Down for maintenance"), b"no gzip at all"
    emulator = faulty(
        Fault(name="zipped", status=503, headers=headers, body=zipped),
        Fault(name="broken", status=503, headers=headers, body=broken),
    )
    met = sent(emulator, create(), create())
    assert [one.body for one in met] == [zipped, broken]
    assert {one.headers["Content-Encoding"] for one in met} == {"gzip"}


def test_no_body_comes_where_http_has_none(sent: Drive) -> None:
    gone = Fault(name="204", status=204, body=b"Down")
    plan = [one for fault in FAULTS for one in (fault, gone, None)]
    met = sent(faulty(*plan), *[Ask(method="HEAD"), create(), create()] * len(FAULTS))
    assert [one.body for one in met[::3]] == [b""] * len(FAULTS)
    assert {(one.status, one.body, one.failure) for one in met[1::3]} == {(204, b"", None)}
    assert {one.status for one in met[2::3]} == {202}


@pytest.mark.parametrize(
    "fault",
    [
        Fault(name="no header", headers={"X-Cache": "two\r\nlines"}),
        Fault(name="no status", status=1000),
        Fault(name="no length", headers={"Content-Length": "99"}),
    ],
    ids=lambda fault: str(fault.name),
)
def test_an_answer_that_is_no_http_does_not_end_the_server(
    caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    first, second = SOCKETS["socket"](faulty(fault), create(1), create(2))
    assert isinstance(first.failure, httpx.RemoteProtocolError)
    assert second.status == 202
    assert "cannot be sent" in caplog.text


def names(plan: Iterable[Fault | None], length: int = 200) -> list[str | None]:
    return [fault.name if fault else None for fault in islice(plan, length)]


def test_random_plans_are_the_same_for_the_same_seed_alone() -> None:
    assert names(random_faults(0.5, seed=1)) == names(random_faults(0.5, seed=1))
    assert names(random_faults(0.5, seed=1)) != names(random_faults(0.5, seed=2))
    assert names(random_faults(0.5)) != names(random_faults(0.5))


def test_a_random_plan_has_the_share_that_is_asked_for_and_of_every_kind() -> None:
    assert set(names(random_faults(0, seed=1))) == {None}
    assert None not in names(random_faults(1, seed=1))
    plan = list(islice(random_faults(0.3, seed=1), 2000))
    assert 500 < sum(fault is not None for fault in plan) < 700
    assert [fault for fault in FAULTS if fault not in plan] == []


def test_a_random_plan_chooses_among_what_it_is_given() -> None:
    among = [Fault.slow(1), Fault.reset()]
    assert set(names(random_faults(1, seed=1, among=among))) == {"slow", "reset"}


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_that_is_none_is_refused_before_the_plan_is_used(share: float) -> None:
    with pytest.raises(ValueError, match="share must be from 0 to 1"):
        random_faults(share)


def test_a_plan_with_nothing_to_choose_from_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one fault"):
        random_faults(among=[])


def test_everything_that_becomes_of_requests_is_counted_once(drive: Drive) -> None:
    emulator = Emulator(
        clock=ManualClock(float(NOW)),
        contacts=[EmulatedContact(user_id="314159")],
        rate_limit=7,
        faults=[None, None, Fault.reset(), Fault.failing(500, processed=True), Fault.slow(0.1)],
    )
    summary = {"user_id": "314159", "event_summaries": {"event_name": "placed-order", "count": 2}}
    asks = [
        create(1),
        create(1),  # a duplicate
        create(2),  # reset before it was processed
        create(3),  # stored, but said to have failed
        create(3),  # a duplicate, slowly
        create(4, user_id="271828"),  # refused: nobody known
        ask_list(),
        Ask(path="/events/summaries", json=summary),
        create(5),  # beyond the limit
        Ask(method="GET", path="/nowhere"),  # likewise
    ]
    drive(emulator, *asks)
    assert stored(emulator) == [1, 3]
    assert emulator.counts == EmulatorCounts(
        requests=10,
        processed=5,
        stored=2,
        duplicates=2,
        refused=2,
        limited=2,
        faults={"reset": 1, "500 after processing": 1, "slow": 1},
    )


@pytest.mark.parametrize("name", ["in process", "socket"])
def test_the_counts_of_a_random_plan_add_up(name: str) -> None:
    emulator = Emulator(
        clock=ManualClock(float(NOW)), rate_limit=90, faults=random_faults(0.4, seed=3)
    )
    asks = [
        ask_list() if number % 7 == 0 else create(number % 50, event_name=("", "lost")[number % 2])
        for number in range(200)
    ]
    met = DRIVERS[name](emulator, *asks)

    plan = [fault for fault in islice(random_faults(0.4, seed=3), len(asks)) if fault]
    counts = emulator.counts
    assert counts.faults == Counter(fault.name for fault in plan)
    unprocessed = sum(not fault.processed for fault in plan)
    parts = (counts.processed, counts.refused, counts.limited, unprocessed)
    assert min(parts) > 0
    assert sum(parts) == counts.requests == len(emulator.requests) == len(asks)
    assert counts.stored == len(emulator.events) > 0
    accepted = sum(one.status == 202 for one in met)
    assert accepted <= counts.stored + counts.duplicates <= counts.processed


def test_clearing_forgets_what_was_counted_and_goes_on_in_the_plan(drive: Drive) -> None:
    emulator = faulty(Fault.failing(503), Fault.failing(500))
    drive(emulator, create())
    emulator.clear()
    assert emulator.counts == EmulatorCounts()
    (met,) = drive(emulator, create())
    assert met.status == 500


def test_counts_once_taken_stay_as_they_are() -> None:
    emulator = faulty(Fault.failing(503), Fault.failing(503))
    DRIVERS["in process"](emulator, create())
    counts = emulator.counts
    DRIVERS["in process"](emulator, create())
    assert (counts.requests, counts.faults) == (1, {"503": 1})


class HeldClock(Clock):
    """A clock on which tasks wait until a test lets them go, and threads may not wait at all."""

    def __init__(self) -> None:
        self.waiting = anyio.Event()
        self.released = anyio.Event()

    def alarm(self) -> NoReturn:
        raise AssertionError("the event loop would be blocked")

    def async_alarm(self) -> HeldClock:
        return self

    def set(self) -> None:
        raise AssertionError("nobody else ends these waits")

    async def wait(self, _seconds: float, /) -> None:
        self.waiting.set()
        await self.released.wait()


@pytest.mark.anyio
@pytest.mark.parametrize("fault", [Fault.slow(60), Fault.trickling(60)], ids=["slow", "trickling"])
async def test_other_tasks_go_on_while_one_waits_for_its_answer(fault: Fault) -> None:
    clock = HeldClock()
    emulator = faulty(fault, clock=clock)
    client = httpx.AsyncClient(
        transport=emulator.transport(), base_url=ORIGIN, headers=HEADERS, timeout=None
    )
    statuses: list[int] = []

    async def send() -> None:
        statuses.append((await client.post("/events", json=EVENT)).status_code)

    with anyio.fail_after(PATIENCE):
        async with client, anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await clock.waiting.wait()
            other = await client.post("/events", json={**EVENT, "created_at": NOW + 1})
            assert other.status_code == 202
            assert (statuses, len(emulator.events)) == ([], 2)
            clock.released.set()
    assert statuses == [202]


@pytest.mark.anyio
async def test_a_task_that_waits_for_its_answer_can_be_cancelled() -> None:
    clock = HeldClock()
    emulator = faulty(Fault.slow(60), clock=clock)
    client = httpx.AsyncClient(transport=emulator.transport(), headers=HEADERS, timeout=None)
    with anyio.fail_after(PATIENCE):
        async with client, anyio.create_task_group() as tasks:
            tasks.start_soon(partial(client.post, f"{ORIGIN}/events", json=EVENT))
            await clock.waiting.wait()
            tasks.cancel_scope.cancel()
    assert stored(emulator) == [0]


def test_other_threads_go_on_while_one_waits_for_its_answer() -> None:
    clock = SteppedClock()
    emulator = faulty(Fault.slow(60), clock=clock)
    client = httpx.Client(
        transport=emulator.transport(), base_url=ORIGIN, headers=HEADERS, timeout=None
    )
    with client:
        slow = threading.Thread(target=client.post, args=("/events",), kwargs={"json": EVENT})
        slow.start()
        try:
            assert clock.waiting.wait(PATIENCE)
            other = client.post("/events", json={**EVENT, "created_at": NOW + 1})
            assert other.status_code == 202
            assert slow.is_alive()
        finally:
            clock.step()
            slow.join(PATIENCE)
    assert not slow.is_alive()


def test_a_server_that_is_left_does_not_wait_for_its_slow_answers(clock: ManualClock) -> None:
    with faulty(Fault.slow(math.inf), clock=clock).serve() as url:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/events", timeout=httpx.Timeout(PATIENCE, read=SHORT_PATIENCE))
        assert httpx.get(f"{url}/nowhere").status_code == 401
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def served_with(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize("name", SOCKETS)
def test_over_tls_whoever_trusts_its_authority_is_answered(
    served_with: ssl.SSLContext, trusting: ssl.SSLContext, name: str
) -> None:
    emulator = faulty()
    asks = [create(1), create(2), ask_list(per_page="1")]
    *created, listed = SOCKETS[name](emulator, *asks, tls=served_with, verify=trusting)
    assert [one.status for one in created] == [202, 202]
    assert {httpx.URL(link).scheme for link in listed.json["pages"].values()} == {"https"}


def test_over_tls_whoever_does_not_trust_it_does_not_connect(served_with: ssl.SSLContext) -> None:
    emulator = faulty()
    met = SOCKETS["socket"](emulator, create(1), create(2), tls=served_with)
    assert [type(one.failure) for one in met] == [httpx.ConnectError] * 2
    assert emulator.requests == ()


def test_over_tls_the_same_goes_wrong(
    served_with: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    faults = [Fault.reset(), Fault.cut_short(), Fault.trickling(1), Fault.failing(503), None]
    asks = [create(number) for number in range(5)]
    met = SOCKETS["socket"](faulty(*faults), *asks, tls=served_with, verify=trusting)
    # Python's own TLS sees the end of a connection in a reset.
    assert isinstance(met[0].failure, (httpx.ReadError, httpx.RemoteProtocolError))
    assert isinstance(met[1].failure, httpx.RemoteProtocolError)
    assert [one.status for one in met[2:]] == [202, 503, 202]
    assert met[2].body.isspace()


def test_over_tls_an_oversized_body_is_refused_and_the_server_goes_on(
    served_with: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    with (
        faulty().serve(tls=served_with) as url,
        httpx.Client(base_url=url, headers=HEADERS, verify=trusting) as client,
    ):
        assert client.post("/events", content=b" " * 8 * 1024 * 1024).status_code == 413
        assert client.post("/events", json=EVENT).status_code == 202


def test_whoever_does_not_speak_tls_is_let_go_and_the_server_goes_on(
    served_with: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    with faulty().serve(tls=served_with) as url:
        address = (httpx.URL(url).host, httpx.URL(url).port or 0)
        for sent in (b"", b"\x16\x03", b"GET /events HTTP/1.1\r\nHost: api.example\r\n\r\n"):
            with socket.create_connection(address, timeout=PATIENCE) as plain:
                plain.sendall(sent)
                plain.shutdown(socket.SHUT_WR)
                while plain.recv(1024):
                    pass
        assert httpx.get(f"{url}/events", verify=trusting).status_code == 401
