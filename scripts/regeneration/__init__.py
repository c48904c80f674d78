"""The steps of a regeneration. Each step is a plain function from its input to its result.

`pipeline` runs the steps that make files. `document` reads the description, and `downloading`
fetches it from an address. `operations` reads the list of the client's operations, `slicing` cuts
them out of the description, and `census` finds other operations of data events. `essentials` and
`tolerating` prepare the slice, `correcting` applies the corrections, and `generating` writes the
package. `publishing` changes the project only after every step has succeeded.

`reporting` makes the report. `comparing` finds the differences, and `describing` puts them into
words. `breaking`, `narrowing` and `withdrawing` find what breaks callers. `looking` makes the list
that a maintainer decides on, and `releasing` suggests a version.
"""

from __future__ import annotations

import enum
from typing import Final, Literal


class RegenerationError(Exception):
    """A step failed. The message is one sentence that names the file and the place in it."""


class _Absent(enum.Enum):
    ABSENT = "absent"

    def __repr__(self) -> str:
        return self.value


#: Marks a place where a document has no value. None would mean null, which is a value.
ABSENT: Final[Literal[_Absent.ABSENT]] = _Absent.ABSENT
