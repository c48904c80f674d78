"""The steps that an exchange asks of a driver, and the answers that it gets."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from intercom_data_events._sending.engines import RawResponse

if TYPE_CHECKING:
    from intercom_data_events._sending.engines import Request
    from intercom_data_events._sending.secret import Secret
    from intercom_data_events.clock import Alarm, AsyncAlarm
    from intercom_data_events.response import APIResponse

T = TypeVar("T")


# Plain classes, like those of the engines.


class Authorize:
    """A step: call the caller's function for the access token, within the given seconds."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Send:
    """A step: send a request through an engine, and read the answer."""

    __slots__ = ("engine", "request")

    def __init__(self, request: Request, engine: Any) -> None:
        self.request, self.engine = request, engine


class Wait:
    """A step: wait for the given seconds, or until the alarm is set."""

    __slots__ = ("alarm", "seconds")

    def __init__(self, seconds: float, alarm: Alarm | AsyncAlarm | None) -> None:
        self.seconds, self.alarm = seconds, alarm


class Answer(Generic[T]):
    """A success: as received, and as read."""

    __slots__ = ("parsed", "raw")

    def __init__(self, raw: RawResponse, parsed: T) -> None:
        self.raw, self.parsed = raw, parsed

    def response(self) -> APIResponse[T]:
        """Returns the answer as a caller of a raw client sees it."""
        return self.raw.with_parsed(self.parsed)


#: Yields steps; the driver sends back the answer of a :class:`Send`, the token of an
#: :class:`Authorize`, or the error of either.
Steps: TypeAlias = Generator[
    Authorize | Send | Wait, "RawResponse | Secret[str] | Exception | None", T
]
