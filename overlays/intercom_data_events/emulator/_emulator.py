"""The emulator: one function from a request to its answer, and the ways to reach it."""

from __future__ import annotations

import json
import math
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from itertools import count
from typing import cast

import attrs
import httpx

from intercom_data_events.clock import SYSTEM, Clock
from intercom_data_events_api import API_VERSION
from intercom_data_events_api.models.intercom_version import INTERCOM_VERSION_VALUES

from ._clock import FunctionClock
from ._endpoints import Answer, endpoint_for
from ._faults import Fault, faulty, misled
from ._reading import BODY_LIMIT
from ._refusal import JSON, RefusalError
from ._server import EmulatorServer
from ._transport import EmulatorTransport
from ._workspace import (
    RATE_LIMIT,
    WINDOW,
    EmulatedContact,
    EmulatedEvent,
    EmulatedWorkspace,
    RateWindow,
    Workspace,
)

# Documented: `Unstable` is what `Preview` was called, and is still accepted.
_UNNUMBERED = {"Preview", "Unstable"}


@attrs.frozen(kw_only=True)
class RecordedRequest:
    """A request as it reached the emulator, whatever the answer was.

    Attributes:
        method: The method in capitals, such as "POST".
        path: The decoded path, without the query.
        query: The decoded parameters of the query.
        headers: The headers. Their ``repr`` does not show the access token.
        body: The body as bytes; empty if there was none.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> emulator = Emulator()
        >>> client = DataEventsClient("token", transport=emulator.transport())
        >>> client.create("placed-order", user_id="314159", created_at=1671028894)
        >>> [request] = emulator.requests
        >>> request.method, request.path, request.json["event_name"]
        ('POST', '/events', 'placed-order')
    """

    method: str
    path: str
    query: httpx.QueryParams
    headers: httpx.Headers
    body: bytes

    @property
    def json(self) -> JSON:
        """The body parsed as JSON, or None if it is not JSON."""
        try:
            document: JSON = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return document


@attrs.frozen
class EmulatorCounts:
    """Counts of requests and their results, to compare with what a program sent.

    Attributes:
        requests: All requests that arrived.
        processed: Requests that an endpoint accepted, even if the answer was lost.
        stored: Events that were stored, each counted once.
        duplicates: Accepted events that had been stored before.
        refused: Requests that the emulator rejected, except those with status 429.
        limited: Requests beyond the rate limit, which got status 429.
        faults: The number of faults played, by name.

    Example:
        >>> from intercom_data_events import DataEventsClient, Event
        >>> from intercom_data_events.emulator import Emulator
        >>> emulator = Emulator()
        >>> client = DataEventsClient("token", transport=emulator.transport())
        >>> event = Event("placed-order", user_id="314159")
        >>> client.send(event)
        >>> client.send(event)
        >>> emulator.counts.requests, emulator.counts.stored, emulator.counts.duplicates
        (2, 1, 1)
    """

    requests: int = 0
    processed: int = 0
    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    limited: int = 0
    faults: Mapping[str, int] = attrs.field(factory=dict[str, int])


class Emulator:
    """A stateful stand-in for Intercom's data-event endpoints.

    Instances share no state. The same requests at the same times get the same answers. An instance
    is thread-safe, and works in several event loops at once.

    Args:
        contacts: The known contacts, in every workspace. Requests about other contacts get status
            404. With None, an event creates its contact from its identities.
        tokens: The accepted access tokens; each has a separate workspace. None accepts all tokens.
        version: The API version of the app, for requests that do not name one.
        versions: Further API versions to accept.
        clock: A function that returns the Unix time in seconds, or a `Clock` such as a
            `ManualClock`, which also controls the delays of faults.
        rate_limit: The number of requests that a workspace accepts in one window; further requests
            get status 429. Intercom documents 10,000 a minute, in windows of 10 seconds. None means
            no limit, and no headers about one.
        window: The length of a window in seconds. The documented headers have integer seconds.
        faults: The fault of each request in turn, or None for no fault: a list, after which
            requests succeed, or a plan such as :func:`random_faults`.
        record: Whether ``requests`` keeps all requests. Pass False for a server that runs for long.

    Raises:
        TypeError: `tokens` is a string.
        ValueError: Two contacts share a `user_id` or an `id`, `rate_limit` or `window` is not
            positive, or `window` is infinite.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import EmulatedContact
        >>> emulator = Emulator(contacts=[EmulatedContact(user_id="314159")])
        >>> client = DataEventsClient("token", transport=emulator.transport())
        >>> client.create("invited-friend", user_id="314159")
        >>> [stored.event_name for stored in emulator.events]
        ['invited-friend']
    """

    def __init__(
        self,
        *,
        contacts: Iterable[EmulatedContact] | None = None,
        tokens: Collection[str] | None = None,
        version: str = API_VERSION,
        versions: Collection[str] = _UNNUMBERED | INTERCOM_VERSION_VALUES,
        clock: Clock | Callable[[], float] = SYSTEM,
        rate_limit: int | None = RATE_LIMIT,
        window: float = WINDOW,
        faults: Iterable[Fault | None] = (),
        record: bool = True,
    ) -> None:
        if isinstance(tokens, str):
            raise TypeError(
                "tokens must be a collection of strings, not a single string; pass a list"
            )
        if rate_limit is not None and rate_limit < 1:
            raise ValueError(
                f"rate_limit must be at least 1, not {rate_limit}; pass None for no limit"
            )
        if not 0 < window < math.inf:
            raise ValueError(f"window must be greater than 0 and finite, not {window}")
        self._tokens = None if tokens is None else frozenset(tokens)
        self._version = version
        self._versions = frozenset({version, *versions})
        self._clock = clock if isinstance(clock, Clock) else FunctionClock(clock)
        self._advanced = 0.0
        self._rate_limit = rate_limit
        self._window = window
        self._faults = iter(faults)
        self._counts = Counter[str]()
        self._faults_seen = Counter[str]()
        self._record = record
        self._request_numbers = count(1)
        self._event_numbers = count(1)
        self._contact_ids = (f"{number:024x}" for number in count(1))
        self._on_sight = contacts is None
        self._workspaces: dict[str, Workspace] = {}
        self._requests: list[RecordedRequest] = []
        # Held for work in memory only, never during a wait, so that event loops may take it.
        self._lock = threading.Lock()
        # No request reaches this one: it is the template of each new workspace.
        self._known = self._new_workspace(())
        for contact in contacts or ():
            self.add_contact(contact)

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """The requests in the order of their arrival, including rejected ones."""
        with self._lock:
            return tuple(self._requests)

    @property
    def events(self) -> tuple[EmulatedEvent, ...]:
        """The stored events of all workspaces in the order of arrival, without duplicates."""
        with self._lock:
            arrivals = [
                arrival for workspace in self._workspaces.values() for arrival in workspace.arrivals
            ]
        return tuple(event for _, event in sorted(arrivals, key=lambda arrival: arrival[0]))

    @property
    def counts(self) -> EmulatorCounts:
        """The counts of all requests so far."""
        with self._lock:
            return EmulatorCounts(**self._counts, faults=dict(self._faults_seen))

    def workspace(self, token: str) -> EmulatedWorkspace:
        """Returns a snapshot of the workspace of one access token.

        Args:
            token: The access token, without ``Bearer``.

        Example:
            >>> Emulator().workspace("a token that was never used").events
            ()
        """
        with self._lock:
            workspace = self._workspaces.get(token, self._known)
            return EmulatedWorkspace(
                contacts=workspace.contacts,
                events=tuple(event for _, event in workspace.arrivals),
            )

    def add_contact(self, contact: EmulatedContact) -> EmulatedContact:
        """Adds a contact to every workspace, including future ones.

        Args:
            contact: The contact.

        Returns:
            The contact with an id.

        Raises:
            ValueError: A contact with this `user_id` or `id` exists already.

        Example:
            >>> from intercom_data_events.emulator import EmulatedContact
            >>> Emulator(contacts=[]).add_contact(EmulatedContact(email="frodo@example.com")).id
            '000000000000000000000001'
        """
        with self._lock:
            workspaces = [self._known, *self._workspaces.values()]
            if contact.id is None:
                contact = attrs.evolve(contact, id=next(self._contact_ids))
            if any(workspace.knows(contact) for workspace in workspaces):
                raise ValueError(
                    f"user_id and id of a contact must be unique; there is another {contact!r}"
                )
            for workspace in workspaces:
                workspace.add(contact)
            return contact

    def advance(self, seconds: float) -> None:
        """Advances the emulator's clock, so that events age and rate-limit windows end.

        Args:
            seconds: Seconds to add to those of earlier calls.

        Example:
            >>> from intercom_data_events import DataEventsClient
            >>> emulator = Emulator()
            >>> client = DataEventsClient("token", transport=emulator.transport())
            >>> client.create("placed-order", user_id="314159")
            >>> emulator.advance(90 * 24 * 60 * 60 + 1)
            >>> list(client.list(user_id="314159")), len(client.summary(user_id="314159"))
            ([], 1)
        """
        with self._lock:
            self._advanced += seconds

    def clear(self) -> None:
        """Forgets requests, events, counts, and the contacts that events created.

        Other contacts and the time stay. Ids are not used again.

        Example:
            >>> from intercom_data_events import DataEventsClient
            >>> emulator = Emulator()
            >>> client = DataEventsClient("token", transport=emulator.transport())
            >>> client.create("placed-order", user_id="314159")
            >>> emulator.clear()
            >>> emulator.events
            ()
        """
        with self._lock:
            self._workspaces.clear()
            self._requests.clear()
            self._counts.clear()
            self._faults_seen.clear()

    def transport(self) -> EmulatorTransport:
        """Returns a transport for sync and async clients of httpx and httpx2, without a socket.

        Example:
            >>> import httpx
            >>> client = httpx.Client(transport=Emulator().transport())
            >>> client.get("https://api.intercom.io/events")
            <Response [401 Unauthorized]>
        """
        return EmulatorTransport(self.answer, self._clock)

    def serve(
        self, host: str = "127.0.0.1", port: int = 0, *, tls: ssl.SSLContext | None = None
    ) -> EmulatorServer:
        """Serves on a real socket, as a sync or async context manager that yields the base URL.

        Args:
            host: The name or address of the interface to listen on.
            port: The port, or 0 for a free one.
            tls: The certificate and key of the server, to serve https.

        Raises:
            OSError: On entering, if the server cannot listen on the address.

        Example:
            >>> from intercom_data_events import DataEventsClient
            >>> emulator = Emulator()
            >>> with emulator.serve() as url, DataEventsClient("token", base_url=url) as client:
            ...     client.create("placed-order", user_id="314159")
            >>> len(emulator.events)
            1
        """
        return EmulatorServer(self.answer, host, port, tls=tls, clock=self._clock)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answers one request. The transport and the server call it.

        Args:
            request: The request. Its body has been read, or can be read without waiting.

        Returns:
            The answer. If it has a fault, its ``extensions["fault"]`` is the `Fault`; the caller
            then plays the delays and the broken connections.

        Example:
            >>> import httpx
            >>> request = httpx.Request("GET", "https://api.intercom.io/events")
            >>> Emulator().answer(request).json()["errors"]
            [{'code': 'unauthorized', 'message': 'Access Token Invalid'}]
        """
        request.read()
        with self._lock:
            if self._record:
                self._requests.append(_recorded(request))
            now = self._clock.time() + self._advanced
            fault = next(self._faults, None)
            self._counts["requests"] += 1
            request_id = f"{next(self._request_numbers):08x}-0000-4000-9000-000000000000"
            asked = request.headers.get("intercom-version")
            headers = {
                "Date": _date(math.floor(now)),
                "X-Request-Id": request_id,
                # Observed: the version that was used is echoed.
                "Intercom-Version": asked if asked in self._versions else self._version,
            }
            if fault is not None:
                self._faults_seen[fault.name] += 1
            if fault is None or fault.processed:
                try:
                    answer = self._process(request, now, headers)
                    if fault is not None and fault.pages is not None:
                        answer = self._mislead(fault.pages, answer, request, now)
                except RefusalError as refusal:
                    headers |= refusal.headers
                    answer = Answer(refusal.status, refusal.document(request_id))
                    limited = refusal.status == HTTPStatus.TOO_MANY_REQUESTS
                    self._counts["limited" if limited else "refused"] += 1
            else:
                # A fault in front of the API leaves none of the API's headers in the answer.
                headers = {"Date": headers["Date"]}
                answer = Answer(HTTPStatus.BAD_GATEWAY)
        content = b""
        if answer.document is not None and request.method != "HEAD":
            content = json.dumps(answer.document).encode()
            headers["Content-Type"] = "application/json; charset=utf-8"
        response = httpx.Response(answer.status, headers=headers, content=content, request=request)
        return response if fault is None else faulty(fault, response)

    def _process(self, request: httpx.Request, now: float, headers: dict[str, str]) -> Answer:
        """The answer of an endpoint; adds the headers that only authenticated answers have."""
        workspace = self._authenticate(request)
        headers |= workspace.rate.count(now)
        self._check_version(request.headers.get("intercom-version"))
        before = workspace.stored
        answer = _dispatch(workspace, request, now)
        self._counts["processed"] += 1
        if request.method == "POST" and request.url.path == "/events":
            self._counts["stored" if workspace.stored > before else "duplicates"] += 1
        return answer

    def _mislead(self, pages: str, answer: Answer, request: httpx.Request, now: float) -> Answer:
        if answer.document is None or answer.document.get("type") != "event.list":
            return answer
        workspace = self._authenticate(request)
        size = len(cast("list[JSON]", answer.document["events"]))
        if size == 1 and pages == "overlapping":
            # A page of one event that begins with this page's last event is this page.
            pages = "again"
        url = request.url.copy_set_param("per_page", str(max(1, size - 1)))
        asked = httpx.Request("GET", url)
        shorter = _dispatch(workspace, asked, now)
        document = misled(pages, answer.document, request.url, shorter.document or {})
        return Answer(answer.status, document)

    def _authenticate(self, request: httpx.Request) -> Workspace:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        known = self._tokens is None or token in self._tokens
        if scheme.lower() != "bearer" or not token or not known:
            # Documented code and message.
            raise RefusalError(401, "unauthorized", "Access Token Invalid")
        if token not in self._workspaces:
            self._workspaces[token] = self._new_workspace(self._known.contacts)
        return self._workspaces[token]

    def _check_version(self, asked: str | None) -> None:
        if asked is not None and asked not in self._versions:
            # Observed code and message.
            raise RefusalError(
                400, "intercom_version_invalid", "The requested version could not be found"
            )

    def _new_workspace(self, contacts: Iterable[EmulatedContact]) -> Workspace:
        return Workspace(
            on_sight=self._on_sight,
            contacts=contacts,
            contact_ids=self._contact_ids,
            event_numbers=self._event_numbers,
            rate=RateWindow(self._rate_limit, self._window),
        )


@lru_cache
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


def _dispatch(workspace: Workspace, request: httpx.Request, now: float) -> Answer:
    # The server passes on only the beginning of a body that is too large.
    if len(request.content) > BODY_LIMIT or request.extensions.get("truncated"):
        # Inferred, as is the code.
        raise RefusalError(
            413, "request_too_large", f"The body must have at most {BODY_LIMIT} bytes"
        )
    return endpoint_for(request.method, request.url.path)(workspace, request, now)


def _recorded(request: httpx.Request) -> RecordedRequest:
    return RecordedRequest(
        method=request.method,
        path=request.url.path,
        query=request.url.params,
        headers=httpx.Headers(request.headers),
        body=request.content,
    )
