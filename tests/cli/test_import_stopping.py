"""An import stops for a systemic failure, refuses no line for it, and resumes afterwards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from attrs import define, field

from intercom_data_events.emulator import Emulator, EmulatorServer

from .conftest import NOON, TOKEN, times

HTML = b"<html><h1>Not here</h1></html>"


def listed(*codes: str) -> bytes:
    """Intercom's own list of errors."""
    errors = [{"code": code, "message": "No"} for code in codes]
    return json.dumps({"type": "error.list", "request_id": "b3ae", "errors": errors}).encode()


# Systemic answers by status and body, and the command's exit code.
EVERY = [
    (401, listed("unauthorized"), 4),
    (401, b"", 4),
    (403, listed("api_plan_restricted"), 4),
    (403, HTML, 4),
    (400, listed("unauthorized"), 4),
    (404, listed("token_not_found"), 4),
    (422, listed("token_revoked"), 4),
    (410, listed("token_unauthorized"), 4),
    (402, listed("api_plan_restricted"), 4),
    (400, HTML, 3),
    (404, HTML, 3),
    (404, b'{"message": "no Route matched with those values"}', 3),
    (404, b'{"code": "unauthorized", "message": "no Route matched"}', 3),
    (400, b'{"error": {"code": "forbidden"}}', 3),
    (410, b'[{"code": "token_revoked"}]', 3),
    (405, b'{"error": "intercom_version_invalid"}', 3),
    (405, HTML, 3),
    (406, HTML, 3),
    (407, HTML, 3),
    (409, b"", 3),
    (421, b"", 3),
    (451, listed("some_code"), 3),
    (302, b"", 3),
]


@define
class Server:
    """An emulator, but for the events that get another answer, by the seconds after noon."""

    emulator: Emulator
    odd: Callable[[int], bool] = lambda number: False
    status: int = 202
    body: bytes = b""
    #: How often each event was sent.
    asked: Counter[int] = field(factory=Counter)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        number = json.loads(request.content)["created_at"] - NOON
        self.asked[number] += 1
        if self.odd(number):
            return httpx.Response(self.status, content=self.body)
        return self.emulator.answer(request)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    made = Server(Emulator(clock=lambda: NOON + 86400.0, rate_limit=None))
    with EmulatorServer(made) as url:
        monkeypatch.setenv("INTERCOM_BASE_URL", url)
        monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", TOKEN)
        yield made


def stored(server: Server) -> list[int]:
    return [second - NOON for second in times(server.emulator)]


def noted(path: Path) -> int:
    """How many outcomes the journal of a file has."""
    lines = path.with_name(f"{path.name}.journal").read_text().splitlines()
    return sum(not line.startswith(("{", '["read"')) for line in lines)


def refused_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}.refused{path.suffix}")


@pytest.mark.costly
def test_a_systemic_failure_of_every_line_stops_it_and_refuses_none(server, command, ndjson):
    for number, (status, body, code) in enumerate(EVERY):
        server.emulator.clear()
        server.asked.clear()
        server.odd, server.status, server.body = lambda _: True, status, body
        path = ndjson(40, name=f"events{number}.ndjson")

        done = command("import", path, "--concurrency", "4")

        case = status, body, done
        assert done.code == code, case
        assert str(status) in done.err, case
        assert "refused" not in f"{done.out}{done.err}", case
        assert "mend" not in done.err.lower(), case
        assert "fix the lines" not in done.err.lower(), case
        assert noted(path) == 0, case
        assert not refused_of(path).exists(), case
        assert server.asked.total() <= 4 + 4, case
        server.odd = lambda _: False
        again = command("import", path, "--json")
        assert (again.code, again.json["accepted"], again.json["before"]) == (0, 40, 0), case
        assert stored(server) == list(range(40)), case


def test_a_systemic_failure_of_the_only_line_stops_it_too(server, command, ndjson):
    for number, (status, body, code) in enumerate(EVERY[::3]):
        server.odd, server.status, server.body = lambda _: True, status, body
        path = ndjson(1, name=f"events{number}.ndjson")

        done = command("import", path)

        assert done.code == code, (status, body, done)
        assert not refused_of(path).exists(), (status, body)
        assert noted(path) == 0, (status, body)
        server.odd = lambda _: False
        assert command("import", path, "--json").json["accepted"] == 1, (status, body)


def test_lines_that_were_accepted_before_a_systemic_failure_are_done(server, command, ndjson):
    for number, (status, body, code) in enumerate(EVERY[::4]):
        server.emulator.clear()
        server.odd, server.status, server.body = lambda second: second >= 20, status, body
        path = ndjson(40, name=f"events{number}.ndjson")

        done = command("import", path, "--concurrency", "1")

        assert done.code == code, (status, body, done)
        assert "20 accepted" in done.out
        assert not refused_of(path).exists(), (status, body)
        server.odd = lambda _: False
        again = command("import", path, "--json")
        assert (again.code, again.json["accepted"], again.json["before"]) == (0, 20, 20)
        assert stored(server) == list(range(40)), (status, body)


def test_one_line_that_alone_gets_a_systemic_answer_is_refused_and_stops_nothing(
    server, command, ndjson
):
    for number, (status, body, _) in enumerate(EVERY[1::2]):
        server.emulator.clear()
        server.asked.clear()
        server.odd, server.status, server.body = lambda second: second == 7, status, body
        path = ndjson(40, name=f"events{number}.ndjson")

        done = command("import", path, "--json")

        case = status, body, done
        assert done.code == 1, case
        counts = [done.json[name] for name in ("accepted", "refused", "failed", "pending")]
        assert counts == [39, 1, 0, 0], case
        assert server.asked.pop(7) == 2, case
        assert set(server.asked.values()) == {1}, case
        reason, line = refused_of(path).read_text().splitlines()
        assert reason.startswith(f"# line 8: {status} "), case
        assert json.loads(line)["created_at"] == NOON + 7, case
        again = command("import", path, "--json")
        assert (again.json["before"], again.json["refused_before"]) == (40, 1), case
        assert server.asked[7] == 0, case


def test_one_line_near_the_end_failed_and_is_sent_again_by_the_next_run(server, command, ndjson):
    for number, (status, body, _) in enumerate(EVERY[::4]):
        server.emulator.clear()
        server.odd, server.status, server.body = lambda second: second == 8, status, body
        path = ndjson(10, name=f"events{number}.ndjson")

        done = command("import", path, "--concurrency", "1", "--json")

        case = status, body, done
        assert done.code == 3, case
        assert [done.json[name] for name in ("accepted", "refused", "failed")] == [9, 0, 1], case
        assert not refused_of(path).exists(), case
        server.odd = lambda _: False
        assert command("import", path, "--json").json["accepted"] == 1, case
        assert stored(server) == list(range(10)), case


def test_a_systemic_answer_that_came_once_stops_nothing(server, command, ndjson):
    for number, (status, body, _) in enumerate(EVERY[::4]):
        server.emulator.clear()
        server.asked.clear()
        server.odd = lambda second: second in (7, 38) and server.asked[second] == 1
        server.status, server.body = status, body
        path = ndjson(40, name=f"events{number}.ndjson")

        done = command("import", path, "--json")

        assert (done.code, done.err) == (0, ""), (status, body)
        assert done.json["accepted"] == 40
        assert stored(server) == list(range(40)), (status, body)
