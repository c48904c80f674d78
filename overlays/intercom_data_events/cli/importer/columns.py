"""Events as rows of cells: the columns, and how the cells of each are read.

A column is a field of the API (``event_name``, ``created_at``, ``user_id``, ``id``, ``email``) or
``metadata.`` and a key. ``metadata.price.amount`` with ``metadata.price.currency``, and
``metadata.order.url`` with ``metadata.order.value``, make an object; otherwise dots belong to the
key. A metadata cell that is a JSON number is read as a number, any other as a string;
``metadata.code:text`` and ``metadata.load:number`` set the type. ``metadata.tags:json`` contains
any JSON, such as values from other tools that the API does not support. Empty cells are left out.
`Event` checks the values, such as times below a key that ends in _date or _at.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple, TypeAlias

from attrs import frozen

from intercom_data_events._validation import decode_json, invalid, short_repr

#: The fields that identify a contact.
IDENTITIES = ("user_id", "id", "email")
#: The columns that are not metadata.
FIELDS = ("event_name", "created_at", *IDENTITIES)
_METADATA = "metadata."
_TEXT, _NUMBER, _JSON = ":text", ":number", ":json"
# The two parts of each object that the API supports.
_OTHER = {"amount": "currency", "currency": "amount", "url": "value", "value": "url"}
_PAIRS = ({"amount", "currency"}, {"url", "value"})
# Names for the same fields in exports of other tools (Segment, RudderStack, Mixpanel, Amplitude,
# PostHog, Braze, Heap) and in users' own tables, without blanks, punctuation and capitals.
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
# A float keeps this many digits exactly; further ones would be lost.
_SIGNIFICANT = 15
# Columns listed in a message.
_SHOWN = 20
# Columns of a file, which has one for each key of all its events.
_MOST = 1_000
# Characters of a number: more than a float of 17 digits or an integer of 64 bits needs.
_LONGEST = 40

_Read: TypeAlias = Callable[[str, Any], object]


class ColumnError(ValueError):
    """A header is invalid, or cells do not match their columns.

    Attributes:
        fields: The valid fields of the row.
    """

    def __init__(self, message: str, fields: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.fields = fields


class _Column(NamedTuple):
    name: str
    key: str | None = None  # None: not metadata.
    part: str | None = None  # None: not part of an object.
    read: _Read | None = None  # None: a string, unchanged.


@frozen
class Plan:
    """How the rows below a header are read.

    Attributes:
        names: The columns, without surrounding blanks.
    """

    names: tuple[str, ...]
    _columns: tuple[_Column, ...]
    _objects: frozenset[str]

    def read(self, cells: Sequence[object]) -> dict[str, object]:
        """Returns the fields of a row's event.

        Args:
            cells: One cell for each column; None for a missing one.

        Raises:
            ColumnError: Cells do not match their columns; the message names the columns.

        Example:
            >>> from intercom_data_events.cli.importer.columns import plan
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
                value = cell if read is None else read(name, cell)
                into: object = fields
                if key is not None:
                    into = metadata if part is None else metadata.setdefault(key, {})
                place = part or key or name
                if not isinstance(into, dict) or place in into:
                    raise _twice(key or name)
                into[place] = value
            except ColumnError as error:
                problems.append((key, str(error)))
        for key in self._objects:
            found = metadata.get(key)
            if isinstance(found, dict) and found.keys() == {"url"}:
                found["value"] = ""  # A link without text: its cell is empty.
        for wrong, _ in problems:
            if wrong is not None:
                metadata.pop(wrong, None)  # Part of an invalid value would cause further problems.
        if metadata:
            fields["metadata"] = metadata
        if problems:
            raise ColumnError("; ".join(problem for _, problem in problems), fields)
        return fields


def plan(names: Sequence[str], *, typed: bool = False, whole: bool = False) -> Plan:
    """Returns how the rows below a header are read.

    Args:
        names: The header's cells; surrounding blanks are ignored.
        typed: Whether cells have types already, so that strings stay strings.
        whole: Whether there is a column ``metadata`` of objects with all keys.

    Raises:
        ColumnError: A column is unknown or occurs twice, or event_name or the contact is missing.
    """
    made = _plan(names, typed=typed, whole=whole)
    if "event_name" not in made.names:
        listed = _listed(made.names)
        raise ColumnError(f"the column event_name is missing; add it, or rename one of: {listed}")
    if not set(IDENTITIES) & set(made.names):
        raise ColumnError("a column for the contact is missing; add user_id, id or email")
    return made


def known(name: str) -> bool:
    """Whether a column is valid; surrounding blanks are ignored."""
    name = name.strip()
    return name in FIELDS or (name.startswith(_METADATA) and name != _METADATA)


def read_metadata(given: Mapping[str, str]) -> dict[str, object]:
    """Returns metadata from keys and strings, which are read like cells.

    Raises:
        ColumnError: A key or string is empty, or a string does not match its key.

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
                f"metadata.{_shown(key)} requires metadata.{_shown(head)}.{_OTHER[part]}, because "
                f"both make one value; pass both, or {_shown(key)}{_TEXT} for a key with a dot"
            )
    fields = _plan([f"{_METADATA}{key}" for key in given]).read(list(given.values()))
    metadata = fields.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def flatten(fields: Mapping[str, object]) -> dict[str, str]:
    """Returns an event's cells by column; the reverse of reading a row.

    Reading the cells again, also together with those of other events, gives the same event: a
    string that looks like a number gets a column such as ``metadata.code:text``, and values from
    other tools that the API does not support, such as lists, one such as ``metadata.tags:json``.

    Example:
        >>> flatten({"event_name": "ran", "id": "5f", "metadata": {"code": "42", "load": 3.67}})
        {'event_name': 'ran', 'id': '5f', 'metadata.code:text': '42', 'metadata.load': '3.67'}
    """
    cells = {
        name: _text(value)
        for name, value in fields.items()
        if name != "metadata" and value is not None
    }
    metadata = fields.get("metadata")
    for key, value in metadata.items() if isinstance(metadata, Mapping) else ():
        cells.update(_cells(key, value))
    return cells


def _cells(key: str, value: object) -> dict[str, str]:
    """Returns cells that are read as this value, whatever columns other events need."""
    name, text = f"{_METADATA}{key}", _text(value)
    tried = [{f"{name}{ending}": text} for ending in ("", _TEXT, _NUMBER)]
    if key.rpartition(".")[2] in _OTHER:
        del tried[0]  # Together with its counterpart, it would be read as an object.
    if isinstance(value, Mapping) and value.keys() in _PAIRS:
        tried = [{f"{name}.{part}": _text(one) for part, one in value.items()}]
    for cells in tried:
        try:
            again = _plan([*cells]).read([cell or None for cell in cells.values()])
        except ColumnError:
            continue
        if repr(again) == repr({"metadata": {key: value}}):
            return cells
    return {f"{name}{_JSON}": json.dumps(value, ensure_ascii=False, default=str)}


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _plan(names: Sequence[str], *, typed: bool = False, whole: bool = False) -> Plan:
    if len(names) > _MOST:
        raise ColumnError(
            f"there must be at most {_MOST:,} columns, not {len(names):,}; an event has "
            f"{len(FIELDS)} fields and at most 10 metadata keys, so remove the other columns"
        )
    stripped = tuple(name.strip() for name in names)
    present: set[str] = set()
    for place, name in enumerate(stripped, 1):
        if not name:
            raise ColumnError(f"column {place} has no name; add one, or remove the column")
        if name in present:
            raise ColumnError(f"the column {short_repr(name)} must occur only once; remove one")
        present.add(name)
    columns, unknown = list[_Column](), list[str]()
    for name in stripped:
        if name in FIELDS or (whole and name == "metadata"):
            columns.append(_Column(name, read=_whole if name == "created_at" else None))
        elif name.startswith(_METADATA):
            columns.append(_column(name, present))
        else:
            unknown.append(f"{short_repr(name)}: {_remedy(name, present)}")
    if unknown:
        more = f"; and {len(unknown) - _SHOWN:,} more" if len(unknown) > _SHOWN else ""
        raise ColumnError(
            f"columns must be {_listed(FIELDS)} or metadata.KEY, not "
            f"{'; '.join(unknown[:_SHOWN])}{more}"
        )
    objects = frozenset(one.key for one in columns if one.key and one.part)
    if typed:
        columns = [one._replace(read=None) for one in columns]
        keys = [one.key for one in columns if one.key and one.part is None]
        for key in keys:
            if whole or key in objects or keys.count(key) > 1:
                raise _twice(key)
    return Plan(stripped, tuple(columns), objects)


def _column(name: str, present: AbstractSet[str]) -> _Column:
    key = name.removeprefix(_METADATA)
    head, _, part = key.rpartition(".")
    if key.endswith(_TEXT):
        column = _Column(name, key.removesuffix(_TEXT))
    elif key.endswith(_NUMBER):
        column = _Column(name, key.removesuffix(_NUMBER), read=_number)
    elif key.endswith(_JSON):
        column = _Column(name, key.removesuffix(_JSON), read=_json)
    elif head.strip() and f"{_METADATA}{head}.{_OTHER.get(part)}" in present:
        column = _Column(name, head, part, _whole if part == "amount" else None)
    else:
        column = _Column(name, key, read=_guess)
    if not (column.key or "").strip():
        raise ColumnError(f"the column {short_repr(name)} has no key; add one, as in metadata.plan")
    return column


def meant(name: str) -> str | None:
    """Returns the field for which other tools use this name, if there is one.

    Example:
        >>> meant("distinct_id"), meant("event_properties"), meant("plan")
        ('user_id', 'metadata', None)
    """
    return _MEANT.get(re.sub(r"[\W_]", "", name).lower())


def _remedy(name: str, present: AbstractSet[str]) -> str:
    found = meant(name)
    if found == "metadata":
        return "use one column for each key, such as metadata.plan"
    if found is not None and found not in present:
        return f"did you mean {found}?"
    key = re.sub(r"^(?:metadata|properties)[\W_]*", "", name, flags=re.IGNORECASE)
    return f"rename it to metadata.{_shown(key)} to send it as metadata, or remove it"


def _listed(names: Sequence[str]) -> str:
    listed = ", ".join(map(_shown, names[:_SHOWN]))
    return f"{listed} and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else listed


def _shown(name: str) -> str:
    return short_repr(name)[1:-1]


def _twice(key: str) -> ColumnError:
    return ColumnError(
        f"only one column may have a value for metadata.{_shown(key)}; leave out the others"
    )


def _parsed(cell: str) -> int | float | None:
    """Returns the number in a cell, if it is one in JSON."""
    if len(cell) > _LONGEST or (found := _JSON_NUMBER.fullmatch(cell)) is None:
        return None
    if found[1] is None and found[2] is None:
        return int(cell)
    number = float(cell)
    return number if math.isfinite(number) else None


def _guess(_: str, cell: str) -> object:
    number = _parsed(cell) if cell[0] in "-0123456789" else None
    if number is None:
        return cell
    digits = re.sub(r"[eE].*|\D", "", cell).lstrip("0") if len(cell) > _SIGNIFICANT else ""
    return number if len(digits) <= _SIGNIFICANT else cell


def _number(name: str, cell: str) -> object:
    number = _parsed(cell)
    if number is None:
        raise invalid(ColumnError, f"{_shown(name)} must be a number such as 3.67", cell)
    return number


def _json(name: str, cell: str) -> object:
    try:
        return decode_json(cell.encode())
    except (ValueError, RecursionError) as error:
        raise invalid(ColumnError, f"{_shown(name)} must be JSON", cell) from error


def _whole(_: str, cell: str) -> object:
    return int(cell) if _DIGITS.fullmatch(cell) else cell
