"""Ends hosts of trackers: uWSGI, Celery's worker, gevent programs and jobs of other queues.

These are parts of `crashes.py`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache, partial
from itertools import count
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

import attrs

import harness
from intercom_data_events import DataEventsClient
from intercom_data_events.tracker import Tracker

WORKERS, CONCURRENCY, ANSWERS = 2, 20, 100
# Events that an earlier program left in the outbox, where uWSGI's master finds them.
LEFT = 50
TASKS, JOBS, CHILDREN = 4, 6, 3
OUTBOX = "CRASHES_OUTBOX"
GUIDE = Path(__file__).parents[2] / "overlays/intercom_data_events/tracker/README.md"

Application = Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]


# Code of child processes. Each prints the numbers of events for which `track` returned.


def application() -> Application:
    """The application that servers serve: it answers when the event has been tracked."""
    tracker = Tracker(DataEventsClient(), os.environ.get(OUTBOX))

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        tracker.track("placed-order", user_id=environ["PATH_INFO"].removeprefix("/"))
        start_response("204 No Content", [])
        return []

    return answer


def leave_in_outbox(outbox: str) -> None:
    """Leaves events in an outbox, as a program that is killed does."""
    tracker = Tracker(DataEventsClient(), outbox, close_timeout=0.001)
    for number in range(LEFT):
        tracker.track("placed-order", user_id=str(number))
        harness.note(number)


def work_for_celery(tasks: int, folder: str, outbox: str | None, flushes: bool) -> None:
    """Runs a Celery worker whose processes end after one task each."""
    from celery import Celery

    app = Celery("crashes", broker="filesystem://")
    app.conf.update(
        broker_transport_options={
            "data_folder_in": folder,
            "data_folder_out": folder,
            "control_folder": folder,
            "polling_interval": 0.05,
        },
        task_ignore_result=True,
        worker_prefetch_multiplier=1,
        worker_redirect_stdouts=False,
    )
    tracker = Tracker(DataEventsClient(), outbox)

    @app.task(name="track")
    def track(number: int) -> None:
        tracker.track("placed-order", user_id=str(number))
        if flushes:
            tracker.flush(harness.PATIENCE)
        harness.note(number)

    for number in range(tasks):
        track.delay(number)
    app.worker_main(
        [
            "--quiet", "worker", "--concurrency", "4", "--max-tasks-per-child", "1",
            "--without-gossip", "--without-mingle", "--without-heartbeat",
        ]
    )  # fmt: skip


@cache
def _tracker(outbox: str | None) -> Tracker:
    return Tracker(DataEventsClient(), outbox)


def run_job(number: int, outbox: str | None, flushes: bool) -> None:
    tracker = _tracker(outbox)
    tracker.track("placed-order", user_id=str(number))
    if flushes:
        tracker.flush(harness.PATIENCE)
    harness.note(number)


def run_jobs(runner: str, outbox: str | None, flushes: bool) -> None:
    """Runs jobs in child processes that end as the runner's do."""
    numbers = range(JOBS)
    job = partial(run_job, outbox=outbox, flushes=flushes)
    if runner == "os._exit":  # As RQ does.
        for number in numbers:
            if (child := os.fork()) == 0:
                try:
                    job(number)
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
    elif runner == "Process":
        processes = [multiprocessing.Process(target=job, args=(number,)) for number in numbers]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    elif runner == "ProcessPoolExecutor":
        with ProcessPoolExecutor(2) as executor:
            list(executor.map(job, numbers))
    else:
        with multiprocessing.Pool(2) as pool:
            pool.map(job, numbers)


# The parts.


@attrs.frozen
class Case:
    """A way to run programs that track, and what may become of their events.

    Args:
        name: The name in the table.
        run: Runs the programs with a server, an outbox or None, and a file for their log;
            returns the numbers of the events for which `track` returned.
        kept: Whether an outbox keeps the events; the rest is then sent afterwards.
        repeats: How many events may be sent again, because a process ended while it sent them.
        announced: The warning that the log must contain; events may then be lost.
    """

    name: str
    run: Callable[[harness.Server, str | None, Path], Iterable[int]]
    kept: bool = False
    repeats: int = 0
    announced: str | None = None

    def try_out(self) -> tuple[tuple[object, ...], bool]:
        """Runs the programs; returns the table's row and whether the losses are allowed."""
        with tempfile.TemporaryDirectory() as folder, harness.serving(0.05) as server:
            outbox = str(Path(folder, "outbox")) if self.kept else None
            log = Path(folder, "log")
            tracked = set(self.run(server, outbox, log))
            at_end = len(server.accepted())
            if self.kept:
                harness.call(harness.drain, outbox, True, url=server.url)
            accepted = server.accepted()
            said = log.read_text() if log.exists() else ""
        missing, repeated = harness.missing_and_repeated(tracked, accepted)
        good = bool(tracked) and repeated <= self.repeats
        if self.announced is None:
            return (self.name, len(tracked), at_end, missing, repeated, ""), good and not missing
        announced = self.announced in said
        row = (self.name, len(tracked), at_end, missing, repeated, "yes" if announced else "no")
        return row, good and announced


def hold(heading: str, *cases: Case) -> bool:
    """Runs all cases at once, because they mostly wait."""
    table = harness.Table(
        heading, "", "tracked", "at its end", "missing", "sent again", "announced"
    )
    good = True
    with ThreadPoolExecutor(len(cases)) as pool:
        for row, holds in pool.map(Case.try_out, cases):
            table.row(*row)
            good &= holds
    return good


def uwsgi(_: argparse.Namespace) -> bool:
    at_once = ("--die-on-term",)
    repeats = WORKERS * CONCURRENCY
    return hold(
        f"{WORKERS} uWSGI workers under load, ended by SIGTERM",
        Case("memory, graceful", partial(served_by_uwsgi, (), graceful=True)),
        Case(
            "memory, without teardown",
            partial(served_by_uwsgi, ("--skip-atexit-teardown",), graceful=True),
        ),
        # A worker that ends in a request runs no handler, so the tracker must warn in advance.
        Case("memory", partial(served_by_uwsgi, at_once), announced="hook-master-start = "),
        Case("outbox, forked", partial(served_by_uwsgi, at_once), kept=True, repeats=repeats),
        Case(
            "outbox, lazy apps",
            partial(served_by_uwsgi, (*at_once, "--lazy-apps")),
            kept=True,
            repeats=repeats,
        ),
    )


def served_by_uwsgi(
    arguments: tuple[str, ...],
    server: harness.Server,
    outbox: str | None,
    log: Path,
    *,
    graceful: bool = False,
) -> Iterable[int]:
    """Ends uWSGI under load. Its master finds an outbox with events in it.

    Args:
        arguments: Further arguments of uWSGI.
        server: The emulator.
        outbox: The outbox of all workers, or None.
        log: The file for uWSGI's output.
        graceful: Whether uWSGI reads the settings of the tracker's guide.
    """
    if graceful:
        settings = log.with_name("uwsgi.ini")
        settings.write_text(settings_of_guide())
        arguments = ("--ini", str(settings), *arguments)
    left = harness.call(leave_in_outbox, outbox, url=server.url) if outbox else []
    starts = WORKERS if "--lazy-apps" in arguments else 1
    with harness.process_group(
        "hosts", "--http-socket", "127.0.0.1:0", "--master", "--enable-threads",
        "--processes", str(WORKERS), "--module", "hosts:application()", "--disable-logging",
        *arguments, url=server.url, log=log, **({OUTBOX: outbox} if outbox else {}),
    ) as master:  # fmt: skip

        def ready() -> re.Match[str] | int | None:
            said = log.read_text()
            begun = re.findall(r"spawned uWSGI worker \d+", said)
            apps = re.findall(r"WSGI app 0 .* ready", said)
            if len(begun) < WORKERS or len(apps) < starts:
                return master.poll()
            return re.search(r"bound to TCP address ([\d.:]+)", said)

        served = ended_under_load(server, master, ready, log)
    return {*map(int, left), *served}


def settings_of_guide() -> str:
    """Returns the settings for uWSGI in the tracker's guide."""
    found = re.findall(r"^```ini\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    if len(found) != 1:
        sys.exit(f"{GUIDE} must have one block of settings, not {len(found)}")
    return str(found[0])


def ended_under_load(
    server: harness.Server,
    master: harness.Leader,
    ready: Callable[[], re.Match[str] | int | None],
    log: Path,
) -> list[int]:
    """Ends a web server under load while it sends; returns the events of its answers."""
    found = harness.until(ready, "the start of the web server")
    if not isinstance(found, re.Match):
        sys.exit(f"The web server ended with exit code {found}: {log.read_text()[-1000:]}")
    with harness.loading(found[1], count(1_000)) as answered:
        harness.until(
            lambda: len(answered) >= ANSWERS and server.accepted(),
            f"{ANSWERS} answers of the web server and the first sent event",
        )
        master.send_signal(signal.SIGTERM)
        master.wait(harness.PATIENCE)
    return answered


def celery(options: argparse.Namespace) -> bool:
    tasks = TASKS if options.quick else 10 * TASKS
    return hold(
        f"{tasks} Celery tasks, each in a new process (--max-tasks-per-child 1)",
        Case("memory", partial(worked_for_celery, tasks, False)),
        Case("memory, flush", partial(worked_for_celery, tasks, True)),
        Case("outbox", partial(worked_for_celery, tasks, False), kept=True),
    )


def worked_for_celery(
    tasks: int, flushes: bool, server: harness.Server, outbox: str | None, log: Path
) -> list[int]:
    """Ends Celery's worker as soon as it has run all tasks."""
    folder = log.parent / "queue"
    folder.mkdir()
    worker = harness.start(work_for_celery, tasks, str(folder), outbox, flushes, url=server.url)
    tracked = [int(harness.read_line(worker)) for _ in range(tasks)]
    worker.terminate()
    harness.finish(worker)
    return tracked


def gevent(_: argparse.Namespace) -> bool:
    return hold(
        "gevent: programs that end, and gunicorn workers under load, ended by SIGTERM",
        Case("a short program", partial(ended_program, 3, 0)),
        # Requests in flight during the fork continue in the child, on the parent's sockets.
        Case(
            "a program that forks",
            partial(ended_program, 30, CHILDREN),
            repeats=CHILDREN * CONCURRENCY,
        ),
        Case("gunicorn", partial(served_by_gunicorn, ())),
        Case("gunicorn, preloaded", partial(served_by_gunicorn, ("--preload",)), kept=True),
    )


def ended_program(
    events: int, children: int, server: harness.Server, _: str | None, log: Path
) -> list[int]:
    """Runs a program under gevent, optionally one that forks."""
    program = ("gevent_program", str(events), str(children))
    with harness.process_group(*program, url=server.url, log=log) as process:
        if failed := process.wait(harness.PATIENCE):
            sys.exit(f"{program[0]} ended with exit code {failed}: {log.read_text()[-1000:]}")
    return [int(line) for line in log.read_text().split("\n") if line.isdigit()]


def served_by_gunicorn(
    arguments: tuple[str, ...], server: harness.Server, outbox: str | None, log: Path
) -> list[int]:
    """Ends gunicorn under load."""
    with harness.process_group(
        "gunicorn", "--worker-class", "gevent", "--workers", str(WORKERS),
        "--bind", "127.0.0.1:0", *arguments, "hosts:application()", url=server.url, log=log,
        HOME=str(log.parent),  # gunicorn would leave a socket in the user's home.
        **({OUTBOX: outbox} if outbox else {}),
    ) as master:  # fmt: skip

        def ready() -> re.Match[str] | int | None:
            return re.search(r"http://([\d.:]+)", log.read_text()) or master.poll()

        return ended_under_load(server, master, ready, log)


def jobs(_: argparse.Namespace) -> bool:
    return hold(
        f"{JOBS} jobs in child processes",
        Case("os._exit, flush", partial(ran_jobs, "os._exit", True)),
        # Events in flight may have arrived before the process ended.
        Case("os._exit, outbox", partial(ran_jobs, "os._exit", False), kept=True, repeats=JOBS),
        Case("with Pool(), flush", partial(ran_jobs, "Pool", True)),
        Case("ProcessPoolExecutor", partial(ran_jobs, "ProcessPoolExecutor", False)),
        Case("Process", partial(ran_jobs, "Process", False)),
    )


def ran_jobs(
    runner: str, flushes: bool, server: harness.Server, outbox: str | None, _: Path
) -> list[int]:
    """Runs jobs in child processes."""
    return [int(line) for line in harness.call(run_jobs, runner, outbox, flushes, url=server.url)]


PARTS = {"uwsgi": uwsgi, "celery": celery, "gevent": gevent, "jobs": jobs}

if __name__ == "__main__":
    # uWSGI cannot be run as a module; it reads the arguments itself.
    import pyuwsgi

    pyuwsgi.run()
