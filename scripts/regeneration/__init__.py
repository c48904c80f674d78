"""The steps of a regeneration: read, slice, correct, generate, publish, report.

Each module is one step, a plain function from its input to its result. `scripts/regenerate.py`
strings them together; nothing is written to the project before every step has succeeded.
"""

from __future__ import annotations


class RegenerationError(Exception):
    """A step that cannot go on: one sentence that names the file and the place in it."""
