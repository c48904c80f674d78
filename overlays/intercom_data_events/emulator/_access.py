"""The access log of a served emulator: one record for each request.

The logger is `intercom_data_events.emulator.access`, at INFO. A record holds neither headers nor
bodies, so it cannot hold an access token; of the query, it holds the values that do not identify a
contact. `AccessLog` writes the records as lines; the command uses it.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import TextIO

import attrs
import httpx

from intercom_data_events._validation import printable

from ._faults import Fault

log = logging.getLogger("intercom_data_events.emulator.access")

# All others are identities of a contact or unknown, and may be personal data.
_IMPERSONAL = frozenset({"type", "summary", "per_page", "before", "since"})
_LONGEST = 200


@attrs.frozen
class Access:
    """A request and what became of it.

    Attributes:
        method: In capitals.
        path: With the query, whose personal values are replaced by "…".
        status: The status of the answer; None if no answer was sent.
        size: The number of bytes sent, including the head.
        milliseconds: From the last byte of the request to the last byte of the answer.
        fault: The name of the fault; None if there was none.
    """

    method: str
    path: str
    status: int | None
    size: int
    milliseconds: float
    fault: str | None

    def __str__(self) -> str:
        answered = "no answer" if self.status is None else f"{self.status}"
        line = f"{self.method} {self.path} {answered} {self.size} B {self.milliseconds:.1f} ms"
        return line if self.fault is None else f"{line} (fault: {self.fault})"


def record(
    request: httpx.Request | None,
    status: int,
    size: int,
    seconds: float = 0.0,
    fault: Fault | None = None,
) -> None:
    """Log a request; it is None if it was not valid HTTP, and the size is 0 without an answer."""
    if not log.isEnabledFor(logging.INFO):
        return
    access = Access(
        method="-" if request is None else printable(request.method),
        path="-" if request is None else _path(request.url),
        status=status if size else None,
        size=size,
        milliseconds=round(seconds * 1000, 1),
        fault=None if fault is None else printable(fault.name),
    )
    log.info("%s", access, extra={"access": access})


def _path(url: httpx.URL) -> str:
    query = "&".join(
        f"{name}={value if name in _IMPERSONAL else '…'}"
        for name, value in url.params.multi_items()
    )
    path = f"{url.path}?{query}" if query else url.path
    return printable(path, _LONGEST)


class AccessLog(logging.Handler):
    """Writes the records of the access log to a stream, one line each, in words or JSON."""

    def __init__(self, stream: TextIO, *, as_json: bool) -> None:
        super().__init__(logging.INFO)
        self._stream = stream
        self._as_json = as_json

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        access: Access = record.access  # type: ignore[attr-defined]  # `record` above sets it
        at = datetime.fromtimestamp(record.created, UTC)
        if self._as_json:
            time = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"
            line = json.dumps({"time": time, **attrs.asdict(access)})
        else:
            line = f"{at:%Y-%m-%d %H:%M:%S} UTC {access}"
        # The server continues if nothing reads the log.
        with suppress(OSError, ValueError):
            self._stream.write(f"{line}\n")
            self._stream.flush()
