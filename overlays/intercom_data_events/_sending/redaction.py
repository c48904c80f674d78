"""Removes the access token from the words of servers, proxies and libraries, in any encoding.

A server that repeats a token may escape it as JSON, percent-encode it, write it in HTML, or
truncate it. So a regular expression with all forms of each character matches the token's beginning
and as much of the rest as follows; the match is removed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from intercom_data_events._sending.secret import Secret
from intercom_data_events.errors import REMOVED

if TYPE_CHECKING:
    import re

# Characters of the token that reveal it. Intercom's tokens have about 60; a shorter one, as in
# tests, may be a word of an answer.
_LEAST = 16
# Each encoding of a character has one of these. As integers, because these are found faster.
_SIGNS = _BACKSLASH, _PERCENT, _AMPERSAND, _ZERO = b"\\%&\0"
# Bytes: more than one encoded character has.
_LONGEST = 64
#: Bytes: more than a revealing part of the token has, even with the zeros of a repr of UTF-32.
REACH = _LEAST * _LONGEST * 16
# Characters that are searched first, because compiling an expression of more takes milliseconds.
_FIRST = 3


def shows(data: Secret[bytes], token: Secret[str] | None) -> bool:
    """Whether bytes contain the access token, or enough of it to reveal it."""
    if token is None or len(token.value) < _LEAST:
        return False
    if token.value[:_LEAST].encode() in data.value:
        return True
    # Most answers lack all signs, and this is done for each answer.
    if not any(sign in data.value for sign in _SIGNS):
        return False
    if _shows_encoded(data, token):
        return True
    if not (_ZERO in data.value or (_BACKSLASH in data.value and b"\\x00" in data.value)):
        return False
    plain = _without_zeros(data)
    return token.value[:_LEAST].encode() in plain.value or _shows_encoded(plain, token)


def redacted(data: Secret[bytes], token: Secret[str] | None, removed: str = REMOVED) -> bytes:
    """Returns bytes without the access token.

    Args:
        data: The bytes; UTF-16 and UTF-32 with a token in them become ASCII.
        token: The access token.
        removed: The replacement.
    """
    if token is None or not shows(data, token):
        return data.value
    pattern = _pattern(token, len(token.value))
    rest = Secret(pattern.sub(removed.encode(), data.value))
    if shows(rest, token):
        return pattern.sub(removed.encode(), _without_zeros(rest).value)
    return rest.value


def redacted_text(text: str, token: Secret[str] | None) -> str:
    """Returns a string without the access token."""
    data = Secret(text.encode("utf-8", "surrogatepass"))
    return redacted(data, token).decode("utf-8", "surrogatepass")


def _shows_encoded(data: Secret[bytes], token: Secret[str]) -> bool:
    # Before the first sign and after the last one, nothing is encoded.
    found = [at for sign in _SIGNS if (at := data.value.find(sign)) >= 0]
    begin = max(0, min(found, default=0) - _LEAST)
    end = max(map(data.value.rfind, _SIGNS)) + _LONGEST + _LEAST
    return (
        _pattern(token, _FIRST).search(data.value, begin, end) is not None
        and _pattern(token, _LEAST).search(data.value, begin, end) is not None
    )


def _without_zeros(data: Secret[bytes]) -> Secret[bytes]:
    """Returns bytes without the zeros of UTF-16 and UTF-32, which a repr may have escaped."""
    return Secret(data.value.replace(b"\\x00", b"").replace(b"\0", b""))


@lru_cache(maxsize=8)
def _pattern(token: Secret[str], most: int) -> re.Pattern[bytes]:
    """Returns an expression for `most` characters of a token; those after the first are optional.

    Every repetition is bounded, so that searching takes linear time.
    """
    import re

    parts: list[bytes] = []
    for number, one in enumerate(token.value[:most]):
        # Adjacent backslashes may each be escaped, so one part matches them all.
        again = one == "\\" == token.value[number - 1 : number]
        parts.append(b"(?:%s)%s" % (_encodings(one), b"?+" if again or number >= _LEAST else b""))
    return re.compile(b"".join(parts))


def _encodings(one: str) -> bytes:
    """Returns an expression for all forms of a character: plain, in JSON, in URLs and in HTML."""
    import re

    code, own = ord(one), re.escape(one)
    escaped = "" if one.isalnum() or one == "\\" else f"|{own}"
    digits = "".join(
        f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in f"{code:02x}"
    )
    named = "".join(f"|{name}" for name in _names(one))
    number = rf"(?:#|%23)(?:0{{0,6}}{code}|[xX]0{{0,6}}{digits})"
    # After an ampersand, which may itself be escaped.
    entity = rf"(?:(?:amp|#38|#[xX]26);){{0,3}}(?:{number}{named})(?:;|%3[bB])?"
    unicode = rf"u\{{?0{{0,6}}{digits}\}}?|[xU]0{{0,6}}{digits}|0?{code:o}"
    forms = (
        rf"%(?:25){{0,3}}(?:{digits}|26{entity})",
        rf"&{entity}",
        # Each backslash may itself be escaped.
        rf"\\\\{{0,7}}+(?:{unicode}|u0026{entity}{escaped})",
        r"\\\\{0,7}" if one == "\\" else own,
    )
    return "|".join(forms).encode()


def _names(one: str) -> list[str]:
    """Returns the names that a character has in HTML."""
    if one.isalnum():
        return []
    from html.entities import html5

    return [name[:-1] for name, character in html5.items() if character == one and name[-1] == ";"]
