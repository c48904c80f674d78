"""The command `demo`: shows the library at work against the bundled emulator, on four screens.

The emulator serves on a real socket, so everything on the screens was sent and answered. The demo
needs no network, account or access token. It verifies its claims, and fails if one does not hold.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import httpx
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from intercom_data_events import DataEventsClient, Event, MonetaryAmount, NotFoundError, RichLink
from intercom_data_events.cli import charts, output
from intercom_data_events.cli.exit_codes import Exit, StoppedError
from intercom_data_events.cli.options import command
from intercom_data_events.clock import SYSTEM, Clock
from intercom_data_events.emulator import Emulator, Fault, random_faults
from intercom_data_events.outbox import Outbox
from intercom_data_events.tracker import Tracker

_READING = 2.5  # Seconds to read a screen.
# The fault injection: events, the quota of each window, and the requests shown on a line.
_EVENTS, _QUOTA, _WINDOW, _LINE = 200, 150, 2.0, 70
# The kill: events tracked before it, seconds to send the rest, and seconds after which an outbox
# releases the events that a dead process had claimed.
_TRACKED, _DRAINED, _STALLED = 400, 60.0, 31.0
_CHILD = "import sys; from intercom_data_events.cli.commands import demo; demo.track(*sys.argv[1:])"
# The plot: the days, and the number of events of each name.
_DAYS, _NAMES = 28, {"logged-in": 60, "invited-friend": 20, "placed-order": 10}


@command(
    "demo", "demo --json", codes=(Exit.DONE, Exit.FAILED, Exit.INTERRUPTED), no_args_is_help=False
)
def demo(*, as_json: bool = False) -> None:
    """Show retries, crash recovery and charts against the emulator."""

    def draw(what: RenderableType, indent: int = 2) -> None:
        if not as_json:
            what = output.cell(what) if isinstance(what, str) else what
            output.draw(Padding(what, (0, 0, 0, indent), expand=False))

    counted: dict[str, object] = {}
    for number, (name, (heading, screen)) in enumerate(_SCREENS.items(), 1):
        if number > 1 and sys.stdout.isatty() and not as_json:
            time.sleep(_READING)
        draw(Text(f"\n{number}/{len(_SCREENS)}  {heading}", "bold"), 0)
        counted[name] = screen(draw)
    if as_json:
        output.result_json(counted)


@contextmanager
def _connected(
    url: str, *, clock: Clock = SYSTEM, hooks: Mapping[str, list[Any]] | None = None
) -> Iterator[DataEventsClient]:
    """A client of an emulator that ignores the environment."""
    options: dict[str, Any] = {"base_url": url, "enabled": True, "clock": clock}
    with (
        httpx.Client(trust_env=False, event_hooks=hooks) as own,
        DataEventsClient("demo-token", http_client=own, **options) as client,
    ):
        yield client


def _claim(claim: str, *, holds: bool) -> None:
    if not holds:
        raise StoppedError(f"a check of the demo failed: {claim}")


def _send(draw: Callable[..., None]) -> object:
    """Sends, lists and counts events, and shows each answer."""
    answers: list[dict[str, object]] = []

    def asked(request: httpx.Request) -> None:
        request.extensions["began"] = time.perf_counter()

    def answered(response: httpx.Response) -> None:
        request = response.request
        took = (time.perf_counter() - request.extensions["began"]) * 1000
        asked_for = f"{request.method} {request.url.raw_path.decode()}"
        status = (f"{response.status_code}", "green" if response.is_success else "red")
        draw(Text.assemble(status, f"{took:6.1f} ms  ", output.cell(asked_for)))
        answers.append({"request": asked_for, "status": response.status_code, "ms": round(took, 1)})

    now = datetime.now(UTC).replace(microsecond=0)
    metadata: Mapping[str, Any] = {
        "order_date": now,
        "order_number": RichLink(url="https://example.org/3434", value="3434"),
        "price": MonetaryAmount(2999, "usd"),
    }
    with (
        Emulator().serve() as url,
        _connected(url, hooks={"request": [asked], "response": [answered]}) as client,
    ):
        contact = client.contact(user_id="1000")
        contact.create("placed-order", created_at=now, metadata=metadata)
        for hours in (1, 2, 3):
            contact.create("invited-friend", created_at=now - timedelta(hours=hours))
        for page in contact.list(per_page=2).pages():
            for event in page.events:
                draw(output.event_line(event.event_name, event.created_at, event.metadata), 8)
        counts = {item.name: item.count for item in contact.summary()}
        draw(", ".join(f"{name} {number}" for name, number in counts.items()), 8)
        try:
            client.summary(email="frodo@example.com")
        except NotFoundError as error:
            draw(f"{type(error).__name__}: {error}", 8)
    _claim("4 events must be counted", holds=counts == {"placed-order": 1, "invited-friend": 3})
    return answers


def _storm(draw: Callable[..., None]) -> object:
    """Sends events while requests fail and the quota is small."""
    played: list[str] = []  # Appended to by the emulator's thread.

    def watched() -> Iterator[Fault | None]:
        for fault in random_faults(0.2, seed=1):
            played.append("." if fault is None else "x")
            yield fault

    emulator = Emulator(faults=watched(), rate_limit=_QUOTA, window=_WINDOW, record=False)
    now, began, shown = datetime.now(UTC), time.monotonic(), 0
    with emulator.serve() as url, _connected(url) as client:
        events = (Event("logged-in", user_id=f"{n}", created_at=now) for n in range(_EVENTS))
        for _ in client.create_many(events):
            if len(played) - shown >= _LINE:
                draw(Text("".join(played[shown : (shown := shown + _LINE)]), "magenta"))
    seconds, counts = round(time.monotonic() - began, 1), emulator.counts
    draw(Text("".join(played[shown:]), "magenta"))
    kinds = sorted(counts.faults.items(), key=lambda kind: -kind[1])
    draw(", ".join(f"{name}: {number}" for name, number in kinds))
    lost, retries = _EVENTS - counts.stored, counts.requests - _EVENTS
    told = f"{_EVENTS} events sent in {seconds} s, {lost} lost, {retries} retries, "
    draw(Text(f"{told}{counts.limited} over the quota", "bold"))
    _claim("no event may be lost", holds=lost == 0)
    _claim("no request may exceed the quota", holds=counts.limited == 0)
    return {"lost": lost, "retries": retries, "seconds": seconds, **attrs.asdict(counts)}


def track(url: str, outbox: str) -> None:
    """Tracks events until the process is killed, and writes the number of each tracked event."""
    with _connected(url) as client, Tracker(client, outbox=outbox) as tracker:
        for number in count():
            tracker.track("logged-in", user_id=f"{number}")
            output.result(f"{number}")


class _Later(Clock):
    """A clock that is ahead, so that the demo does not have to wait."""

    def time(self) -> float:
        """The time at which the claims of a dead process have expired."""
        return super().time() + _STALLED


def _kill(draw: Callable[..., None]) -> object:
    """Kills a process while it tracks, and sends what its outbox holds."""
    emulator = Emulator(record=False)
    environment = {name: os.environ[name] for name in os.environ if name[:9] != "INTERCOM_"}
    with TemporaryDirectory() as folder, emulator.serve() as url:
        file = Path(folder, "events.outbox")
        program = [sys.executable, "-c", _CHILD, url, str(file)]
        with subprocess.Popen(  # noqa: S603  # this Python
            program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as child:
            pipe = child.stdout or ()
            tracked = set(islice(pipe, _TRACKED))
            child.kill()
            tracked.update(line for line in pipe if line.endswith(b"\n"))
        draw(f"Process {child.pid} tracked {len(tracked)} events and was killed (SIGKILL).")
        with Outbox(file) as box:
            found = box.status()
        draw(f"Its outbox holds {found.queued} events, {found.claimed} of them in flight.")
        began = time.monotonic()
        with _connected(url, clock=_Later()) as client, Tracker(client, outbox=file) as tracker:
            tracker.flush(_DRAINED)
        took = output.duration(time.monotonic() - began)
        draw(f"Another tracker sent them in {took}; its clock is {_STALLED:g} s ahead.")
    lost = len(tracked - {f"{event.user_id}\n".encode() for event in emulator.events})
    twice = emulator.counts.duplicates
    draw(Text(f"{len(tracked)} events tracked, {lost} lost, {twice} sent twice", "bold"))
    _claim("the killed process must leave events in its outbox", holds=found.queued > 0)
    _claim("no tracked event may be lost", holds=lost == 0)
    return {"tracked": len(tracked), "queued": found.queued, "lost": lost, "sent_twice": twice}


def _plot(draw: Callable[..., None]) -> object:
    """Draws the events of a contact as `list --plot` and `summary --plot` do."""
    now, chance = datetime.now(UTC), random.Random(3)  # noqa: S311  # guards nothing
    events = [
        Event(name, user_id="1000", created_at=now - timedelta(days=_DAYS * chance.random() ** 2))
        for name, number in _NAMES.items()
        for _ in range(number)
    ]
    with Emulator(rate_limit=None).serve() as url, _connected(url) as client:
        client.create_many(events).run()
        listed = list(client.list(user_id="1000"))
        found = client.summary(user_id="1000")
    moments = [(e.event_name, e.created_at) for e in listed if e.event_name and e.created_at]
    size: dict[str, Any] = {"width": output.width() - 2, "ascii": output.is_ascii()}
    draw(charts.timeline(moments, **size).drawn)
    draw(charts.counts(found.events, **size).drawn)
    counts = {one.name: one.count for one in found}
    _claim("all events must be listed", holds=len(moments) == len(events) and counts == _NAMES)
    return {"listed": len(moments), "counts": counts}


_SCREENS: Mapping[str, tuple[str, Callable[[Callable[..., None]], object]]] = {
    "send": ("Send, list and count: the status and time of each answer", _send),
    "storm": (
        f"Retries: a fifth of the requests fail; the quota is {_QUOTA} in {_WINDOW:g} s",
        _storm,
    ),
    "kill": ("Crash recovery: a process is killed, and its outbox remains", _kill),
    "plot": ("Charts: four weeks of events, by list --plot and summary --plot", _plot),
}
