"""Functions are called once at the end of the process that registered them, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import types

import httpx
import pytest

from intercom_data_events import DataEventsClient
from intercom_data_events._sending.runtime import may_start_threads
from intercom_data_events.tracker import Tracker

pytestmark = [pytest.mark.ends, pytest.mark.processes]

HEAD = """
    import atexit, ctypes, multiprocessing, os, sys, types
    from concurrent.futures import ProcessPoolExecutor
    from intercom_data_events.tracker._exits import at_exit, cancel, unheard_end

    def note(*words):
        os.write(1, (" ".join(map(str, words)) + "\\n").encode())

    def ended():
        note("ended", os.getpid() == began)

    def register():
        global began
        began = os.getpid()
        at_exit(ended)
"""


@pytest.fixture
def run(tmp_path):
    """Runs a script; returns the lines that it and its children wrote, in order."""

    def run(script):
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(HEAD) + textwrap.dedent(script), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-Wignore::DeprecationWarning", path],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return run


def test_the_interpreters_exit_calls_the_newest_first_and_what_is_cancelled_not_at_all(run):
    assert run("""
        first, second, third = (lambda: note("first")), (lambda: note("second")), (lambda: note(3))
        at_exit(first)
        atexit.register(note, "between")
        at_exit(second)
        at_exit(third)
        at_exit(second)
        cancel(third)
    """) == ["second", "between", "first"]


def test_a_fork_calls_what_it_registers_itself_and_nothing_of_its_parent(run):
    assert run("""
        at_exit(lambda: note("parent's"))
        register()
        if os.fork() == 0:
            sys.exit()
        os.wait()
        if os.fork() == 0:
            register()
            sys.exit()
        os.wait()
        note("children ended")
    """) == ["ended True", "children ended", "ended True", "parent's"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("where", ["in the child", "as the main module is imported"])
def test_children_of_multiprocessing_call_what_they_registered_once(run, method, where):
    imports = where != "in the child"
    lines = run(f"""
        def work():
            if {not imports or method == "fork"}:
                register()
            note("worked")

        if {imports} and __name__ != "__main__":
            register()

        if __name__ == "__main__":
            context = multiprocessing.get_context("{method}")
            child = context.Process(target=work)
            child.start()
            child.join()
            with ProcessPoolExecutor(1, mp_context=context) as executor:
                executor.submit(work).result()
    """)

    assert lines == ["worked", "ended True"] * 2


def test_a_process_of_celerys_pool_calls_what_it_registered_before_it_ends_at_once(run):
    assert run("""
        from billiard.pool import Pool
        from celery.concurrency.prefork import process_destructor

        def work(_):
            register()
            note("worked")

        with Pool(1, maxtasksperchild=1, on_process_exit=process_destructor) as pool:
            pool.map(work, [1])
            pool.close()
            pool.join()
    """) == ["worked", "ended True"]


def test_uwsgi_without_teardown_calls_what_was_registered_and_what_it_called_before(run):
    assert run("""
        sys.modules["uwsgi"] = uwsgi = types.ModuleType("uwsgi")
        uwsgi.opt = {"skip-atexit-teardown": True, "hook-master-start": b"unix_signal:15 reload"}
        uwsgi.atexit = lambda: note("earlier")
        note("hook-master-start" in unheard_end())
        uwsgi.opt["hook-master-start"] = [b"unix_signal:15 gracefully_kill_them_all"]
        note(unheard_end())
        register()
        uwsgi.atexit()
        os._exit(0)
    """) == ["True", "None", "ended True", "earlier"]


def test_a_fork_without_pythons_knowledge_is_another_process(run):
    assert run("""
        from intercom_data_events._sending.runtime import this_process

        parent = this_process()
        assert this_process() is parent
        register()
        if ctypes.PyDLL(None).fork() == 0:
            note(this_process() is parent, this_process() is this_process())
            sys.exit()
        os.wait()
    """) == ["False True", "ended True"]


@pytest.mark.parametrize(
    ("worker", "mule", "may"), [(0, 0, False), (1, 0, True), (0, 1, True)],
    ids=["loading", "worker", "mule"],
)  # fmt: skip
def test_no_thread_is_started_where_uwsgi_loads_the_application(monkeypatch, worker, mule, may):
    assert may_start_threads()
    uwsgi = types.SimpleNamespace(worker_id=lambda: worker, mule_id=lambda: mule)
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)

    assert may_start_threads() is may


@pytest.mark.parametrize("under", [True, False], ids=["uWSGI", "another server"])
def test_no_thread_of_a_tracker_gets_a_signal_by_which_uwsgi_ends_it(monkeypatch, under):
    uwsgi = types.SimpleNamespace(worker_id=lambda: 1, mule_id=lambda: 0, opt={})
    if under:
        monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    blocked = []

    def answer(_):
        blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        return httpx.Response(202)

    with (
        DataEventsClient("token", transport=httpx.MockTransport(answer)) as client,
        Tracker(client) as tracker,
    ):
        tracker.track("placed-order", user_id="314159")
        assert tracker.flush(20)

    ends = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}
    assert (blocked[0] & ends) == (ends if under else set())
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & ends
