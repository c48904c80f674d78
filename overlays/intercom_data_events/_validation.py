"""Checks of input that several modules share, and the common form of their messages."""

from __future__ import annotations

import json
import math
import sys
from operator import index
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    import httpx

E = TypeVar("E", bound=Exception)

#: The remedy for a string that UTF-8 cannot encode.
SURROGATE = "remove the lone surrogate"
#: Inferred: JSON parsers read integers of at most 64 bits.
BEYOND = 2**63
#: Floats below it represent all integers exactly.
EXACT = 2**53
#: Characters: more than a number or an ISO 8601 time has.
LONGEST_NUMBER = 40
# Values of one answer. Each takes up to 30 times its bytes in memory; an event has about 20.
_MOST_VALUES = 500_000
# Bytes of an answer that is not pure ASCII. One other character makes each character of a string
# take up to 4 bytes, and the body and the string are in memory at the same time.
_MOST_WIDE = 16 * 1024 * 1024
# Digits: Python's default limit, which a program can change. Conversion takes quadratic time.
_MOST_DIGITS = sys.int_info.default_max_str_digits


def short_repr(value: object) -> str:
    """Returns any value as a message shows it, printable and cut to 80 characters."""
    try:
        text = printable(repr(value), 80)
    except Exception:  # noqa: BLE001  # an integer of 5,000 digits, or a __repr__ that fails
        text = f"a value of type {type(value).__name__} that cannot be shown"
    return text if len(text) <= 80 else f"{text[:79]}…"


def plain_repr(value: object) -> str:
    """Returns a value as :func:`short_repr` does, but in JSON where Python differs."""
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        value = int(value)
    if value is None or isinstance(value, bool | list | dict):
        try:
            text = printable(json.dumps(value, ensure_ascii=False, default=str), 80)
        except (ValueError, TypeError, RecursionError):
            return short_repr(value)
        return text if len(text) <= 80 else f"{text[:79]}…"
    return short_repr(value)


def printable(text: str, longest: int | None = 500) -> str:
    """Returns text from outside so that it cannot forge log lines or control a terminal.

    Line ends, control characters, bidirectional marks, lone surrogates and all other non-printable
    characters are escaped.

    Args:
        text: Any string.
        longest: Characters to which the text is cut; None for all of it.
    """
    if longest is not None:
        text = text[: longest + 1]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if longest is None or len(text) <= longest else f"{text[:longest]}…"


def escape(error: BaseException) -> None:
    """Makes the message of another library's exception printable, because tracebacks show it."""
    error.args = tuple(printable(one, None) if isinstance(one, str) else one for one in error.args)


def short_email(address: str) -> str:
    """Returns the part of an e-mail address that messages show, because it is personal."""
    at = address.rfind("@")
    return f"{address[:1]}…{address[at:] if at >= 0 else ''}"


class Flaw(NamedTuple):
    """What is wrong with a value, apart from its name, which the command line replaces.

    Attributes:
        path: The name of the argument, followed by keys if it is metadata; empty for no name.
        said: What must be, what was given, and the remedy.
        plain: The same for readers who do not write Python, such as users of the command line.
    """

    path: tuple[str, ...]
    said: str
    plain: str

    def error(self, kind: type[E]) -> E:
        """Returns an error that says it; :func:`flaw_of` returns the parts again."""
        name, keys = "".join(self.path[:1]), self.path[1:]
        error = kind(f"{name}{''.join(f'[{short_repr(key)}]' for key in keys)} {self.said}".strip())
        vars(error)["_flaw"] = self
        return error


def flaw_of(error: BaseException) -> Flaw | None:
    """Returns what an error of :meth:`Flaw.error` says; None for any other error."""
    flaw: Flaw | None = vars(error).get("_flaw")
    return flaw


def flawed(error: type[E], name: str, said: str, plain: str | None = None) -> E:
    """Returns an error about an argument; `plain` is as in :class:`Flaw`, by default the same."""
    return Flaw((name,), said, said if plain is None else plain).error(error)


def invalid(
    error: type[E],
    must: str,
    value: object,
    remedy: str = "",
    *,
    plain: str | None = None,
    plain_remedy: str | None = None,
) -> E:
    """Returns an error that says what must be, what was given, and the remedy, if any.

    Args:
        error: The type of the error.
        must: The name of the value, and what it must be: "count must be at least 1".
        value: What was given.
        remedy: What to do; empty if that is clear.
        plain: What it must be, for readers who do not write Python; None for the same.
        plain_remedy: The remedy for these readers; None for the same.
    """
    said = f"{short_repr(value)}{_after(remedy)}"
    shown = f"{plain_repr(value)}{_after(remedy if plain_remedy is None else plain_remedy)}"
    return _must(error, must, said, plain, shown)


#: How readers who do not write Python call values of these types.
_JSON_TYPES: dict[type, str] = {str: "a string", list: "a list", dict: "an object"}


def invalid_type(
    error: type[E], must: str, value: object, remedy: str = "", *, plain: str | None = None
) -> E:
    """Returns the error for a value of a wrong type, of which it names only the type.

    The arguments are those of :func:`invalid`.
    """
    kind = f"a value of type {type(value).__name__}"
    # Strings and containers are never kept: they may be secret, and errors are pickled.
    shown = _JSON_TYPES.get(type(value), kind)
    if value is None or isinstance(value, bool | int | float):
        shown = plain_repr(value)
    return _must(error, must, f"{kind}{_after(remedy)}", plain, shown)


def _must(error: type[E], must: str, said: str, plain: str | None, shown: str) -> E:
    name, rest = must.split(" must ", 1)
    sentence = f"must {rest}"
    return flawed(
        error,
        name,
        f"{sentence}, not {said}",
        f"{sentence if plain is None else plain}, not {shown}",
    )


def _after(remedy: str) -> str:
    return f"; {remedy}" if remedy else ""


def plain_text(value: str) -> str | None:
    """Returns a string as an exact ``str``, or None if UTF-8 cannot encode it.

    Some encoders write members of a ``StrEnum``, and other subclasses of ``str``, as their Python
    names.
    """
    text = str.__str__(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # It contains a lone surrogate.
            return None
    return text


def checked_text(value: str, name: str, error: type[Exception]) -> str:
    """Returns a string as an exact ``str``; raises the error if UTF-8 cannot encode it."""
    text = plain_text(value)
    if text is None:
        raise invalid(error, f"{name} must be a string that UTF-8 can encode", value, SURROGATE)
    return text


def whole_number(value: Any) -> int | None:
    """Returns an integer of at most 64 bits, which may be of another library's type, or None."""
    if isinstance(value, bool):
        return None
    try:
        number = index(value)
    except Exception:  # noqa: BLE001  # another library may raise anything; numpy does
        return None
    return number if -BEYOND <= number < BEYOND else None


def number(value: Any) -> int | float | None:
    """Returns a number, which may be of another library's type, as an equal int or float, or None.

    A fraction must survive the conversion to a float: ``Decimal("29.99")`` does, a third does not.
    """
    if isinstance(value, float):
        return float.__float__(value)
    found = whole_number(value)
    if found is not None or isinstance(value, int):
        return found
    kind, of_numpy = type(value), dtype_kind(value)
    # numpy's bools and times can be converted to float, too.
    if of_numpy not in ("", "f") or not hasattr(kind, "__float__") or hasattr(kind, "__len__"):
        return None
    try:
        # Before int(), because the integer of a Decimal such as 1E+999999999 would fill the memory.
        near = float(value)
        if not of_numpy and abs(near) <= BEYOND and int(value) == value:
            return whole_number(int(value))
        return near if not math.isfinite(near) or kind(repr(near)) == value else None
    except Exception:  # noqa: BLE001  # another library may raise anything
        return None


def is_missing(value: object) -> bool:
    """Whether a value stands for a missing one: None, NaN, or pandas' NA and NaT."""
    if value is None or type(value) is str:
        return value is None
    try:
        return type(value).__name__ == "NAType" or bool(value != value)
    except Exception:  # noqa: BLE001  # another library may raise anything
        return False


def dtype_kind(value: object) -> str:
    """Returns numpy's letter for the type of one of its scalars, or an empty string."""
    try:
        kind = getattr(getattr(value, "dtype", None), "kind", "")
        return kind if isinstance(kind, str) and not hasattr(value, "__len__") else ""
    except Exception:  # noqa: BLE001  # as above
        return ""


def read_number(value: object) -> int | float | None:
    """Returns a finite number from an answer, which may be in a string, or None.

    A number without a fraction becomes an integer, unless it is a float that may have lost digits.
    Integers have at most 64 bits and strings are short, so that reading is fast.
    """
    if isinstance(value, str):
        text = value.strip()
        digits = text.removeprefix("-").replace(".", "", 1)
        if len(text) > LONGEST_NUMBER or not (digits.isascii() and digits.isdecimal()):
            return None
        value = float(text) if "." in text else int(text)
    if isinstance(value, float):
        if not value.is_integer() or abs(value) >= EXACT:
            return value if math.isfinite(value) else None
        value = int(value)
    return whole_number(value)


def decode_json(content: bytes, most: int = _MOST_VALUES) -> object:
    """Decodes JSON from outside; an integer with too many digits to convert becomes a string.

    Args:
        content: The JSON.
        most: The largest number of values.

    Raises:
        ValueError: It is not JSON, or it is too large.
        RecursionError: Its values are nested too deeply.
    """
    # An estimate: too low by one, and too high if strings contain these characters. Short bodies
    # are not counted, because counting takes time.
    if len(content) > most and sum(map(content.count, (b",", b"[", b"{"))) > most:
        raise ValueError(f"it has more than {most:,} values")
    if len(content) > _MOST_WIDE and (not content.isascii() or b"\\u" in content):
        raise ValueError(f"it has non-ASCII characters and more than {_MOST_WIDE >> 20} MiB")
    is_bounded = 0 < sys.get_int_max_str_digits() <= _MOST_DIGITS
    try:
        return json.loads(content, parse_int=None if is_bounded else _integer)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:  # More digits than that.
        return json.loads(content, parse_int=_integer)


def _integer(digits: str) -> int | str:
    try:
        return int(digits) if len(digits) <= _MOST_DIGITS else digits
    except ValueError:
        return digits


def has_host(url: httpx.URL) -> bool:
    """Whether the host and port of an address are well-formed."""
    try:
        is_escaped = "%" in url.host and ":" not in url.host  # IPv6 addresses can have a zone.
    except ValueError:
        return False  # An internationalized name that cannot be decoded.
    labels = url.raw_host.decode("ascii").removesuffix(".").split(".")
    is_valid = all(0 < len(label) < 64 for label in labels) and not is_escaped
    return is_valid and (url.port is None or 0 < url.port < 65536)
