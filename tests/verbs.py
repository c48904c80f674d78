"""The client's operations and their verbs, from openapi/operations.yaml, for all tests.

A new verb needs one line here; what holds for every verb is then tested of it, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from intercom_data_events import Event
from regeneration.document import read
from regeneration.operations import read_operations

OPERATIONS = read_operations(read(str(Path(__file__).parents[1] / "openapi" / "operations.yaml")))
VERBS = tuple(verb for operation in OPERATIONS.client for verb in operation.verbs)
#: What each verb accepts.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "create": {"event_name": "ran", "user_id": "1"},
    "send": {"event": Event("ran", user_id="1")},
    "list": {"user_id": "1"},
    "summary": {"user_id": "1"},
    "create_summary": {"user_id": "1", "event_name": "ran", "count": 1, "first": 1, "last": 1},
}
