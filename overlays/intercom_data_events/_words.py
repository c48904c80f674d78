"""Reads the messages and codes in an answer to a failure: Intercom's, a gateway's or a web page's.

An answer is untrusted: its words are bounded, on one line, and cannot control a terminal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from intercom_data_events._validation import decode_json, printable

# Characters of one message, reasons of one answer, and how deeply they may be nested in it.
_LONGEST = 500
_MOST = 20
_DEEPEST = 8
# Values of a whole body; a body with more is not searched.
_MOST_VALUES = 20_000
# Bytes: how much of a failure's answer an engine reads at most. Characters: the words of a page are
# at its beginning.
_LARGEST = 1024 * 1024
_LARGEST_PAGE = 64 * 1024

# The keys of bodies, by precedence. Observed: those of Intercom, of gateways and of frameworks,
# RFC 9457 (problem+json) and RFC 6749 (OAuth).
_MESSAGES = (
    "message", "detail", "error_description", "error_message", "errormessage", "description", "msg",
    "reason",
)  # fmt: skip
_HEADS = ("title", "error")
_LISTS = ("errors", "error")
_FIELDS = ("field", "param", "parameter")
_UNNAMED = {*_MESSAGES, *_HEADS, *_LISTS, "code"}
# Keys that say nothing about the failure.
_MARKS = {"type", "request_id", "status", "instance", "id"}
# "invalid_token" alone is a code; "Forbidden" is not.
_CODE = re.compile(r"[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)+")
_WORD = re.compile(r"[\w.-]{1,100}")

_TAG = re.compile(r"<[^<>]*>")
_HEADING = re.compile(
    r"<(title|h[1-6])\b[^<>]*>([^<]*(?:<(?!/?(?:title|h[1-6])\b)[^<]*)*)", re.IGNORECASE
)
# An element without an end extends to the end of the page, so that no part is searched twice.
_HIDDEN = re.compile(
    r"<!--(?:>|.*?-->|.*)|<(script|style)\b(?:.*?</\1\b[^<>]*>?|.*)", re.IGNORECASE | re.DOTALL
)


class Reason(NamedTuple):
    """One of the reasons that an answer gives."""

    message: str | None = None
    code: str | None = None
    field: str | None = None

    def __str__(self) -> str:
        """Returns all of it for a message."""
        said = self.message or self.code or ""
        if self.code and self.code != said:
            said = f"{said} ({self.code})"
        return f"{said} at {self.field}" if self.field else said


class Words(NamedTuple):
    """What an answer says.

    Attributes:
        reasons: The reasons, in order.
        of_intercom: Whether they are Intercom's own list of errors, not the words of a proxy or
            another server.
    """

    reasons: tuple[Reason, ...] = ()
    of_intercom: bool = False

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes, in order."""
        return tuple(reason.code for reason in self.reasons if reason.code)

    @property
    def intercoms_codes(self) -> tuple[str, ...]:
        """The codes, if they are Intercom's own."""
        return self.codes if self.of_intercom else ()

    @property
    def message(self) -> str | None:
        """The first message, or None."""
        return next((reason.message for reason in self.reasons if reason.message), None)

    @property
    def field(self) -> str | None:
        """The first field, or None."""
        return next((reason.field for reason in self.reasons if reason.field), None)


def read_words(content: bytes) -> Words:
    """Returns what the body of an answer says; no reasons if it has no words."""
    if not content.strip() or len(content) > 2 * _LARGEST:
        return Words()
    try:
        decoded = decode_json(content, _MOST_VALUES)
    except RecursionError:
        return Words()
    except ValueError as error:
        is_text = isinstance(error, json.JSONDecodeError | UnicodeDecodeError)
        if not is_text and not content.lstrip().startswith(b"<"):
            return Words()  # It has too many values.
        message = _clean(_page(content))
        return Words((Reason(message),) if message else ())
    errors = decoded.get("errors") if isinstance(decoded, dict) else None
    return Words(
        tuple(islice(_reasons(decoded), _MOST)),
        isinstance(errors, list) and any(isinstance(one, dict) for one in errors),
    )


def _reasons(value: object, at: str | None = None, depth: int = 0) -> Iterator[Reason]:
    """Yields the reasons in a part of a body; `at` is the field that it is about."""
    if depth > _DEEPEST:
        return
    if isinstance(value, list):
        for one in value:
            yield from _reasons(one, at, depth + 1)
    elif isinstance(value, dict):
        lower = {key.lower(): one for key, one in value.items()}
        own = _own(lower, at, depth)
        if own.message or own.code:
            yield own
        nested = [lower[key] for key in _LISTS if isinstance(lower.get(key), dict | list)]
        if nested:
            for one in nested:
                read = _fields if _is_of_fields(one) else _reasons
                yield from read(one, own.field, depth + 1)
        elif not (own.message or own.code):
            yield from _fields(value, at, depth, but=_UNNAMED)
    elif message := _scalar(value):
        yield Reason(message, field=at)


def _is_of_fields(value: Any) -> bool:
    """Whether a part of a body has reasons by field, instead of being a reason itself."""
    if not isinstance(value, dict):
        return False
    keys = {key.lower() for key in value}
    is_reason = keys & {"message", "detail", "description", "code", "type"}
    return not is_reason or all(isinstance(one, list) for one in value.values())


def _fields(
    value: Any, at: str | None, depth: int, *, but: Collection[str] = ()
) -> Iterator[Reason]:
    """Yields the reasons in an object whose keys are fields, except some keys."""
    for key, one in value.items():
        if not (but and key in _MARKS):
            yield from _reasons(one, at if key.lower() in but else _clean(key), depth + 1)


def _own(value: Mapping[str, object], at: str | None, depth: int) -> Reason:
    """Returns the reason that an object itself is."""
    message, code = _first(value, _MESSAGES), value.get("code")
    if depth and not code:
        # Some servers call the code of a reason its type; the type of a whole body is not a code.
        code = value.get("type")
    code = code if isinstance(code, str) and _WORD.fullmatch(code) else None
    for key in _HEADS:
        head = _scalar(value.get(key))
        if head and not code and key == "error" and _CODE.fullmatch(head):
            code, message = head, message or head
        elif head and head not in (code, message):
            message = f"{head}: {message}" if message else head
    return Reason(message, code, _first(value, _FIELDS) or at)


def _first(value: Mapping[str, object], keys: tuple[str, ...]) -> str | None:
    """Returns the first string at one of the keys; the strings of a list are joined."""
    for key in keys:
        if (found := value.get(key)) is None:
            continue
        parts = found[:_MOST] if isinstance(found, list) else [found]
        if text := _clean("; ".join(filter(None, map(_scalar, parts)))):
            return text
    return None


def _scalar(value: object) -> str | None:
    """Returns a string or a number as a string; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return _clean(str(value))


def _clean(text: str) -> str | None:
    """Returns a string on one line, bounded and printable; None if it has no words."""
    # More than is kept, because runs of whitespace become one space.
    return printable(" ".join(text[: 20 * _LONGEST].split()), _LONGEST) or None


def _decoded(content: bytes) -> str:
    """Decodes a body that is not JSON; old servers name no encoding."""
    encoding = json.detect_encoding(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        return content.decode("cp1252" if encoding == "utf-8" else encoding, errors="replace")


def _page(content: bytes) -> str:
    """Returns the words of a body that is not JSON: a title, else a heading, else its text."""
    text = _decoded(content)[:_LARGEST_PAGE]
    if not text.lstrip("\ufeff \t\r\n").startswith("<"):
        return "" if b"\0" in content else text  # A zero byte means that it is binary.
    from html import unescape

    shown = _HIDDEN.sub(" ", text).replace("<![CDATA[", " ").replace("]]>", " ")
    for _, inside in islice(_HEADING.findall(shown), _MOST):
        if found := unescape(_TAG.sub(" ", inside)).strip():
            return found
    return unescape(_TAG.sub(" ", shown))
