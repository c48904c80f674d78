"""An event's metadata: from Python values to the API's JSON, and back.

The API's table of types, and what stands for each here:

=============== ============================================= ==============================
API             on the wire                                   in Python
=============== ============================================= ==============================
String          text                                          ``str``
Number          a number                                      ``int``, ``float``
Date            Unix seconds; the key ends in _date or _at    an aware ``datetime``
Link            an http or https address                      ``str``
Rich Link       ``{"url": …, "value": …}``                    :class:`RichLink`
Monetary Amount ``{"amount": …, "currency": …}``              :class:`MonetaryAmount`
=============== ============================================= ==============================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import field, frozen

from intercom_data_events import timestamps
from intercom_data_events.checks import BEYOND, plain_text, shown, whole_number
from intercom_data_events.errors import MetadataError, TimestampError

if TYPE_CHECKING:
    from decimal import Decimal

#: How many keys of an event Intercom keeps: the first ones, in the order of sending.
MAX_KEYS = 10

_DATE_SUFFIXES = ("_date", "_at")
# ISO 4217, as of 2026: currencies whose minor unit is not a hundredth.
_DECIMALS = {
    **dict.fromkeys(
        [
            "bif",
            "clp",
            "djf",
            "gnf",
            "isk",
            "jpy",
            "kmf",
            "krw",
            "pyg",
            "rwf",
            "ugx",
            "uyi",
            "vnd",
            "vuv",
            "xaf",
            "xof",
            "xpf",
        ],
        0,
    ),
    **dict.fromkeys(["bhd", "iqd", "jod", "kwd", "lyd", "omr", "tnd"], 3),
    **dict.fromkeys(["clf", "uyw"], 4),
}


def _check_url(_: object, __: object, url: str) -> None:
    if not (isinstance(url, str) and url.lower().startswith(("http://", "https://"))):
        raise MetadataError(f"url is {shown(url)}: a rich link needs an http or https address")
    if not url.isascii() and plain_text(url) is None:
        raise MetadataError(f"url is {shown(url)}, which has a lone surrogate in it")


def _check_value(_: object, __: object, value: str) -> None:
    if not isinstance(value, str) or not (value.isascii() or plain_text(value)):
        raise MetadataError(f"value is {shown(value)}: a rich link's value is the text to show")


def _check_amount(_: object, __: object, amount: int) -> None:
    if type(amount) is not int or not 0 <= amount < BEYOND:
        raise MetadataError(
            f"amount is {shown(amount)}: it is whole minor currency units, 0 to 64 bits; "
            'for "29.99" use MonetaryAmount.from_decimal("29.99", "usd")'
        )


def _check_currency(_: object, __: object, currency: str) -> None:
    if not (
        isinstance(currency, str)
        and len(currency) == 3
        and currency.isascii()
        and currency.isalpha()
    ):
        raise MetadataError(
            f'currency is {shown(currency)}: it is three letters as in ISO 4217, "eur" say'
        )


@frozen
class RichLink:
    """A link with a text to show for it.

    Raises:
        MetadataError: `url` is no http or https address, or `value` no text.

    Example:
        >>> RichLink(url="https://example.org/orders/3434", value="3434").value
        '3434'
    """

    url: str = field(validator=_check_url)
    value: str = field(validator=_check_value)


@frozen
class MonetaryAmount:
    """An amount of money in minor currency units: ``MonetaryAmount(2999, "usd")`` is 29.99 dollars.

    The documentation says "a positive integer representing the amount in cents" and nothing of
    currencies without cents. By ISO 4217, the minor unit of the yen is the yen itself (2999 is
    2,999 yen) and that of the Kuwaiti dinar a thousandth; whether Intercom shows such amounts
    divided by 100 all the same is not documented. Zero is accepted here: a free order has a price.

    Attributes:
        amount: Whole minor currency units, 0 or more.
        currency: Three letters as in ISO 4217; kept in the case given.

    Raises:
        MetadataError: `amount` is no such number, or `currency` not three letters.
    """

    amount: int = field(validator=_check_amount)
    currency: str = field(validator=_check_currency)

    @classmethod
    def from_decimal(cls, amount: Decimal | str | int, currency: str) -> MonetaryAmount:
        """Makes an amount from major units, exactly.

        Args:
            amount: Major currency units, such as dollars. A float is refused: 0.1 is not a tenth.
            currency: Three letters as in ISO 4217, which says how many decimals there are.

        Raises:
            MetadataError: A float, something that is no number, or more decimals than the
                currency has.

        Example:
            >>> MonetaryAmount.from_decimal("29.99", "usd")
            MonetaryAmount(amount=2999, currency='usd')
            >>> MonetaryAmount.from_decimal("2999", "jpy")
            MonetaryAmount(amount=2999, currency='jpy')
        """
        from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow, Underflow

        _check_currency(None, None, currency)
        if isinstance(amount, bool) or not isinstance(amount, Decimal | str | int):
            raise MetadataError(
                f"amount is {shown(amount)}, a {type(amount).__name__}: "
                "pass a Decimal, or text such as '29.99', which are exact"
            )
        decimals = _DECIMALS.get(currency.lower(), 2)
        # Nothing is rounded on the way: what does not fit is an error.
        exact = Context(prec=60, Emax=60, traps=[Inexact, InvalidOperation, Overflow, Underflow])
        try:
            minor = Decimal(amount).scaleb(decimals, exact)
            whole = int(minor)
        except (ArithmeticError, ValueError) as error:
            raise MetadataError(
                f"amount is {shown(amount)}, which is no amount of money"
            ) from error
        if minor != whole:
            raise MetadataError(
                f"amount is {shown(amount)}, and {currency} has {decimals} decimals: round it first"
            )
        return cls(whole, currency)


#: What a key of an event's metadata can hold, in Python.
MetadataValue: TypeAlias = str | int | float | datetime | RichLink | MonetaryAmount
#: What can be given as an event's metadata; a rich link or a monetary amount may be its JSON too.
Metadata: TypeAlias = Mapping[str, "MetadataValue | Mapping[str, str | int]"]
#: What a value is on the wire.
JSONValue: TypeAlias = str | int | float | dict[str, str | int]


def encode(metadata: Metadata) -> dict[str, JSONValue]:
    """Returns metadata as the API's JSON, in the same order.

    Raises:
        MetadataError: More than 10 keys, an empty key, or a value that the API does not take: a
            nested object, a list, None, a bool, NaN, a datetime whose key does not end in _date or
            _at. It names the key and the remedy.

    Example:
        >>> encode({"plan": "pro", "price": MonetaryAmount(2999, "usd")})
        {'plan': 'pro', 'price': {'amount': 2999, 'currency': 'usd'}}
    """
    if not isinstance(metadata, Mapping):
        raise MetadataError(f"metadata is a {type(metadata).__name__}: pass a mapping")
    if len(metadata) > MAX_KEYS:
        key = list(metadata)[MAX_KEYS]
        raise MetadataError(
            f"metadata has {len(metadata)} keys, and Intercom keeps the first {MAX_KEYS}: leave "
            f"out {key!r} and what follows it, or pass drop_excess_metadata=True",
            key=key,
        )
    encoded = {}
    for key, value in metadata.items():
        if not isinstance(key, str) or not key.strip() or plain_text(key) is None:
            raise MetadataError(
                f"metadata has the key {shown(key)}: a key is text, and not empty", key=key
            )
        encoded[key] = _encode(key, value)
    return encoded


def decode(metadata: Mapping[str, object]) -> dict[str, object]:
    """Returns metadata as read from the API in Python values.

    Whole seconds below a key that ends in _date or _at become aware datetimes in UTC; objects that
    are just a rich link or a monetary amount become those. Everything else stays as it is, known
    or not, so that encoding what was decoded gives the same JSON again.

    Example:
        >>> decode({"order_date": 1392036272, "load": 3.67})["order_date"].isoformat()
        '2014-02-10T12:44:32+00:00'
    """
    return {key: _decode(key, value) for key, value in metadata.items()}


def to_json(value: object) -> object:
    """Returns one decoded value as it came; nothing is checked."""
    if isinstance(value, datetime):
        return timestamps.to_unix(value)
    if isinstance(value, RichLink | MonetaryAmount):
        return _fields(value)
    return value


def _encode(key: str, value: object) -> JSONValue:
    if isinstance(value, str):
        text = plain_text(value)
        if text is None:
            raise _refused(
                key, "is text with a lone surrogate in it, which UTF-8 cannot hold", value
            )
        return text
    if isinstance(value, bool):
        raise _refused(key, "is a bool, which the API has no type for: send 'yes' or 1, say", value)
    if isinstance(value, datetime):
        if not key.endswith(_DATE_SUFFIXES):
            raise _refused(
                key,
                f"is a datetime, and a date's key ends in _date or _at: call it {key + '_at'!r}",
                value,
            )
        return _seconds(key, value)
    if isinstance(value, int | float):
        return _number(key, value)
    if isinstance(value, RichLink | MonetaryAmount):
        return _fields(value)
    if isinstance(value, Mapping):
        return _object(key, value)
    if value is None:
        raise _refused(key, "is None: leave the key out", value)
    if isinstance(value, list | tuple | set | frozenset):
        raise _refused(key, "is a list, which the API does not take: join it to text, say", value)
    if isinstance(value, date):
        raise _refused(key, "is a date without a time: make it an aware datetime", value)
    if (number := whole_number(value)) is not None:
        return _number(key, number)  # A whole number of numpy's, say.
    raise _refused(
        key,
        "is none of the API's types: text, a number, a datetime, a RichLink or a MonetaryAmount",
        value,
    )


def _number(key: str, value: float) -> int | float:
    if isinstance(value, float) and not math.isfinite(value):
        raise _refused(key, "is no number that JSON knows: leave the key out", value)
    if isinstance(value, int) and not -BEYOND <= value < BEYOND:
        raise _refused(key, "is a number of more than 64 bits: send it as text", value)
    # To Intercom a number below such a key is a time, so it has to be one.
    return _seconds(key, value) if key.endswith(_DATE_SUFFIXES) else value


def _seconds(key: str, value: datetime | float) -> int:
    try:
        return timestamps.to_unix(value, f"metadata[{key!r}]")
    except TimestampError as error:
        raise MetadataError(str(error), key=key) from error


def _object(key: str, value: Mapping[object, object]) -> dict[str, str | int]:
    try:
        found = _known(dict(value))
    except MetadataError as error:
        raise MetadataError(f"metadata[{key!r}]: {error}", key=key) from error
    if isinstance(found, RichLink | MonetaryAmount):
        return _fields(found)
    raise _refused(
        key,
        "is an object, and the API takes none but rich links (url, value) and monetary amounts "
        "(amount, currency): give each of its fields a key of its own",
        value,
    )


def _decode(key: str, value: object) -> object:
    if isinstance(value, dict):
        try:
            return _known(value)
        except MetadataError:  # Something else that has the same keys.
            return value
    if key.endswith(_DATE_SUFFIXES) and timestamps.is_unix(value):
        return timestamps.from_unix(value)
    return value


def _fields(value: RichLink | MonetaryAmount) -> dict[str, str | int]:
    if isinstance(value, RichLink):
        return {"url": value.url, "value": value.value}
    return {"amount": value.amount, "currency": value.currency}


def _known(value: dict[Any, Any]) -> object:
    """The rich link or monetary amount that an object is by its keys, or the object itself."""
    if len(value) == 2:
        if "url" in value and "value" in value:
            return RichLink(value["url"], value["value"])
        if "amount" in value and "currency" in value:
            return MonetaryAmount(value["amount"], value["currency"])
    return value


def _refused(key: str, why: str, value: object) -> MetadataError:
    return MetadataError(f"metadata[{shown(key)}] {why} (it is {shown(value)})", key=key)
