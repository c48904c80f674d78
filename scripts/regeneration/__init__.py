"""The steps of a regeneration, each a plain function from its input to its result.

`pipeline` strings together those that make files: `document` reads (by `downloading`, from an
address), `operations` says what the client is made of, `slicing` cuts it out, `census` finds what
else there is, `correcting` corrects what `tolerating` and `essentials` leave, `generating` writes
the package. Nothing is written to the project, by `publishing`, before every step has succeeded.

`reporting` says what it means: `comparing` finds the differences and `describing` words them,
`breaking`, `narrowing` and `withdrawing` judge them for callers, `looking` makes a list for a
person of it, and `releasing` suggests a version.
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
