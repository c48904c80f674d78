"""Nothing that a failure shows has the access token in it; the failures are in `hunt`."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Iterator
from time import process_time

import httpx
import hunt
import pytest
from raw_server import RawServer

from intercom_data_events import (
    APIConnectionError,
    APIResponseError,
    AsyncDataEventsClient,
    ConfigurationError,
    DataEventsClient,
)
from intercom_data_events._sending.secret import Secret
from intercom_data_events.emulator import Emulator
from intercom_data_events.tracker import Tracker

#: What Sentry is told of in a run of all tests; `python tests/overlays/hunt.py` tells it of all.
FOR_SENTRY = [
    "wrong_tokens", "functions_for_tokens", "connections through fast", "hooks_and_transports",
    "interruptions", "outboxes", "tasks_of_celery",
]  # fmt: skip


# Where a request cannot be written, httpx leaves the generator of its body open: trio warns of it.
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
@pytest.mark.parametrize("name", hunt.FAILURES)
def test_no_failure_shows_the_access_token(name):
    number, found = hunt.findings(hunt.FAILURES[name])

    assert number > 0
    assert found == []


@pytest.mark.costly
def test_sentry_is_not_sent_the_access_token():
    # In a process of its own, because Sentry replaces functions of many libraries for good.
    done = subprocess.run(
        [sys.executable, hunt.__file__, *FOR_SENTRY],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
    )

    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    shown = json.loads(done.stdout)
    assert shown.keys() == set(FOR_SENTRY)
    assert all(number for number, _ in shown.values())


def test_httpx_does_not_log_the_words_beside_a_status(caplog):
    caplog.set_level(logging.INFO, logger="httpx")

    with (
        RawServer(hunt.repeating) as server,
        DataEventsClient(hunt.TOKEN, base_url=server.url, max_retries=0) as client,
    ):
        hunt.caught(client.create, "a", user_id="reason")

    assert "403 Forbidden" in caplog.text
    assert hunt.TOKEN not in caplog.text


def failing(*_: object) -> str:
    raise OSError("no such file")


def hooked() -> httpx.Client:
    """A client of the caller's own, with a hook that fails with an error that is not httpx's."""
    hooks = {"request": [lambda _: {}["nothing"]]}
    return httpx.Client(transport=Emulator().transport(), event_hooks=hooks)


def test_the_message_says_where_the_function_for_the_token_failed():
    line = failing.__code__.co_firstlineno + 1
    client = DataEventsClient(failing, transport=Emulator().transport())
    with pytest.raises(ConfigurationError) as caught:
        client.create("a", user_id="1")

    assert f"function failed at test_token.py:{line}: no such file" in str(caught.value)
    assert caught.value.__cause__ is not None
    assert caught.value.__cause__.__traceback__ is None


def test_a_tracker_says_where_a_hook_failed():
    line = hooked.__code__.co_firstlineno + 2
    told: list[Exception] = []
    with (
        hooked() as own,
        DataEventsClient("token", http_client=own) as client,
        Tracker(client, on_error=lambda _, error: told.append(error)) as tracker,
    ):
        tracker.track("a", user_id="1")
        tracker.flush(timeout=0.1)
        failing = tracker.counters.failing
        tracker.close(timeout=0)

    assert f"KeyError at test_token.py:{line}" in str(failing)
    assert told


def test_the_error_of_a_hook_keeps_its_traceback():
    with hooked() as own:
        client = DataEventsClient("token", http_client=own)
        with pytest.raises(KeyError) as caught:
            client.create("a", user_id="1")

    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "<lambda>"


def handled(url: str) -> Iterator[BaseException]:
    """What a caller was handling when a request failed, and the error of the request."""
    try:
        httpx.Response(500, request=httpx.Request("GET", f"{url}/?a=b")).raise_for_status()
    except httpx.HTTPStatusError as error:
        with DataEventsClient("token", base_url=url, max_retries=0) as client:
            yield error
            yield hunt.caught(client.create, "a", user_id="1")


def test_what_the_caller_was_handling_stays_as_it_is():
    with hunt.Refusing() as url:
        own, error = handled(url)

    assert isinstance(error, APIConnectionError)
    assert error.__context__ is own
    assert own.__traceback__ is not None
    assert str(own.request.url) == f"{url}/?a=b"


@pytest.mark.parametrize("kind", [DataEventsClient, AsyncDataEventsClient])
def test_a_client_that_cannot_be_made_can_be_shown(kind):
    error = hunt.caught(kind, "token", timeout=-1)

    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    assert f"{kind.__name__}(…)" in "".join(shown.format())


def test_a_held_value_is_copied_as_it_is_and_never_pickled():
    held = Secret([hunt.TOKEN])

    assert copy.copy(held) is held
    assert copy.deepcopy(held) is held
    assert f"{held}{held!r}" == "……"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(held)


def answered(token: str, status: int, pieces: Iterator[bytes]) -> bytes:
    """What is kept of an answer that arrives in pieces."""

    class Pieces(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            return pieces

    transport = httpx.MockTransport(lambda _: httpx.Response(status, stream=Pieces()))
    with DataEventsClient(token, transport=transport, max_retries=0) as client:
        error = hunt.caught(client.summary, user_id="1")
    assert isinstance(error, APIResponseError)
    return error.response.content


TEXTS = {
    **{name: encode(hunt.TOKEN) for name, encode in hunt.ENCODINGS.items()},
    **{wide: hunt.TOKEN.encode(wide) for wide in hunt.WIDE},
    "a repr of UTF-32": repr(hunt.TOKEN.encode("utf-32-le")).encode(),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_token_that_is_cut_by_the_pieces_of_an_answer_is_removed(name):
    text = TEXTS[name]
    piece = 64 * 1024
    for size in (piece, 1000):
        for before in (1, len(text) // 2, len(text) - 1):
            body = b"x" * (piece - before) + text + b"y" * 2 * piece
            pieces = (body[at : at + size] for at in range(0, len(body), size))
            kept = answered(hunt.TOKEN, 500, pieces)

            assert kept.startswith(b"xxx")
            assert kept.endswith(b"yyy")
            assert not hunt.given_away(kept[piece - before - 9 : 2 * piece].decode("latin-1"))


def test_of_a_large_success_that_repeats_the_token_nothing_is_kept():
    text = hunt.ENCODINGS["JSON of all"](hunt.TOKEN)

    assert answered(hunt.TOKEN, 200, iter([b"x" * 2**20, text, b"x" * 2**20])) == b"[access token]"


def test_adjacent_backslashes_of_a_token_are_searched_in_linear_time():
    token = "01234567" + "\\" * 7 + "89"
    almost = b"01234567" + b"\\" * 64 + b"!"
    begin = process_time()

    assert answered(token, 500, iter([almost * 9])) == almost * 9
    assert answered(token, 500, iter([token.encode() * 2])) == b"[access token]" * 2
    assert process_time() - begin < 0.5


def test_headers_that_are_not_a_mapping_stay_out_of_the_whole_error():
    with pytest.raises(ConfigurationError, match="headers must be a mapping") as caught:
        DataEventsClient("token", headers="Authorization: Bearer dG9rZW4")

    assert "dG9rZW4" not in repr(vars(caught.value))
    assert b"dG9rZW4" not in pickle.dumps(caught.value)
