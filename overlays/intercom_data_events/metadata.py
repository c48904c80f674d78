"""An event's metadata: from Python values to the API's JSON, and back.

The API's types, and the Python type of each:

=============== ============================================= ==================================
API             On the wire                                   In Python
=============== ============================================= ==================================
String          a string                                      ``str``
Number          a number                                      ``int``, ``float``
Date            Unix seconds; the key ends in _date or _at    an aware ``datetime``, Unix seconds,
                                                              digits, an ISO 8601 string
Link            an http or https address                      ``str``
Rich Link       ``{"url": …, "value": …}``                    :class:`RichLink`
Monetary Amount ``{"amount": …, "currency": …}``              :class:`MonetaryAmount`
=============== ============================================= ==================================

Intercom reads every value of a key that ends in _date or _at as a time, so the value must be one.
Digits, and ISO 8601 strings with an offset, are converted to Unix seconds; other strings are
errors. Rename the key if the value is not a time.

Values of other types are converted if the number or string stays exactly the same, otherwise they
are errors. Numbers of numpy, ``Decimal`` and ``Fraction`` are accepted if an integer of 64 bits or
a float equals them; members of ``IntEnum`` and ``StrEnum`` are sent as their values. These are
errors: bools, including numpy's; missing values such as ``pandas.NA``; datetimes without a time
zone, such as ``numpy.datetime64``; and all other types, such as ``UUID``, ``bytes`` and
``timedelta``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from attrs import field, frozen

from intercom_data_events import _validation as check
from intercom_data_events import timestamps
from intercom_data_events.errors import MetadataError, TimestampError

if TYPE_CHECKING:
    from decimal import Decimal

__all__ = ["Metadata", "MetadataValue", "MonetaryAmount", "RichLink"]

#: How many keys of an event Intercom keeps: the first ones, in the order in which they are sent.
MAX_KEYS = 10

_DATE_SUFFIXES = ("_date", "_at")
_DIGITS = re.compile(r"-?[0-9]{1,18}")
_SCHEMES = ("http://", "https://")
# ISO 4217, as of 2026, and two that ended shortly before: currencies by the decimals of an amount.
_DECIMALS = {
    0: "bif clp djf gnf isk jpy kmf krw pyg rwf ugx uyi vnd vuv xaf xof xpf",
    2: "aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bmd bnd bob bov brl bsd btn bwp "
    "byn bzd cad cdf che chf chw cny cop cou crc cup cve czk dkk dop dzd egp ern etb eur fjd fkp "
    "gbp gel ghs gip gmd gtq gyd hkd hnl htg huf idr ils inr irr jmd kes kgs khr kpw kyd kzt lak "
    "lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mru mur mvr mwk mxn mxv myr mzn nad ngn nio nok "
    "npr nzd pab pen pgk php pkr pln qar ron rsd rub sar sbd scr sdg sek sgd shp sle sos srd ssp "
    "stn svc syp szl thb tjs tmt top try ttd twd tzs uah usd usn uyu uzs ved ves wst xad xcd xcg "
    "yer zar zmw zwg",
    3: "bhd iqd jod kwd lyd omr tnd",
    4: "clf uyw",
}


def decimals_of(currency: str) -> int | None:
    """Returns the number of decimals of a currency in ISO 4217; None if it is not listed there."""
    code = currency.lower()
    return next((number for number, codes in _DECIMALS.items() if code in codes.split()), None)


def _plain(value: Any) -> Any:
    """Returns strings and integers as exact ``str`` and ``int``; other values are unchanged."""
    if isinstance(value, str):
        return str.__str__(value)
    number = check.whole_number(value)
    return value if number is None else number


def _check_url(_: object, __: object, url: str) -> None:
    if not (isinstance(url, str) and url.lower().startswith(_SCHEMES)):
        raise check.invalid(MetadataError, "url must be an http or https URL", url)
    check.checked_text(url, "url", MetadataError)


def _check_value(_: object, __: object, value: str) -> None:
    if not isinstance(value, str):
        raise check.invalid(MetadataError, "value must be a string", value)
    check.checked_text(value, "value", MetadataError)


def _check_amount(_: object, __: object, amount: int) -> None:
    if type(amount) is not int or not 0 <= amount < check.BEYOND:
        must = f"amount must be an integer from 0 to {check.BEYOND - 1} in minor currency units"
        plain = "pass 2999 for 29.99"
        remedy = f'{plain}, or use MonetaryAmount.from_decimal("29.99", "usd")'
        raise check.invalid(MetadataError, must, amount, remedy, plain_remedy=plain)


def _is_currency(text: str) -> bool:
    return len(text) == 3 and text.isascii() and text.isalpha()


def _check_currency(_: object, __: object, currency: str) -> None:
    if not isinstance(currency, str) or not _is_currency(currency):
        must = "currency must be a three-letter ISO 4217 code such as 'eur'"
        raise check.invalid(MetadataError, must, currency)


@frozen
class RichLink:
    """A link and the text to show for it.

    Attributes:
        url: An http or https address.
        value: The text of the link.

    Raises:
        MetadataError: `url` is not an http or https address, or `value` is not a string.

    Example:
        >>> RichLink(url="https://example.org/orders/3434", value="3434").value
        '3434'
    """

    url: str = field(converter=_plain, validator=_check_url)
    value: str = field(converter=_plain, validator=_check_value)


@frozen
class MonetaryAmount:
    """An amount of money in minor currency units.

    Intercom documents "a positive integer representing the amount in cents", and does not mention
    currencies without cents. In ISO 4217, the minor unit of the yen is the yen itself (2999 is
    2,999 yen), and that of the Kuwaiti dinar is one thousandth. It is not documented whether
    Intercom divides such amounts by 100 anyway. Zero is accepted: a free order has a price, too.

    Attributes:
        amount: An integer of minor currency units, such as cents, at least 0.
        currency: A three-letter currency code (ISO 4217), in upper or lower case.

    Raises:
        MetadataError: `amount` is not such an integer, or `currency` is not three letters.

    Example:
        29.99 dollars:

        >>> from intercom_data_events import Event
        >>> price = MonetaryAmount(2999, "usd")
        >>> Event("placed-order", user_id="314159", metadata={"price": price}).to_dict()["metadata"]
        {'price': {'amount': 2999, 'currency': 'usd'}}
    """

    amount: int = field(converter=_plain, validator=_check_amount)
    currency: str = field(converter=_plain, validator=_check_currency)

    @classmethod
    def from_decimal(cls, amount: Decimal | str | int, currency: str) -> MonetaryAmount:
        """Makes an amount from major units, without rounding.

        Args:
            amount: Major currency units, such as dollars. Floats are errors, because 0.1 is not
                exactly one tenth.
            currency: A three-letter currency code. ISO 4217 gives the number of decimals; a code
                that it does not list has 2.

        Raises:
            MetadataError: `amount` is a float or not a number, or has more decimals than the
                currency.

        Example:
            >>> MonetaryAmount.from_decimal("29.99", "usd")
            MonetaryAmount(amount=2999, currency='usd')
            >>> MonetaryAmount.from_decimal("2999", "jpy")
            MonetaryAmount(amount=2999, currency='jpy')
        """
        from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow, Underflow

        _check_currency(None, None, currency)
        amount = _plain(amount)
        if isinstance(amount, bool) or not isinstance(amount, Decimal | str | int):
            must = "amount must be a Decimal, a string or an integer"
            remedy = "pass a string such as '29.99', which is exact"
            raise check.invalid(MetadataError, must, amount, remedy)
        decimals = decimals_of(currency)
        decimals = 2 if decimals is None else decimals
        # Every rounding is an error.
        exact = Context(prec=60, Emax=60, traps=[Inexact, InvalidOperation, Overflow, Underflow])
        try:
            minor = Decimal(amount).scaleb(decimals, exact)
            whole = int(minor)
        except (ArithmeticError, ValueError) as error:
            must = "amount must be a decimal number of at most 60 digits"
            raise check.invalid(MetadataError, must, amount) from error
        if minor != whole:
            must = f"amount must have at most {decimals} decimal places in {currency}"
            raise check.invalid(MetadataError, must, amount, "round it first")
        return cls(whole, currency)


#: A value of an event's metadata, as :attr:`Event.metadata` holds it.
#:
#: Example:
#:     >>> from intercom_data_events import Event
#:     >>> event = Event("paid", user_id="314159", metadata={"due_date": "2026-01-31T12:00:00Z"})
#:     >>> event.metadata["due_date"].isoformat()
#:     '2026-01-31T12:00:00+00:00'
MetadataValue: TypeAlias = str | int | float | datetime | RichLink | MonetaryAmount

#: The metadata that a caller can pass: at most 10 keys. A rich link or a monetary amount can also
#: be passed as its JSON.
#:
#: Example:
#:     >>> from intercom_data_events import Event, RichLink
#:     >>> order = {
#:     ...     "plan": "pro",
#:     ...     "seats": 3,
#:     ...     "due_date": "2026-01-31T12:00:00Z",
#:     ...     "order": RichLink(url="https://example.org/orders/3434", value="3434"),
#:     ...     "price": {"amount": 2999, "currency": "usd"},
#:     ... }
#:     >>> Event("placed-order", user_id="314159", metadata=order).metadata["price"]
#:     MonetaryAmount(amount=2999, currency='usd')
Metadata: TypeAlias = Mapping[str, "MetadataValue | Mapping[str, str | int]"]
#: The JSON of a value.
JSONValue: TypeAlias = str | int | float | dict[str, str | int]


def encode(metadata: Metadata) -> dict[str, JSONValue]:
    """Returns metadata as the API's JSON, in the same order.

    Raises:
        MetadataError: There are more than 10 keys, or an empty key, or the API does not support a
            value: a nested object, a list, None, a bool, NaN, a datetime whose key does not end in
            _date or _at, or a value that is not a time although its key does. The message names the
            key and the remedy.

    Example:
        >>> from intercom_data_events import MonetaryAmount
        >>> encode({"plan": "pro", "price": MonetaryAmount(2999, "usd")})
        {'plan': 'pro', 'price': {'amount': 2999, 'currency': 'usd'}}
    """
    if not isinstance(metadata, Mapping):
        plain = "must be an object"
        raise check.invalid_type(MetadataError, "metadata must be a mapping", metadata, plain=plain)
    if len(metadata) > MAX_KEYS:
        key = list(metadata)[MAX_KEYS]
        plain = (
            f"must have at most {MAX_KEYS} keys, not {len(metadata)}; remove "
            f"{check.short_repr(key)} and the keys after it, which Intercom would drop"
        )
        said = f"{plain}, or pass drop_excess_metadata=True"
        raise _about(key, check.Flaw(("metadata",), said, plain))
    encoded: dict[str, JSONValue] = {}
    for key, value in metadata.items():
        if not isinstance(key, str) or not key.strip() or check.plain_text(key) is None:
            must = "a metadata key must be a non-empty string that UTF-8 can encode"
            error = check.invalid(MetadataError, must, key)
            error.key = key
            raise error
        # Most values are such strings, which need no other check.
        if type(value) is str and value.isascii() and not key.endswith(_DATE_SUFFIXES):
            encoded[key] = value
        else:
            encoded[key] = _encode(key, value)
    return encoded


def decode(metadata: Mapping[str, object]) -> dict[str, object]:
    """Returns metadata from the API as Python values.

    Integer seconds become aware datetimes in UTC if the key ends in _date or _at. Objects with
    exactly the fields of a rich link or a monetary amount become those. Everything else is kept, so
    that encoding the result gives the same JSON again.

    Example:
        >>> decode({"order_date": 1392036272, "load": 3.67})["order_date"].isoformat()
        '2014-02-10T12:44:32+00:00'
    """
    return decode_in_place(dict(metadata))


def decode_in_place(metadata: dict[str, object]) -> dict[str, object]:
    """Does what :func:`decode` does, in a dictionary that nothing else uses, and returns it."""
    for key, value in metadata.items():
        if type(value) is int:
            if is_date(key) and timestamps.is_unix(value):
                metadata[key] = timestamps.from_unix(value)
        elif isinstance(value, dict) and len(value) == 2:
            metadata[key] = _read_known(value)
    return metadata


def to_json(value: object) -> object:
    """Returns one decoded value as its JSON, without any check."""
    if isinstance(value, datetime):
        return timestamps.to_unix(value)
    if isinstance(value, RichLink | MonetaryAmount):
        return _fields(value)
    return value


def is_date(key: str) -> bool:
    """Whether Intercom reads the value of a key as a time."""
    return key.endswith(_DATE_SUFFIXES)


def is_supported(value: object) -> bool:
    """Whether the API supports a value. It does not support bools, None, lists and other objects.

    Example:
        >>> is_supported("pro"), is_supported(True), is_supported({"amount": 1, "currency": "usd"})
        (True, False, True)
    """
    try:
        return _supported("", value) is not None
    except MetadataError:
        return True  # An invalid rich link or amount.


def to_seconds(key: str, value: object) -> int:
    """Returns the value of a key that ends in _date or _at, in Unix seconds.

    Args:
        key: The key.
        value: A time that ``to_unix`` accepts, or a string of Unix seconds.

    Raises:
        MetadataError: `value` is not a time.

    Example:
        >>> to_seconds("order_date", "2014-02-10T12:44:32Z") == to_seconds("at", "1392036272")
        True
    """
    if isinstance(value, str) and (digits := _DIGITS.fullmatch(value.strip())):
        value = int(digits[0])
    try:
        return timestamps.to_unix(cast("timestamps.Timestamp", value), "metadata")
    except TimestampError as error:
        _, said, plain = cast("check.Flaw", check.flaw_of(error))
        flaw = check.Flaw(("metadata", key), f"{said}; {_NOT_A_TIME}", f"{plain}; {_NOT_A_TIME}")
        raise _about(key, flaw) from error


def _about(key: object, flaw: check.Flaw) -> MetadataError:
    error = flaw.error(MetadataError)
    error.key = key
    return error


_NUMBERS = {int, float}
_NOT_A_TIME = (
    "if it is not a time, rename the key, because Intercom reads the value of a key that ends in "
    "_date or _at as a time"
)
_TYPES = "must be a string, a number, a datetime, a RichLink or a MonetaryAmount, not {given}"
_DURATION = "is a duration; pass it as a number of seconds"
_MISSING = "is None, which the API does not support; leave the key out"
# Why a value is rejected: the reason for the first type that it is an instance of.
_REFUSALS: Mapping[Any, str] = {
    str: f"must be a string that UTF-8 can encode, not {{given}}; {check.SURROGATE}",
    bool: "is a bool, which the API does not support; send 1 or 'yes' instead",
    int: "must be a number of at most 64 bits, not {given}; send it as a string",
    float: "must be a finite number, not {given}, which JSON does not support; leave the key out",
    datetime: "is a datetime, so its key must end in _date or _at; rename it to {renamed}",
    date: "is a date without a time; pass an aware datetime",
    time: "is a time without a date; pass an aware datetime, or str(value)",
    timedelta: _DURATION,
    type(None): _MISSING,
    bytes | bytearray: f"{_TYPES}; pass value.decode()",
    Enum: "is an Enum member; pass its value",
    list | tuple | set | frozenset: "is a list, which the API does not support; "
    "join it into a string",
    Mapping: "is an object, which the API supports only as a rich link (url, value) or a monetary "
    "amount (amount, currency); give each of its fields its own key",
    object: f"{_TYPES}; pass str(value) to send it as a string",
}
# The same for readers who do not write Python.
_PLAIN = {
    bool: "is {given}, which the API does not support; send 1 or 'yes' instead",
    type(None): "is {given}, which the API does not support; leave the key out",
}
# The same by numpy's letter for a type, and by the names of pandas' types of missing values.
_REFUSALS_BY_NAME = {
    "b": _REFUSALS[bool],
    "m": _DURATION,
    "M": f"is a datetime without a time zone; {timestamps.DATETIME64}",
    "f": "must be a number that a float holds exactly, not {given}; round it with float(value), or "
    "send it as a string",
    "NaTType": _MISSING.replace("None", "missing"),
    "NAType": _MISSING.replace("None", "missing"),
}


def _encode(key: str, value: object) -> JSONValue:
    try:
        encoded = _supported(key, value)
    except MetadataError as error:
        if error.key is None:  # It is about a rich link or an amount.
            [name], said, plain = cast("check.Flaw", check.flaw_of(error))
            raise _about(key, check.Flaw(("metadata", key, name), said, plain)) from error
        raise
    if encoded is None:
        said = _why_refused(value)
        plain = _PLAIN.get(type(value), said)
        renamed = check.short_repr(f"{key}_at")
        said = said.format(given=check.short_repr(value), renamed=renamed)
        plain = plain.format(given=check.plain_repr(value), renamed=renamed)
        raise _about(key, check.Flaw(("metadata", key), said, plain))
    return encoded


def _supported(key: str, value: object) -> JSONValue | None:
    """Returns a value as JSON, or None if the API does not support it."""
    if isinstance(value, str):
        text = check.plain_text(value)
        return text if text is None or not is_date(key) else to_seconds(key, text)
    if type(value) not in _NUMBERS:  # Numbers need none of these checks.
        if isinstance(value, datetime):
            is_missing = type(value).__name__ in _REFUSALS_BY_NAME
            return to_seconds(key, value) if is_date(key) and not is_missing else None
        if isinstance(value, RichLink | MonetaryAmount):
            return _fields(value)
        if isinstance(value, Mapping):
            known = _known(dict(value))
            return None if known is None else _fields(known)
    number = check.number(value)
    if number is None or not math.isfinite(number):
        return None
    # Intercom reads a number below such a key as a time, so it must be one.
    return to_seconds(key, number) if is_date(key) else number


def _why_refused(value: object) -> str:
    if isinstance(check.number(value), float):
        return _REFUSALS[float]
    of_numpy = check.dtype_kind(value)
    if of_numpy in ("m", "M") and value != value:  # as NaT alone
        return _REFUSALS_BY_NAME["NaTType"]
    for name in (type(value).__name__, of_numpy):
        if name in _REFUSALS_BY_NAME:
            return _REFUSALS_BY_NAME[name]
    return next(why for kind, why in _REFUSALS.items() if isinstance(value, kind))


def _fields(value: RichLink | MonetaryAmount) -> dict[str, str | int]:
    if isinstance(value, RichLink):
        return {"url": value.url, "value": value.value}
    return {"amount": value.amount, "currency": value.currency}


# The constructors and their checks take as long as the rest of a listing, so an object that matches
# the description is made without them.
_new = object.__new__
_set_url, _set_value = RichLink.url.__set__, RichLink.value.__set__  # type: ignore[attr-defined]
_set_amount = MonetaryAmount.amount.__set__  # type: ignore[attr-defined]
_set_currency = MonetaryAmount.currency.__set__  # type: ignore[attr-defined]


def _read_known(value: dict[Any, Any]) -> object:
    """Returns an object of an answer as a rich link or a monetary amount if its keys fit."""
    if type(url := value.get("url")) is str:
        text = value.get("value")
        if type(text) is str and url.startswith(_SCHEMES) and url.isascii() and text.isascii():
            link = _new(RichLink)
            _set_url(link, url)
            _set_value(link, text)
            return link
    elif type(amount := value.get("amount")) is int and 0 <= amount < check.BEYOND:
        currency = value.get("currency")
        if type(currency) is str and _is_currency(currency):
            money = _new(MonetaryAmount)
            _set_amount(money, amount)
            _set_currency(money, currency)
            return money
    try:
        return _known(value) or value
    except MetadataError:  # Another object that has the same keys.
        return value


def _known(value: dict[Any, Any]) -> RichLink | MonetaryAmount | None:
    """Returns an object as the rich link or monetary amount that its keys make it, if any."""
    if len(value) == 2:
        if "url" in value and "value" in value:
            return RichLink(value["url"], value["value"])
        if "amount" in value and "currency" in value:
            return MonetaryAmount(value["amount"], value["currency"])
    return None
