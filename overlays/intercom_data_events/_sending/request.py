"""An operation, and the parts of its request: endpoint, query and body."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import httpx

from intercom_data_events.__about__ import __version__
from intercom_data_events._inflating import ACCEPTED
from intercom_data_events._sending.engines import Endpoint

if TYPE_CHECKING:
    from intercom_data_events._sending.engines import RawResponse
    from intercom_data_events._sending.settings import Settings

T = TypeVar("T")

_USER_AGENT = f"intercom-data-events/{__version__} python-httpx/{httpx.__version__}"
# The same JSON as httpx writes.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class Idempotency(Enum):
    """What repeating a request does, in the terms of RFC 9110."""

    #: It changes nothing: a query.
    SAFE = "safe"
    #: Intercom counts both as one: an event, whose time is fixed when it is created.
    IDEMPOTENT = "idempotent"
    #: It may count twice: a summary.
    UNSAFE = "unsafe"


class Operation(Generic[T]):
    """One request to the API and how its answer is read, without I/O.

    A plain class, like those of the engines.

    Attributes:
        parts: The request, as the generated `build_request` returns it.
        read: Returns the verb's result, or raises an error if the answer cannot be read.
        idempotency: What repeating the request does.
        log_context: Returns the identities and the event's name, for messages.
        query: The query to send instead of the one in `parts`, percent-encoded.
    """

    __slots__ = ("idempotency", "log_context", "parts", "query", "read")

    def __init__(
        self,
        parts: Mapping[str, Any],
        read: Callable[[RawResponse], T],
        idempotency: Idempotency,
        log_context: Callable[[], Mapping[str, object]],
        query: str | None = None,
    ) -> None:
        self.parts, self.read, self.idempotency = parts, read, idempotency
        self.log_context, self.query = log_context, query

    @property
    def label(self) -> str:
        """Method and path, for messages; without the query, because that names a contact."""
        return f"{self.parts['method'].upper()} {self.parts['url']}"

    @property
    def changes(self) -> bool:
        """Whether processing it changes anything."""
        return self.idempotency is not Idempotency.SAFE

    @property
    def sent_query(self) -> str:
        """The query that is sent."""
        if self.query is not None:
            return self.query
        params = self.parts.get("params")
        return str(httpx.QueryParams(params)) if params else ""


def endpoint_of(operation: Operation[Any], settings: Settings) -> Endpoint:
    """Returns the endpoint of an operation with these settings."""
    parts = operation.parts
    # Header names are case-insensitive, so each group overrides headers of the same name.
    headers = httpx.Headers({"Accept": "application/json", "User-Agent": _USER_AGENT})
    headers.update(parts.get("headers"))
    headers.update(settings.headers)
    # The engines decompress answers. The libraries would ask for more codings.
    headers["Accept-Encoding"] = ACCEPTED
    # Last, so that nothing overrides the version.
    headers["Intercom-Version"] = settings.version
    return Endpoint(
        parts["method"].upper(), settings.base_url + parts["url"], headers, settings.phases
    )


def body_of(operation: Operation[Any]) -> bytes:
    """Returns the body of a request."""
    body = operation.parts.get("json")
    return b"" if body is None else _encode(body).encode()
