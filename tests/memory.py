"""Bounds the memory that a part of a test allocates."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def peak_below(most: int) -> Iterator[None]:
    """Fails where more bytes are allocated at one time."""
    tracemalloc.start()
    try:
        yield
        if (peak := tracemalloc.get_traced_memory()[1]) >= most:
            raise AssertionError(f"{peak:,} bytes were allocated at one time, not below {most:,}")
    finally:
        tracemalloc.stop()
