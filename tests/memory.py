"""Limits the memory that a part of a test allocates."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def peak_below(most: int) -> Iterator[None]:
    """Fails if the peak of allocated bytes reaches a limit."""
    tracemalloc.start()
    try:
        yield
        if (peak := tracemalloc.get_traced_memory()[1]) >= most:
            raise AssertionError(f"peak memory must be below {most:,} bytes, not {peak:,}")
    finally:
        tracemalloc.stop()
