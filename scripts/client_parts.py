"""What scripts use of the client, which is not installed where it is generated."""

from __future__ import annotations

import sys
from pathlib import Path

# Last, so that an installed client counts first.
sys.path.append(str(Path(__file__).parents[1] / "overlays"))

try:
    from intercom_data_events._arguments import ArgumentParser
    from intercom_data_events._inflating import ACCEPTED, InflateError, Inflater, coding_of
    from intercom_data_events._loopback import is_loopback
    from intercom_data_events._validation import printable
except ImportError as error:
    sys.exit(
        f"The client that is installed for {sys.executable} is of another version than these "
        f"scripts ({error}): uninstall it, or run a session of nox."
    )

__all__ = [
    "ACCEPTED",
    "ArgumentParser",
    "InflateError",
    "Inflater",
    "coding_of",
    "is_loopback",
    "printable",
    "sentence",
]

# Characters of a message, which may quote a whole description.
_LONGEST = 10_000


def sentence(text: str) -> str:
    """Returns text for a terminal: on one line, printable, cut to 10,000 characters."""
    return printable(" ".join(text[:_LONGEST].split()), None)
