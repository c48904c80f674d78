"""Faults that the emulator plays on purpose: single ones, and plans of them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal, cast

import attrs
import httpx

from ._refusal import JSON, RefusalError
from ._wire import (
    BLANKS,
    Wire,
    WrongLength,
    answer_twice,
    drop_when_idle,
    interim,
    misdeclare,
    trickle_head,
)

HTML = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n"
    b"<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n"
)


@attrs.frozen(kw_only=True)
class Fault:
    """A failure of one request. The class methods make the usual ones.

    Args:
        name: The name in the counts and in the access log.
        processed: Whether the request takes effect nevertheless.
        delay: Seconds before the answer.
        status: The status of the answer; None keeps the emulator's own.
        headers: Headers to set on the answer.
        body: The exact body of the answer, unless HTTP does not allow one; None keeps the
            emulator's own.
        connection: What happens to the connection: it is "kept"; "reset" without an answer; "cut"
            off during the answer; "closed" after it without notice; or "deaf": it stays open, but
            nothing more is read.
        trickle: Seconds before each byte of the body.
        wire: A function that takes the bytes of the answer, and yields the bytes to send instead,
            with seconds to wait and :class:`Idle` between them. `trickle` has no effect then.
        pages: Where the ``next`` link of a list leads: "elsewhere", to another host; "again", to
            the same page; or "overlapping", to a page that begins with the last event of this one.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator, ManualClock
        >>> clock = ManualClock()
        >>> faults = [
        ...     Fault.slow(2.5),
        ...     Fault.reset(processed=True),
        ...     Fault.cut_short(),
        ...     Fault.trickling(0.1),
        ...     Fault.trickling_head(0.01),
        ...     Fault.interim(2),
        ...     Fault.answered_twice(),
        ...     Fault.wrong_length("too short"),
        ...     Fault.dropped(after=1),
        ...     Fault.failing(502, html=True),
        ...     Fault.rate_limited(retry_after=7),
        ...     Fault.other_version("2.0"),
        ...     Fault(name="out of order", processed=False, status=503, delay=1),
        ... ]
        >>> emulator = Emulator(clock=clock, faults=faults)
        >>> client = DataEventsClient("token", transport=emulator.transport(), clock=clock)
        >>> for number in range(10):
        ...     client.create("placed-order", user_id="314159", created_at=1671028894 + number)
        >>> sum(emulator.counts.faults.values()), emulator.counts.stored
        (13, 10)
    """

    name: str
    processed: bool = True
    delay: float = 0.0
    status: int | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    body: bytes | None = None
    connection: Literal["kept", "reset", "cut", "closed", "deaf"] = "kept"
    trickle: float = 0.0
    wire: Wire | None = attrs.field(default=None, eq=False)
    pages: Literal["elsewhere", "again", "overlapping"] | None = None

    @classmethod
    def slow(cls, seconds: float, *, processed: bool = True) -> Fault:
        """Delays the answer.

        Args:
            seconds: Seconds before the answer.
            processed: Whether the request takes effect.
        """
        return cls(name="slow", delay=seconds, processed=processed)

    @classmethod
    def reset(cls, *, processed: bool = False) -> Fault:
        """Resets the connection, before or after the request is processed.

        Args:
            processed: Whether the request takes effect.
        """
        name = "reset after processing" if processed else "reset"
        return cls(name=name, processed=processed, connection="reset")

    @classmethod
    def cut_short(cls) -> Fault:
        """Processes the request; only a part of the answer arrives."""
        return cls(name="cut short", connection="cut")

    @classmethod
    def trickling(cls, seconds: float = 1.0) -> Fault:
        """Processes the request; the body of the answer arrives byte by byte.

        Args:
            seconds: Seconds before each byte.
        """
        return cls(name="trickling", trickle=seconds)

    @classmethod
    def trickling_head(cls, seconds: float = 0.01, *, endless: bool = False) -> Fault:
        """Processes the request; the status line and the headers arrive byte by byte.

        Args:
            seconds: Seconds after each byte.
            endless: Whether the last header never ends.
        """
        name = "endless trickling head" if endless else "trickling head"
        return cls(name=name, wire=partial(trickle_head, seconds=seconds, endless=endless))

    @classmethod
    def interim(cls, number: float = 3, *, every: float = 0.0) -> Fault:
        """Processes the request; answers with status 1xx arrive before the answer.

        Args:
            number: The number of 1xx answers; ``math.inf`` for an endless number.
            every: Seconds after each of them.

        Raises:
            ValueError: `number` is endless and `every` is not positive.
        """
        if number == math.inf and not every > 0:
            raise ValueError(f"every must be greater than 0 if number is infinite, not {every}")
        name = "endless 1xx answers" if number == math.inf else "1xx answers"
        return cls(name=name, wire=partial(interim, number=number, every=every))

    @classmethod
    def answered_twice(cls, *, after: float | None = None) -> Fault:
        """Processes the request; the answer arrives twice, and nothing more is read.

        Further requests on the connection are lost: a client must not take the second answer for
        that of another request. A transport gives each request a separate connection, and so one
        answer.

        Args:
            after: Seconds for which the connection is idle before the second answer; None sends
                both in one piece.
        """
        name = "answered twice" if after is None else "answered twice, later"
        return cls(name=name, wire=partial(answer_twice, after=after), connection="deaf")

    @classmethod
    def wrong_length(cls, length: WrongLength) -> Fault:
        """Processes the request; the body of the answer is longer or shorter than declared.

        Args:
            length: The mistake. ``Content-Length`` is "too long", "too short" or "not a number", or
                there are "two" of them; or the body ends within a chunk ("cut chunk").
        """
        return cls(
            name=f"wrong length: {length}",
            wire=partial(misdeclare, length=length),
            connection="closed" if length == "cut chunk" else "kept",
        )

    @classmethod
    def dropped(cls, after: float = 0.0) -> Fault:
        """Processes and answers the request; the connection is closed after being idle.

        It has no effect on a transport.

        Args:
            after: Seconds for which the connection is idle.
        """
        return cls(
            name="dropped while idle",
            wire=partial(drop_when_idle, after=after),
            connection="closed",
        )

    @classmethod
    def redirected(cls, location: str = "/events", *, status: int = 307) -> Fault:
        """Redirects the client to another address, as a server or a proxy does.

        Args:
            location: The address, in the header ``Location``.
            status: The status of the answer.

        Example:
            >>> from intercom_data_events import APIStatusError, DataEventsClient
            >>> from intercom_data_events.emulator import Emulator
            >>> emulator = Emulator(faults=[Fault.redirected("https://elsewhere.example/events")])
            >>> client = DataEventsClient("token", transport=emulator.transport())
            >>> try:
            ...     client.create("placed-order", user_id="314159")
            ... except APIStatusError as error:
            ...     print(error.status_code)
            307
        """
        return cls(
            name=f"redirected by {status}",
            processed=False,
            status=status,
            headers={"Location": location},
            body=b"",
        )

    @classmethod
    def failing(cls, status: int = 500, *, processed: bool = False, html: bool = False) -> Fault:
        """Reports a failure, as a server or a proxy does, in HTML or without a body.

        Args:
            status: The status of the answer.
            processed: Whether the request takes effect.
            html: Whether the body is an HTML page.
        """
        return cls(
            name=f"{status} after processing" if processed else str(status),
            processed=processed,
            status=status,
            headers={"Content-Type": "text/html"} if html else {},
            body=HTML if html else b"",
        )

    @classmethod
    def rate_limited(cls, *, retry_after: float | str | None = None) -> Fault:
        """Answers with status 429, without the API's headers about the rate limit.

        Args:
            retry_after: The value of ``Retry-After``: seconds, or a string such as a date; None to
                send no such header.
        """
        refusal = RefusalError(429, "rate_limit_exceeded", "Exceeded rate limit")
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return cls(
            name="429",
            processed=False,
            status=429,
            headers={"Content-Type": "application/json; charset=utf-8", **headers},
            body=json.dumps(refusal.document("00000000-0000-4000-9000-000000000429")).encode(),
        )

    @classmethod
    def other_version(cls, version: str = "1.0") -> Fault:
        """Echoes another API version in the answer.

        Args:
            version: The version in ``Intercom-Version``.
        """
        return cls(name="other version", headers={"Intercom-Version": version})

    @classmethod
    def misleading(cls, pages: Literal["elsewhere", "again", "overlapping"]) -> Fault:
        """Gives a list a wrong ``next`` link.

        Args:
            pages: Where the link leads: "elsewhere", "again" or "overlapping".

        Example:
            >>> from intercom_data_events import DataEventsClient
            >>> from intercom_data_events.emulator import Emulator
            >>> emulator = Emulator(faults=[None, None, Fault.misleading("elsewhere")])
            >>> client = DataEventsClient("token", transport=emulator.transport())
            >>> client.create("placed-order", user_id="314159")
            >>> client.create("paid-order", user_id="314159")
            >>> len(list(client.list(user_id="314159", per_page=1)))  # From Intercom's host only.
            2
        """
        return cls(name=f"next page {pages}", pages=pages)


#: One fault of each kind that suits any request. None delays an event for longer than a second.
#:
#: Example:
#:     >>> from intercom_data_events import DataEventsClient
#:     >>> from intercom_data_events.emulator import Emulator, ManualClock
#:     >>> clock = ManualClock()
#:     >>> emulator = Emulator(clock=clock, faults=FAULTS)
#:     >>> client = DataEventsClient("token", transport=emulator.transport(), clock=clock)
#:     >>> patient = client.with_options(max_retries=20, deadline=600)
#:     >>> for second in range(len(FAULTS)):
#:     ...     patient.create("placed-order", user_id="314159", created_at=1671028894 + second)
#:     >>> emulator.counts.stored == len(FAULTS) == sum(emulator.counts.faults.values())
#:     True
FAULTS: Sequence[Fault] = (
    Fault.slow(0.2),
    Fault.reset(),
    Fault.reset(processed=True),
    Fault.cut_short(),
    Fault.trickling(0.005),
    Fault.failing(408),
    Fault.failing(500),
    Fault.failing(500, processed=True),
    Fault.failing(502, html=True),
    Fault.failing(503),
    Fault.failing(504, processed=True, html=True),
    Fault.failing(520),
    Fault.failing(524, processed=True, html=True),
    Fault.rate_limited(),
    Fault.rate_limited(retry_after=1),
    Fault.other_version(),
)

#: One fault of each kind in which a server breaks the rules of HTTP, or uses little-known ones. The
#: faults with "endless" in their name end only when the client gives up.
#:
#: Example:
#:     >>> from intercom_data_events import DataEventsClient
#:     >>> from intercom_data_events.emulator import Emulator
#:     >>> emulator = Emulator(faults=PROTOCOL_FAULTS)
#:     >>> client = DataEventsClient("token", transport=emulator.transport())
#:     >>> client.create("placed-order", user_id="314159")
#:     >>> emulator.counts.faults
#:     {'answered twice': 1}
PROTOCOL_FAULTS: Sequence[Fault] = (
    Fault.answered_twice(),
    Fault.answered_twice(after=0.05),
    Fault.interim(),
    Fault.interim(math.inf, every=0.05),
    Fault.trickling_head(0.002),
    Fault.trickling_head(0.05, endless=True),
    Fault.wrong_length("too long"),
    Fault.wrong_length("too short"),
    Fault.wrong_length("not a number"),
    Fault.wrong_length("two"),
    Fault.wrong_length("cut chunk"),
    Fault.dropped(0.02),
    Fault.redirected(),
    Fault.redirected("http://elsewhere.example/events", status=302),
)


def random_faults(
    share: float = 0.2, *, seed: int | None = None, among: Sequence[Fault] = FAULTS
) -> Iterator[Fault | None]:
    """Returns an endless plan of faults, in which a share of the requests fail at random.

    Args:
        share: The share of the requests that fail, from 0 to 1.
        seed: The same seed gives the same plan; None gives another plan each time.
        among: The faults to choose from, each with the same probability.

    Raises:
        ValueError: `share` is not from 0 to 1, or `among` is empty.

    Example:
        >>> plan = random_faults(0.5, seed=1)
        >>> [fault and fault.name for fault in (next(plan), next(plan), next(plan))]
        ['reset after processing', 'other version', None]
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1, not {share}")
    if not among:
        raise ValueError("among must contain at least one fault")
    return _random_faults(share, random.Random(seed), among)  # noqa: S311  # guards nothing


def _random_faults(
    share: float, source: random.Random, among: Sequence[Fault]
) -> Iterator[Fault | None]:
    while True:
        yield source.choice(among) if source.random() < share else None


def fault_of(answer: httpx.Response) -> Fault | None:
    """The fault to play while an answer is sent, or None."""
    fault = answer.extensions.get("fault")
    return fault if isinstance(fault, Fault) else None


def faulty(fault: Fault, answer: httpx.Response) -> httpx.Response:
    """The answer with a fault's changes; the sender plays those of the connection."""
    status = answer.status_code if fault.status is None else fault.status
    body = answer.content if fault.body is None else fault.body
    if fault.trickle and not body:
        body = BLANKS
    bodiless = answer.request.method == "HEAD" or status in (204, 304)
    if bodiless:
        body = b""
    headers = answer.headers.copy()
    # Set from the body, which a fault can replace.
    headers.pop("Content-Length", None)
    if body or (fault.wire is not None and not bodiless):
        headers["Content-Length"] = str(len(body))
    headers.update(fault.headers)
    response = httpx.Response(
        status,
        headers=headers,
        stream=httpx.ByteStream(body),
        request=answer.request,
        extensions={"fault": fault},
    )
    # A body that does not match its headers is the client's concern.
    with suppress(httpx.DecodingError):
        response.read()
    return response


def body_of(response: httpx.Response) -> bytes:
    """The body as it is sent, not decoded."""
    return b"".join(cast("httpx.ByteStream", response.stream))


def misled(
    kind: str, document: dict[str, JSON], url: httpx.URL, shorter: dict[str, JSON]
) -> dict[str, JSON]:
    """A list with a wrong `next` link.

    Args:
        kind: The value of `Fault.pages`.
        document: The list.
        url: The URL of the request for it.
        shorter: The same list with a page that is one event shorter.
    """
    pages = document.get("pages")
    if not isinstance(pages, dict) or not isinstance(pages.get("next"), str):
        return document
    following = httpx.URL(str(pages["next"]))
    if kind == "elsewhere":
        following = following.copy_with(host="elsewhere.example")
    elif kind == "again":
        following = url
    else:
        others = shorter.get("pages")
        if isinstance(others, dict) and isinstance(others.get("next"), str):
            before = httpx.URL(str(others["next"])).params["before"]
            following = following.copy_set_param("before", before)
    return {**document, "pages": {**pages, "next": str(following)}}
