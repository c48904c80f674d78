"""A stateful stand-in for Intercom's data-event endpoints, for tests and trials.

It imitates what Intercom documents about the endpoints that the client uses: the access token and
the version header; the validation of requests, and the failures that follow; contacts and their
identities; de-duplication; the limits on names and metadata keys; the 90 days for which events can
be listed; pages and their cursors; counts; and the rate limit with its headers. Comments in the
code mark what was observed or inferred instead.

Faults make requests fail on purpose: slow answers, connections that are reset or cut off, failures
of the server and of proxies in front of it, pages with wrong links, and answers that break the
rules of HTTP (:data:`PROTOCOL_FAULTS`). With a :class:`ManualClock`, the waits of an emulator and a
client take no time.

It does not imitate permissions of tokens (403), delays until an event or its metadata shows,
compressed bodies, archived events and descriptions of events, contacts beyond their identities, and
differences between API versions, none of which matters for these endpoints.

    >>> from intercom_data_events import DataEventsClient
    >>> from intercom_data_events.emulator import Emulator
    >>> emulator = Emulator()
    >>> client = DataEventsClient("token", transport=emulator.transport())
    >>> client.create("placed-order", user_id="314159")
    >>> emulator.events[0].user_id
    '314159'

:meth:`Emulator.serve` and ``python -m intercom_data_events.emulator`` serve it on a real socket.
The pytest plugin provides the fixtures ``intercom_emulator`` and ``intercom_emulator_url``.
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
