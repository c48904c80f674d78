"""The parts of the client that scripts use; their environment does not have the client."""

from __future__ import annotations

import sys
from pathlib import Path

# Last, so that an installed client takes precedence.
sys.path.append(str(Path(__file__).parents[1] / "overlays"))

try:
    from intercom_data_events._arguments import ArgumentParser
    from intercom_data_events._inflating import ACCEPTED, InflateError, Inflater, coding_of
    from intercom_data_events._loopback import is_loopback
    from intercom_data_events._validation import printable
except ImportError as error:
    sys.exit(
        f"The client installed for {sys.executable} must have the same version as these scripts, "
        f"but differs: {error}; uninstall it, or run a session of nox."
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

# The longest message, in characters; a message may quote a whole description.
_LONGEST = 10_000


def sentence(text: str) -> str:
    """Returns text for a terminal: on one line, printable, cut to 10,000 characters."""
    return printable(" ".join(text[:_LONGEST].split()), None)
