"""The steps of a regeneration: read, slice, correct, generate, publish, report.

Each module is one step, a plain function from its input to its result. `pipeline` strings together
those that make files; nothing is written to the project before every step has succeeded.
"""

from __future__ import annotations

import enum
from typing import Final, Literal


class RegenerationError(Exception):
    """A step that cannot go on: one sentence that names the file and the place in it."""


class _Absent(enum.Enum):
    ABSENT = "absent"

    def __repr__(self) -> str:
        return self.value


#: What stands where a document has nothing, since null is a value.
ABSENT: Final[Literal[_Absent.ABSENT]] = _Absent.ABSENT
