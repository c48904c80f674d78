"""The emulator itself: one function from a request to its answer, and ways to reach it."""

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
from ._faults import Fault, misled
from ._plain import Asked, PlainRequest, Reply
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
        method: In capitals.
        path: Without the query, decoded.
        query: The parameters of the query, decoded.
        headers: Their `repr` does not show the access token.
        body: Empty where there was none.

    Example:
        >>> request = RecordedRequest(
        ...     method="POST", path="/events", query=httpx.QueryParams(),
        ...     headers=httpx.Headers(), body=b'{"event_name": "invited-friend"}',
        ... )
        >>> request.json
        {'event_name': 'invited-friend'}
    """

    method: str
    path: str
    query: httpx.QueryParams
    headers: httpx.Headers
    body: bytes

    @property
    def json(self) -> JSON:
        """The body read as JSON, or None where it is none."""
        try:
            document: JSON = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return document


@attrs.frozen
class EmulatorCounts:
    """What became of the requests, to compare with what was sent.

    Attributes:
        requests: All that arrived.
        processed: Those that an endpoint accepted, whatever became of the answer.
        stored: Events among them, each counted once.
        duplicates: Events among them that were stored before.
        refused: Those that the API refused, but for 429.
        limited: Those beyond the rate limit.
        faults: What went wrong on purpose, by the faults' names.

    Example:
        >>> Emulator().counts.requests
        0
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

    An instance shares nothing with any other, and gives the same answers whenever it gets the
    same requests at the same times. It can be used from several threads and event loops at once.

    Args:
        contacts: The people known beforehand, in every workspace; anybody else is then answered
            with 404. None creates people on sight, from the identities that an event gives.
        tokens: The access tokens that are accepted, each for a workspace of its own. None
            accepts any.
        version: The API version of the app, used where a request names none.
        versions: The API versions that are accepted besides `version`.
        clock: Gives the time in Unix seconds; a `Clock`, such as a `ManualClock`, is also what
            delays are waited for with.
        rate_limit: Requests in one window for one workspace; those beyond are answered with 429.
            Documented: 10,000 a minute, dealt out in windows of 10 seconds. None for no limit, and
            no word of one.
        window: Length of such a window, in seconds; the documented headers have whole seconds.
        faults: What goes wrong with one request after the other, None where nothing does: a list,
            at whose end all is well, or a plan such as `random_faults`.
        record: Whether `requests` keeps what arrives; a server that runs for long had better not.

    Raises:
        TypeError: `tokens` is one string.
        ValueError: Two contacts share a `user_id` or an `id`, `rate_limit` or `window` is not
            positive, or `window` is infinite.

    Example:
        >>> emulator = Emulator(clock=lambda: 1671028900.0)
        >>> client = httpx.Client(
        ...     transport=emulator.transport(), base_url="https://api.intercom.io",
        ...     headers={"Authorization": "Bearer token"},
        ... )
        >>> event = {"event_name": "invited-friend", "created_at": 1671028894, "user_id": "314159"}
        >>> client.post("/events", json=event)
        <Response [202 Accepted]>
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
            raise TypeError("tokens is a collection of access tokens, not one of them")
        if (rate_limit is not None and rate_limit < 1) or not 0 < window < math.inf:
            raise ValueError("rate_limit and window must be positive, and window finite")
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
        # Held for work in memory only, never while waiting: that makes it fit for event loops.
        self._lock = threading.Lock()
        # Not open to any request: a template of what every workspace knows beforehand.
        self._known = self._new_workspace(())
        for contact in contacts or ():
            self.add_contact(contact)

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """The requests that were answered, in their order, those refused among them."""
        with self._lock:
            return tuple(self._requests)

    @property
    def events(self) -> tuple[EmulatedEvent, ...]:
        """What is stored in all workspaces, in the order of arrival, duplicates left out."""
        with self._lock:
            arrivals = [
                arrival for workspace in self._workspaces.values() for arrival in workspace.arrivals
            ]
        return tuple(event for _, event in sorted(arrivals, key=lambda arrival: arrival[0]))

    @property
    def counts(self) -> EmulatorCounts:
        """What became of all requests so far."""
        with self._lock:
            return EmulatorCounts(**self._counts, faults=dict(self._faults_seen))

    def workspace(self, token: str) -> EmulatedWorkspace:
        """What one access token's workspace holds now.

        Args:
            token: The access token, without `Bearer`.

        Example:
            >>> Emulator().workspace("nobody has used this one").events
            ()
        """
        with self._lock:
            workspace = self._workspaces.get(token, self._known)
            return EmulatedWorkspace(
                contacts=workspace.contacts,
                events=tuple(event for _, event in workspace.arrivals),
            )

    def add_contact(self, contact: EmulatedContact) -> EmulatedContact:
        """Make a person known in every workspace, those to come included.

        Returns:
            The contact, with an id.

        Raises:
            ValueError: Somebody with this `user_id` or `id` is known already.

        Example:
            >>> Emulator(contacts=[]).add_contact(EmulatedContact(email="frodo@example.com")).id
            '000000000000000000000001'
        """
        with self._lock:
            workspaces = [self._known, *self._workspaces.values()]
            if contact.id is None:
                contact = attrs.evolve(contact, id=next(self._contact_ids))
            if any(workspace.knows(contact) for workspace in workspaces):
                raise ValueError("somebody with this user_id or id is known already")
            for workspace in workspaces:
                workspace.add(contact)
            return contact

    def advance(self, seconds: float) -> None:
        """Let time pass: the emulator's clock runs ahead by so much more.

        Args:
            seconds: How far, so that events age and rate-limit windows end.

        Example:
            >>> emulator = Emulator(clock=lambda: 0.0)
            >>> emulator.advance(60)
            >>> request = httpx.Request("GET", "https://api.intercom.io/events")
            >>> emulator.answer(request).headers["Date"]
            'Thu, 01 Jan 1970 00:01:00 GMT'
        """
        with self._lock:
            self._advanced += seconds

    def clear(self) -> None:
        """Forget requests, events, what was counted, and contacts created on sight.

        Contacts known beforehand stay, and so does the time; ids are not given twice.

        Example:
            >>> emulator = Emulator()
            >>> emulator.clear()
            >>> emulator.requests
            ()
        """
        with self._lock:
            self._workspaces.clear()
            self._requests.clear()
            self._counts.clear()
            self._faults_seen.clear()

    def transport(self) -> EmulatorTransport:
        """A transport for clients of httpx and httpx2, sync and async, that sends everything here.

        Example:
            >>> client = httpx.Client(transport=Emulator().transport())
            >>> client.get("https://api.intercom.io/events")
            <Response [401 Unauthorized]>
        """
        return EmulatorTransport(self.answer, self._clock)

    def serve(
        self, host: str = "127.0.0.1", port: int = 0, *, tls: ssl.SSLContext | None = None
    ) -> EmulatorServer:
        """Serve on a real socket: a context manager, plain or async, that yields the base URL.

        Args:
            host: Name or address of the interface to listen on.
            port: The port, or 0 for a free one.
            tls: The server's certificate and key, to serve https.

        Raises:
            OSError: On entering, where the address cannot be had.

        Example:
            >>> with Emulator().serve() as url:
            ...     httpx.get(f"{url}/events")
            <Response [401 Unauthorized]>
        """
        return EmulatorServer(
            self.answer, host, port, tls=tls, clock=self._clock, reply=self._reply
        )

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer one request; whatever reaches the emulator by other ways comes through here.

        Args:
            request: Its body has been read, or can be at once.

        Returns:
            The answer. Where something goes wrong on purpose, its `extensions` have the `Fault`
            as "fault": delays and broken connections are up to who sends it.

        Example:
            >>> request = httpx.Request("GET", "https://api.intercom.io/events")
            >>> Emulator().answer(request).json()["errors"]
            [{'code': 'unauthorized', 'message': 'Access Token Invalid'}]
        """
        request.read()
        return self._reply(request).as_httpx(request)

    def _reply(self, request: Asked) -> Reply:
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
                # What goes wrong before the API is reached leaves nothing of it in the answer.
                headers = {"Date": headers["Date"]}
                answer = Answer(HTTPStatus.BAD_GATEWAY)
        content = b""
        if answer.document is not None and request.method != "HEAD":
            content = json.dumps(answer.document).encode()
            headers["Content-Type"] = "application/json; charset=utf-8"
        return Reply(answer.status, headers, content, fault)

    def _process(self, request: Asked, now: float, headers: dict[str, str]) -> Answer:
        """The answer of an endpoint; adds to the headers what only authenticated answers have."""
        workspace = self._authenticate(request)
        headers |= workspace.rate.count(now)
        self._check_version(request.headers.get("intercom-version"))
        before = workspace.stored
        answer = _dispatch(workspace, request, now)
        self._counts["processed"] += 1
        if request.method == "POST" and request.url.path == "/events":
            self._counts["stored" if workspace.stored > before else "duplicates"] += 1
        return answer

    def _mislead(self, pages: str, answer: Answer, request: Asked, now: float) -> Answer:
        if answer.document is None or answer.document.get("type") != "event.list":
            return answer
        workspace = self._authenticate(request)
        size = len(cast("list[JSON]", answer.document["events"]))
        if size == 1 and pages == "overlapping":
            # The page that begins with its only event is the page itself.
            pages = "again"
        url = request.url.copy_set_param("per_page", str(max(1, size - 1)))
        asked = httpx.Request("GET", url)
        shorter = _dispatch(workspace, asked, now)
        document = misled(pages, answer.document, request.url, shorter.document or {})
        return Answer(answer.status, document)

    def _authenticate(self, request: Asked) -> Workspace:
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


def _dispatch(workspace: Workspace, request: Asked, now: float) -> Answer:
    # A server that has seen too much coming hands on what it has read of it.
    if len(request.content) > BODY_LIMIT or request.extensions.get("truncated"):
        # Inferred, as is the code.
        raise RefusalError(413, "request_too_large", f"At most {BODY_LIMIT} bytes are read")
    return endpoint_for(request.method, request.url.path)(workspace, request, now)


def _recorded(asked: Asked) -> RecordedRequest:
    request = asked.as_httpx() if isinstance(asked, PlainRequest) else asked
    return RecordedRequest(
        method=request.method,
        path=request.url.path,
        query=request.url.params,
        headers=httpx.Headers(request.headers),
        body=request.content,
    )
