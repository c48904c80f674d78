"""The cost of reading: one long listing, and many pages."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

import httpx

from intercom_data_events import DataEventsClient
from measuring.events import HEADERS, LISTED, TOKEN, installed
from measuring.figures import HTTPX, OFFICIAL, OURS, Goal, Question

#: Events per page.
PAGE = 20
_BASE = "https://api.intercom.io"


def questions(events: int, pages: int) -> Iterator[Question]:
    """Yields the questions about reading; nothing is sent over a socket."""
    content = json.dumps({"type": "event.list", "events": [LISTED] * events, "pages": None})
    readers: dict[str, Callable[[], object]] = {
        "json.loads": partial(json.loads, content),
        OURS: partial(_list, lambda _: httpx.Response(200, content=content)),
    }
    if installed(OFFICIAL):
        readers[f"{OFFICIAL}'s model, alone"] = _official_reader(content)
    yield Question(
        f"reading a listing of {events:,} events, for each",
        "µs",
        {name: partial(_seconds, read) for name, read in readers.items()},
        scale=1e6 / events,
        goals={OURS: Goal(8)},
    )
    bare = f"{HTTPX}, json.loads"
    walkers: dict[str, Callable[[], object]] = {
        bare: partial(_walk, _paged(pages)),
        OURS: partial(_list, _paged(pages)),
    }
    yield Question(
        f"walking {pages:,} pages of {PAGE} events, for each page",
        "µs",
        {name: partial(_seconds, walk) for name, walk in walkers.items()},
        scale=1e6 / pages,
        goals={OURS: Goal(2.1, bare)},
    )


def _seconds(use: Callable[[], object]) -> float:
    begin = time.perf_counter()
    use()
    return time.perf_counter() - begin


def _paged(pages: int) -> Callable[[httpx.Request], httpx.Response]:
    """Serves pages, each of which names the next."""
    events = json.dumps([LISTED] * PAGE)

    def serve(request: httpx.Request) -> httpx.Response:
        number = int(request.url.params.get("before", 0)) + 1
        link = f"{_BASE}/events?type=user&user_id=314159&before={number}"
        following = {"next": link} if number < pages else {}
        body = f'{{"type": "event.list", "events": {events}, "pages": {json.dumps(following)}}}'
        return httpx.Response(200, content=body)

    return serve


def _list(serve: Callable[[httpx.Request], httpx.Response]) -> None:
    with DataEventsClient(TOKEN, transport=httpx.MockTransport(serve)) as client:
        deque(client.list(user_id="314159"), maxlen=0)


def _walk(serve: Callable[[httpx.Request], httpx.Response]) -> None:
    with httpx.Client(transport=httpx.MockTransport(serve), headers=HEADERS) as client:
        url = f"{_BASE}/events?type=user&user_id=314159"
        while url:
            page = json.loads(client.get(url).content)
            url = page["pages"].get("next")


def _official_reader(content: str) -> Callable[[], object]:
    """Applies the official SDK's model to each event, because the SDK cannot list events."""
    from intercom.core.pydantic_utilities import parse_obj_as
    from intercom.data_events.types.data_event import DataEvent

    # The model rejects metadata other than strings.
    texts = json.loads(content)
    for event in texts["events"]:
        event["metadata"] = {key: str(value) for key, value in event["metadata"].items()}
    plain = json.dumps(texts)

    def read() -> None:
        for event in json.loads(plain)["events"]:
            parse_obj_as(DataEvent, event)

    return read
