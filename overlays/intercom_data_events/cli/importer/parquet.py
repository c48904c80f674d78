"""Parquet as NDJSON: a line for each row, so that all else reads and notes it as such.

Columns are those of CSV, or ``metadata`` is a struct or a map. Cells have types, so strings stay
strings; a null is a missing cell. Times are in Unix seconds. Decimals that an integer or a float
holds exactly are numbers, and others strings of their digits.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import anyio.lowlevel

from intercom_data_events._validation import number, printable, short_repr
from intercom_data_events.cli.importer.columns import IDENTITIES, ColumnError, Plan, plan
from intercom_data_events.cli.importer.records import LONGEST, SourceError
from intercom_data_events.cli.importer.source import Source
from intercom_data_events.metadata import is_date

#: How a file begins.
MAGIC = b"PAR1"
# Rows of a batch, and about how many bytes their values may take as Python objects.
_ROWS = 512
_BYTES = 8 * 1024 * 1024
# How a file is opened: what is read at once, and in its description the longest string and list.
_BOUNDS = {
    "pre_buffer": False,
    "buffer_size": 64 * 1024,
    "thrift_string_size_limit": 16 * 1024 * 1024,
    "thrift_container_size_limit": 1_000_000,
}


async def lines(source: Source) -> AsyncIterator[bytes]:
    """Reads a file in batches of rows, and yields them as lines.

    Raises:
        SourceError: It is damaged or not Parquet, a column cannot be used, or pyarrow is missing.
        StoppedError: It was written to meanwhile.
    """
    rows = _lines(source)
    while True:
        await anyio.lowlevel.checkpoint()
        with _told(source):
            text = next(rows, None)
        if text is None:
            break
        yield text
    if source.was_written:
        raise source.written_anew()
    await source.check()


@contextmanager
def _told(source: Source) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise SourceError(
            f"{source.name} is Parquet, which needs pyarrow: "
            "pip install 'intercom-data-events[parquet]'"
        ) from error
    except ColumnError as error:
        raise SourceError(f"{source.name}: {error}") from error
    except Exception as error:  # pyarrow raises many kinds
        if source.was_written:
            raise source.written_anew() from error
        why = printable(" ".join(str(error).split()), 200)
        raise SourceError(
            f"{source.name} cannot be read as Parquet ({why}); make or fetch it again"
        ) from error


def _lines(source: Source) -> Iterator[bytes]:
    from pyarrow import int64, parquet, timestamp

    file = parquet.ParquetFile(source.file, **_BOUNDS)
    schema = file.schema_arrow
    columns = _columns(schema)
    # Fractions of a second are cut off before times become numbers.
    types = [
        [_type(one.type, one.name, moment) for moment in (timestamp("s", "UTC"), int64())]
        for one in schema
    ]
    done = 0
    for group in range(file.num_row_groups):
        rows = max(1, min(_ROWS, _BYTES // _longest(source, file, group)))
        for batch in file.iter_batches(rows, row_groups=[group], use_threads=False):
            cells = [
                column.cast(seconds, safe=False).cast(last).to_pylist(maps_as_pydicts="strict")
                for column, (seconds, last) in zip(batch.columns, types, strict=True)
            ]
            done += len(batch)
            source.position = (source.size or 0) * done // file.metadata.num_rows
            yield b"".join(_line(columns, row) for row in zip(*cells, strict=True))


def _longest(source: Source, file: Any, group: int) -> int:
    """The bytes of the longest text of a group of rows that may stand in many of them.

    Each text of a dictionary is in the file once, and in memory once for each row that has it.
    """
    from pyarrow import compute, parquet

    described = file.metadata.row_group(group)
    chunks = [described.column(place) for place in range(described.num_columns)]
    for chunk in chunks:
        if chunk.total_uncompressed_size > LONGEST * max(1, chunk.num_values):
            raise ColumnError(f"{short_repr(chunk.path_in_schema)} must have values of up to 1 MiB")
    texts = [chunk.path_in_schema for chunk in chunks if chunk.physical_type == "BYTE_ARRAY"]
    again = parquet.ParquetFile(
        source.file, read_dictionary=texts, metadata=file.metadata, **_BOUNDS
    )
    longest = 1
    for batch in again.iter_batches(1, row_groups=[group], columns=texts, use_threads=False):
        for column in batch.columns:
            for values in _dictionaries(column):
                longest = max(longest, compute.max(compute.binary_length(values)).as_py() or 1)
        break
    return longest


def _dictionaries(column: Any) -> Iterator[Any]:
    """The dictionaries of a column and of those within it."""
    from pyarrow import types

    if types.is_dictionary(column.type):
        yield column.dictionary
    elif types.is_struct(column.type):
        for inner in column.flatten():
            yield from _dictionaries(inner)
    elif types.is_map(column.type):
        yield from _dictionaries(column.keys)
        yield from _dictionaries(column.items)
    elif types.is_list(column.type) or types.is_large_list(column.type):
        yield from _dictionaries(column.values)


def _columns(schema: Any) -> Plan:
    """Returns how a row is read.

    Raises:
        ColumnError: Columns cannot be used.
    """
    from pyarrow import types

    names = list(schema.names)
    if "metadata" not in names or not types.is_nested(schema.field("metadata").type):
        return plan(names).typed()
    flat = [name for name in names if name.startswith("metadata.")]
    if flat:
        raise ColumnError(
            f"metadata must be one column or a column for each key, not both; remove "
            f"{short_repr(flat[0])} or metadata"
        )
    return plan(names, nested=True)


def _type(given: Any, name: str, moment: Any) -> Any:
    """Returns the type that a column is converted to, below which times are of the type `moment`.

    Raises:
        ColumnError: JSON has nothing for it.
    """
    import pyarrow
    from pyarrow import types

    if types.is_dictionary(given):
        return _type(given.value_type, name, moment)
    if types.is_struct(given):
        return pyarrow.struct([one.with_type(_type(one.type, one.name, moment)) for one in given])
    if types.is_map(given):
        key, item = given.key_type, given.item_type
        return pyarrow.map_(_type(key, name, moment), _type(item, name, moment))
    if types.is_list(given) or types.is_large_list(given):
        return pyarrow.list_(_type(given.value_type, name, moment))
    if types.is_timestamp(given):
        if given.tz is None:
            raise ColumnError(
                f"the times of the column {short_repr(name)} must have a time zone; convert it to "
                "timestamp[us, tz=UTC] if they are in UTC"
            )
        if not is_date(name):
            raise ColumnError(
                f"the column {short_repr(name)} has times, so its name must end in _date or _at"
            )
        return moment
    if types.is_integer(given) and name in IDENTITIES:
        return pyarrow.string()
    if types.is_floating(given):
        return pyarrow.float64()
    plain = (types.is_string, types.is_large_string, types.is_boolean, types.is_null)
    if any(kind(given) for kind in (*plain, types.is_integer, types.is_decimal)):
        return given
    raise ColumnError(
        f"the column {short_repr(name)} must have text, numbers or times, not {given}; convert it "
        "to a string, or remove it"
    )


def _line(columns: Plan, row: Sequence[object]) -> bytes:
    try:
        fields = columns.read(row)
    except ColumnError as error:  # Half of a pair, which the checks of events name.
        fields = error.fields or {}
    fields = _present(fields)
    return json.dumps(fields, default=_decimal).encode() + b"\n" if fields else b"\n"


def _present(fields: Mapping[str, object]) -> dict[str, object]:
    """Returns what is neither null nor an object of nulls."""
    found = {
        name: _present(value) if isinstance(value, dict) else value
        for name, value in fields.items()
    }
    return {name: value for name, value in found.items() if value is not None and value != {}}


def _decimal(value: object) -> object:
    found = number(value)
    return str(value) if found is None else found
