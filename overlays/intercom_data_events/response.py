"""An answer from the API. Programs without failures do not load this module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import field, frozen

from intercom_data_events._validation import decode_json, printable

if TYPE_CHECKING:
    import httpx

__all__ = ["APIResponse"]

T_co = TypeVar("T_co", covariant=True)


@frozen(eq=False)
class APIResponse(Generic[T_co]):
    """An answer from the API, as received and as parsed.

    Attributes:
        status_code: The HTTP status, such as 202.
        headers: The headers of the answer. Names are case-insensitive.
        content: The body as bytes, decompressed.
        parsed: The value that the verb returns without ``with_raw_response``; None in an error.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> client.create("placed-order", user_id="314159")
        >>> response = client.with_raw_response.summary(user_id="314159")
        >>> response.status_code, response.parsed.events[0].count
        (200, 1)
        >>> response.text[:24]
        '{"type": "event.summary"'
    """

    status_code: int
    headers: httpx.Headers = field(repr=False)
    content: bytes = field(repr=False)
    parsed: T_co

    @property
    def request_id(self) -> str | None:
        """The id that Intercom's support asks for, or None if the answer has none.

        It is read from the header ``X-Request-Id``, otherwise from the body of an error. It is safe
        to print, and cut to 500 characters.
        """
        given = self.headers.get("x-request-id") or _object(self.content).get("request_id")
        return printable(given) if isinstance(given, str) else None

    @property
    def text(self) -> str:
        """The body as a string; bytes that are not valid UTF-8 become replacement characters."""
        return self.content.decode(errors="replace")


def _object(content: bytes) -> dict[str, object]:
    try:
        decoded = decode_json(content)
    except (ValueError, RecursionError):
        return {}  # Observed: proxies in front of Intercom answer with HTML, or with nothing.
    return decoded if isinstance(decoded, dict) else {}
