"""The steps that an exchange asks of a driver, and the answers that it gets back."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

from intercom_data_events._sending.engines import RawResponse

if TYPE_CHECKING:
    from intercom_data_events._sending.auth import Secret
    from intercom_data_events._sending.engines import Request
    from intercom_data_events.clock import Alarm, AsyncAlarm
    from intercom_data_events.errors import APIResponse

T = TypeVar("T")


class Authorize(NamedTuple):
    """A step: call the caller's function for the access token, in at most the given seconds."""

    seconds: float


class Send(NamedTuple):
    """A step: send a request through an engine, and read the answer."""

    request: Request
    engine: Any


class Wait(NamedTuple):
    """A step: wait for the given seconds, or until the alarm is set."""

    seconds: float
    alarm: Alarm | AsyncAlarm | None


class Answer(NamedTuple, Generic[T]):
    """A success: as received, and as read."""

    raw: RawResponse
    parsed: T

    def response(self) -> APIResponse[T]:
        """Returns it as a caller of a raw client sees it."""
        return self.raw.with_parsed(self.parsed)


#: Yields steps; the driver sends back the answer or the error of a :class:`Send`, and the token
#: of an :class:`Authorize`, whose error it throws.
Steps: TypeAlias = Generator[Authorize | Send | Wait, "RawResponse | Exception | Secret | None", T]
