"""What a tool compared and what it found."""

from __future__ import annotations

import attrs


def counted(violations: int) -> str:
    return f"{violations or 'no'} {'violation' if violations == 1 else 'violations'}"


@attrs.define
class Report:
    """What came of one tool.

    Attributes:
        tool: Its name and version.
        compared: What it looked at, with counts, a line each.
        violations: What does not agree.
        skipped: Why it could not be run, where it was not.
    """

    tool: str
    compared: list[str] = attrs.field(factory=list[str])
    violations: list[str] = attrs.field(factory=list[str])
    skipped: str | None = None

    def text(self, seconds: float) -> str:
        """The report as it is printed."""
        if self.skipped is not None:
            return f"{self.tool}: skipped: {self.skipped}"
        lines = [f"{self.tool}: {counted(len(self.violations))} ({seconds:.0f} s)"]
        lines += [f"  {line}" for line in self.compared]
        for number, violation in enumerate(self.violations, 1):
            first, *rest = violation.splitlines() or [""]
            lines += [f"  {number}. {first}", *(f"     {line}" for line in rest)]
        return "\n".join(lines)
