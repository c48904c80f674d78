"""The blocking and the async client: their settings and their verbs.

The verbs are made from the functions of ``intercom_data_events._sending.operations``, where each
has its signature, docstring and checks. A verb imports what only it needs when it is used: a
program that only submits events does not load the classes of listings.
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
    """Submits, lists and summarizes data events with blocking calls; thread-safe.

    The client connects when it first sends. It keeps its connections until ``close()`` or the end
    of a ``with`` block.

    Args:
        access_token: The access token of the workspace, or a function that returns the current
            one. The default is ``INTERCOM_ACCESS_TOKEN`` from the environment.
        version: The API version of every request. The default is ``INTERCOM_VERSION`` from the
            environment, otherwise the version that this package was generated from.
        region: Where Intercom keeps the workspace's data: "us", "eu" or "au". The default is
            ``INTERCOM_REGION`` from the environment, otherwise "us". Do not pass a region while
            ``INTERCOM_BASE_URL`` is set.
        base_url: The address of the API; do not pass a region as well. The default is
            ``INTERCOM_BASE_URL`` from the environment, which takes precedence over
            ``INTERCOM_REGION``.
        timeout: Seconds that one attempt may take in all. With your own `http_client` or
            `transport`, a blocking client limits each read instead, and checks the total between
            the parts of a body. An ``httpx.Timeout`` or ``httpx2.Timeout`` limits each phase of an
            attempt. The default is 30 seconds, or the timeout of your own `http_client`.
        deadline: Seconds that a request may take in all, retries and waits included;
            ``math.inf`` for no deadline. The client does not begin a wait that would end after the
            deadline; how long the rate limit delays a request is known only for the first one in
            the queue. On its own connections, a client has at most 100 requests in flight; waiting
            for one of these slots counts towards the deadline.
        max_retries: How often the client repeats a failed request; 0 turns retries off. It
            retries if there is no connection or no complete answer in time, after the statuses
            408, 425, 429, 444, 460, 499 and 5xx, and after an answer to a query that cannot be
            read. Repeating an event is safe. ``create_summary`` is repeated only if it was
            certainly not processed.
        pace: Whether requests wait while the app's rate limit leaves no room for them, instead of
            getting a 429. Every answer says how much is left.
        quota_share: The largest part of the app's quota that this client uses, greater than 0 and
            at most 1; 0.5 leaves half to others. The share applies to each process separately.
        headers: Additional headers of every request. ``Expect`` and the headers that the client
            sets itself are not allowed.
        enabled: Whether to send anything. If False, the client still checks and logs everything,
            and listings are empty. The default is True, unless ``INTERCOM_DISABLED`` is 1.
        transport: A transport of httpx or httpx2 to send through, such as
            ``Emulator().transport()``. A transport with sockets must not be used both before and
            after a fork.
        http_client: Your own ``httpx.Client`` or ``httpx2.Client``, with your proxies, certificates
            and hooks. This client never closes it, and it must not be used both before and after a
            fork. httpx and httpx2 mistake extra bytes after an answer for the answer to the next
            request. The client guards its own connections against that, but not those of your
            `http_client` or `transport`.
        clock: The source of time and of waits, for tests.
        allow_http: Whether to accept an ``http://`` address of another machine, to which the access
            token goes unencrypted. By default only localhost, 127.0.0.0/8 and ::1 are accepted,
            unless ``INTERCOM_ALLOW_HTTP`` is 1.

    Raises:
        ConfigurationError: A setting cannot be used; the message names it and the remedy.

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

        The thread that iterates reads the input as needed; while the input blocks, no outcome is
        returned. The events of one contact are sent in order, others in any order. A rejected or
        failed event does not stop the rest. If the failure is not about the event, for example
        because the token was revoked, the answers to up to three other events decide: if they fail
        the same way, sending stops with the error. Sending keeps to the rate limit and to the
        client's `quota_share`. Events wait for the rate limit as long as necessary; the deadline of
        each starts afterwards.

        Args:
            events: An iterable of :class:`Event`, or of mappings of their fields as the API names
                them, such as ``{"event_name": …, "user_id": …, "created_at": …}``. Rows with a
                ``keys()`` method, such as those of a database cursor, count as mappings.
                Identifiers and metadata whose value is missing (None, NaN, ``pandas.NA``) are left
                out. A time that is NaN or NaT rejects the event, and so does a missing value within
                the metadata; a time of None means the current time.
            concurrency: The largest number of requests in flight. Fewer are used if more would not
                be faster.
            max_rate: The largest number of events per second; None for the rate limit only.

        Returns:
            An iterator that yields one :class:`Outcome` for each event. Nothing is sent before the
            first step; if there never is one, a RuntimeWarning says so. Its ``run()`` sends all
            events and returns the counts.

        Raises:
            InvalidInputError: `events` is not an iterable, or another argument is out of range.
            APIStatusError: While iterating: several events in a row failed for a reason that is not
                about the event, such as a revoked token, a lapsed plan or a wrong address.
            ConfigurationError: While iterating: a setting fails, such as the function that returns
                the access token.
            RuntimeError: The client is closed.

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

            Rows of a database cursor work, too, and so do ``frame.to_dict("records")`` of pandas,
            ``frame.iter_rows(named=True)`` of polars and ``table.to_pylist()`` of Arrow:

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
        """Binds the verbs to one contact. Nothing is sent.

        Args:
            user_id: Your own identifier for the contact. Pass exactly one of the three.
            email: The contact's e-mail address.
            id: Intercom's identifier for the contact, the only one that works for leads.

        Raises:
            IdentityError: None of them, or several, were passed.

        Example:
            >>> from intercom_data_events.emulator import Emulator
            >>> client = DataEventsClient("token", transport=Emulator().transport())
            >>> client.contact(user_id="314159").create("placed-order")
        """
        from intercom_data_events.contact import Contact, Identity

        given = {"user_id": user_id, "email": email, "id": id}
        return Contact(self, Identity(**one_identity(given, "contact()")))

    @property
    def with_raw_response(self) -> RawDataEventsClient:
        """The same verbs, which return the whole :class:`APIResponse`."""
        from intercom_data_events.raw import RawDataEventsClient

        return RawDataEventsClient(self)

    def close(self) -> None:
        """Closes the connections, except those of your own `http_client`.

        Closing a view of ``with_options`` does nothing. After the client is closed, every verb
        raises a RuntimeError.
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
    """Submits, lists and summarizes data events asynchronously, under asyncio and trio.

    It has the arguments, verbs and errors of :class:`DataEventsClient`. Await every verb except
    ``list`` and ``create_many``, which are iterated with ``async for``. ``aclose()`` or an
    ``async with`` block closes the connections. A function passed as `access_token` may be async.

    A client can be used in several event loops one after another, on separate connections, but it
    cannot have requests in flight in two of them at once. Your own `http_client` stays bound to the
    event loop in which it connected.

    Raises:
        ConfigurationError: A setting cannot be used. A verb raises it if requests of this client
            are in flight in another event loop.

    Example:
        >>> import asyncio
        >>> from intercom_data_events.emulator import Emulator
        >>> async def main():
        ...     transport = Emulator().transport()
        ...     async with AsyncDataEventsClient("token", transport=transport) as client:
        ...         await client.create("placed-order", user_id="314159")
        ...         await client.contact(user_id="314159").create("paid-order")
        ...         await client.with_options(timeout=5).create("got-order", user_id="314159")
        ...         return [event.event_name async for event in client.list(user_id="314159")]
        >>> sorted(asyncio.run(main()))
        ['got-order', 'paid-order', 'placed-order']
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

        Do not await it; iterate it with ``async for``. If the loop may end early, write
        ``async with client.create_many(…) as outcomes`` around it. The input is read as needed. The
        events of one contact are sent in order, others in any order. A rejected or failed event
        does not stop the rest. If the failure is not about the event, for example because the token
        was revoked, the answers to up to three other events decide: if they fail the same way,
        sending stops with the error. Sending keeps to the rate limit and to the client's
        `quota_share`. Events wait for the rate limit as long as necessary; the deadline of each
        starts afterwards.

        With the ``[fast]`` extra and under asyncio, it sends through aiohttp, unless the client has
        an `http_client` or `transport`, or the environment names a SOCKS proxy.

        Args:
            events: An iterable or async iterable of :class:`Event`, or of mappings of their fields;
                see :meth:`DataEventsClient.create_many`.
            concurrency: The largest number of requests in flight. Fewer are used if more would not
                be faster.
            max_rate: The largest number of events per second; None for the rate limit only.

        Returns:
            An async iterator that yields one :class:`Outcome` for each event. Nothing is sent
            before the first step; if there never is one, a RuntimeWarning says so. Its ``run()``,
            which is awaited, sends all events and returns the counts.

        Raises:
            InvalidInputError: `events` is not an iterable, or another argument is out of range.
            APIStatusError: While iterating: several events in a row failed for a reason that is not
                about the event, such as a revoked token, a lapsed plan or a wrong address.
            ConfigurationError: While iterating: a setting fails, such as the function that returns
                the access token.
            RuntimeError: The client is closed.

        Example:
            >>> import asyncio
            >>> from intercom_data_events import Event
            >>> from intercom_data_events.emulator import Emulator
            >>> async def main():
            ...     client = AsyncDataEventsClient("token", transport=Emulator().transport())
            ...     events = [Event("placed-order", user_id="314159")]
            ...     async for outcome in client.create_many(events):
            ...         print(outcome.position, outcome.status)
            >>> asyncio.run(main())
            0 accepted
        """
        from intercom_data_events.bulk import AsyncOutcomes

        return AsyncOutcomes(
            events, self._session, self._settings, concurrency=concurrency, max_rate=max_rate
        )

    def contact(
        self, *, user_id: str | None = None, email: str | None = None, id: str | None = None
    ) -> AsyncContact:
        """Binds the verbs to one contact. Nothing is sent.

        Args:
            user_id: Your own identifier for the contact. Pass exactly one of the three.
            email: The contact's e-mail address.
            id: Intercom's identifier for the contact, the only one that works for leads.

        Raises:
            IdentityError: None of them, or several, were passed.
        """
        from intercom_data_events.contact import AsyncContact, Identity

        given = {"user_id": user_id, "email": email, "id": id}
        return AsyncContact(self, Identity(**one_identity(given, "contact()")))

    @property
    def with_raw_response(self) -> AsyncRawDataEventsClient:
        """The same verbs, which return the whole :class:`APIResponse`."""
        from intercom_data_events.raw import AsyncRawDataEventsClient

        return AsyncRawDataEventsClient(self)

    async def aclose(self) -> None:
        """Closes the connections, except those of your own `http_client`.

        Closing a view of ``with_options`` does nothing. After the client is closed, every verb
        raises a RuntimeError. ``close()`` is another name for this method.
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
