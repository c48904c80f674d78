"""Ends what others run: uWSGI, Celery's worker, programs of gevent and jobs of other queues.

These are parts of `crashes.py`, which see.
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
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import count
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

import harness
from intercom_data_events import DataEventsClient
from intercom_data_events.tracker import Tracker

WORKERS, CONCURRENCY = 2, 20
# Events that an earlier program left in the outbox, which uWSGI's master then begins to send.
LEFT = 50
TASKS, JOBS, CHILDREN = 8, 6, 3
GRACEFUL = ("--hook-master-start", "unix_signal:15 gracefully_kill_them_all")
OUTBOX = "CRASHES_OUTBOX"

Application = Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]


# What runs in child processes. Each prints numbers of events for which `track` returned.


def application() -> Application:
    """The application that servers serve: it answers when the event has been tracked."""
    tracker = Tracker(DataEventsClient(), os.environ.get(OUTBOX))

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        tracker.track("placed-order", user_id=environ["PATH_INFO"].removeprefix("/"))
        start_response("204 No Content", [])
        return []

    return answer


def leave_in_outbox(outbox: str) -> None:
    """Leaves events in an outbox, as a program that ends at once does."""
    tracker = Tracker(DataEventsClient(), outbox, close_timeout=0.001)
    for number in range(LEFT):
        tracker.track("placed-order", user_id=str(number))
        harness.note(number)


def work_for_celery(tasks: int, folder: str, outbox: str | None, flushes: bool) -> None:
    """Runs a Celery worker of which each process ends after one task."""
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


def run_jobs(runner: str, first: int, outbox: str | None, flushes: bool) -> None:
    """Runs jobs in child processes, which end as those of the runner do."""
    numbers = range(first, first + JOBS)
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


# What is counted.


def uwsgi(_: argparse.Namespace) -> bool:
    table = harness.Table(
        f"{WORKERS} uWSGI workers, under load, and SIGTERM",
        "", "answered", "at its end", "missing", "sent again", "logged",
    )  # fmt: skip
    good = True
    for name, kept, arguments in [
        ("memory, stops gracefully", False, GRACEFUL),
        ("memory, no teardown", False, (*GRACEFUL, "--skip-atexit-teardown")),
        ("memory, stops at once", False, ("--die-on-term",)),
        ("outbox, app of the master", True, ("--die-on-term",)),
        ("outbox, lazy apps", True, ("--die-on-term", "--lazy-apps")),
    ]:
        with tempfile.TemporaryDirectory() as folder, harness.serving(0.02) as server:
            outbox = str(Path(folder, "outbox")) if kept else None
            left = harness.call(leave_in_outbox, outbox, url=server.url) if kept else []
            log = Path(folder, "log")
            tracked = {*map(int, left), *served_by_uwsgi(server.url, outbox, log, arguments)}
            at_end = len(server.accepted())
            if kept:
                harness.call(harness.drain, outbox, True, url=server.url)
            accepted = server.accepted()
            logged = "hook-master-start" in log.read_text().partition("spawned uWSGI")[2]
        missing, repeated = harness.missing_and_repeated(tracked, accepted)
        table.row(name, len(tracked), at_end, missing, repeated, "yes" if logged else "no")
        good &= repeated <= (WORKERS * CONCURRENCY if kept else 0)
        # A worker in a request runs nothing at its end. The tracker has to say so before.
        good &= (
            not missing or logged if arguments == ("--die-on-term",) and not kept else not missing
        )
        good &= len(tracked) > len(left)
    return good


def served_by_uwsgi(
    url: str, outbox: str | None, log: Path, arguments: tuple[str, ...]
) -> list[int]:
    """Ends uWSGI under load; returns the numbers of the events for which an answer came."""
    starts = WORKERS if "--lazy-apps" in arguments else 1
    with harness.process_group(
        "hosts", "--http-socket", "127.0.0.1:0", "--master", "--enable-threads",
        "--processes", str(WORKERS), "--module", "hosts:application()", "--disable-logging",
        *arguments, url=url, log=log, **({OUTBOX: outbox} if outbox else {}),
    ) as master:  # fmt: skip

        def ready() -> re.Match[str] | int | None:
            said = log.read_text()
            begun = re.findall(r"spawned uWSGI worker \d+", said)
            apps = re.findall(r"WSGI app 0 .* ready", said)
            if len(begun) < WORKERS or len(apps) < starts:
                return master.poll()
            return re.search(r"bound to TCP address ([\d.:]+)", said)

        return ended_under_load(master, harness.until(ready, "The start of uWSGI"), log)


def ended_under_load(
    master: harness.Leader, found: re.Match[str] | int | None, log: Path
) -> list[int]:
    """Terminates a server under load, and waits for its end."""
    if not isinstance(found, re.Match):
        sys.exit(f"The server ended with exit code {found}: {log.read_text()[-1000:]}")
    with harness.loading(found[1], count(1_000)) as answered:
        harness.until(lambda: len(answered) >= 100, "An answer of the server")
        master.send_signal(signal.SIGTERM)
        master.wait(harness.PATIENCE)
    return answered


def celery(options: argparse.Namespace) -> bool:
    tasks = TASKS if options.quick else 5 * TASKS
    table = harness.Table(
        f"{tasks} tasks of Celery, each in a process of its own (--max-tasks-per-child 1)",
        "", "tracked", "at its end", "missing", "sent again",
    )  # fmt: skip
    good = True
    for name, kept, flushes in [
        ("memory", False, False),
        ("memory, the task flushes", False, True),
        ("outbox", True, False),
    ]:
        with tempfile.TemporaryDirectory() as folder, harness.serving(0.05) as server:
            outbox = str(Path(folder, "outbox")) if kept else None
            worker = harness.start(work_for_celery, tasks, folder, outbox, flushes, url=server.url)
            tracked = [int(harness.read_line(worker)) for _ in range(tasks)]
            worker.terminate()
            harness.finish(worker)
            at_end = len(server.accepted())
            if kept:
                harness.call(harness.drain, outbox, True, url=server.url)
            accepted = server.accepted()
        missing, repeated = harness.missing_and_repeated(tracked, accepted)
        table.row(name, len(tracked), at_end, missing, repeated)
        good &= not missing and not repeated
    return good


def gevent(_: argparse.Namespace) -> bool:
    table = harness.Table(
        "gevent: programs that end, and gunicorn's workers under load, and SIGTERM",
        "", "tracked", "missing", "sent again",
    )  # fmt: skip
    good = True
    for name, run in [
        ("a short program", partial(ended_program, events=3, children=0)),
        ("a program that forks", partial(ended_program, events=30, children=CHILDREN)),
        ("gunicorn", served_by_gunicorn),
        ("gunicorn, preloaded", partial(served_by_gunicorn, "--preload")),
    ]:
        with tempfile.TemporaryDirectory() as folder, harness.serving(0.05) as server:
            tracked = run(url=server.url, log=Path(folder, "log"))
            missing, repeated = harness.missing_and_repeated(tracked, server.accepted())
        table.row(name, len(tracked), missing, repeated)
        good &= not missing and not repeated and len(tracked) > 0
    return good


def ended_program(events: int, children: int, *, url: str, log: Path) -> list[int]:
    program = ("gevent_program", str(events), str(children))
    with harness.process_group(*program, url=url, log=log) as process:
        if failed := process.wait(harness.PATIENCE):
            sys.exit(f"{program[0]} ended with exit code {failed}: {log.read_text()[-1000:]}")
    return [int(line) for line in log.read_text().split("\n") if line.isdigit()]


def served_by_gunicorn(*arguments: str, url: str, log: Path) -> list[int]:
    """Ends gunicorn under load; returns the numbers of the events for which an answer came."""
    with harness.process_group(
        "gunicorn", "--worker-class", "gevent", "--workers", str(WORKERS),
        "--bind", "127.0.0.1:0", *arguments, "hosts:application()", url=url, log=log,
        HOME=str(log.parent),  # gunicorn would leave a socket in the user's.
    ) as master:  # fmt: skip

        def ready() -> re.Match[str] | int | None:
            said = log.read_text()
            return re.search(r"http://([\d.:]+)", said) or master.poll()

        return ended_under_load(master, harness.until(ready, "The start of gunicorn"), log)


def jobs(_: argparse.Namespace) -> bool:
    table = harness.Table(f"{JOBS} jobs in child processes", "", "tracked", "missing", "sent again")
    good = True
    with tempfile.TemporaryDirectory() as folder, harness.serving(0.05) as server:
        for position, (name, runner, kept, flushes) in enumerate(
            [
                ("os._exit, flush", "os._exit", False, True),
                ("os._exit, outbox", "os._exit", True, False),
                ("with Pool(), flush", "Pool", False, True),
                ("with Pool(), outbox", "Pool", True, False),
                ("ProcessPoolExecutor", "ProcessPoolExecutor", False, False),
                ("Process", "Process", False, False),
            ]
        ):
            first = position * JOBS
            outbox = str(Path(folder, f"outbox{position}")) if kept else None
            printed = harness.call(run_jobs, runner, first, outbox, flushes, url=server.url)
            if kept:
                harness.call(harness.drain, outbox, True, url=server.url)
            own = range(first, first + JOBS)
            accepted = server.accepted()
            accepted = type(accepted)({each: accepted[each] for each in own if accepted[each]})
            missing, repeated = harness.missing_and_repeated(map(int, printed), accepted)
            table.row(name, len(printed), missing, repeated)
            # What a process that ended at once had in flight may have arrived.
            good &= not missing and repeated <= (JOBS if kept else 0) and len(printed) == JOBS
    return good


PARTS = {"uwsgi": uwsgi, "celery": celery, "gevent": gevent, "jobs": jobs}

if __name__ == "__main__":
    import pyuwsgi

    pyuwsgi.run()
