"""Refusals of the emulated API, in the form that Intercom documents for all failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"


class RefusalError(Exception):
    """Answers a request with an `error.list`; the request has changed nothing."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.headers = dict(headers or {})

    def document(self, request_id: str) -> dict[str, JSON]:
        """The body of the answer."""
        error: dict[str, JSON] = {"code": self.code, "message": self.message}
        if self.field is not None:
            error["field"] = self.field
        return {"type": "error.list", "request_id": request_id, "errors": [error]}


# Intercom documents these two codes and the key `field`, but not the messages: those are inferred.
def missing(field: str, message: str | None = None) -> RefusalError:
    """A 400 for a field that is missing."""
    return RefusalError(400, "parameter_not_found", message or f"{field} is required", field=field)


def invalid(field: str, message: str) -> RefusalError:
    """A 400 for a field with a wrong value."""
    return RefusalError(400, "parameter_invalid", message, field=field)
