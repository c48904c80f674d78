"""Celery with a queue in memory, worked off one message at a time; and real workers on Redis."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import pytest
from attrs import define, field
from celery import Celery, signals
from celery.app import trace
from celery.concurrency.solo import TaskPool
from celery.worker.request import Request
from kombu.message import Message
from redis import Redis

from intercom_data_events import Event
from intercom_data_events.celery import EventTask
from intercom_data_events.emulator import Emulator, ManualClock
from needs import require

NAME = "intercom_data_events.send_event"
TOKEN = "dG9rOnNlY3JldA=="
NOW = int(time.time())
# Celery's, from which it counts the seconds until a message is due.
PRESENT = datetime.fromtimestamp(NOW, UTC)
# Seconds after which something hangs, however slow the machine.
PATIENCE = 60


def event(number: int = 0, **fields: object) -> Event:
    """An event like no other of its number."""
    given = {"event_name": "placed-order", "user_id": f"{number}", "created_at": NOW, **fields}
    return Event.from_dict(given)


def until(happens: Callable[[], object], problem: Callable[[], object] = str) -> None:
    """Waits until something is so, of which another process does not tell."""
    end = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < end, problem()
        time.sleep(0.02)


def numbers(emulator: Emulator) -> list[int]:
    """Which events are stored."""
    return sorted(int(stored.user_id or "") for stored in emulator.events)


@define
class Shop:
    """An app with a queue in memory, and a worker that does what is next in it when it is told to.

    What is queued for later is done at once.
    """

    app: Celery

    @property
    def task(self) -> EventTask:
        return self.app.tasks[NAME]

    @property
    def messages(self) -> list[Message]:
        """What waits in the queue."""
        found = []
        with self.app.connection_for_read() as connection:
            while (message := self._next(connection)) is not None:
                found.append(message)
            # Put back in their order.
            for message in reversed(found):
                message.requeue()
        return found

    def work(self, machine: str = "here") -> Exception | None:
        """Does what is next; returns the error that the task failed with, if it did.

        Args:
            machine: Where the worker runs, which becomes its name.
        """
        self.app.set_current()
        failures: list[Exception] = []

        def note(exception: Exception, **_: object) -> None:
            failures.append(exception)

        with self.app.connection_for_read() as connection:
            message = self._next(connection)
            assert message is not None, "nothing is queued"
            request = Request(
                message,
                on_ack=message.ack_log_error,
                on_reject=message.reject_log_error,
                app=self.app,
                task=self.app.tasks[message.headers["task"]],
            )
            signals.task_failure.connect(note)
            try:
                with mock.patch.object(trace, "gethostname", return_value=machine):
                    request.execute_using_pool(TaskPool(app=self.app))
            finally:
                signals.task_failure.disconnect(note)
            assert message.acknowledged
        return failures[0] if failures else None

    def _next(self, connection) -> Message | None:
        queue = self.app.amqp.queues[self.app.conf.task_default_queue]
        return queue.bind(connection.default_channel).get(accept=self.app.conf.accept_content)


def delay_of(message: Message) -> float:
    """Seconds until a message is due."""
    return (datetime.fromisoformat(message.headers["eta"]) - PRESENT).total_seconds()


@pytest.fixture
def clock() -> ManualClock:
    """The client's: its own retries and waits take no time."""
    return ManualClock(NOW)


@pytest.fixture
def opening(clock, monkeypatch):
    """Opens a shop for an emulator; shared tasks are its."""
    with ExitStack() as open_shops:

        def begin(emulator: Emulator, *, client=None, **conf) -> Shop:
            app = Celery("shop", broker="memory://localhost")
            app.now = lambda: PRESENT
            app.conf.task_default_queue = uuid.uuid4().hex
            app.conf.intercom_data_events = {
                "access_token": TOKEN,
                "transport": emulator.transport(),
                "clock": clock,
                **(client or {}),
            }
            app.conf.update(conf)
            open_shops.callback(app.close)
            return Shop(app)

        yield begin


@pytest.fixture
def emulator(clock) -> Emulator:
    return Emulator(clock=clock)


@pytest.fixture
def shop(opening, emulator) -> Shop:
    return opening(emulator)


@define
class Worker:
    """A real worker, with processes of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def kill(self) -> None:
        """Kills it and its children, as when the machine is switched off."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


@define
class Plant:
    """A Redis, an app that queues there, and the workers that are started for it."""

    app: Celery
    folder: Path
    environment: dict[str, str]
    running: ExitStack = field(factory=ExitStack)
    workers: list[Worker] = field(factory=list)

    def start(
        self, *, pool: str = "prefork", concurrency: int = 2, folder: Path | None = None
    ) -> Worker:
        """Starts a worker of the app in a folder's `shop`, and waits until it is there."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        with log.open("wb") as written:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "shop", "worker", "-l", "INFO",
                 "-n", log.stem, "-P", pool, "-c", f"{concurrency}",
                 "--without-gossip", "--without-mingle"],
                cwd=folder or Path(__file__).parent,
                env=self.environment,
                stdout=written,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        worker = Worker(process, log)
        self.running.callback(worker.kill)
        self.workers.append(worker)
        until(lambda: " ready." in worker.said or process.poll() is not None, lambda: worker.said)
        assert process.poll() is None, worker.said
        return worker

    def children(self) -> list[int]:
        """The processes of a worker that tasks are done in."""
        (stats,) = self.app.control.inspect(limit=1, timeout=PATIENCE).stats().values()
        return stats["pool"]["processes"]

    @property
    def taken(self) -> int:
        """How many messages workers have taken out of the queue and not done with."""
        with self.app.connection_for_read() as connection:
            return connection.default_channel.client.hlen("unacked")

    @property
    def said(self) -> str:
        """What all workers wrote."""
        return "\n".join(worker.said for worker in self.workers)


@pytest.fixture
def redis() -> Iterator[str]:
    """A Redis server of one's own, which keeps nothing; its address."""
    require("redis-server")
    # Addresses of sockets are short.
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        socket = f"{folder}/redis"
        process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        running.callback(process.wait, PATIENCE)
        running.callback(process.kill)
        until(lambda: Path(socket).exists(), lambda: "redis-server does not start")
        with Redis(unix_socket_path=socket) as client:
            assert client.ping()
        yield socket


@pytest.fixture
def planting(redis, tmp_path, monkeypatch):
    """Makes an app on Redis for an emulator that is served."""
    with ExitStack() as running:

        def begin(emulator: Emulator, *, results: str | None = None, **conf: object) -> Plant:
            given = {
                "broker_url": f"redis+socket://{redis}",
                "broker_transport_options": {
                    # Seconds, as are those that follow.
                    "visibility_timeout": 4,
                    "unacked_restore_interval": 1,
                    "unacked_restore_throttle": 1,
                },
                "broker_connection_retry_on_startup": True,
                "worker_lost_wait": 0.5,
                **conf,
            }
            if results is not None:
                given |= {
                    "result_backend": f"redis+socket://{redis}",
                    "result_serializer": results,
                    "result_accept_content": [results],
                    "task_annotations": {
                        # Seconds.
                        NAME: {"ignore_result": False, "unknown_contact_patience": 1}
                    },
                }
                # Results say goodbye to Redis.
                running.callback(gc.collect)
            environment = {
                **os.environ,
                "SHOP": json.dumps(given),
                "INTERCOM_BASE_URL": running.enter_context(emulator.serve()),
                "INTERCOM_ACCESS_TOKEN": TOKEN,
            }
            app = Celery("shop")
            app.conf.update(given)
            running.callback(app.close)
            plant = Plant(app, tmp_path, environment)
            running.push(plant.running)
            return plant

        yield begin
