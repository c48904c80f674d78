"""The report of a tool: what it compared, and the violations."""

from __future__ import annotations

import attrs


def counted(violations: int) -> str:
    return f"{violations or 'no'} {'violation' if violations == 1 else 'violations'}"


@attrs.define
class Report:
    """The result of one tool.

    Attributes:
        tool: Its name and version.
        compared: What it compared, with counts; one line each.
        violations: The violations, each of one or more lines.
        skipped: Why it was not run; None if it was.
    """

    tool: str
    compared: list[str] = attrs.field(factory=list[str])
    violations: list[str] = attrs.field(factory=list[str])
    skipped: str | None = None

    def text(self, seconds: float) -> str:
        """Returns the report for a terminal."""
        if self.skipped is not None:
            return f"{self.tool}: skipped: {self.skipped}"
        lines = [f"{self.tool}: {counted(len(self.violations))} ({seconds:.0f} s)"]
        lines += [f"  {line}" for line in self.compared]
        for number, violation in enumerate(self.violations, 1):
            first, *rest = violation.splitlines() or [""]
            lines += [f"  {number}. {first}", *(f"     {line}" for line in rest)]
        return "\n".join(lines)
