"""The clients: their settings, and a table of verbs.

The verbs are made from :mod:`intercom_data_events._sending.operations`, where each has its
signature, docstring and checks. A verb imports what it alone needs when it is used: a program that
only submits events does not load the classes of listings.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias, TypeVar

from intercom_data_events._sending import operations, verbs
from intercom_data_events._sending.client import BaseClient
from intercom_data_events._sending.drivers import arun, run
from intercom_data_events._sending.exchange import Exchange
from intercom_data_events._sending.settings import AccessToken, AsyncAccessToken
from intercom_data_events.event import one_identity

if TYPE_CHECKING:
    import httpx
    import httpx2

    from intercom_data_events._sending.engines import AsyncEngine, Engine  # noqa: F401  # below
    from intercom_data_events._sending.request import Operation
    from intercom_data_events._sending.steps import Answer
    from intercom_data_events.bulk import AsyncOutcomes, EventLike, Outcomes
    from intercom_data_events.contact import AsyncContact, Contact
    from intercom_data_events.raw import AsyncRawDataEventsClient, RawDataEventsClient

    HTTPClient: TypeAlias = httpx.Client | httpx2.Client
    AsyncHTTPClient: TypeAlias = httpx.AsyncClient | httpx2.AsyncClient
    HTTPTransport: TypeAlias = httpx.BaseTransport | httpx2.BaseTransport
    AsyncHTTPTransport: TypeAlias = httpx.AsyncBaseTransport | httpx2.AsyncBaseTransport

__all__ = ["AsyncDataEventsClient", "DataEventsClient"]

T = TypeVar("T")


class DataEventsClient(BaseClient["Engine", "HTTPClient", "HTTPTransport", AccessToken]):
    """Submits, lists and summarises data events, blocking; threads can share it.

    The client connects when it first sends, and keeps its connections until ``close()`` or the end
    of a ``with`` block.

    Args:
        access_token: The access token of the workspace, or a function that returns the current
            one. The default is ``INTERCOM_ACCESS_TOKEN`` from the environment.
        version: The API version of every request. The default is ``INTERCOM_VERSION`` from the
            environment, else the version that this package was generated from.
        region: Where Intercom keeps the workspace's data: "us", "eu" or "au". The default is
            ``INTERCOM_REGION`` from the environment, else "us". To pass a region while
            ``INTERCOM_BASE_URL`` is set is an error.
        base_url: The API's address, instead of a region. The default is ``INTERCOM_BASE_URL`` from
            the environment, which takes precedence over ``INTERCOM_REGION``.
        timeout: Seconds that one attempt may take, whatever the server sends. With an `http_client`
            or `transport` of yours, a blocking client limits each read instead, and checks the time
            between the parts of a body. An ``httpx.Timeout`` or ``httpx2.Timeout`` limits the
            phases of an attempt. The default is 30, or that of your own `http_client`.
        deadline: Seconds that a request may take in all, retries and waits included. The client
            does not begin a wait that it knows to end later; how long the rate limit delays a
            request is known only for the first in the queue. On its own connections, a client has
            at most 100 requests in flight; the wait for one of these places counts, too.
            ``math.inf`` means no deadline.
        max_retries: How often the client repeats a failed request: after no connection, no whole
            answer in time, 408, 425, 429, 444, 460, 499 and all 5xx statuses, and for queries after
            an answer that cannot be read. Repeating an event is safe; the client repeats
            ``create_summary`` only if it was certainly not processed. 0 turns retries off.
        pace: Whether requests wait while the app's rate limit leaves no room for them, instead of
            running into 429. Every answer says how much is left.
        quota_share: The largest part of the app's quota that this client uses, greater than 0 and
            at most 1; 0.5 leaves half to others. Each process uses a share of its own.
        headers: Additional headers of every request. ``Expect`` and headers that the client sets
            itself are refused.
        enabled: Whether to send anything. If not, the client still checks and logs everything, and
            listings are empty. The default is True, unless ``INTERCOM_DISABLED`` is 1.
        transport: A transport of httpx or httpx2 to send through, such as
            ``Emulator().transport()``. One with sockets cannot be used on both sides of a fork.
        http_client: Your own ``httpx.Client`` or ``httpx2.Client``, with your proxies, certificates
            and hooks. It is never closed here, and cannot be used on both sides of a fork. Both
            libraries take bytes that a server sends after an answer for the answer to the next
            request; the client's own connections are guarded against that, yours and those of your
            `transport` are not.
        clock: The source of time and of waits, for tests.
        allow_http: Whether an ``http://`` address may lead to another machine, which does not
            encrypt the access token. Without it, only localhost, 127.0.0.0/8 and ::1 are accepted.
            The default is False, unless ``INTERCOM_ALLOW_HTTP`` is 1.

    Raises:
        ConfigurationError: A setting cannot be used; the message says which, and the remedy.

    Example:
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> client.create("placed-order", user_id="314159", metadata={"plan": "pro"})
        >>> client.summary(user_id="314159").events[0].count
        1
    """

    _is_async = False

    create = verbs.verb(operations.create)
    send = verbs.verb(operations.send)
    list = verbs.listing(operations.list_)
    summary = verbs.verb(operations.summary)
    create_summary = verbs.verb(operations.create_summary)

    def create_many(
        self, events: Iterable[EventLike], *, concurrency: int = 100, max_rate: float | None = None
    ) -> Outcomes:
        """Submits any number of events, and yields the outcome of each as soon as it is known.

        The thread that iterates reads the input as needed; while the input blocks, outcomes wait.
        Events of one person are sent in their order, all others in any order. A rejected or failed
        event does not stop the rest. A failure that every event may get, such as that of a revoked
        token, waits for the answers of up to three other events, and ends everything if they get
        one, too. Sending keeps to the rate limit and to the client's
        `quota_share`; while that leaves no room, events wait as long as it takes, and their
        deadline begins afterwards.

        Args:
            events: ``Event``s, or mappings of their fields as the API names them, such as
                ``{"event_name": …, "user_id": …, "created_at": …}``. Rows that have ``keys()``, as
                those of a database cursor, are mappings, too. A missing identifier or missing
                metadata (None, NaN, ``pandas.NA``) is left out; a missing time other than None, and
                a missing value within metadata, are errors of the event.
            concurrency: The most requests in flight; fewer are used where more are not faster.
            max_rate: The most events per second; None for as many as the rate limit allows.

        Returns:
            An iterator over one :class:`Outcome` for each event. Nothing is sent before its first
            step; if nothing takes that, a RuntimeWarning says so. Its ``run()`` sends all events
            and returns the counts.

        Raises:
            InvalidInputError: `events` is not an iterable, or a bound is out of range.
            APIStatusError: While iterating: several events in a row got a failure that every event
                gets, such as that of a revoked token, a lapsed plan or a wrong address.
            ConfigurationError: While iterating: a setting fails, such as a function that returns
                the access token.

        Example:
            >>> from intercom_data_events.emulator import Emulator
            >>> client = DataEventsClient("token", transport=Emulator().transport())
            >>> events = [
            ...     {"event_name": "invited-friend", "user_id": "314159", "created_at": 1671028894},
            ...     {"event_name": "invited-friend", "created_at": 1671028894},
            ... ]
            >>> for outcome in client.create_many(events):
            ...     if outcome.status != "accepted":
            ...         print(outcome.position, outcome.status, outcome.error)
            1 refused event 'invited-friend' has no contact: pass user_id, email or id

            The rows of a database cursor, and of a frame as ``frame.to_dict("records")`` of pandas,
            ``frame.iter_rows(named=True)`` of polars and ``table.to_pylist()`` of Arrow give them:

            >>> import sqlite3
            >>> database = sqlite3.connect(":memory:")
            >>> database.row_factory = sqlite3.Row
            >>> rows = database.execute(
            ...     "SELECT 'ran' AS event_name, '1' AS user_id, NULL AS email, 9 AS created_at"
            ... )
            >>> client.create_many(rows).run()
            Counts(accepted=1, refused=0, failed=0, duplicate=0)
            >>> database.close()
        """
        # The only import of the core from the parts around it, made when it is used.
        from intercom_data_events.bulk import Outcomes

        return Outcomes(
            events, self._session, self._settings, concurrency=concurrency, max_rate=max_rate
        )

    def contact(
        self, *, user_id: str | None = None, email: str | None = None, id: str | None = None
    ) -> Contact:
        """Binds the verbs to one contact.

        Args:
            user_id: Your own identifier of the contact.
            email: The contact's e-mail address.
            id: Intercom's identifier of the contact, the only one that a lead has.

        Raises:
            IdentityError: Not exactly one of them was given.
        """
        from intercom_data_events.contact import Contact, Identity

        given = {"user_id": user_id, "email": email, "id": id}
        return Contact(self, Identity(**one_identity(given, "contact()")))

    @property
    def with_raw_response(self) -> RawDataEventsClient:
        """The same verbs, each returning the whole :class:`APIResponse`."""
        from intercom_data_events.raw import RawDataEventsClient

        return RawDataEventsClient(self)

    def close(self) -> None:
        """Closes the connections, unless they belong to your ``http_client`` or this is a view.

        Afterwards every verb raises a RuntimeError, as in httpx.
        """
        if not self._is_view:
            self._session.close()

    def __enter__(self) -> Self:
        """Enters a block that closes the client at its end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the client."""
        self.close()

    def _perform(self, operation: Operation[T]) -> Answer[T]:
        return run(Exchange(operation, self._session, self._settings).steps(), self._session)


class AsyncDataEventsClient(
    BaseClient["AsyncEngine", "AsyncHTTPClient", "AsyncHTTPTransport", AsyncAccessToken]
):
    """Submits, lists and summarises data events, async, under asyncio and trio.

    The twin of :class:`DataEventsClient`: the same arguments, verbs and errors. Every verb but
    ``list`` is awaited, ``list`` is iterated with ``async for``, and ``aclose()`` or an
    ``async with`` block closes the connections. The function in `access_token` may also be async.
    One client works in event loops one after another, each with connections of its own; it cannot
    have requests in flight in two of them at once. Your own `http_client` stays bound to the event
    loop in which it connected.

    Raises:
        ConfigurationError: A setting cannot be used; or, from a verb, requests of this client are
            in flight in another event loop.

    Example:
        >>> import asyncio
        >>> from intercom_data_events.emulator import Emulator
        >>> async def main():
        ...     transport = Emulator().transport()
        ...     async with AsyncDataEventsClient("token", transport=transport) as client:
        ...         await client.create("placed-order", user_id="314159")
        ...         return [event.event_name async for event in client.list(user_id="314159")]
        >>> asyncio.run(main())
        ['placed-order']
    """

    _is_async = True

    create = verbs.averb(operations.create)
    send = verbs.averb(operations.send)
    list = verbs.alisting(operations.list_)
    summary = verbs.averb(operations.summary)
    create_summary = verbs.averb(operations.create_summary)

    def create_many(
        self,
        events: Iterable[EventLike] | AsyncIterable[EventLike],
        *,
        concurrency: int = 100,
        max_rate: float | None = None,
    ) -> AsyncOutcomes:
        """Submits any number of events, and yields the outcome of each as soon as it is known.

        It is not awaited, but iterated with ``async for``. A loop that may end early needs
        ``async with client.create_many(…) as outcomes`` around it. The input is read as needed.
        Events of one person are sent in their order, all others in any order. A rejected or failed
        event does not stop the rest. A failure that every event may get, such as that of a revoked
        token, waits for the answers of up to three other events, and ends everything if they get
        one, too. Sending keeps to the rate limit and to the client's
        `quota_share`; while that leaves no room, events wait as long as it takes, and their
        deadline begins afterwards.

        With the ``[fast]`` extra and under asyncio, it sends through aiohttp, unless the client has
        an `http_client` or `transport`, or the environment names a SOCKS proxy.

        Args:
            events: ``Event``s, or mappings of their fields as the API names them, such as
                ``{"event_name": …, "user_id": …, "created_at": …}``; also an async iterable.
            concurrency: The most requests in flight; fewer are used where more are not faster.
            max_rate: The most events per second; None for as many as the rate limit allows.

        Returns:
            An async iterator over one :class:`Outcome` for each event. Nothing is sent before its
            first step; if nothing takes that, a RuntimeWarning says so. Its awaited ``run()`` sends
            all events and returns the counts.

        Raises:
            InvalidInputError: `events` is not an iterable, or a bound is out of range.
            APIStatusError: While iterating: several events in a row got a failure that every event
                gets, such as that of a revoked token, a lapsed plan or a wrong address.
            ConfigurationError: While iterating: a setting fails, such as a function that returns
                the access token.
        """
        from intercom_data_events.bulk import AsyncOutcomes

        return AsyncOutcomes(
            events, self._session, self._settings, concurrency=concurrency, max_rate=max_rate
        )

    def contact(
        self, *, user_id: str | None = None, email: str | None = None, id: str | None = None
    ) -> AsyncContact:
        """Binds the verbs to one contact.

        Args:
            user_id: Your own identifier of the contact.
            email: The contact's e-mail address.
            id: Intercom's identifier of the contact, the only one that a lead has.

        Raises:
            IdentityError: Not exactly one of them was given.
        """
        from intercom_data_events.contact import AsyncContact, Identity

        given = {"user_id": user_id, "email": email, "id": id}
        return AsyncContact(self, Identity(**one_identity(given, "contact()")))

    @property
    def with_raw_response(self) -> AsyncRawDataEventsClient:
        """The same verbs, each returning the whole :class:`APIResponse`."""
        from intercom_data_events.raw import AsyncRawDataEventsClient

        return AsyncRawDataEventsClient(self)

    async def aclose(self) -> None:
        """Closes the connections, unless they belong to your ``http_client`` or this is a view.

        Afterwards every verb raises a RuntimeError, as in httpx. ``close()`` is another name.
        """
        if not self._is_view:
            await self._session.aclose()

    async def close(self) -> None:
        """Does the same as :meth:`aclose`."""
        await self.aclose()

    async def __aenter__(self) -> Self:
        """Enters a block that closes the client at its end."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the client."""
        await self.aclose()

    async def _perform(self, operation: Operation[T]) -> Answer[T]:
        steps = Exchange(operation, self._session, self._settings).steps()
        return await arun(steps, self._session)
