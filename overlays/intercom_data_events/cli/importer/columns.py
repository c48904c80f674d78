"""Events as rows of cells: which columns there are, and what a cell below each stands for.

A column is a field of the API's (``event_name``, ``created_at``, ``user_id``, ``id``, ``email``) or
``metadata.`` and a key. ``metadata.price.amount`` with ``metadata.price.currency``, and
``metadata.order.url`` with ``metadata.order.value``, make an object; in any other case dots belong
to the key. A cell below a key is a number where it is written as JSON writes one, Unix seconds
where the key ends in _date or _at, and text otherwise; ``metadata.code:text`` and
``metadata.load:number`` say it outright, but for keys of dates, which hold times in any case.
``metadata.tags:json`` has any JSON, such as what others have sent and events cannot have. An
empty cell is a missing one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple, TypeAlias, TypeGuard

from attrs import evolve, frozen

from intercom_data_events import metadata as _metadata
from intercom_data_events._validation import decode_json, short_repr
from intercom_data_events.errors import MetadataError

#: The fields that a contact is known by.
IDENTITIES = ("user_id", "id", "email")
_FIELDS = ("event_name", "created_at", *IDENTITIES)
_METADATA = "metadata."
_TEXT, _NUMBER, _JSON = ":text", ":number", ":json"
# Of the objects that the API knows: what makes each whole.
_OTHER = {"amount": "currency", "currency": "amount", "url": "value", "value": "url"}
_PAIRS = ({"amount", "currency"}, {"url", "value"})
# What exports of other tools (Segment, RudderStack, Mixpanel, Amplitude, PostHog, Braze, Heap) and
# tables of people's own call the same, without blanks, punctuation and capitals.
_MEANT = {
    other: name
    for name, others in {
        "event_name": "eventname event name eventtype eventtitle action",
        "created_at": "createdat created timestamp time date datetime eventtime eventtimestamp "
        "eventdate clienteventtime originaltimestamp occurredat happenedat sentat ts",
        "user_id": "userid user externalid externaluserid distinctid customerid identity "
        "anonymousid uid",
        "id": "id contactid intercomid intercomuserid leadid",
        "email": "email mail emailaddress useremail",
        "metadata": "metadata properties eventproperties eventparams props attributes data custom "
        "customproperties",
    }.items()
    for other in others.split()
}
_DIGITS = re.compile(r"-?[0-9]{1,18}")
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*+)(\.[0-9]++)?+([eE][+-]?[0-9]++)?+")
# What a float holds exactly in any case: digits beyond it would be lost.
_SIGNIFICANT = 15
# How many columns a message lists.
_SHOWN = 20
# Columns of a file, which has one for each key of any of its events.
_MOST = 1_000
# The longest that is ever needed: a float of 17 digits, or 64 bits, with room to spare.
_LONGEST = 40

_Read: TypeAlias = Callable[[str, str], object]


class ColumnError(ValueError):
    """A header that cannot be used, or cells that are not what their columns say.

    Attributes:
        fields: What the other cells of the row are.
    """

    def __init__(self, message: str, fields: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.fields = fields


class _Column(NamedTuple):
    name: str
    key: str | None = None  # None: a field of the event's own.
    part: str | None = None  # None: not part of an object.
    read: _Read | None = None  # None: text, as it is.


@frozen
class Plan:
    """How rows below a header are read.

    Attributes:
        names: The columns, without blanks around them.
    """

    names: tuple[str, ...]
    _columns: tuple[_Column, ...]
    _objects: frozenset[str]

    def read(self, cells: Sequence[object]) -> dict[str, object]:
        """Returns the event of a row, in the API's field names.

        Args:
            cells: One for each column; None where it is missing.

        Raises:
            ColumnError: Cells are not what their columns say; names the columns.

        Example:
            >>> plan(["event_name", "id", "metadata.load"]).read(["ran", "5f", "3.67"])
            {'event_name': 'ran', 'id': '5f', 'metadata': {'load': 3.67}}
        """
        fields: dict[str, object] = {}
        metadata: dict[str, object] = {}
        problems: list[tuple[str | None, str]] = []
        for cell, (name, key, part, read) in zip(cells, self._columns, strict=True):
            if cell is None:
                continue
            try:
                value = read(name, cell) if read is not None and isinstance(cell, str) else cell
                if key is None:
                    fields[name] = value
                    continue
                into, place = metadata, key
                if part is not None:
                    whole = metadata.setdefault(key, {})
                    into, place = (whole, part) if isinstance(whole, dict) else (metadata, key)
                if place in into:
                    raise _twice(key)
                into[place] = value
            except ColumnError as error:
                problems.append((key, str(error)))
        for key in self._objects:
            found = metadata.get(key)
            if not isinstance(found, dict):
                continue
            if found.keys() == {"url"}:
                found["value"] = ""  # A link without a text; an empty cell cannot say so itself.
            if found.keys() not in _PAIRS and key not in dict(problems):
                remedy = (
                    "an amount needs a currency and a url a value, so fill both cells or neither"
                )
                has = " and ".join(sorted(found))
                problems.append((key, f"metadata.{_shown(key)} has {has}; {remedy}"))
        for wrong, _ in problems:
            if wrong is not None:
                metadata.pop(wrong, None)  # What is left of a value has no faults of its own.
        if metadata:
            fields["metadata"] = metadata
        if problems:
            raise ColumnError("; ".join(problem for _, problem in problems), fields)
        return fields

    def typed(self) -> Plan:
        """Returns the same for cells that have types of their own, so that strings stay strings.

        Raises:
            ColumnError: Several columns are of one key.
        """
        keys = [one.key for one in self._columns if one.part is None]
        for key in filter(None, keys):
            if keys.count(key) > 1 or key in self._objects:
                raise _twice(key)
        return evolve(self, columns=tuple(one._replace(read=None) for one in self._columns))


def plan(names: Sequence[str], *, nested: bool = False) -> Plan:
    """Returns how rows below a header are read.

    Args:
        names: The header's cells; blanks around them are ignored.
        nested: Whether the column ``metadata`` has objects with all keys.

    Raises:
        ColumnError: A column that no event has, one that is there twice, no event_name, or none
            of user_id, id and email.
    """
    made = _plan(names, ("metadata",) if nested else ())
    if "event_name" not in made.names:
        raise ColumnError(f"no column is called event_name; the columns are {_listed(made.names)}")
    if not set(IDENTITIES) & set(made.names):
        raise ColumnError("no column has the contact; add one called user_id, id or email")
    return made


def known(name: str) -> bool:
    """Whether events have such a column; blanks around it are ignored."""
    name = name.strip()
    return name in _FIELDS or (name.startswith(_METADATA) and name != _METADATA)


def read_metadata(given: Mapping[str, str]) -> dict[str, object]:
    """Returns metadata that was given as keys and texts, which are read as cells are.

    Raises:
        ColumnError: A key that is empty, or a text that is empty or not what its key says.

    Example:
        >>> read_metadata({"price.amount": "2999", "price.currency": "usd", "plan": "pro"})
        {'price': {'amount': 2999, 'currency': 'usd'}, 'plan': 'pro'}
    """
    for key, text in given.items():
        if not text:
            raise ColumnError(f"metadata.{_shown(key)} must not be empty; leave it out")
        head, _, part = key.rpartition(".")
        if head and part in _OTHER and f"{head}.{_OTHER[part]}" not in given:
            raise ColumnError(
                f"metadata.{_shown(key)} needs metadata.{_shown(head)}.{_OTHER[part]}, because the "
                f"two make one value; pass both, or {_shown(key)}{_TEXT} for a key with a dot"
            )
    fields = _plan([f"{_METADATA}{key}" for key in given]).read(list(given.values()))
    metadata = fields.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def flatten(fields: Mapping[str, object]) -> dict[str, str]:
    """Returns an event's cells by column; the reverse of reading a row.

    What is read again below these columns, or below those of several events together, is the same
    event: text that reads as a number stands in a column of its own, ``metadata.code:text``, and so
    does what events cannot have but others have sent, such as lists: ``metadata.tags:json``.

    Args:
        fields: The event in the API's field names.

    Example:
        >>> flatten({"event_name": "ran", "id": "5f", "metadata": {"code": "42", "load": 3.67}})
        {'event_name': 'ran', 'id': '5f', 'metadata.code:text': '42', 'metadata.load': '3.67'}
    """
    cells = {
        name: _cell(value)
        for name, value in fields.items()
        if name != "metadata" and value is not None
    }
    metadata = fields.get("metadata")
    for key, value in metadata.items() if isinstance(metadata, Mapping) else ():
        if _is_pair(value):
            cells.update((f"{_METADATA}{key}.{part}", _cell(value[part])) for part in value)
        elif _is_plain(value):
            cell = _cell(value)
            cells[_name(key, value, cell)] = cell
        else:
            cells[f"{_METADATA}{key}{_JSON}"] = json.dumps(value, ensure_ascii=False, default=str)
    return cells


def _plan(names: Sequence[str], whole: Sequence[str] = ()) -> Plan:
    if len(names) > _MOST:
        raise ColumnError(
            f"it must have at most {_MOST:,} columns, not {len(names):,}; an event has "
            f"{len(_FIELDS)} fields and at most 10 metadata keys, so remove the others"
        )
    stripped = tuple(name.strip() for name in names)
    present: set[str] = set()
    for place, name in enumerate(stripped, 1):
        if not name:
            raise ColumnError(f"column {place} has no name; name it or remove it")
        if name in present:
            raise ColumnError(f"the column {short_repr(name)} occurs twice; remove one of them")
        present.add(name)
    columns = tuple(_Column(name) if name in whole else _column(name, present) for name in stripped)
    objects = frozenset(column.key for column in columns if column.key and column.part)
    return Plan(stripped, columns, objects)


def _column(name: str, present: AbstractSet[str]) -> _Column:
    if name in _FIELDS:
        return _Column(name, read=_created_at if name == "created_at" else None)
    if not name.startswith(_METADATA):
        raise _unknown(name)
    key = name.removeprefix(_METADATA)
    head, _, part = key.rpartition(".")
    if key.endswith(_TEXT):
        column = _Column(name, key.removesuffix(_TEXT))
    elif key.endswith(_NUMBER):
        column = _Column(name, key.removesuffix(_NUMBER), read=_number)
    elif key.endswith(_JSON):
        column = _Column(name, key.removesuffix(_JSON), read=_json)
    elif head.strip() and f"{_METADATA}{head}.{_OTHER.get(part)}" in present:
        column = _Column(name, head, part, _amount if part == "amount" else None)
    else:
        column = _Column(name, key, read=_seconds if _metadata.is_date(key) else _guess)
    if not (column.key or "").strip():
        raise ColumnError(f"the column {short_repr(name)} has no key; name it as in metadata.plan")
    return column


def meant(name: str) -> str | None:
    """Returns the field that other tools call so, if there is one.

    Example:
        >>> meant("distinct_id"), meant("event_properties"), meant("plan")
        ('user_id', 'metadata', None)
    """
    return _MEANT.get(re.sub(r"[\W_]", "", name).lower())


def _unknown(name: str) -> ColumnError:
    found = meant(name)
    if found == "metadata":
        remedy = "give each key of the metadata a column of its own, such as metadata.plan"
    elif found is not None:
        remedy = f"did you mean {found}?"
    else:
        key = re.sub(r"^(?:metadata|properties)\W*", "", name, flags=re.IGNORECASE)
        remedy = f"name it metadata.{_shown(key)} to send it as metadata, or remove it"
    return ColumnError(
        f"events have no column {short_repr(name)} (the columns are {_listed(_FIELDS)} and "
        f"metadata.KEY): {remedy}"
    )


def _listed(names: Sequence[str]) -> str:
    listed = ", ".join(map(_shown, names[:_SHOWN]))
    return f"{listed} and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else listed


def _shown(name: str) -> str:
    return short_repr(name)[1:-1]


def _twice(key: str) -> ColumnError:
    return ColumnError(
        f"several columns have a value for metadata.{_shown(key)}; leave all of them out but one"
    )


def _parsed(cell: str) -> int | float | None:
    """The number that a cell is by JSON's grammar, or None."""
    if len(cell) > _LONGEST or (found := _JSON_NUMBER.fullmatch(cell)) is None:
        return None
    if found[1] is None and found[2] is None:
        return int(cell)
    number = float(cell)
    return number if math.isfinite(number) else None


def _guess(_: str, cell: str) -> object:
    if cell[0] not in "-0123456789":
        return cell
    number = _parsed(cell)
    if number is None:
        return cell
    if len(cell) > _SIGNIFICANT:
        digits = re.sub(r"[eE].*|\D", "", cell).lstrip("0")
        if len(digits) > _SIGNIFICANT:
            return cell
    return number


def _number(name: str, cell: str) -> object:
    number = _parsed(cell)
    if number is None:
        raise ColumnError(f"{_shown(name)} must be a number such as 3.67, not {short_repr(cell)}")
    return number


def _json(name: str, cell: str) -> object:
    try:
        return decode_json(cell.encode())
    except (ValueError, RecursionError) as error:
        raise ColumnError(f"{_shown(name)} must be JSON, not {short_repr(cell)}") from error


def _amount(name: str, cell: str) -> object:
    if not _DIGITS.fullmatch(cell):
        raise ColumnError(
            f"{_shown(name)} must be an integer of minor currency units, such as 2999 for 29.99, "
            f"not {short_repr(cell)}"
        )
    return int(cell)


def _created_at(_: str, cell: str) -> object:
    return int(cell) if _DIGITS.fullmatch(cell) else cell


def _seconds(name: str, cell: str) -> object:
    try:
        return _metadata.to_seconds(name.removeprefix(_METADATA), cell, _shown(name))
    except MetadataError as error:
        raise ColumnError(str(error)) from error


def _cell(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _is_pair(value: object) -> TypeGuard[Mapping[str, object]]:
    """Whether two cells hold an object as it is."""
    if not isinstance(value, Mapping) or value.keys() not in _PAIRS:
        return False
    if "url" in value:
        return (
            isinstance(value["value"], str) and isinstance(value["url"], str) and value["url"] != ""
        )
    amount, currency = value["amount"], value["currency"]
    is_whole = type(amount) is int and _DIGITS.fullmatch(str(amount)) is not None
    return is_whole and isinstance(currency, str) and currency != ""


def _is_plain(value: object) -> bool:
    """Whether a cell holds text, or a number, as it is."""
    if type(value) in (int, float):
        return _parsed(_cell(value)) == value
    return isinstance(value, str) and value != ""


def _name(key: str, value: object, cell: str) -> str:
    """The column in which a cell reads as just this value, whatever columns others need."""
    name = f"{_METADATA}{key}"
    if name == name.strip() and key.rpartition(".")[2] not in _OTHER:
        try:
            column = _column(name, set())
            again = cell if column.read is None else column.read(name, cell)
        except ColumnError:
            again = None
        else:
            if column.key == key and type(again) is type(value) and again == value:
                return name
    return name + (_NUMBER if type(value) in (int, float) else _TEXT)
