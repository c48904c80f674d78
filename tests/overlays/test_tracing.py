"""Under OpenTelemetry's own instrumentation of httpx and httpx2, each attempt is a span.

No span has a secret in it.

The same for each driver is in test_contract.py.
"""

from __future__ import annotations

import json
import math

import anyio
import httpx
import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor, HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from secrecy import EMAIL, TOKEN

from guides import GUIDES, under
from intercom_data_events import APIConnectionError, AsyncDataEventsClient, DataEventsClient
from intercom_data_events.emulator import FAULTS, Emulator, Fault

CREATE = {"event_name": "placed-order", "user_id": "1"}


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


#: What is instrumented: all of a library, or nothing but one http_client of the caller's own.
TRACED = {
    "client's connections": (HTTPXClientInstrumentor, None),
    "http_client": (HTTPXClientInstrumentor, httpx),
    "http_client alone": (HTTPXClientInstrumentor, httpx),
    "http_client of httpx2": (HTTPX2ClientInstrumentor, httpx2),
    "http_client of httpx2 alone": (HTTPX2ClientInstrumentor, httpx2),
}


@pytest.fixture(params=TRACED)
def create(request, provider, exporter):
    """Creates an event in one of the ways to be traced; returns the spans, in their order."""
    kind, library = TRACED[request.param]
    everything = not request.param.endswith("alone")
    instrumentor = kind()

    def create(**options):
        own = library and library.Client()
        if not everything:
            instrumentor.instrument_client(own, tracer_provider=provider)
        with DataEventsClient(TOKEN, http_client=own, **options) as client:
            try:
                client.create(**CREATE)
            finally:
                if own is not None:
                    own.close()
        return exporter.get_finished_spans()

    if everything:
        instrumentor.instrument(tracer_provider=provider)
    yield create
    if everything:
        instrumentor.uninstrument()


def status(span):
    attributes = span.attributes
    return attributes.get("http.status_code", attributes.get("http.response.status_code"))


def shown(span):
    """All that a span exports, and what it could be made to."""
    return span.to_json() + repr(span) + repr(span.attributes) + repr(span.events)


@pytest.fixture
def clock(calling):
    return calling(None).clock


def test_every_try_is_a_span_of_its_own(create, clock):
    emulator = Emulator(clock=clock, faults=[Fault.failing(503), None])
    with emulator.serve() as url:
        spans = create(base_url=url, clock=clock)

    assert [(span.name, span.kind, status(span)) for span in spans] == [
        ("POST", SpanKind.CLIENT, 503),
        ("POST", SpanKind.CLIENT, 202),
    ]
    assert [span.status.is_ok for span in spans] == [False, True]
    first, second = spans
    assert first.end_time <= second.start_time
    # The server can go on with the trace of each.
    assert [request.headers["traceparent"].split("-")[2] for request in emulator.requests] == [
        f"{span.context.span_id:016x}" for span in spans
    ]


def test_a_try_that_gets_no_answer_is_a_span_without_a_status(create, clock):
    emulator = Emulator(clock=clock, faults=[Fault.reset(), Fault.cut_short(), None])
    with emulator.serve() as url:
        spans = create(base_url=url, clock=clock)

    assert [status(span) for span in spans] == [None, None, 202]
    assert [span.status.is_ok for span in spans] == [False, False, True]


def test_tries_are_children_of_what_the_caller_is_doing(create, clock, provider):
    emulator = Emulator(clock=clock, faults=[Fault.failing(503), None])
    with (
        emulator.serve() as url,
        provider.get_tracer("shop").start_as_current_span("checkout") as checkout,
    ):
        spans = create(base_url=url, clock=clock)

    assert [span.parent.span_id for span in spans] == [checkout.get_span_context().span_id] * 2


def test_the_guides_hooks_keep_an_address_out_of_every_span(provider, exporter, monkeypatch):
    """It is in a query's: the API takes it there."""
    ((_, code),) = under(GUIDES["overlays"].read_text(encoding="utf-8"), "Traces")
    emulator = Emulator()

    async def ask(url):
        async with AsyncDataEventsClient(TOKEN, base_url=url) as client:
            [event async for event in client.list(email=EMAIL)]

    def spans(url):
        with DataEventsClient(TOKEN, base_url=url) as client:
            client.create("placed-order", email=EMAIL)
            client.summary(email=EMAIL)
        anyio.run(ask, url)
        found = exporter.get_finished_spans()
        exporter.clear()
        return found

    instrumentor = HTTPXClientInstrumentor()
    with emulator.serve() as url:
        try:
            instrumentor.instrument(tracer_provider=provider)
            assert "frodo" in "".join(map(shown, spans(url)))
            instrumentor.uninstrument()
            monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
            exec(code, {})
            hidden = spans(url)
        finally:
            instrumentor.uninstrument()
    assert [span.attributes["http.url"] for span in hidden] == [f"{url}/events"] * 3
    assert "frodo" not in "".join(map(shown, hidden))


def test_no_span_holds_the_token(create, clock):
    faults = [fault for fault in FAULTS if not fault.delay and not fault.trickle]
    emulator = Emulator(clock=clock, faults=faults)
    with emulator.serve() as url:
        spans = create(base_url=url, clock=clock, max_retries=len(faults), deadline=math.inf)

    assert len(spans) == len(faults)
    assert emulator.requests[-1].headers["authorization"] == f"Bearer {TOKEN}"
    for span in spans:
        assert TOKEN not in shown(span)
        assert "authorization" not in json.dumps(dict(span.attributes)).lower()


def test_an_event_that_never_arrives_is_as_many_spans_as_it_was_tried(create, clock, exporter):
    with Emulator().serve() as url:
        pass
    with pytest.raises(APIConnectionError) as caught:
        create(base_url=url, clock=clock)

    spans = exporter.get_finished_spans()
    assert len(spans) == caught.value.tries == 5
    assert not any(TOKEN in shown(span) for span in spans)
