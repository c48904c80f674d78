"""Checks of input that several modules share, and how messages show what is wrong or unknown."""

from __future__ import annotations

import json
import math
import sys
from operator import index
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import httpx

E = TypeVar("E", bound=Exception)

#: What UTF-8 cannot encode, as messages call it.
SURROGATE = "a lone surrogate, which UTF-8 cannot encode"
#: Inferred: JSON parsers read integers of at most 64 bits.
BEYOND = 2**63
#: Floats below it have all digits of an integer.
EXACT = 2**53
#: Characters; more than a number has, or a time in ISO 8601.
LONGEST_NUMBER = 40
# Values of one answer, of which each takes up to 30 times its bytes in memory. Events have some 20.
_MOST_VALUES = 500_000
# Bytes of an answer that has other characters than ASCII, of which one makes each character of a
# string take up to 4 bytes. The text and the string are in memory at once.
_MOST_WIDE = 16 * 1024 * 1024
# Digits. Python's own limit, which a program can change: the time grows with their square.
_MOST_DIGITS = sys.int_info.default_max_str_digits


def short_repr(value: object) -> str:
    """Returns any value as a message shows it, printable and cut to 80 characters."""
    try:
        text = printable(repr(value), 80)
    except Exception:  # noqa: BLE001  # an integer of 5,000 digits, or a __repr__ that fails
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 80 else f"{text[:79]}…"


def printable(text: str, longest: int | None = 500) -> str:
    """Returns text from outside so that it cannot forge log lines or control a terminal.

    Line ends, control characters, marks that turn a line's direction, lone surrogates and whatever
    else is not printable are escaped.

    Args:
        text: Any.
        longest: Characters to which the text is cut; None for all of it.
    """
    if longest is not None:
        text = text[: longest + 1]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if longest is None or len(text) <= longest else f"{text[:longest]}…"


def escape(error: BaseException) -> None:
    """Makes printable what an exception of another library says, because tracebacks show it."""
    error.args = tuple(printable(one, None) if isinstance(one, str) else one for one in error.args)


def short_email(address: str) -> str:
    """Returns an e-mail address as a message shows it: personal, so only a part of it."""
    at = address.rfind("@")
    return f"{address[:1]}…{address[at:] if at >= 0 else ''}"


def invalid(error: type[E], must: str, value: object, remedy: str = "") -> E:
    """Returns an error that says what must be, what was given, and the remedy, if any."""
    return error(f"{must}, not {short_repr(value)}{remedy and '; '}{remedy}")


def plain_text(value: str) -> str | None:
    """Returns a string as an exact ``str``, or None where UTF-8 cannot encode it.

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
    """Returns a string as an exact ``str``; raises the error where UTF-8 cannot encode it."""
    text = plain_text(value)
    if text is None:
        raise error(f"{name} must not contain {SURROGATE}: {short_repr(value)}")
    return text


def whole_number(value: Any) -> int | None:
    """Returns an integer of at most 64 bits, also one of another library, or None."""
    if isinstance(value, bool):
        return None
    try:
        number = index(value)
    except Exception:  # noqa: BLE001  # another library may raise anything; so does one of numpy
        return None
    return number if -BEYOND <= number < BEYOND else None


def number(value: Any) -> int | float | None:
    """Returns a number, also one of another library, as the equal int or float, or None.

    A fraction equals a float that reads back as it: ``Decimal("29.99")`` does, a third does not.
    """
    if isinstance(value, float):
        return float.__float__(value)
    found = whole_number(value)
    if found is not None or isinstance(value, int):
        return found
    kind, of_numpy = type(value), dtype_kind(value)
    # Other scalars of numpy are numbers to Python, too, such as its bools and its times.
    if of_numpy not in ("", "f") or not hasattr(kind, "__float__") or hasattr(kind, "__len__"):
        return None
    try:
        # First, because the integer of a Decimal such as 1E+999999999 would fill the memory.
        near = float(value)
        if not of_numpy and abs(near) <= BEYOND and int(value) == value:
            return whole_number(int(value))
        return near if not math.isfinite(near) or kind(repr(near)) == value else None
    except Exception:  # noqa: BLE001  # another library may raise anything
        return None


def is_missing(value: object) -> bool:
    """Whether a value is what a cell without a value is: None, NaN, or pandas' NA and NaT."""
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
    """Returns a finite number of an answer, also one in a string, or None.

    What has no fraction is an integer, but for floats that may have lost digits. Integers have at
    most 64 bits, and strings are short, so that nothing takes long.
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
    """Decodes JSON from outside; an integer of more digits than are converted is a string of them.

    Args:
        content: The JSON.
        most: How many values it may have.

    Raises:
        ValueError: It is not JSON, or it is too large.
        RecursionError: Its values are nested too deeply.
    """
    # It counts one too few, or too many where strings contain these. Short bodies are not counted,
    # because that takes time, too.
    if len(content) > most and sum(map(content.count, (b",", b"[", b"{"))) > most:
        raise ValueError(f"it has more than {most:,} values")
    if len(content) > _MOST_WIDE and (not content.isascii() or b"\\u" in content):
        raise ValueError(f"it has characters beyond ASCII, and more than {_MOST_WIDE >> 20} MiB")
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
    """Whether an address has a host and port to connect to, as far as their form tells."""
    try:
        is_escaped = "%" in url.host and ":" not in url.host  # IPv6 addresses can have a zone.
    except ValueError:
        return False  # An internationalized name that cannot be decoded.
    labels = url.raw_host.decode("ascii").removesuffix(".").split(".")
    is_valid = all(0 < len(label) < 64 for label in labels) and not is_escaped
    return is_valid and (url.port is None or 0 < url.port < 65536)
