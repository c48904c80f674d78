"""A stateful stand-in for Intercom's data-event endpoints, for tests and trials.

It imitates what Intercom documents of each endpoint that the client uses, such as `POST /events`:
the access token and the version header, the checks of a request and the failures that follow,
contacts and the identities that name them, de-duplication, the limits on names and metadata keys,
the 90 days for which events can be listed, pages and their cursors, counts, the rate limit and the
headers that tell of it. What is observed or inferred rather than documented is marked so beside the
code.

With `faults`, it misbehaves on purpose: slow answers, connections that are reset or cut off,
failures of the server and of proxies before it, pages that lead astray, and answers that break
HTTP's rules (`PROTOCOL_FAULTS`): sent twice, after rows of 1xx answers, of another length than they
declare. `ManualClock` gives it and a client a time that passes without waiting.

It does not imitate: permissions of tokens (403); delays until an event or its metadata shows;
compressed bodies; the archiving and the descriptions of events; anything about contacts but their
identities; differences between API versions, which have none for these endpoints that matter here.

    >>> import httpx
    >>> from intercom_data_events.emulator import Emulator
    >>> emulator = Emulator()
    >>> with httpx.Client(transport=emulator.transport()) as client:
    ...     client.post(
    ...         "https://api.intercom.io/events",
    ...         headers={"Authorization": "Bearer any token is a workspace of its own"},
    ...         json={"event_name": "placed-order", "created_at": 1389913941, "user_id": "314159"},
    ...     )
    <Response [202 Accepted]>
    >>> emulator.events[0].user_id
    '314159'

`Emulator.serve` does the same on a real socket, and so does `python -m
intercom_data_events.emulator`; the pytest plugin has it as the fixtures `intercom_emulator` and
`intercom_emulator_url`.
"""

from ._clock import ManualClock
from ._emulator import Emulator, EmulatorCounts, RecordedRequest
from ._faults import FAULTS, PROTOCOL_FAULTS, Fault, random_faults
from ._server import EmulatorServer
from ._transport import EmulatorTransport
from ._wire import Idle
from ._workspace import EmulatedContact, EmulatedEvent, EmulatedWorkspace

__all__ = [
    "EmulatedContact",
    "EmulatedEvent",
    "EmulatedWorkspace",
    "Emulator",
    "EmulatorCounts",
    "EmulatorServer",
    "EmulatorTransport",
    "FAULTS",
    "Fault",
    "Idle",
    "ManualClock",
    "PROTOCOL_FAULTS",
    "RecordedRequest",
    "random_faults",
]
