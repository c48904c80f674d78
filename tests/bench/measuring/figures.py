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
AIOHTTP = "aiohttp"
FAST = f"{OURS}[fast]"
#: What a question compares its other subjects with: the same work done without a client.
BARE = "without a client"
#: Each has one column in the README's table and one color in the chart.
PEERS = (BARE, OURS, FAST, OFFICIAL, AIOHTTP)


@frozen
class Goal:
    """A goal for a subject.

    Attributes:
        limit: The maximum, or the minimum if more is better.
        of: The subject that it is a multiple of; None for a figure.
    """

    limit: float
    of: str | None = None


@frozen
class Question:
    """Something to measure of several subjects; the first is the base of the ratios.

    Attributes:
        title: What is measured, with the amount.
        unit: The unit of the figures.
        subjects: By name: a function that returns seconds, bytes or a count.
        scale: The factor from what it returns to the unit.
        more_is_better: Whether a larger figure is better.
        goals: The goal of a subject, by its name.
        most: The largest number of rounds that is useful; 0 if each round gives the same.
        headline: Whether the README and the chart show it.
    """

    title: str
    unit: str
    subjects: Mapping[str, Callable[[], float]]
    scale: float = 1.0
    more_is_better: bool = False
    goals: Mapping[str, Goal] = field(factory=dict[str, Goal])
    most: int = 1_000
    headline: bool = False

    def answer(self, rounds: int) -> list[Figure]:
        """Measures all subjects in turn, in each round, so that noise affects them equally."""
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
                headline=self.headline,
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
        ratio: The ratio to the first subject's value; None if that is 0.
        goal: The goal in words, or an empty string.
        more_is_better: Whether a larger value is better.
        rounds: The number of rounds that it is the median of.
        headline: Whether the README and the chart show it.
    """

    question: str
    subject: str
    value: float
    unit: str
    ratio: float | None
    goal: str
    more_is_better: bool
    rounds: int
    headline: bool = False


@define
class Run:
    """All figures of one run, and its machine.

    Attributes:
        machine: Processor, system, Python and versions, by name.
        figures: The figures, question by question.
    """

    machine: Mapping[str, str]
    figures: list[Figure] = field(factory=list[Figure])

    @classmethod
    def from_json(cls, text: str) -> Run:
        """Reads what `to_json` wrote."""
        plain = json.loads(text)
        return cls(plain["machine"], [Figure(**figure) for figure in plain["figures"]])

    def questions(self, *, headlines: bool) -> Iterable[tuple[str, list[Figure]]]:
        """Groups the figures by question: those of headline questions, or all."""
        grouped: dict[str, list[Figure]] = {}
        for figure in self.figures:
            if figure.headline or not headlines:
                grouped.setdefault(figure.question, []).append(figure)
        return grouped.items()

    def to_json(self) -> str:
        """Returns all figures for programs."""
        plain: dict[str, Any] = {
            "machine": dict(self.machine),
            "figures": [asdict(figure) for figure in self.figures],
        }
        return json.dumps(plain, indent=2, ensure_ascii=False)

    def to_markdown(self, *, headlines: bool) -> str:
        """Returns the README's table, without goals: headline questions, or all."""
        lines = [("", *PEERS), ("---", *("---:" for _ in PEERS))]
        for title, group in self.questions(headlines=headlines):
            columns: dict[str, list[str]] = {peer: [] for peer in PEERS}
            for figure in group:
                peer, variant = peer_of(figure, group)
                ratio = (
                    "" if figure is group[0] or figure.ratio is None else f", {figure.ratio:.2f} x"
                )
                beside = f" ({variant})" if variant else ""
                columns[peer].append(f"{shown(figure.value)} {figure.unit}{ratio}{beside}")
            lines.append((title, *map("<br>".join, columns.values())))
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def peer_of(figure: Figure, group: list[Figure]) -> tuple[str, str]:
    """Returns the one of PEERS that a figure of a question belongs to, and what differs from it."""
    if figure is group[0]:
        return BARE, figure.subject
    # The longest name first: OURS is also the beginning of FAST.
    named = (one for one in sorted(PEERS, key=len, reverse=True) if figure.subject.startswith(one))
    peer = next(named, OURS)
    return peer, figure.subject.removeprefix(peer).strip(" ()")


HEADINGS = ("what", "of", "", "ratio", "goal")
_WIDTHS = (62, 34, 14, 8, 0)


def row(cells: Iterable[str]) -> str:
    """Returns a line of the printed table: aligned Markdown."""
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
    """Yields the cells of each line; only the first line of a question has its title."""
    title = ""
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f} x"
        value = f"{shown(figure.value)} {figure.unit}"
        named = "" if figure.question == title else figure.question
        yield named, figure.subject, value, ratio, figure.goal
        title = figure.question


def shown(value: float) -> str:
    """Formats a value with three significant digits, or as an integer from 100 on."""
    if not value or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
