"""The clients: keyword arguments become an event or a query, which an operation performs.

Blocking and async clients are twins; whatever one decides, the other decides too, in the modules
below. What only some verbs need is imported when they are used: a program that submits events does
not wait for the classes that listings are read into.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast, overload

import httpx

from intercom_data_events import operations
from intercom_data_events.clock import Clock
from intercom_data_events.connections import C, Pool
from intercom_data_events.errors import APIResponse, ConfigurationError
from intercom_data_events.event import Event
from intercom_data_events.settings import (
    AccessToken,
    AsyncAccessToken,
    Region,
    Settings,
    resolve_enabled,
    resolve_token,
)

if TYPE_CHECKING:
    from intercom_data_events.bulk import AsyncOutcomes, EventLike, Outcomes
    from intercom_data_events.contact import AsyncContact, Contact
    from intercom_data_events.metadata import Metadata
    from intercom_data_events.operations import Operation
    from intercom_data_events.pagination import AsyncEventList, EventList
    from intercom_data_events.rate_limit import RateLimit
    from intercom_data_events.raw import AsyncRawDataEventsClient, RawDataEventsClient
    from intercom_data_events.summary import ContactSummary
    from intercom_data_events.timestamps import Timestamp
    from intercom_data_events_api.models import IntercomVersion

T = TypeVar("T")


class DataEventsClient:
    """Submits, lists and summarises data events, blocking; safe to share between threads.

    Connections are made when first needed and kept; ``close()`` or a ``with`` block closes them.

    Args:
        access_token: The access token of the workspace, or a function that returns the one to use
            now. Left out, it is ``INTERCOM_ACCESS_TOKEN`` from the environment.
        version: The API version that every request is made for. Left out, it is
            ``INTERCOM_VERSION`` from the environment, else the version that this package was
            generated from.
        region: Where the workspace's data is kept: "us", "eu" or "au". Left out, it is
            ``INTERCOM_REGION`` from the environment, else "us".
        base_url: The API's address, instead of a region's. Left out, ``INTERCOM_BASE_URL`` from
            the environment counts before ``INTERCOM_REGION``.
        timeout: Seconds that one try of a request may take; a blocking client bounds each read, and
            looks at the clock between the parts of a body. An ``httpx.Timeout`` is for the phases
            of a try instead. Left out, it is 30, or what your own `http_client` has.
        deadline: Seconds that everything a request takes may take, retries and waits included; a
            wait that is known to pass it is not begun (who is not the first to wait for the rate
            limit does not know). ``math.inf`` is none.
        max_retries: How often a request is made again that failed for the time being: not
            connected, no whole answer in time, 408, 429, 500, 502 to 504, 520 to 527. Events are
            safe to repeat; ``create_summary`` is repeated where it was certainly not processed.
            0 turns it off.
        pace: Whether requests wait while the app's rate limit, of which every answer tells, leaves
            no room for them, instead of running into 429.
        quota_share: The part of the app's quota that this client uses at most, above 0 and up to
            1; 0.5 leaves half to others. Each process uses a share of its own.
        headers: Further headers of every request.
        enabled: Whether anything is sent. If not, everything is checked and logged all the same,
            and listings are empty. Left out, it is off where ``INTERCOM_DISABLED`` is 1.
        transport: An httpx transport to send through, such as ``Emulator().transport()``; one
            with sockets is not for use on both sides of a fork.
        http_client: Your own ``httpx.Client``, with your proxies, certificates and hooks; it is
            never closed here, and not for use on both sides of a fork.
        clock: Where time comes from, and how waits are waited for; for tests.

    Raises:
        ConfigurationError: A setting that cannot be used; names it and the remedy.

    Example:
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> client.create("placed-order", user_id="314159", metadata={"plan": "pro"})
        >>> client.summary(user_id="314159").events[0].count
        1
    """

    def __init__(
        self,
        access_token: AccessToken | None = None,
        *,
        version: IntercomVersion | str | None = None,
        region: Region | None = None,
        base_url: str | None = None,
        timeout: float | httpx.Timeout | None = None,
        deadline: float = 120,
        max_retries: int = 4,
        pace: bool = True,
        quota_share: float = 1.0,
        headers: Mapping[str, str] | None = None,
        enabled: bool | None = None,
        transport: httpx.BaseTransport | None = None,
        http_client: httpx.Client | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = Settings.resolve(
            version=version,
            region=region,
            base_url=base_url,
            timeout=30 if timeout is None and http_client is None else timeout,
            deadline=deadline,
            max_retries=max_retries,
            pace=pace,
            quota_share=quota_share,
            headers=headers,
        )
        _check_parts(httpx.Client, httpx.BaseTransport, transport, http_client, clock)
        on = resolve_enabled(enabled)
        token = resolve_token(access_token) if on else None
        self._pool = Pool(
            httpx.Client,
            token,
            transport=transport,
            http_client=http_client,
            enabled=on,
            clock=clock,
        )
        self._is_view = False

    def create(
        self,
        event_name: str,
        *,
        user_id: str | None = None,
        email: str | None = None,
        id: str | None = None,
        created_at: Timestamp | None = None,
        metadata: Metadata | None = None,
        drop_excess_metadata: bool = False,
    ) -> None:
        """Submits an event; the arguments are those of :class:`Event`.

        Raises:
            InvalidInputError: An argument that the API would refuse; nothing was sent.
            APIConnectionError: No whole answer came, in any try.
            APIStatusError: Intercom refuses it; ``NotFoundError`` where there is no such contact.
            InvalidResponseError: A success other than the one that is described.
        """
        self.send(
            Event(
                event_name,
                user_id=user_id,
                email=email,
                id=id,
                created_at=created_at,
                metadata=metadata,
                drop_excess_metadata=drop_excess_metadata,
            )
        )

    def send(self, event: Event) -> None:
        """Submits an event that has been made before; raises as :meth:`create` does."""
        self._perform(operations.create(event))

    def list(
        self,
        *,
        user_id: str | None = None,
        email: str | None = None,
        intercom_user_id: str | None = None,
        per_page: int | None = None,
        since: str | None = None,
    ) -> EventList:
        """Lists a contact's events of the last 90 days, newest first, page after page, lazily.

        Args:
            user_id: Your own identifier of the contact.
            email: The contact's e-mail address.
            intercom_user_id: Intercom's identifier of the contact, which leads have too. Exactly
                one of the three is needed; none with `since`.
            per_page: How many events a page holds; Intercom's default is 15.
            since: A cursor from ``page.since`` of an earlier listing: list what is newer.

        Raises:
            InvalidInputError: An argument that the API would refuse; nothing was sent. All other
                errors come while iterating.
        """
        from intercom_data_events.pagination import EventList

        first = operations.list_page(
            user_id=user_id,
            email=email,
            intercom_user_id=intercom_user_id,
            per_page=per_page,
            since=since,
        )
        return EventList(
            lambda query: self._perform(first if query is None else operations.next_page(query)),
            first.sends,
        )

    def summary(
        self,
        *,
        user_id: str | None = None,
        email: str | None = None,
        intercom_user_id: str | None = None,
    ) -> ContactSummary:
        """Counts a contact's events by name, those older than 90 days included.

        Args:
            user_id: Your own identifier of the contact.
            email: The contact's e-mail address.
            intercom_user_id: Intercom's identifier of the contact, which leads have too. Exactly
                one of the three is needed.

        Raises:
            IdentityError: Not exactly one identity; nothing was sent.
            APIConnectionError: No whole answer came, in any try.
            APIStatusError: Intercom refuses it; ``NotFoundError`` where there is no such contact.
            InvalidResponseError: An answer that is not as described.
        """
        return self._perform(
            operations.summary(user_id=user_id, email=email, intercom_user_id=intercom_user_id)
        ).parsed

    def create_summary(
        self, *, user_id: str, event_name: str, count: int, first: Timestamp, last: Timestamp
    ) -> None:
        """Adds events that happened elsewhere to a contact's summary, without listing each.

        It is not known to be safe to repeat: after an error whose ``may_have_been_processed`` is
        true, look at the summary first.

        Args:
            user_id: Your own identifier of the contact.
            event_name: What happened.
            count: How many times, 1 or more.
            first: When it happened first; as ``created_at`` of :class:`Event`.
            last: When it happened last.

        Raises:
            InvalidInputError: An argument that the API would refuse; nothing was sent.
            APIConnectionError: No whole answer came, in any try.
            APIStatusError: Intercom refuses it.
            InvalidResponseError: A success other than the one that is described.
        """
        self._perform(
            operations.create_summary(
                user_id=user_id, event_name=event_name, count=count, first=first, last=last
            )
        )

    def create_many(
        self,
        events: Iterable[EventLike],
        *,
        concurrency: int = 100,
        max_rate: float | None = None,
    ) -> Outcomes:
        """Submits events, as many as there are, and yields what became of each, as it is known.

        The input is read as it is needed, in the thread that iterates; while it blocks, outcomes
        wait. The events of one person are sent in their order;
        everything else as it comes. What is refused or failed does not stop the rest. It keeps to
        the rate limit and to the client's `quota_share`; where that leaves no room, events wait as
        long as it takes, and their deadline begins anew.

        Args:
            events: ``Event``s, or mappings of their fields as the API names them, such as
                ``{"event_name": …, "user_id": …, "created_at": …}``.
            concurrency: Requests at once, at most; they are fewer where more would not be faster.
            max_rate: Events a second, at most; None for as fast as the rate limit allows.

        Returns:
            An iterator over one :class:`Outcome` for each event. Nothing is sent before it is
            asked for the first.

        Raises:
            InvalidInputError: `events` is no iterable, or a bound makes no sense.
            AuthenticationError: While iterating; it ends everything, as do PermissionDeniedError,
                InvalidVersionError and ConfigurationError.

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
            1 refused event 'invited-friend' says not whose it is: give user_id, email or id
        """
        # The one place where the core knows of the ring around it, and only when it is used.
        from intercom_data_events.bulk import Outcomes

        return Outcomes(
            events, self._pool, self._settings, concurrency=concurrency, max_rate=max_rate
        )

    def contact(
        self, *, user_id: str | None = None, email: str | None = None, id: str | None = None
    ) -> Contact:
        """Binds the verbs to one contact.

        Args:
            user_id: Your own identifier of the contact.
            email: The contact's e-mail address.
            id: Intercom's identifier of the contact; the only one that a lead has.

        Raises:
            IdentityError: Not exactly one of them.
        """
        from intercom_data_events.contact import Contact, one_identity

        return Contact(self, one_identity(user_id=user_id, email=email, id=id))

    def with_options(
        self,
        *,
        version: IntercomVersion | str | None = None,
        timeout: float | httpx.Timeout | None = None,
        deadline: float | None = None,
        max_retries: int | None = None,
        pace: bool | None = None,
        quota_share: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Self:
        """Returns a view of this client with other options, on the same connections.

        Closing a view does nothing: the connections are the client's.

        Args:
            version: The API version; as of the client where it is left out.
            timeout: Seconds that one try of a request may take; likewise, as all that follow.
            deadline: Seconds that all tries and waits may take.
            max_retries: How often a failed request is made again.
            pace: Whether requests wait for room within the rate limit.
            quota_share: The part of the app's quota that is used at most; it counts what this
                client uses in all, so a view with a smaller share goes last.
            headers: Further headers, added to those of the client or in their place.

        Raises:
            ConfigurationError: An option that cannot be used.
        """
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._settings = self._settings.changed(
            version=version,
            timeout=timeout,
            deadline=deadline,
            max_retries=max_retries,
            pace=pace,
            quota_share=quota_share,
            headers=headers,
        )
        view._is_view = True
        return view

    @property
    def with_raw_response(self) -> RawDataEventsClient:
        """The same verbs, each returning the whole :class:`APIResponse`."""
        from intercom_data_events.raw import RawDataEventsClient

        return RawDataEventsClient(self._perform)

    @property
    def rate_limit(self) -> RateLimit | None:
        """The app's rate limit as an answer said last, or None before any did."""
        return self._pool.rate_limit

    def close(self) -> None:
        """Closes the connections, unless they are your own ``http_client``'s or this is a view.

        Afterwards every verb raises a RuntimeError, as httpx's do.
        """
        if not self._is_view:
            self._pool.close()

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

    def __repr__(self) -> str:
        """Shows the settings, never the token."""
        return f"{type(self).__name__}({self._settings!r})"

    def __copy__(self) -> Self:
        """A copy is a view: the connections stay shared, and so does the token."""
        return self.with_options()

    def __deepcopy__(self, memo: object) -> Self:
        """A copy is a view: the connections stay shared, and so does the token."""
        return self.with_options()

    def __getstate__(self) -> dict[str, object]:
        """A pickle holds the settings, never the token."""
        return _state(self._settings, self._pool)

    def __setstate__(self, state: dict[str, object]) -> None:
        """Unpickles with the token that the environment holds."""
        self._settings, self._pool = _restored(state, httpx.Client)
        self._is_view = False

    def _perform(self, operation: Operation[T]) -> APIResponse[T]:
        return operation.perform(self._pool, self._settings)


class AsyncDataEventsClient:
    """Submits, lists and summarises data events, awaiting, under asyncio and trio.

    The twin of :class:`DataEventsClient`: the same arguments, verbs and errors. Every verb but
    ``list`` is awaited, ``list`` is iterated with ``async for``, and ``aclose()`` or an
    ``async with`` block closes the connections. A function given as `access_token` may be async,
    too. As with httpx, a client belongs to the event loop that it is first used in.

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

    def __init__(
        self,
        access_token: AsyncAccessToken | None = None,
        *,
        version: IntercomVersion | str | None = None,
        region: Region | None = None,
        base_url: str | None = None,
        timeout: float | httpx.Timeout | None = None,
        deadline: float = 120,
        max_retries: int = 4,
        pace: bool = True,
        quota_share: float = 1.0,
        headers: Mapping[str, str] | None = None,
        enabled: bool | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        http_client: httpx.AsyncClient | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = Settings.resolve(
            version=version,
            region=region,
            base_url=base_url,
            timeout=30 if timeout is None and http_client is None else timeout,
            deadline=deadline,
            max_retries=max_retries,
            pace=pace,
            quota_share=quota_share,
            headers=headers,
        )
        _check_parts(httpx.AsyncClient, httpx.AsyncBaseTransport, transport, http_client, clock)
        on = resolve_enabled(enabled)
        token = resolve_token(access_token) if on else None
        self._pool = Pool(
            httpx.AsyncClient,
            token,
            transport=transport,
            http_client=http_client,
            enabled=on,
            clock=clock,
        )
        self._is_view = False

    async def create(
        self,
        event_name: str,
        *,
        user_id: str | None = None,
        email: str | None = None,
        id: str | None = None,
        created_at: Timestamp | None = None,
        metadata: Metadata | None = None,
        drop_excess_metadata: bool = False,
    ) -> None:
        """Submits an event; see :meth:`DataEventsClient.create`."""
        await self.send(
            Event(
                event_name,
                user_id=user_id,
                email=email,
                id=id,
                created_at=created_at,
                metadata=metadata,
                drop_excess_metadata=drop_excess_metadata,
            )
        )

    async def send(self, event: Event) -> None:
        """Submits an event that has been made before; see :meth:`DataEventsClient.send`."""
        await self._perform(operations.create(event))

    def list(
        self,
        *,
        user_id: str | None = None,
        email: str | None = None,
        intercom_user_id: str | None = None,
        per_page: int | None = None,
        since: str | None = None,
    ) -> AsyncEventList:
        """Lists a contact's events for ``async for``; see :meth:`DataEventsClient.list`."""
        from intercom_data_events.pagination import AsyncEventList

        first = operations.list_page(
            user_id=user_id,
            email=email,
            intercom_user_id=intercom_user_id,
            per_page=per_page,
            since=since,
        )
        return AsyncEventList(
            lambda query: self._perform(first if query is None else operations.next_page(query)),
            first.sends,
        )

    async def summary(
        self,
        *,
        user_id: str | None = None,
        email: str | None = None,
        intercom_user_id: str | None = None,
    ) -> ContactSummary:
        """Counts a contact's events by name; see :meth:`DataEventsClient.summary`."""
        response = await self._perform(
            operations.summary(user_id=user_id, email=email, intercom_user_id=intercom_user_id)
        )
        return response.parsed

    async def create_summary(
        self, *, user_id: str, event_name: str, count: int, first: Timestamp, last: Timestamp
    ) -> None:
        """Adds events from elsewhere; see :meth:`DataEventsClient.create_summary`."""
        await self._perform(
            operations.create_summary(
                user_id=user_id, event_name=event_name, count=count, first=first, last=last
            )
        )

    def create_many(
        self,
        events: Iterable[EventLike] | AsyncIterable[EventLike],
        *,
        concurrency: int = 100,
        max_rate: float | None = None,
    ) -> AsyncOutcomes:
        """Submits events, and yields what became of each; see :meth:`DataEventsClient.create_many`.

        The events may be an async iterable. Not awaited: iterate with ``async for``, within
        ``async with client.create_many(…) as outcomes`` where the loop may be left early.
        """
        from intercom_data_events.bulk import AsyncOutcomes

        return AsyncOutcomes(
            events, self._pool, self._settings, concurrency=concurrency, max_rate=max_rate
        )

    def contact(
        self, *, user_id: str | None = None, email: str | None = None, id: str | None = None
    ) -> AsyncContact:
        """Binds the verbs to one contact; see :meth:`DataEventsClient.contact`."""
        from intercom_data_events.contact import AsyncContact, one_identity

        return AsyncContact(self, one_identity(user_id=user_id, email=email, id=id))

    def with_options(
        self,
        *,
        version: IntercomVersion | str | None = None,
        timeout: float | httpx.Timeout | None = None,
        deadline: float | None = None,
        max_retries: int | None = None,
        pace: bool | None = None,
        quota_share: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Self:
        """Returns a view with other options; see :meth:`DataEventsClient.with_options`."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._settings = self._settings.changed(
            version=version,
            timeout=timeout,
            deadline=deadline,
            max_retries=max_retries,
            pace=pace,
            quota_share=quota_share,
            headers=headers,
        )
        view._is_view = True
        return view

    @property
    def with_raw_response(self) -> AsyncRawDataEventsClient:
        """The same verbs, each returning the whole :class:`APIResponse`."""
        from intercom_data_events.raw import AsyncRawDataEventsClient

        return AsyncRawDataEventsClient(self._perform)

    @property
    def rate_limit(self) -> RateLimit | None:
        """The app's rate limit as an answer said last, or None before any did."""
        return self._pool.rate_limit

    async def aclose(self) -> None:
        """Closes the connections, unless they are your own ``http_client``'s or this is a view.

        Afterwards every verb raises a RuntimeError, as httpx's do.
        """
        if not self._is_view:
            await self._pool.aclose()

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

    def __repr__(self) -> str:
        """Shows the settings, never the token."""
        return f"{type(self).__name__}({self._settings!r})"

    def __copy__(self) -> Self:
        """A copy is a view: the connections stay shared, and so does the token."""
        return self.with_options()

    def __deepcopy__(self, memo: object) -> Self:
        """A copy is a view: the connections stay shared, and so does the token."""
        return self.with_options()

    def __getstate__(self) -> dict[str, object]:
        """A pickle holds the settings, never the token."""
        return _state(self._settings, self._pool)

    def __setstate__(self, state: dict[str, object]) -> None:
        """Unpickles with the token that the environment holds."""
        self._settings, self._pool = _restored(state, httpx.AsyncClient)
        self._is_view = False

    async def _perform(self, operation: Operation[T]) -> APIResponse[T]:
        return await operation.aperform(self._pool, self._settings)


@overload
def parts_of(client: DataEventsClient) -> tuple[Pool[httpx.Client], Settings]: ...
@overload
def parts_of(client: AsyncDataEventsClient) -> tuple[Pool[httpx.AsyncClient], Settings]: ...
def parts_of(client: DataEventsClient | AsyncDataEventsClient) -> tuple[Pool[Any], Settings]:
    """Returns what a client sends through, for what sends on its behalf."""
    return client._pool, client._settings  # noqa: SLF001  # of this module


def _check_parts(
    client_kind: type[httpx.Client | httpx.AsyncClient],
    transport_kind: type[httpx.BaseTransport | httpx.AsyncBaseTransport],
    transport: object,
    http_client: object,
    clock: object,
) -> None:
    if transport is not None and http_client is not None:
        raise ConfigurationError("transport and http_client both say how to send: pass one of them")
    for name, given, kind in (
        ("transport", transport, transport_kind),
        ("http_client", http_client, client_kind),
    ):
        if given is not None and not isinstance(given, kind):
            raise ConfigurationError(
                f"{name} is a {type(given).__name__}, and this client needs an "
                f"httpx.{kind.__name__}"
            )
    if clock is not None and not isinstance(clock, Clock):
        raise ConfigurationError(
            f"clock is a {type(clock).__name__}, and not an intercom_data_events.Clock"
        )


def _state(settings: Settings, pool: Pool[C]) -> dict[str, object]:
    if pool.given:
        raise TypeError(
            "a client with a transport, an http_client or a clock of yours cannot be pickled"
        )
    return {"settings": settings, "enabled": pool.enabled}


def _restored(state: dict[str, object], kind: type[C]) -> tuple[Settings, Pool[C]]:
    enabled = bool(state["enabled"])
    token = resolve_token(None) if enabled else None
    return cast("Settings", state["settings"]), Pool(kind, token, enabled=enabled)
