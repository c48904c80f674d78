"""An answer of the API; a module of its own, as a program without failures needs none."""

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
    """An answer of the API, as received and as read.

    Attributes:
        status_code: The HTTP status, such as 202.
        headers: The answer's headers; names ignore case.
        content: The body, decompressed.
        parsed: What the method returns without ``with_raw_response``; None on an error.
    """

    status_code: int
    headers: httpx.Headers = field(repr=False)
    content: bytes = field(repr=False)
    parsed: T_co

    @property
    def request_id(self) -> str | None:
        """The id that Intercom's support asks for, from the header or the body of an error.

        It is printable, and cut to 500 characters.
        """
        given = self.headers.get("x-request-id") or _object(self.content).get("request_id")
        return printable(given) if isinstance(given, str) else None

    @property
    def text(self) -> str:
        """The body as a string; bytes that are not UTF-8 become replacement characters."""
        return self.content.decode(errors="replace")


def _object(content: bytes) -> dict[str, object]:
    try:
        decoded = decode_json(content)
    except (ValueError, RecursionError):
        return {}  # Observed: proxies in front of Intercom answer with HTML, or with nothing.
    return decoded if isinstance(decoded, dict) else {}
