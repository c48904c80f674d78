"""Numbers with their nouns, for messages."""

from __future__ import annotations


def counted(count: int, noun: str = "event") -> str:
    """Returns a number with its noun, such as "1 event" or "1,000 events"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
