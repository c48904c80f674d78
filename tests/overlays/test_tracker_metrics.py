"""A tracker's counters as OpenTelemetry metrics."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import anyio
import httpx
import pytest
from children import Child
from opentelemetry.metrics import MeterProvider as AnyMeterProvider
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Gauge, InMemoryMetricReader, Sum
from trackers import every_tracker, opened

from intercom_data_events import (
    AsyncDataEventsClient,
    ConfigurationError,
    DataEventsClient,
    OutboxError,
    __version__,
)
from intercom_data_events.tracker import AsyncTracker, Counters, Tracker
from intercom_data_events.tracker._metrics import register

#: Seconds after which whatever has not happened is stuck.
PATIENCE = 20
COUNTERS = ("sent", "refused", "dropped", "filtered", "collisions")
NAMES = {f"intercom.tracker.events.{name}": ("{event}", Sum) for name in COUNTERS} | {
    "intercom.tracker.events.queued": ("{event}", Gauge),
    "intercom.tracker.oldest_age": ("s", Gauge),
    "intercom.tracker.failing": ("1", Gauge),
}


@pytest.fixture
def reader():
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader):
    provider = MeterProvider([reader], shutdown_on_exit=False)
    yield provider
    provider.shutdown()


def exported(reader):
    """The metrics of one export, by their names."""
    data = reader.get_metrics_data()
    found = [
        metric
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]
    assert len({metric.name for metric in found}) == len(found)
    return {metric.name: metric for metric in found}


def values(reader):
    """The values of one export, by the last part of their names and the attributes."""
    return {
        (name.rpartition(".")[2], *point.attributes.values()): point.value
        for name, metric in exported(reader).items()
        for point in metric.data.data_points
    }


def eventually(holds):
    ends = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.001)


def sums(reader, *attributes):
    found = values(reader)
    return tuple(found[name, *attributes] for name in COUNTERS)


@pytest.fixture
def answers():
    """A transport whose answers depend on the event's name: refused, or accepted."""

    def answer(request):
        refused = b"refused-event" in request.content
        errors = {"type": "error.list", "errors": [{"code": "parameter_invalid"}]}
        return httpx.Response(422, json=errors) if refused else httpx.Response(202)

    return httpx.MockTransport(answer)


@pytest.fixture
def away():
    return httpx.MockTransport(lambda request: httpx.Response(503))


@pytest.fixture(autouse=True)
def _no_complaint_of_the_sdk(caplog):
    yield
    assert [r.getMessage() for r in caplog.records if r.name.startswith("opentelemetry")] == []


@every_tracker
def test_the_counters_of_a_tracker_are_metrics(backend, answers, reader, provider):
    def drop_some(event):
        if event.event_name == "fails":
            raise ValueError
        return None if event.event_name == "is-filtered" else event

    with opened(backend, answers, meter_provider=provider, before_send=drop_some) as tracker:
        assert sums(reader) == (0, 0, 0, 0, 0)
        for number, name in enumerate(
            ["sent"] * 5 + ["refused-event"] * 4 + ["fails"] * 3 + ["is-filtered"] * 2
        ):
            tracker.track(name, user_id=str(number))
        tracker.track("sent", user_id="a", created_at=1671028894)
        tracker.track("sent", user_id="a", created_at=1671028894)
        assert tracker.flush(PATIENCE)
        counters = tracker.counters

        assert sums(reader) == (7, 4, 3, 2, 1)
        assert sums(reader) == tuple(getattr(counters, name) for name in COUNTERS)


@every_tracker
def test_names_units_and_kinds_follow_the_semantic_conventions(backend, answers, reader, provider):
    with opened(backend, answers, meter_provider=provider):
        found = exported(reader)
        (scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics

    assert {n: (each.unit, type(each.data)) for n, each in found.items()} == NAMES
    assert all(found[name].data.is_monotonic for name, (_, kind) in NAMES.items() if kind is Sum)
    assert all(each.description for each in found.values())
    assert (scope.scope.name, scope.scope.version) == ("intercom_data_events", __version__)


@every_tracker
def test_what_waits_is_a_gauge_in_memory_without_attributes(backend, away, reader, provider):
    with opened(backend, away, meter_provider=provider, close_timeout=0) as tracker:
        for number in range(3):
            tracker.track("placed-order", user_id=str(number))
        found = values(reader)

    assert found["queued",] == 3
    assert 0 <= found["oldest_age",] < 20


@every_tracker
def test_what_waits_in_a_file_has_the_files_name_and_not_its_folder(
    backend, away, reader, provider, tmp_path
):
    folder = tmp_path / "frodo"
    folder.mkdir()
    path = folder / "events.outbox"
    with opened(backend, away, path, close_timeout=0) as tracker:
        tracker.track("placed-order", user_id="1")
    with opened(backend, away, path, meter_provider=provider, close_timeout=0) as tracker:
        tracker.track("placed-order", user_id="2")
        found = values(reader)
        text = reader.get_metrics_data().to_json()

    assert found["queued", "events.outbox"] == 2
    assert found["oldest_age", "events.outbox"] >= 0
    assert found["sent", "events.outbox"] == 0
    assert '"file.name": "events.outbox"' in text
    assert "frodo" not in text


def test_a_files_name_that_is_not_utf_8_can_be_exported(away, reader, provider, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/events\xff")
    with opened("blocking", away, path, meter_provider=provider, close_timeout=0):
        found = values(reader)

    assert found["queued", r"events\xff"] == 0


@every_tracker
def test_failing_is_one_with_the_errors_type_and_zero_afterwards(backend, reader, provider):
    statuses = [401]
    transport = httpx.MockTransport(lambda request: httpx.Response(statuses[0]))
    with opened(backend, transport, meter_provider=provider) as tracker:
        assert values(reader)["failing",] == 0
        tracker.track("placed-order", user_id="1")
        eventually(lambda: tracker.counters.failing is not None)
        during = {k: value for k, value in values(reader).items() if k[0] == "failing"}
        point = exported(reader)["intercom.tracker.failing"].data.data_points[0]
        statuses[0] = 202
        assert tracker.flush(PATIENCE)
        afterwards = {k: value for k, value in values(reader).items() if k[0] == "failing"}

    assert during == {("failing", "AuthenticationError"): 1}
    assert dict(point.attributes) == {"error.type": "AuthenticationError"}
    assert afterwards == {("failing",): 0}


# Several trackers, and their ends


@every_tracker
def test_trackers_of_one_provider_are_added_up(backend, answers, reader, provider):
    with (
        opened(backend, answers, meter_provider=provider) as one,
        opened(backend, answers, meter_provider=provider) as other,
    ):
        one.track("placed-order", user_id="1")
        other.track("placed-order", user_id="2")
        other.track("refused-event", user_id="2")
        assert one.flush(PATIENCE)
        assert other.flush(PATIENCE)

        assert sums(reader) == (2, 1, 0, 0, 0)


@every_tracker
def test_the_queue_of_a_file_that_trackers_share_counts_once(
    backend, away, reader, provider, tmp_path
):
    path = tmp_path / "events.outbox"
    for file, users in ((path, "12"), (path, "3"), (tmp_path / "other.outbox", "4")):
        with opened(backend, away, file, close_timeout=0) as tracker:
            for user in users:
                tracker.track("placed-order", user_id=user)
    options = {"meter_provider": provider, "close_timeout": 0}
    with (
        opened(backend, away, path, **options),
        opened(backend, away, path, **options),
        opened(backend, away, tmp_path / "other.outbox", **options),
        opened(backend, away, **options),
    ):
        found = values(reader)

    assert found["queued", "events.outbox"] == 3
    assert found["queued", "other.outbox"] == 1
    assert found["queued",] == 0


@every_tracker
def test_what_waits_in_memory_is_added_up(backend, away, reader, provider):
    options = {"meter_provider": provider, "close_timeout": 0}
    with opened(backend, away, **options) as one, opened(backend, away, **options) as other:
        for tracker, users in ((one, "12"), (other, "3")):
            for user in users:
                tracker.track("placed-order", user_id=user)

        assert values(reader)["queued",] == 3


@every_tracker
def test_a_closed_tracker_shows_its_last_values(backend, answers, reader, provider):
    with opened(backend, answers, meter_provider=provider) as tracker:
        tracker.track("placed-order", user_id="1")

    found = values(reader)
    assert (found["sent",], found["queued",], found["oldest_age",]) == (1, 0, 0)


@every_tracker
def test_a_sum_never_falls_though_trackers_come_and_go(backend, answers, reader, provider):
    seen = [values(reader)]
    for number in range(3):
        with opened(backend, answers, meter_provider=provider) as tracker:
            tracker.track("placed-order", user_id=str(number))
            tracker.track("refused-event", user_id=str(number))
            seen.append(values(reader))
        del tracker
        gc.collect()
        seen.append(values(reader))

    assert [each["sent",] for each in seen[2::2]] == [1, 2, 3]
    for before, after in itertools.pairwise(seen[1:]):
        assert after["sent",] >= before["sent",]
        assert after["refused",] >= before["refused",]


@every_tracker
def test_a_provider_keeps_no_tracker_alive_and_shows_no_queue_of_one_that_is_gone(
    backend, answers, reader, provider
):
    kind, client_kind = (
        (Tracker, DataEventsClient)
        if backend == "blocking"
        else (AsyncTracker, AsyncDataEventsClient)
    )
    made = []

    class Watched(kind):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            made.append(weakref.ref(self))

    if backend == "blocking":
        tracker = Watched(client_kind("token", transport=answers), meter_provider=provider)
        tracker.track("placed-order", user_id="1")
        tracker.close()
    else:

        async def use():
            client = client_kind("token", transport=answers)
            async with client, Watched(client, meter_provider=provider) as tracker:
                await tracker.track("placed-order", user_id="1")

        anyio.run(use, backend=backend)
    tracker = None
    gc.collect()

    assert made[0]() is None
    found = values(reader)
    assert found["sent",] == 1
    assert {name for name, *_ in found} == set(COUNTERS)


def test_a_provider_that_is_gone_leaves_nothing(answers):
    provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    with opened("blocking", answers, meter_provider=provider):
        gone = weakref.ref(provider)
    provider.shutdown()
    del provider
    gc.collect()

    assert gone() is None


def test_a_later_provider_can_have_the_address_of_one_that_is_gone():
    class Counting(NoOpMeterProvider):
        meters = 0

        def get_meter(self, *args, **options):
            self.meters += 1
            return super().get_meter(*args, **options)

    tracker = Unreadable()
    addresses = set()
    for _ in range(20):
        provider = Counting()
        addresses.add(id(provider))
        register(provider, tracker.read, outbox=None)
        assert provider.meters == 1
        del provider

    assert len(addresses) < 20


def test_trackers_that_are_gone_take_up_no_memory(reader, provider):
    def come_and_go(number):
        for _ in range(number):
            tracker = Unreadable()
            register(provider, tracker.read, outbox="events.outbox")()
        del tracker
        values(reader)
        gc.collect()
        return len(gc.get_objects())

    before = come_and_go(10)
    after = come_and_go(1_000)

    assert sums(reader, "events.outbox") == (3 * 1_010, 0, 0, 0, 0)
    assert after - before < 500


def test_what_a_tracker_counted_while_it_was_being_read_and_closed_is_kept(reader, provider):
    class ClosedMeanwhile(Unreadable):
        def read(self):
            before = self.counters
            if before.sent == 3:
                self.counters = Counters(sent=4)
                close()
            return before

    tracker = ClosedMeanwhile()
    close = register(provider, tracker.read, outbox=None)
    assert values(reader)["sent",] == 4
    del tracker

    assert values(reader)["sent",] == 4


def test_sums_do_not_fall_while_trackers_end_in_other_threads(reader, provider):
    def come_and_go():
        for _ in range(200):
            tracker = Unreadable()
            close = register(provider, tracker.read, outbox=None)
            tracker.counters = Counters(sent=4)
            close()

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    seen = []
    while any(thread.is_alive() for thread in threads):
        seen.append(values(reader).get(("sent",), 0))

    assert seen == sorted(seen)
    assert values(reader)["sent",] == 4 * 200 * 4


def test_every_reader_of_a_provider_gets_all_values(answers):
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    provider = MeterProvider(readers, shutdown_on_exit=False)
    with opened("blocking", answers, meter_provider=provider) as tracker:
        for number in range(1, 4):
            tracker.track("placed-order", user_id=str(number))
            assert tracker.flush(PATIENCE)
            for reader in (*readers, readers[0]):
                assert values(reader)["sent",] == number
    provider.shutdown()


def test_two_providers_show_the_same_trackers_apart(answers, reader, provider):
    other_reader = InMemoryMetricReader()
    other = MeterProvider([other_reader], shutdown_on_exit=False)
    with (
        opened("blocking", answers, meter_provider=provider) as tracker,
        opened("blocking", answers, meter_provider=other),
    ):
        tracker.track("placed-order", user_id="1")
        assert tracker.flush(PATIENCE)

        assert (values(reader)["sent",], values(other_reader)["sent",]) == (1, 0)
    other.shutdown()


# What can go wrong


class Unreadable:
    """Has counters that can sometimes not be read."""

    def __init__(self):
        self.error = None
        self.counters = Counters(sent=3, queued=2)

    def read(self):
        if self.error is not None:
            raise self.error
        return self.counters


@pytest.mark.parametrize("error", [OutboxError("locked"), RuntimeError("not entered")])
def test_counters_that_cannot_be_read_keep_their_sums_and_show_no_queue(reader, provider, error):
    tracker = Unreadable()
    close = register(provider, tracker.read, outbox=None)
    assert values(reader)["queued",] == 2
    tracker.error = error
    found = values(reader)
    assert sums(reader) == (3, 0, 0, 0, 0)
    assert {name for name, *_ in found} == set(COUNTERS)
    close()
    assert sums(reader) == (3, 0, 0, 0, 0)
    tracker.error = None
    assert values(reader)["queued",] == 2


KINDS = [(DataEventsClient, Tracker), (AsyncDataEventsClient, AsyncTracker)]
each_kind = pytest.mark.parametrize(("client", "tracker"), KINDS)


@each_kind
@pytest.mark.parametrize("wrong", ["otel", object(), MeterProvider, 3])
def test_a_meter_provider_is_one_of_opentelemetry(client, tracker, wrong):
    with pytest.raises(ConfigurationError) as caught:
        tracker(client("token"), meter_provider=wrong)

    assert str(caught.value).startswith(
        "meter_provider must be an OpenTelemetry MeterProvider, not "
    )


def test_providers_that_do_nothing_or_cannot_be_hashed_are_accepted(answers):
    @dataclasses.dataclass
    class Wrapping(AnyMeterProvider):
        wrapped: AnyMeterProvider

        def get_meter(self, *args, **options):
            return self.wrapped.get_meter(*args, **options)

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    for one in (NoOpMeterProvider(), Wrapping(provider)):
        with opened("blocking", answers, meter_provider=one) as tracker:
            tracker.track("placed-order", user_id="1")

    assert values(reader)["sent",] == 1
    provider.shutdown()


@pytest.mark.processes
def test_a_forked_process_shows_what_it_has_counted_itself(answers, reader, provider):
    with opened("blocking", answers, meter_provider=provider) as gone:
        gone.track("placed-order", user_id="0")
    del gone
    gc.collect()
    with opened("blocking", answers, meter_provider=provider) as tracker:
        tracker.track("placed-order", user_id="1")
        assert tracker.flush(PATIENCE)
        assert values(reader)["sent",] == 2

        def track():
            before = values(reader)["sent",]
            tracker.track("placed-order", user_id="2")
            tracker.flush(PATIENCE)
            return [before, values(reader)["sent",]]

        assert Child(track).said() == {"returned": [0, 1]}
        assert values(reader)["sent",] == 2


def run(program):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


TRACKING = """
    import sys
    import httpx
    from intercom_data_events import ConfigurationError, DataEventsClient
    from intercom_data_events.tracker import Tracker
    transport = httpx.MockTransport(lambda request: httpx.Response(202))
    client = DataEventsClient("token", transport=transport)
"""


@pytest.mark.processes
def test_opentelemetry_is_imported_for_a_meter_provider_alone():
    assert run(
        TRACKING
        + """
    with Tracker(client) as tracker:
        tracker.track("placed-order", user_id="1")
    print("opentelemetry" in sys.modules)
    """
    ) == ["False"]


@pytest.mark.processes
def test_the_extra_is_named_where_opentelemetry_is_not_installed():
    lines = run(
        TRACKING
        + """
    sys.modules["opentelemetry"] = None
    try:
        Tracker(client, meter_provider=object())
    except ConfigurationError as error:
        print(error)
    """
    )

    needed = "meter_provider needs opentelemetry-api; install it with: pip install "
    assert lines == [f"{needed}'intercom-data-events[otel]'"]


@pytest.mark.processes
def test_a_provider_that_is_set_for_the_whole_program_later_shows_what_was_counted_before():
    assert (
        run(
            TRACKING
            + """
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    reader = InMemoryMetricReader()
    with Tracker(client, meter_provider=metrics.get_meter_provider()) as tracker:
        tracker.track("placed-order", user_id="1")
        tracker.flush(20)
        metrics.set_meter_provider(MeterProvider([reader]))
        (resource,) = reader.get_metrics_data().resource_metrics
        for metric in resource.scope_metrics[0].metrics:
            print(metric.name, *(point.value for point in metric.data.data_points))
    """
        )[0]
        == "intercom.tracker.events.sent 1"
    )


@pytest.mark.processes
def test_a_tracker_that_is_closed_as_the_program_ends_is_in_the_last_export():
    """A provider exports for the last time as the program ends, if it was made first."""
    lines = run(
        TRACKING
        + """
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    def show(data):
        for metric in data.resource_metrics[0].scope_metrics[0].metrics:
            if metric.name.endswith("sent"):
                return f"sent {metric.data.data_points[0].value}\\n"
    exporter = ConsoleMetricExporter(formatter=show)
    provider = MeterProvider([PeriodicExportingMetricReader(exporter)])
    tracker = Tracker(client, meter_provider=provider)
    tracker.track("placed-order", user_id="1")
    """
    )

    assert lines[-1] == "sent 1"
