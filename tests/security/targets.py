"""All code that reads data from outside, as targets of the search, with their inputs."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import importlib.util
import io
import json
import logging
import os
import shutil
import sqlite3
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable
from functools import cache
from itertools import islice
from operator import methodcaller
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import certifi
import httpx
import httpx2
import typer
from attrs import evolve, frozen
from hypothesis import strategies as st
from kombu.exceptions import KombuError

from intercom_data_events import AsyncDataEventsClient, DataEventsClient, Event, IntercomError
from intercom_data_events.cli.app import run
from intercom_data_events.cli.exit_codes import Exit
from intercom_data_events.emulator import Emulator, ManualClock
from intercom_data_events.outbox import Outbox
from intercom_data_events.tracker import Tracker
from searching import EMAIL, PIECES, TOKEN, Target

PROJECT = Path(__file__).parents[2]
sys.path += [str(PROJECT / folder) for folder in ("tests", "tests/overlays", "scripts")]

import verbs  # noqa: E402  # needs the path
from raw_server import Connection, RawServer, encode  # noqa: E402  # needs the path

_NOW = 1_671_028_894
_MIB = 1024 * 1024

# Inputs

_EVENT = {
    "type": "event",
    "id": "5f",
    "event_name": "ran",
    "created_at": _NOW,
    "user_id": "1",
    "email": EMAIL,
    "intercom_user_id": "6",
    "metadata": {
        "plan": "pro",
        "paid_at": _NOW,
        "price": {"amount": 1, "currency": "usd"},
        "order": {"url": "https://a.example", "value": "7"},
    },
}
_LISTING = {
    "type": "event.list",
    "events": [_EVENT, _EVENT],
    "pages": {"next": "https://api.intercom.io/events?before=1", "since": "?user_id=1&since=2"},
}
_SUMMARY = {
    "type": "event.summary",
    "user_id": "1",
    "email": EMAIL,
    "intercom_user_id": "6",
    "events": [
        {
            "name": "ran",
            "first": "2024-01-01T00:00:00Z",
            "last": f"{_NOW}",
            "count": 1,
            "description": "x",
        }
    ],
}
_ERRORS = {
    "type": "error.list",
    "request_id": "b1",
    "errors": [{"code": "not_found", "message": f"no {EMAIL} {TOKEN}", "field": "email"}],
}
_SAID = ("message", "code", "field")
_PAGE = (
    f"<html><head><title>502 {TOKEN}</title></head><body><h1>Bad &amp; {EMAIL}</h1></body></html>"
)
_LINES = "".join(json.dumps({**_EVENT, "user_id": f"{number}"}) + "\n" for number in range(3))
_ROWS = (
    f"event_name,user_id,email,created_at,metadata.plan\nran,1,{EMAIL},{_NOW},pro\nran,2,,{_NOW},\n"
)

_texts = st.one_of(
    st.sampled_from(PIECES),
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.text(max_size=8),
)
_numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([_NOW, _NOW * 1000, 2**63, -(2**63), 10**400, 1e308]),
)
_scalars = st.one_of(st.none(), st.booleans(), _numbers, _texts)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=8,
)


def _dumped(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


@st.composite
def _changed(draw: st.DrawFn, original: object) -> object:
    """Generates a document with some values changed or removed."""
    document = json.loads(json.dumps(original))
    for _ in range(draw(st.integers(1, 3))):
        root: dict[Any, Any] = {"": document}
        holder: Any = root
        key: Any = ""
        value: Any = document
        while isinstance(value, dict | list) and value and draw(st.integers(0, 4)):
            holder = value
            key = draw(
                st.sampled_from(list(value) if isinstance(value, dict) else range(len(value)))
            )
            value = holder[key]
        holder[key] = draw(_values)
        document = root[""]
    return document


@st.composite
def _edited(draw: st.DrawFn, original: bytes) -> bytes:
    """Generates bytes with some removed and others inserted."""
    edited = original
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(edited)))
        cut = draw(st.sampled_from([0, 0, 1, 2, 16, len(edited)]))
        put = draw(st.one_of(st.binary(max_size=4), _texts.map(_bytes)))
        edited = edited[:at] + put + edited[at + cut :]
    return edited


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _documents(*originals: object) -> st.SearchStrategy[bytes]:
    changed = st.one_of(*map(_changed, originals)).map(_dumped)
    edited = st.one_of(*(_edited(_dumped(original)) for original in originals))
    return st.one_of(
        changed, edited, _values.map(_dumped), _texts.map(_bytes), st.binary(max_size=40)
    )


def _in_json(text: str) -> bytes:
    """Returns a listing with a string in every place for strings."""
    event = dict.fromkeys(_EVENT, text) | {"metadata": {text: text}}
    return _dumped({"events": [event], "pages": {"next": text, "since": text}, text: text})


def _many(item: object) -> Callable[[str], bytes]:
    """Returns a listing with one item per ten characters of a string."""
    return lambda text: _dumped({"type": "event.list", "events": [item] * (len(text) // 10)})


def _errors(*errors: object) -> bytes:
    return _dumped({"errors": errors})


def _keys(text: str) -> bytes:
    return _dumped({f"{number}": number for number in range(len(text) // 10)})


# Answers


@frozen
class _Answer:
    """An answer of a server.

    Attributes:
        engine: The library that reads it.
        operation: The operation that it answers.
    """

    engine: str
    operation: str
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        return [(name.encode(), value.encode("utf-8", "replace")) for name, value in self.headers]


_ENGINES = {"httpx": httpx, "httpx async": httpx, "httpx2": httpx2, "httpx2 async": httpx2}
_LISTS = {"user_id": "1"}


def _consume(listing: Iterable[Any]) -> None:
    for event in islice(listing, 1_000):
        event.to_json()
        with contextlib.suppress(IntercomError):
            event.to_event()


_OPERATIONS: dict[str, Callable[[Any], Any]] = {
    **{verb: methodcaller(verb, **arguments) for verb, arguments in verbs.ARGUMENTS.items()},
    "list": lambda client: client.list(email=EMAIL),
    "list since": lambda client: client.list(since=f"?email={EMAIL}&since=1", per_page=1),
    "create": lambda client: client.create("ran", email=EMAIL, created_at=_NOW),
}


async def _finish(client: AsyncDataEventsClient, operation: str) -> None:
    async with client:
        found = _OPERATIONS[operation](client)
        if hasattr(found, "__aiter__"):
            taken = []
            async for event in found:
                taken.append(event)
                if len(taken) == 1_000:
                    break
            _consume(taken)
        else:
            await found


def _read_answer(answer: _Answer) -> list[str]:
    library: ModuleType = _ENGINES[answer.engine]

    def reply(_: Any) -> Any:
        # As a stream, so that the client decodes it, not the library.
        stream = library.ByteStream(answer.body)
        return library.Response(answer.status, headers=answer.raw_headers, stream=stream)

    options: dict[str, Any] = {
        "access_token": TOKEN,
        "transport": library.MockTransport(reply),
        "clock": ManualClock(_NOW),
        "max_retries": 1,
        "base_url": None,
    }
    if answer.engine.endswith("async"):
        asyncio.run(_finish(AsyncDataEventsClient(**options), answer.operation))
        return []
    with DataEventsClient(**options) as client:
        found = _OPERATIONS[answer.operation](client)
        if hasattr(found, "__iter__"):
            _consume(found) if answer.operation.startswith("list") else list(found)
        return [repr(client), str(client.rate_limit)]


_OK, _NO_HEADERS = st.just(200), st.just(())


def _answers(
    bodies: st.SearchStrategy[bytes],
    operations: Iterable[str],
    statuses: st.SearchStrategy[int] = _OK,
    headers: st.SearchStrategy[tuple[tuple[str, str], ...]] = _NO_HEADERS,
) -> st.SearchStrategy[_Answer]:
    engines, used = st.sampled_from([*_ENGINES]), st.sampled_from([*operations])
    return st.builds(_Answer, engines, used, statuses, headers, bodies)


def _of(
    operation: str, body: Callable[[str], bytes], status: int = 200
) -> Callable[[str], _Answer]:
    return lambda text: _Answer("httpx", operation, status, (), body(text))


_bad = st.one_of(
    st.sampled_from([400, 401, 403, 404, 409, 422, 429, 500, 502, 520]), st.integers(200, 599)
)
_HEADERS = (
    "Retry-After Date X-RateLimit-Limit X-RateLimit-Remaining X-RateLimit-Reset Intercom-Version "
    "Location Content-Type X-Request-Id Content-Language Age"
).split()
_DATES = (
    "Wed, 14 Dec 2022 14:41:34 GMT",
    "Wed, 31 Feb 99999 25:00:00 +9999",
    "Mon, 01 Jan 0001 00:00:00 -2359",
)
_header = st.tuples(
    st.sampled_from(_HEADERS),
    st.one_of(st.sampled_from(_DATES), _texts, _numbers.map(str)).map(
        lambda text: text.replace("\n", "").replace("\r", "")
    ),
)
_headers = st.lists(_header, max_size=5).map(tuple)


def _header_of(name: str) -> Callable[[str], _Answer]:
    return lambda text: _Answer("httpx", "list", 429, ((name, text),), b"")


# Compressed bodies


def _zipped(content: bytes, *codings: str) -> bytes:
    for coding in codings:
        if coding == "deflate":
            content = zlib.compress(content, 9)
        else:
            content = gzip.compress(content, 9, mtime=0)
    return content


_BOMB = _zipped(bytes(128 * _MIB), "gzip")
_BOMBS = (
    (_BOMB, "gzip"),
    (_zipped(bytes(128 * _MIB), "deflate"), "deflate"),
    (_zipped(_BOMB, "gzip"), "gzip, gzip"),
    (_zipped(_BOMB, "gzip"), "gzip"),
    (_BOMB * 2, "gzip"),
    (b"[" + _BOMB, "gzip"),
    (_BOMB[:-9], "gzip"),
)
_CODINGS = (
    *("gzip", "deflate", "br", "zstd", "identity", "x-gzip", "GZIP", "gzip;q=1", "gzip, gzip"),
    ", ".join(["gzip"] * 50),
)
_PACKED = (
    _zipped(_dumped(_LISTING), "gzip"),
    _zipped(_dumped(_LISTING), "gzip", "gzip"),
    _zipped(_dumped(_ERRORS), "deflate"),
)
_bombs, _packed = st.sampled_from(_BOMBS), st.sampled_from(_PACKED)
_compressed = st.one_of(
    _bombs,
    st.tuples(
        st.one_of(_packed, _packed.flatmap(_edited), st.binary(max_size=30)),
        st.sampled_from(_CODINGS),
    ),
)


def _coded(answer: _Answer, body: tuple[bytes, str]) -> _Answer:
    """Returns an answer with a body and its coding."""
    content, coding = body
    return evolve(answer, headers=(("Content-Encoding", coding),), body=content)


def _gzip_of(content: Callable[[str], bytes], coding: str = "gzip") -> Callable[[str], _Answer]:
    return lambda text: _coded(_Answer("httpx", "list"), (content(text), coding))


# Raw bytes on a socket


class _Wire:
    """A server that sends given bytes, then closes the connection."""

    def __init__(self, opened: contextlib.ExitStack) -> None:
        self.reply = b""
        self.server = opened.enter_context(RawServer(self._script))
        self._client = opened.enter_context(DataEventsClient(**self._options))

    def _script(self, connection: Connection) -> None:
        connection.request()
        connection.send(self.reply)

    @property
    def _options(self) -> dict[str, Any]:
        return {"access_token": TOKEN, "base_url": self.server.url, "timeout": 3, "max_retries": 0}

    def read(self, given: tuple[str, bytes]) -> list[str]:
        engine, self.reply = given
        self.server.requests.clear()
        if engine == "own":
            _consume(self._client.list(user_id="1"))
        elif engine == "own async":
            asyncio.run(_finish(AsyncDataEventsClient(**self._options), "list"))
        else:
            return asyncio.run(self._send_fast())
        return []

    async def _send_fast(self) -> list[str]:
        async with AsyncDataEventsClient(**self._options) as client:
            outcomes = [one async for one in client.create_many([{**_EVENT, "user_id": "1"}])]
            return [str(outcome.error) for outcome in outcomes]


_wires = st.sampled_from(["own", "own async", "fast"])
_PLAIN = encode("200 OK", _dumped(_LISTING))
_replies = st.one_of(
    _edited(_PLAIN),
    _edited(encode("202 Accepted", b"{}", chunked=True, trailers=True)),
    _edited(encode("404 Not Found", _dumped(_ERRORS))),
    _texts.map(_bytes),
    _bombs.map(lambda bomb: encode("200 OK", bomb[0], extra=f"Content-Encoding: {bomb[1]}\r\n")),
)


def _headed(text: str) -> bytes:
    return encode(
        "200 OK", b"{}", extra=f"X-Long: {''.join(text.split())}\r\n".encode().decode("latin-1")
    )


# The command line


class _Files:
    """A folder with files for the command line, and an emulator for their events."""

    def __init__(self, opened: contextlib.ExitStack) -> None:
        self.folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="fuzz-")))
        self.url = opened.enter_context(Emulator(rate_limit=None).serve())
        os.environ |= {"INTERCOM_ACCESS_TOKEN": TOKEN, "INTERCOM_BASE_URL": self.url}
        # A new one for each command would take most of the time.
        typer.main.get_command = cache(typer.main.get_command)

    def run(self, *arguments: str) -> list[str]:
        """Runs a command in this process; it must not report a bug."""
        shown = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="surrogateescape", newline="")
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            code = run(arguments)
        shown.seek(0)
        said = shown.read()
        if code not in [*Exit] or "Traceback" in said or "this is a bug" in said:
            raise AssertionError(f"exit code {code}, {said[-1_000:]}")
        return [said]

    def track(self, given: tuple[str, str, str]) -> list[str]:
        """Runs `track --dry-run` with arguments."""
        name, user_id, metadata = given
        return self.run("track", name, "--user-id", user_id, "--metadata", metadata, "--dry-run")

    def check(self, given: tuple[str, bytes]) -> list[str]:
        """Checks a file without sending it."""
        form, content = given
        path = self.folder / "events"
        path.write_bytes(content)
        return self.run(
            "import", f"{path}", "--dry-run", "--quiet", *(["--format", form] if form else [])
        )

    def go_on(self, journal: bytes) -> list[str]:
        """Resumes an import from its journal."""
        path, notes, refused = (
            self.folder / name for name in ("resumed.ndjson", "notes", "refused")
        )
        path.write_text(_LINES, "utf-8")
        refused.unlink(missing_ok=True)
        notes.write_bytes(journal)
        where = ("--journal", f"{notes}", "--refused", f"{refused}", "--max-retries", "0")
        return self.run("import", f"{path}", "--quiet", "--allow-http", *where)

    def journal(self) -> bytes:
        """Returns the journal of a finished import."""
        self.go_on(b"")
        return (self.folder / "notes").read_bytes()


_forms = st.sampled_from(["", "ndjson", "csv"])


def _columns(text: str) -> bytes:
    names = ",".join(f"metadata.{number}" for number in range(len(text) // 10))
    return f"event_name,user_id,{names}\n".encode()


def _rows(text: str) -> bytes:
    return b"event_name,user_id,metadata.a\n" + b"ran,1," + _bytes(text) + b"\n"


# Outboxes

_Change: TypeAlias = tuple[tuple[str, str], object]


class _Outboxes:
    """An outbox whose rows another program has changed."""

    def __init__(self, opened: contextlib.ExitStack, files: _Files) -> None:
        self._files = files
        self._template = files.folder / "template.outbox"
        self.path = files.folder / "events.outbox"
        emulator = Emulator(contacts=[], rate_limit=None)
        with (
            DataEventsClient(TOKEN, transport=emulator.transport()) as client,
            Tracker(client, self._template, unknown_contact_patience=0) as tracker,
        ):
            for number in range(2):
                tracker.track("placed-order", user_id=f"{number}")
            tracker.flush(30)
        with contextlib.closing(sqlite3.connect(self._template)) as connection, connection:
            row = (json.dumps(_EVENT), time.time())
            connection.executemany(
                "INSERT INTO events (event, tracked_at) VALUES (?, ?)", [row] * 2
            )
            self._schema = connection.execute("SELECT sql, name FROM sqlite_schema").fetchall()
            self.columns = [
                (table, column)
                for table in ("events", "dead", "binding")
                for _, column, *_ in connection.execute(f"PRAGMA table_info({table})")
            ]
        self._accepting = opened.enter_context(
            DataEventsClient(TOKEN, transport=Emulator(rate_limit=None).transport())
        )

    def read(self, given: tuple[str, list[_Change]]) -> list[str]:
        """Changes rows, then uses the file with `Outbox`, a tracker or a command."""
        use, changes = given
        for end in ("", "-wal", "-shm"):
            Path(f"{self.path}{end}").unlink(missing_ok=True)
        shutil.copy(self._template, self.path)
        self._change(changes)
        if use == "tracker":
            with Tracker(self._accepting, self.path, unknown_contact_patience=0) as tracker:
                tracker.flush(5)
                return [str(tracker), str(tracker.counters)]
        if use != "outbox":
            return self._files.run("outbox", use, f"{self.path}", "--json")
        with Outbox(self.path) as outbox:
            outbox.status()
            list(outbox.waiting())
            list(outbox.dead_letters())
            outbox.retry()
            list(outbox.waiting())
            outbox.compact()
            return []

    def many(self, text: str) -> tuple[str, list[_Change]]:
        return "outbox", [(("dead", "message"), text), (("events", "event"), text)]

    def _change(self, changes: list[_Change]) -> None:
        # Other programs can ignore the constraints of our tables.
        loose = "UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '') WHERE type = 'table'"
        self._execute([(loose, ())])
        self._execute(
            [
                (f"UPDATE OR IGNORE {table} SET {column} = ?", (value,))  # noqa: S608  # our names
                for (table, column), value in changes
            ]
        )
        self._execute(
            [("UPDATE sqlite_schema SET sql = ? WHERE name = ?", row) for row in self._schema]
        )

    def _execute(self, statements: Iterable[tuple[str, tuple[object, ...]]]) -> None:
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute("PRAGMA writable_schema = ON")
            for statement, values in statements:
                # Some generated values cannot be stored in a file.
                with contextlib.suppress(sqlite3.Error, OverflowError, UnicodeEncodeError):
                    connection.execute(statement, values)


_cells = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.binary(max_size=20),
    _texts,
    _documents(_EVENT),
    _documents(_EVENT).map(lambda body: body.decode("utf-8", "replace")),
)


# Celery


class _Messages:
    """A Celery task that receives messages."""

    def __init__(self) -> None:
        from celery import Celery

        import intercom_data_events.celery  # noqa: F401  # the task

        self._app = Celery("fuzz", broker="memory://", set_as_current=False)
        self._app.conf.intercom_data_events = {
            "access_token": TOKEN,
            "transport": Emulator(contacts=[], rate_limit=None).transport(),
            "max_retries": 0,
        }
        self._app.finalize()

    def read(self, given: tuple[object, object, int]) -> list[str]:
        event, headers, retries = given
        task = self._app.tasks["intercom_data_events.send_event"]
        task.push_request(
            id="1",
            args=[event],
            kwargs={},
            headers=headers,
            retries=retries,
            hostname="here",
            called_directly=False,
            is_eager=False,
            delivery_info={},
        )
        try:
            task.run(event)
        finally:
            task.pop_request()
            with self._app.connection_for_write() as connection:
                channel: Any = connection.default_channel
                channel.queues.clear()
        return []


def _message_errors() -> tuple[type[BaseException], ...]:
    from celery.exceptions import Reject, Retry

    return (IntercomError, Reject, Retry, KombuError)


# Descriptions


class _Descriptions:
    """The regeneration with its report, without the generator."""

    def __init__(self, files: _Files) -> None:
        from regeneration import RegenerationError, document, operations, pipeline, reporting

        self.errors = (RegenerationError,)
        self._path = files.folder / "description.yaml"
        self._document, self._pipeline, self._reporting = document, pipeline, reporting
        openapi = PROJECT / "openapi"
        self._corrections = document.read(str(openapi / "corrections.yaml"))
        self._operations = operations.read_operations(
            document.read(str(openapi / "operations.yaml"))
        )
        self._committed = reporting.committed(PROJECT)
        self.upstream = document.read(str(openapi / "upstream.yaml")).content

    def read(self, content: bytes) -> list[str]:
        self._path.write_bytes(content)
        source = self._document.read(str(self._path))
        made = self._pipeline.derive(source, self._corrections, self._operations, again=False)
        self._document.dump(made.corrected.document, "corrected")
        report = self._reporting.make(
            self._committed,
            self._reporting.Made(
                made.sliced,
                made.corrected.document,
                self._committed.surface,
                made.operations,
                made.corrected.unknown,
                made.unoffered,
                ("differs: openapi/upstream.yaml",),
                form_only=False,
            ),
            PROJECT,
        )
        return [*report.as_text().split("\n"), json.dumps(report.as_json())]


# Events of callers


def _make_event(given: tuple[object, object, object]) -> list[str]:
    name, at, metadata = given
    fields = {"event_name": name, "created_at": at, "user_id": "1", "metadata": metadata}
    Event.from_dict(fields)
    return []


def _follow(given: tuple[object, dict[str, object]]) -> list[str]:
    since, others = given
    answer = httpx.MockTransport(lambda _: httpx.Response(200, content=b'{"type":"event.list"}'))
    with DataEventsClient(TOKEN, transport=answer, clock=ManualClock(_NOW)) as client:
        listing = client.list(since=since, **others)  # type: ignore[arg-type]
        _consume(listing)
        return [repr(listing)]


# Functions that lengthen gzip data, for answers and files.
_GZIPPED: tuple[Callable[[str], bytes], ...] = (
    lambda text: _zipped(_bytes(text), "gzip"),
    lambda text: _zipped(b"", "gzip") * (len(text) // 20),
    lambda text: _zipped(b"", "gzip") + bytes(len(text)),
)


def _answered(
    name: str,
    inputs: st.SearchStrategy[Any],
    *lengthened: Callable[[str], Any],
    read: Callable[[Any], Iterable[str]] = _read_answer,
) -> Target:
    return Target(name, inputs, read, lengthened, of_server=True)


def _of_servers(wire: _Wire) -> list[Target]:
    everything = [*_OPERATIONS]
    pages = st.one_of(_texts.map(_bytes), _edited(_PAGE.encode()), _documents(_ERRORS))
    return [
        _answered(
            "listings",
            _answers(_documents(_LISTING), ["list", "list since"]),
            *(_of("list", body) for body in (_bytes, _in_json, _keys)),
            *(_of("list", _many(item)) for item in ({}, [], _EVENT)),
            _of("list", lambda text: b'{"events":[' + _bytes(text)),
            _of("list", lambda text: b'{"events":[{"created_at":' + b"9" * len(text) + b"}]}"),
        ),
        _answered(
            "summaries",
            _answers(_documents(_SUMMARY), ["summary"]),
            *(_of("summary", body) for body in (_bytes, _in_json, _many({"name": "a"}), _keys)),
        ),
        _answered(
            "accepted",
            _answers(pages, ["create", "create_summary"], st.integers(200, 299)),
            _of("create", _bytes),
            _of("create", _in_json, 201),
        ),
        _answered(
            "failures",
            _answers(pages, everything, _bad, _headers),
            _of("create", _bytes, 404),
            _of("list", lambda text: b"<html>" + _bytes(text), 502),
            _of("create", lambda text: _errors(dict.fromkeys(_SAID, text)), 422),
            _of("create", lambda text: _errors(*[{"message": "a"}] * (len(text) // 10)), 400),
            _of("create", lambda text: _dumped({text: [text]}), 400),
            _of("create", _keys, 400),
        ),
        _answered(
            "headers",
            _answers(st.just(b""), everything, _bad, _headers),
            *map(_header_of, _HEADERS),
        ),
        _answered(
            "compressed answers",
            st.builds(_coded, _answers(st.just(b""), everything, _bad), _compressed),
            *map(_gzip_of, _GZIPPED),
            lambda text: _gzip_of(lambda _: b"", ",".join(["gzip"] * (len(text) // 5)))(text),
        ),
        _answered(
            "bytes on a socket",
            st.tuples(_wires, _replies),
            lambda text: ("own", _bytes(text)),
            lambda text: ("own async", encode("200 OK", _bytes(text))),
            lambda text: ("own", _headed(text)),
            lambda text: ("fast", encode("400 Bad", _bytes(text), chunked=True)),
            lambda text: ("own", b"HTTP/1.1 103 Hints\r\n\r\n" * (len(text) // 22)),
            read=wire.read,
        ),
    ]


def _of_callers(files: _Files) -> list[Target]:
    since = st.one_of(_texts, _values, st.just(f"?email={EMAIL}&since=1"))
    others = st.dictionaries(
        st.sampled_from(["user_id", "email", "per_page"]),
        st.one_of(_texts, st.integers(1, 60)),
        max_size=2,
    )
    times = st.one_of(_scalars, st.datetimes(), st.just(_NOW))
    metadata = st.one_of(st.dictionaries(_texts, _values, max_size=3), _values)
    return [
        Target(
            "cursors",
            st.tuples(since, others),
            _follow,
            (
                lambda text: (text, {"user_id": "1"}),
                lambda text: (f"?since=1&{text}", {"user_id": "1"}),
                lambda text: ("?since=1" + "&a=1" * (len(text) // 4), {"user_id": text}),
            ),
        ),
        Target(
            "events",
            st.tuples(_texts, times, metadata),
            _make_event,
            (
                lambda text: (text, _NOW, {}),
                lambda text: ("ran", text, {}),
                lambda text: ("ran", _NOW, {text: text}),
                lambda text: ("ran", _NOW, {f"{number}": 1 for number in range(len(text) // 10)}),
            ),
        ),
        Target(
            "arguments",
            st.tuples(_texts, _texts, _texts.map(lambda text: f"a={text}") | _texts),
            files.track,
            (
                lambda text: (text, "1", "a=1"),
                lambda text: ("ran", text, "a=1"),
                lambda text: ("ran", "1", text),
            ),
        ),
    ]


def _of_files(files: _Files) -> list[Target]:
    journal, lines, rows = files.journal(), _LINES.encode(), _ROWS.encode()
    events = st.lists(_documents(_EVENT), max_size=3).map(b"\n".join)
    begun = b'{"event_name":"ran","user_id":"1","metadata":{"a":"'
    packed = st.one_of(_compressed.map(lambda body: body[0]), _edited(_zipped(lines, "gzip")))

    def of(form: str, *contents: Callable[[str], bytes]) -> tuple[Callable[[str], Any], ...]:
        return tuple(lambda text, content=content: (form, content(text)) for content in contents)

    return [
        Target(
            "NDJSON",
            st.tuples(_forms, st.one_of(_edited(lines), events)),
            files.check,
            of("", lambda text: lines + _bytes(text))
            + of(
                "ndjson",
                _bytes,
                _keys,
                lambda text: begun + _bytes(text) + b'"}}\n',
                lambda text: b"\n" * len(text),
                lambda text: b"{}\n" * (len(text) // 3),
            ),
        ),
        Target(
            "CSV",
            st.tuples(_forms, _edited(rows)),
            files.check,
            of(
                "csv",
                _bytes,
                _columns,
                _rows,
                lambda text: rows + _bytes(text),
                lambda text: _columns(text) + b"," * (len(text) // 10),
            ),
        ),
        Target("compressed files", st.tuples(_forms, packed), files.check, of("", *_GZIPPED)),
        Target(
            "journals",
            st.one_of(_edited(journal), _lines_of(journal)),
            files.go_on,
            (
                lambda text: journal + _bytes(text),
                lambda text: journal + b'["accepted",1]\n' * (len(text) // 15),
                lambda text: journal.replace(b"127", _bytes(text).replace(b"\n", b""), 1),
            ),
        ),
    ]


def _of_outboxes(outboxes: _Outboxes) -> Target:
    uses = st.sampled_from(["outbox", "outbox", "tracker", "status", "dead", "export", "retry"])
    change = st.tuples(st.sampled_from(outboxes.columns), _cells)
    changes = st.lists(change, min_size=1, max_size=4)
    return Target("outboxes", st.tuples(uses, changes), outboxes.read, (outboxes.many,))


def _of_messages(messages: _Messages) -> Target:
    told = _changed({"unknown": [_NOW, 1], "systemic": ["here", 1.0]})
    headers = st.one_of(
        st.none(),
        st.dictionaries(_texts, _values, max_size=2),
        st.dictionaries(st.just("intercom_data_events"), st.one_of(_values, told)),
    )
    return Target(
        "Celery messages",
        st.tuples(st.one_of(_values, _changed(_EVENT)), headers, st.integers(0, 2_000)),
        messages.read,
        (lambda text: ({**_EVENT, "event_name": text}, None, 0), lambda text: (text, None, 0)),
        _message_errors(),
    )


def _of_descriptions(descriptions: _Descriptions) -> Target:
    upstream = _dumped(descriptions.upstream)
    changed = _changed(descriptions.upstream).map(_dumped)
    return Target(
        "descriptions",
        st.one_of(changed, _edited(upstream), _texts.map(_bytes)),
        descriptions.read,
        (
            _bytes,
            lambda text: b"paths: " + _bytes(text),
            lambda text: upstream + _bytes(text),
            lambda text: b"a: &a [" + b"1," * (len(text) // 2) + b"]\nb: [" + b"*a," * 100 + b"]",
        ),
        descriptions.errors,
    )


def make(opened: contextlib.ExitStack) -> tuple[list[Target], list[str]]:
    """Makes the targets and their resources, until `opened` is closed.

    Returns:
        The targets, and those left out on this machine with the reason.
    """
    _trust_one_authority(opened)
    # Keeps the logs of this setup off stderr.
    logging.getLogger("intercom_data_events").addHandler(logging.NullHandler())
    files = _Files(opened)
    targets = [
        *_of_servers(_Wire(opened)),
        *_of_callers(files),
        *_of_files(files),
        _of_outboxes(_Outboxes(opened, files)),
        _of_messages(_Messages()),
    ]
    needed = ("yaml", "oas_patch")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        return targets, [f"descriptions: {', '.join(missing)} must be installed"]
    return [*targets, _of_descriptions(_Descriptions(files))], []


@st.composite
def _lines_of(draw: st.DrawFn, journal: bytes) -> bytes:
    """Returns a journal with a valid header and lines of all kinds."""
    number = st.one_of(st.integers(0, 5), st.sampled_from([10**9, 10**12]), st.integers(), _values)
    line = st.one_of(
        st.tuples(st.sampled_from(["accepted", "duplicate", "refused"]), number),
        st.tuples(st.just("read"), number, number, _texts, number),
        _values,
    )
    header, first, _ = journal.split(b"\n", 2)
    lines = [
        header,
        *([first] if draw(st.booleans()) else []),
        *map(_dumped, draw(st.lists(line, max_size=4))),
    ]
    return b"\n".join(lines) + b"\n"


def _trust_one_authority(opened: contextlib.ExitStack) -> None:
    """Trusts one certificate authority, because each client takes 30 ms to load all."""
    folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="fuzz-")))
    first, end, _ = (
        Path(certifi.where()).read_text("utf-8").partition("-----END CERTIFICATE-----\n")
    )
    (folder / "one.pem").write_text(first + end, "utf-8")
    os.environ["SSL_CERT_FILE"] = str(folder / "one.pem")
