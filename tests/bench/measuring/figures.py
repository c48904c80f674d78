"""Questions and their figures: medians of rounds in which the subjects take turns."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import asdict, define, field, frozen

#: The subjects that occur in more than one question.
HTTPX = "httpx"
OURS = "intercom-data-events"
OFFICIAL = "python-intercom"


@frozen
class Goal:
    """The goal of a subject.

    Attributes:
        limit: The largest value; the smallest if more is better.
        of: The subject of which the limit is a multiple; None for an absolute limit.
    """

    limit: float
    of: str | None = None


@frozen
class Question:
    """Something to measure of several subjects. The first is the baseline.

    Attributes:
        title: What is measured, with the amount.
        unit: The unit of the figures.
        subjects: The functions that measure the subjects, in seconds, bytes or another base unit.
        scale: The factor from the base unit to the unit.
        more_is_better: Whether larger figures are better.
        goals: The goals by subject.
        most: The most rounds; 0 for a figure that is always the same.
    """

    title: str
    unit: str
    subjects: Mapping[str, Callable[[], float]]
    scale: float = 1.0
    more_is_better: bool = False
    goals: Mapping[str, Goal] = field(factory=dict[str, Goal])
    most: int = 1_000

    def answer(self, rounds: int) -> list[Figure]:
        """Measures all subjects in turn in each round, so that noise affects all of them."""
        taken: dict[str, list[float]] = {name: [] for name in self.subjects}
        # The first round fills caches.
        wanted = min(rounds, self.most)
        for _ in range(wanted + 1):
            for name, measure in self.subjects.items():
                taken[name].append(measure() * self.scale)
        medians = {name: statistics.median(values[1:] or values) for name, values in taken.items()}
        base = next(iter(medians.values()))
        return [
            Figure(
                question=self.title,
                subject=name,
                value=value,
                unit=self.unit,
                ratio=value / base if base else None,
                goal=self._goal(name, medians),
                more_is_better=self.more_is_better,
                rounds=max(wanted, 1),
            )
            for name, value in medians.items()
        ]

    def _goal(self, name: str, medians: Mapping[str, float]) -> str:
        goal = self.goals.get(name)
        if goal is None or goal.of not in {None, *medians}:
            return ""
        sign = "≥" if self.more_is_better else "≤"
        if goal.of is None:
            return f"{sign} {goal.limit:g} {self.unit}"
        reached = medians[name] / medians[goal.of]
        first = next(iter(medians))
        seen = "" if goal.of == first else f": {reached:.2f} x"
        return f"{sign} {goal.limit:.2f} x {goal.of}{seen}"


@frozen
class Figure:
    """The result of one subject.

    Attributes:
        question: The title of the question.
        subject: The name of the subject.
        value: The median, in the unit.
        unit: The unit.
        ratio: The ratio to the first subject; None if that is 0.
        goal: The goal in words, or an empty string.
        more_is_better: Whether larger figures are better.
        rounds: The number of rounds of the median.
    """

    question: str
    subject: str
    value: float
    unit: str
    ratio: float | None
    goal: str
    more_is_better: bool
    rounds: int


@define
class Run:
    """All figures of one run, and the machine.

    Attributes:
        machine: Processor, system, Python and versions, by name.
        figures: The figures, question by question.
    """

    machine: Mapping[str, str]
    figures: list[Figure] = field(factory=list[Figure])

    def questions(self) -> Iterable[tuple[str, list[Figure]]]:
        """Returns the figures of each question."""
        grouped: dict[str, list[Figure]] = {}
        for figure in self.figures:
            grouped.setdefault(figure.question, []).append(figure)
        return grouped.items()

    def to_json(self) -> str:
        """Returns everything as JSON."""
        plain: dict[str, Any] = {
            "machine": dict(self.machine),
            "figures": [asdict(figure) for figure in self.figures],
        }
        return json.dumps(plain, indent=2, ensure_ascii=False)

    def to_markdown(self) -> str:
        """Returns the table for the README, without goals."""
        lines = (HEADINGS, ("---", "---", "---:", "---:", "---"), *cells(self.figures))
        return "".join(f"| {' | '.join(line[:-1])} |\n" for line in lines)


HEADINGS = ("what", "of", "", "ratio", "goal")
_WIDTHS = (62, 34, 14, 8, 0)


def row(cells: Iterable[str]) -> str:
    """Returns a line of the table: Markdown that is aligned, so that it is readable as text too."""
    texts = [
        cell.rjust(width) if 2 <= place <= 3 else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True))
    ]
    return f"| {' | '.join(texts)} |"


def rule() -> str:
    """Returns the line below the table's headings."""
    lines = ["-" * max(width, 3) for width in _WIDTHS]
    lines[2], lines[3] = f"{lines[2][1:]}:", f"{lines[3][1:]}:"
    return f"| {' | '.join(lines)} |"


def rows(figures: Iterable[Figure]) -> Iterable[str]:
    """Returns the lines of one question."""
    return map(row, cells(figures))


def cells(figures: Iterable[Figure]) -> Iterable[tuple[str, ...]]:
    """Returns the cells of the table; only the first line of a question has its title."""
    title = ""
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f} x"
        value = f"{shown(figure.value)} {figure.unit}"
        named = "" if figure.question == title else figure.question
        yield named, figure.subject, value, ratio, figure.goal
        title = figure.question


def shown(value: float) -> str:
    """Returns a figure with three significant digits."""
    if not value or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
