"""Looks for the access token, and for personal data, wherever an error or a log line leads."""

from __future__ import annotations

import gc
import logging
import pickle
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

TOKEN = "dG9rOmEtdmVyeS1zZWNyZXQtdG9rZW4="
EMAIL = "frodo.baggins@example.com"
LOGGER = "intercom_data_events"

#: The token as it is sent and as it is quoted, and the e-mail address and its parts.
_SECRETS = (TOKEN, TOKEN.rstrip("="), EMAIL, "frodo")
_FORMAT = logging.Formatter("%(message)s %(name)s %(threadName)s")


def reachable(error: BaseException) -> list[Any]:
    """Everything that an error leads to, but for modules, classes, frames and functions."""
    seen: set[int] = set()
    found: list[Any] = []
    pending: list[Any] = [error]
    while pending:
        thing = pending.pop()
        if id(thing) in seen or callable(thing):
            continue
        if type(thing).__name__ in ("module", "frame", "traceback"):
            continue
        seen.add(id(thing))
        found.append(thing)
        pending += gc.get_referents(thing)
    return found


def package_records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """The package's records since the last call, or since the test began."""
    records = [record for record in caplog.records if record.name.partition(".")[0] == LOGGER]
    caplog.clear()
    return records


def logged_secrets(records: list[logging.LogRecord]) -> list[str]:
    """What a handler could write of records that has the token or the e-mail address in it."""
    texts = [
        text
        for record in records
        for text in (_FORMAT.format(record), repr(record.args), repr(record.__dict__))
    ]
    return [text for text in texts if any(secret in text for secret in _SECRETS)]


def shown_token(error: Exception | None) -> list[str]:
    """What is shown, or pickled, of an error and of what led to it, that has the token in it."""
    shown: list[str] = []
    for one in _chain(error):
        shown += [str(one), repr(one), repr(one.args), repr(vars(one))]
    if error is not None:
        shown.append("".join(traceback.format_exception(error)))
        pickled = pickle.dumps(error)
        shown.append(pickled.decode("latin-1"))
        for one in _chain(pickle.loads(pickled)):
            shown.append(str(one) + repr(vars(one)))
    return [text for text in shown if TOKEN in text]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
