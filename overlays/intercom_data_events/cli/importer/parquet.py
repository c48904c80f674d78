"""Converts Parquet to NDJSON, one line per row, which the rest of the import reads.

The columns are those of CSV. A struct ``metadata`` with a field ``plan`` is a column
``metadata.plan``; ``metadata`` can also be a map. Cells have types, so strings stay strings; nulls
are left out. Times become Unix seconds. Decimals become numbers if an integer or a float holds them
exactly, and strings of their digits otherwise.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import anyio.lowlevel

from intercom_data_events._validation import number, printable, short_repr
from intercom_data_events.cli.importer.columns import IDENTITIES, ColumnError, plan
from intercom_data_events.cli.importer.records import LONGEST, SourceError
from intercom_data_events.cli.importer.source import Source
from intercom_data_events.metadata import is_date

#: The first bytes of a file.
MAGIC = b"PAR1"
# Rows of a batch, and the most bytes of strings of a nested column in it.
_ROWS = 128
_BYTES = 32 * 1024 * 1024
# Bytes of a column per row, on average over a row group, which is read in pages of a thousand or
# more rows; and bytes of one value, such as a number in a list.
_LARGEST = 32 * 1024
_VALUE = 32
# Options for opening a file: bytes to read at once, and the longest string and list in its footer.
_BOUNDS = {
    "pre_buffer": False,
    "buffer_size": 64 * 1024,
    "thrift_string_size_limit": 16 * 1024 * 1024,
    "thrift_container_size_limit": 1_000_000,
}


async def lines(source: Source) -> AsyncIterator[bytes]:
    """Reads a file in batches of rows, and yields them as lines.

    Raises:
        SourceError: The file is damaged or not Parquet, a column is invalid, or pyarrow is missing.
        StoppedError: The file was changed while it was read.
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
            f"{source.name} is Parquet, which requires pyarrow; run: "
            "pip install 'intercom-data-events[parquet]'"
        ) from error
    except ColumnError as error:
        raise SourceError(f"{source.name}: {error}") from error
    except Exception as error:  # pyarrow raises many kinds
        if source.was_written:
            raise source.written_anew() from error
        why = printable(" ".join(str(error).split()), 200)
        raise SourceError(
            f"cannot read {source.name} as Parquet ({why}); create or download it again"
        ) from error


def _lines(source: Source) -> Iterator[bytes]:
    from pyarrow import Table, parquet, types

    opened = parquet.ParquetFile(source.file, **_BOUNDS)
    described, names, most = opened.metadata, opened.schema_arrow.names, 1
    for group in map(described.row_group, range(described.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            size = max(chunk.total_uncompressed_size, chunk.num_values * _VALUE)
            size //= max(1, group.num_rows)
            if size > _LARGEST:
                raise ColumnError(
                    f"the column {short_repr(chunk.path_in_schema)} must have at most "
                    f"{_LARGEST:,} bytes per row, not {size:,}; remove the column"
                )
            if chunk.path_in_schema not in names and chunk.physical_type == "BYTE_ARRAY":
                most = max(most, chunk.total_uncompressed_size)
    # A string of a dictionary is in the file once, and read this way in memory, too. In a struct or
    # a map, pyarrow would then read only the first row group, so strings there may be in each row.
    leaves = map(described.schema.column, range(described.num_columns))
    texts = [
        leaf.path
        for leaf in leaves
        if leaf.physical_type == "BYTE_ARRAY"
        and leaf.logical_type.type != "DECIMAL"
        and leaf.path in names
    ]
    file = parquet.ParquetFile(source.file, metadata=described, read_dictionary=texts, **_BOUNDS)
    fields = list(file.schema_arrow)
    while any(types.is_struct(one.type) for one in fields):
        fields = [inner for one in fields for inner in one.flatten()]
    maps = [one.name for one in fields if types.is_map(one.type)]
    columns = plan([one.name for one in fields], typed=True, whole="metadata" in maps)
    casts = [_casts(one.type, one.name) for one in fields]
    done = 0
    rows = max(1, min(_ROWS, _BYTES // most))
    for batch in file.iter_batches(rows, use_threads=False):
        done += len(batch)
        source.position = (source.size or 0) * done // described.num_rows
        table = Table.from_batches([batch])
        while any(map(types.is_struct, table.schema.types)):
            table = table.flatten()
        cells = table.columns
        for place, kinds in enumerate(casts):
            for kind in kinds:
                cells[place] = cells[place].cast(kind, safe=False)
        text = b""
        for row in zip(*cells, strict=True):
            event = columns.read(list(map(_value, row)))
            text += json.dumps(event, default=_plain).encode() if event else b""
            text += b"\n"
            if len(text) > LONGEST:
                yield text
                text = b""
        yield text


def _casts(kind: Any, name: str) -> Sequence[Any]:
    """Returns the types to which a column is converted, one after the other.

    Raises:
        ColumnError: JSON has no type for the column.
    """
    from pyarrow import int64, string, timestamp, types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_timestamp(kind):
        if kind.tz is None:
            raise ColumnError(
                f"the times of the column {short_repr(name)} must have a time zone; if they are in "
                "UTC, convert the column to timestamp[us, tz=UTC]"
            )
        if not is_date(name):
            raise ColumnError(
                f"the column {short_repr(name)} contains times, so its name must end in _date or "
                "_at; rename it"
            )
        # Fractions of a second are cut off before times become numbers.
        return timestamp("s", "UTC"), int64()
    if types.is_integer(kind) and name in IDENTITIES:
        return (string(),)
    if types.is_temporal(kind) or "binary" in str(kind):
        raise ColumnError(
            f"the column {short_repr(name)} must contain strings, numbers or times, not {kind}; "
            "convert it to strings, or remove it"
        )
    return ()


def _value(cell: Any) -> object:
    value = cell.as_py(maps_as_pydicts="strict")
    if isinstance(value, dict):  # From a map.
        return {key: one for key, one in value.items() if one is not None} or None
    return value


def _plain(value: object) -> object:
    found = number(value)
    return str(value) if found is None else found
