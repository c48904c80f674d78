"""One emulated workspace: its contacts, their events, and the counts by name."""

from __future__ import annotations

import json
import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

import attrs

from intercom_data_events._identity import hyphenated, name_key

from ._refusal import RefusalError

# Documented: metadata is flat, except for rich links and monetary amounts.
MetadataValue: TypeAlias = str | int | float | dict[str, str | int]

LISTED_FOR = 90 * 24 * 60 * 60
"""Seconds for which an event can be listed (documented); summaries count older ones, too."""

RATE_LIMIT = 1667
"""Requests in one window (documented: 10,000 a minute, in windows of 10 seconds)."""

WINDOW = 10.0
"""Length of such a window in seconds (documented)."""

ACTIVE_NAMES = 120
"""The number of event names that a workspace can have (documented)."""

# A cursor is two positions in one number, because the documented cursors are numbers.
_POSITIONS = 10**9


@attrs.frozen(kw_only=True)
class EmulatedContact:
    """A contact in the emulated workspaces.

    Args:
        user_id: Your own identifier for the contact.
        email: The contact's e-mail address; several contacts may share one.
        id: Intercom's identifier for the contact (``intercom_user_id`` in lists). If it is None,
            the emulator assigns one.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> emulator = Emulator(contacts=[EmulatedContact(email="frodo@example.com")])
        >>> client = DataEventsClient("token", transport=emulator.transport())
        >>> client.create("placed-order", email="frodo@example.com")
    """

    user_id: str | None = None
    email: str | None = None
    id: str | None = None


@attrs.frozen(kw_only=True)
class EmulatedEvent:
    """An event as the emulator stores and lists it.

    Attributes:
        event_name: The name in the spelling of its first event, with ``-`` for ``.`` and ``$``.
        created_at: When it happened, in Unix seconds.
        user_id: The `user_id` of its contact, or None.
        id: The identifier of the event, which looks like a UUID.
        intercom_user_id: Intercom's identifier for its contact.
        email: The e-mail address of its contact, or None.
        metadata: The first 10 keys that were sent.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> emulator = Emulator()
        >>> client = DataEventsClient("token", transport=emulator.transport())
        >>> client.create("placed-order", user_id="314159", metadata={"plan": "pro"})
        >>> [event] = emulator.events
        >>> event.event_name, event.user_id, event.metadata
        ('placed-order', '314159', {'plan': 'pro'})
    """

    event_name: str
    created_at: int
    user_id: str | None
    id: str
    intercom_user_id: str
    email: str | None
    metadata: Mapping[str, MetadataValue]


@attrs.frozen(kw_only=True)
class EmulatedWorkspace:
    """A snapshot of the workspace of one access token.

    Attributes:
        contacts: The known contacts, then the contacts that events created.
        events: The events in the order of arrival, without duplicates.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> emulator = Emulator()
        >>> client = DataEventsClient("token", transport=emulator.transport())
        >>> client.create("placed-order", user_id="314159")
        >>> [contact.user_id for contact in emulator.workspace("token").contacts]
        ['314159']
    """

    contacts: tuple[EmulatedContact, ...]
    events: tuple[EmulatedEvent, ...]


@attrs.define
class Tally:
    """The count, the first and the last time of a contact's events of one name."""

    name: str
    count: int
    first: int
    last: int

    def add(self, count: int, first: int, last: int) -> None:
        """Add further occurrences and widen the times."""
        self.count += count
        self.first = min(self.first, first)
        self.last = max(self.last, last)


# A run can store a million events, and a string takes a fraction of a dictionary's memory.
@attrs.frozen(weakref_slot=False)
class _Occurrence:
    number: int  # across all workspaces, in order of arrival
    name: str
    created_at: int
    metadata: str  # JSON


@attrs.frozen
class Page:
    """One page of a contact's events, newest first, and its cursors."""

    events: list[EmulatedEvent]
    before: int | None
    since: int


@attrs.define(eq=False)
class Contact:
    """A contact and its events."""

    id: str
    user_id: str | None = None
    email: str | None = None
    tallies: dict[str, Tally] = attrs.field(factory=dict[str, Tally])
    _arrived: list[_Occurrence] = attrs.field(factory=list[_Occurrence], init=False)
    # Positions in _arrived, sorted by time; those of one second in the order of arrival.
    _timeline: array[int] = attrs.field(factory=lambda: array("Q"), init=False)

    @property
    def arrivals(self) -> Iterator[tuple[int, EmulatedEvent]]:
        """The stored events with their numbers, in the order of arrival."""
        return ((event.number, self._shown(event)) for event in self._arrived)

    def place(self, name: str, created_at: int) -> int | None:
        """The position of an event in time, or None if one of that name and second is stored."""
        end = bisect_right(self._timeline, created_at, key=self._created_at)
        for position in range(end - 1, -1, -1):
            other = self._arrived[self._timeline[position]]
            if other.created_at < created_at:
                break
            if other.name == name:
                return None
        return end

    def store(self, key: str, occurrence: _Occurrence, place: int) -> None:
        """Store an event at its position in time."""
        self._timeline.insert(place, len(self._arrived))
        self._arrived.append(occurrence)
        self.count(key, Tally(occurrence.name, 1, occurrence.created_at, occurrence.created_at))

    def count(self, key: str, tally: Tally) -> None:
        """Add a tally to the summary."""
        if (known := self.tallies.get(key)) is None:
            self.tallies[key] = attrs.evolve(tally)
        else:
            known.add(tally.count, tally.first, tally.last)

    def page(self, *, size: int, newer_than: float, before: int | None, since: int) -> Page:
        """Up to `size` events, newest first.

        A listing is a snapshot: `before` has the end of the previous page and the number of events
        at the time of the first page. Events that arrive between two pages, whatever their
        `created_at`, are listed by the `since` cursor, which is the same on each page. So the pages
        and a later listing with `since` together give each event once.

        Raises:
            RefusalError: A cursor does not come from this contact's pages.
        """
        horizon, end = len(self._arrived), len(self._timeline)
        if before is not None:
            horizon, last = divmod(before, _POSITIONS)
            if not last < horizon <= len(self._arrived):
                raise RefusalError(
                    400,
                    "parameter_invalid",
                    "before is not a cursor of this contact",
                    field="before",
                )
            place = (self._arrived[last].created_at, last)
            end = bisect_left(self._timeline, place, key=lambda one: (self._created_at(one), one))
        if since > len(self._arrived):
            raise RefusalError(
                400, "parameter_invalid", "since is not a cursor of this contact", field="since"
            )
        found: list[int] = []
        for position in range(end - 1, -1, -1):
            arrival = self._timeline[position]
            if self._created_at(arrival) <= newer_than or len(found) > size:
                break
            if since <= arrival < horizon:
                found.append(arrival)
        listed = [self._shown(self._arrived[arrival]) for arrival in found[:size]]
        more = len(found) > size
        return Page(listed, horizon * _POSITIONS + found[size - 1] if more else None, horizon)

    def _created_at(self, arrival: int) -> int:
        return self._arrived[arrival].created_at

    def _shown(self, event: _Occurrence) -> EmulatedEvent:
        return EmulatedEvent(
            event_name=event.name,
            created_at=event.created_at,
            user_id=self.user_id,
            id=f"{event.number:08x}-0000-4000-8000-000000000000",
            intercom_user_id=self.id,
            email=self.email,
            metadata=json.loads(event.metadata),
        )


@attrs.define
class RateWindow:
    """Counts the requests of the current window.

    Args:
        limit: Requests in one window, or None for no limit.
        seconds: Length of a window. Inferred: windows begin at multiples of it.
    """

    limit: int | None
    seconds: float
    _window: int = attrs.field(default=0, init=False)
    _used: int = attrs.field(default=0, init=False)

    def count(self, now: float) -> dict[str, str]:
        """Count one request and return the documented headers.

        Raises:
            RefusalError: The limit of the window is reached.
        """
        if self.limit is None:
            return {}
        window = math.floor(now / self.seconds)
        if window != self._window:
            self._window, self._used = window, 0
        headers = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(max(0, self.limit - self._used - 1)),
            "X-RateLimit-Reset": str(math.ceil((window + 1) * self.seconds)),
        }
        if self._used >= self.limit:
            # Code and message are documented, except for the figures.
            raise RefusalError(
                429,
                "rate_limit_exceeded",
                f"Exceeded rate limit of {self.limit} in {self.seconds:g}_seconds",
                headers=headers,
            )
        self._used += 1
        return headers


class Workspace:
    """The contacts of one workspace, the names of its events, and its rate limit.

    Args:
        on_sight: Whether events create their contacts.
        contacts: The known contacts, each with an id.
        contact_ids: Ids for the contacts that events create.
        event_numbers: Numbers for events, in the order of arrival.
        rate: The rate limit of its requests.
    """

    def __init__(
        self,
        *,
        on_sight: bool,
        contacts: Iterable[EmulatedContact],
        contact_ids: Iterator[str],
        event_numbers: Iterator[int],
        rate: RateWindow,
    ) -> None:
        self.rate = rate
        self.stored = 0
        self._on_sight = on_sight
        self._contact_ids = contact_ids
        self._event_numbers = event_numbers
        self._contacts: list[Contact] = []
        self._by_user_id: dict[str, Contact] = {}
        self._by_id: dict[str, Contact] = {}
        self._by_email: dict[str, list[Contact]] = {}
        self._spellings: dict[str, str] = {}
        for contact in contacts:
            self.add(contact)

    @property
    def contacts(self) -> tuple[EmulatedContact, ...]:
        """The contacts in the order in which they were added."""
        return tuple(
            EmulatedContact(user_id=contact.user_id, email=contact.email, id=contact.id)
            for contact in self._contacts
        )

    @property
    def arrivals(self) -> list[tuple[int, EmulatedEvent]]:
        """The stored events with their numbers, in the order of arrival."""
        every = (arrival for contact in self._contacts for arrival in contact.arrivals)
        return sorted(every, key=lambda arrival: arrival[0])

    def knows(self, contact: EmulatedContact) -> bool:
        """Whether a contact here has the same `user_id` or `id`."""
        return contact.user_id in self._by_user_id or contact.id in self._by_id

    def add(self, who: EmulatedContact) -> Contact:
        """Add a contact that shares neither `user_id` nor `id` with another one here."""
        contact = Contact(next(self._contact_ids) if who.id is None else who.id)
        self._contacts.append(contact)
        self._by_id[contact.id] = contact
        self._identify(contact, user_id=who.user_id, email=who.email)
        return contact

    def find(self, who: EmulatedContact) -> Contact:
        """The contact with these identities; user_id decides before id, and id before email.

        Raises:
            RefusalError: There is none, or several contacts have the e-mail address.
        """
        if (contact := self._lookup(who)) is None:
            # Observed code and message.
            raise RefusalError(404, "not_found", "User Not Found")
        return contact

    def record(
        self,
        who: EmulatedContact,
        name: str,
        created_at: int,
        metadata: dict[str, MetadataValue],
    ) -> None:
        """Store an event, unless it is a duplicate.

        Raises:
            RefusalError: As for `find`, if events do not create contacts; or too many names.
        """
        spellings = self._spellings_with([name])
        contact = self._sight(who)
        self._spellings = spellings
        key = name_key(name)
        # Documented: workspace, contact, name and time identify an event; its metadata does not.
        if (place := contact.place(spellings[key], created_at)) is not None:
            self.stored += 1
            number, kept = next(self._event_numbers), json.dumps(metadata) if metadata else "{}"
            contact.store(key, _Occurrence(number, spellings[key], created_at, kept), place)

    def summarize(self, who: EmulatedContact, tallies: Iterable[Tally]) -> None:
        """Add to the counts of a contact's events: all tallies or none.

        Raises:
            RefusalError: As for `record`.
        """
        counted = list(tallies)
        spellings = self._spellings_with([tally.name for tally in counted])
        contact = self._sight(who)
        self._spellings = spellings
        for tally in counted:
            key = name_key(tally.name)
            contact.count(key, attrs.evolve(tally, name=spellings[key]))

    def _lookup(self, who: EmulatedContact) -> Contact | None:
        if who.user_id is not None:
            return self._by_user_id.get(who.user_id)
        if who.id is not None:
            return self._by_id.get(who.id)
        named = self._by_email.get(who.email or "", [])
        if len(named) > 1:
            raise RefusalError(409, "conflict", "Multiple contacts have this email", field="email")
        return named[0] if named else None

    def _sight(self, who: EmulatedContact) -> Contact:
        """The contact with these identities, created or completed from them.

        The API creates no contacts, so this is inferred: an identity is added to a contact that
        lacks it and never replaces one, so two contacts never become one.
        """
        if not self._on_sight:
            return self.find(who)
        if (contact := self._lookup(who)) is None:
            weaker = [self._by_id.get(who.id or ""), *self._by_email.get(who.email or "", [])]
            contact = next(
                (one for one in weaker if one and None in (who.user_id, one.user_id)), None
            )
        if contact is None:
            return self.add(attrs.evolve(who, id=None) if who.id in self._by_id else who)
        if who.id is not None:
            self._by_id.setdefault(who.id, contact)
        email = None if who.email in self._by_email else who.email
        self._identify(contact, user_id=who.user_id, email=email)
        return contact

    def _identify(self, contact: Contact, *, user_id: str | None, email: str | None) -> None:
        if contact.user_id is None and user_id is not None:
            contact.user_id = user_id
            self._by_user_id[user_id] = contact
        if contact.email is None and email is not None:
            contact.email = email
            self._by_email.setdefault(email, []).append(contact)

    def _spellings_with(self, names: Iterable[str]) -> dict[str, str]:
        """The spellings of this workspace's names, with these names added.

        Inferred: the first spelling stays.
        """
        new: dict[str, str] = {}
        for name in names:
            if (key := name_key(name)) not in self._spellings:
                new.setdefault(key, hyphenated(name))
        if len(self._spellings) + len(new) > ACTIVE_NAMES:
            # Code and message as observed (neo4j-contrib/training-v3, pull request 56).
            raise RefusalError(
                422, "422", f"Cannot have more than {ACTIVE_NAMES} active event names"
            )
        return {**self._spellings, **new} if new else self._spellings
