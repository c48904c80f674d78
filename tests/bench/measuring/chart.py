"""Draws a run's figures as bars in one SVG, which is legible on white and on black."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from measuring.figures import Figure, Run, shown

_WIDTH = 860
_LEFT, _BARS, _RIGHT = 16, 250, 190
_BAR, _GAP, _TITLE = 14, 4, 30
_HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
    'height="{height}" role="img">'
)
_STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600 }
  .note { fill: #6e7781 }
  .base { fill: #9aa4af }
  .ours { fill: #2f6feb }
  .other { fill: #d0883b }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .note { fill: #9198a1 }
  }
"""


def svg(run: Run) -> str:
    """Returns the chart. The longest bar of each question fills the width."""
    parts: list[str] = []
    top = 20
    for title, group in run.questions():
        parts += _group(title, group, top)
        top += _TITLE + len(group) * (_BAR + _GAP)
    said = "; ".join(run.machine[name] for name in ("date", "machine", "Python"))
    parts.append(_text(_LEFT, top + 24, said, "note"))
    return "\n".join(
        (
            _HEAD.format(width=_WIDTH, height=top + 40),
            "<title>intercom-data-events beside bare httpx and the official SDK</title>",
            f"<style>{_STYLE}</style>",
            *parts,
            "</svg>\n",
        )
    )


def _group(title: str, group: list[Figure], top: int) -> Iterator[str]:
    better = "more is better" if group[0].more_is_better else "less is better"
    yield _text(_LEFT, top + 16, f"{title} ({better})", "title")
    room = _WIDTH - _BARS - _RIGHT
    longest = max(figure.value for figure in group) or 1.0
    base = group[0].subject
    for place, figure in enumerate(group):
        line = top + _TITLE - 6 + place * (_BAR + _GAP)
        kind = "base" if figure.subject == base else "ours" if _is_ours(figure) else "other"
        length = max(1.0, room * figure.value / longest)
        yield _text(_LEFT, line + 11, figure.subject)
        yield (
            f'<rect class="{kind}" x="{_BARS}" y="{line}" width="{length:.1f}" height="{_BAR}" '
            'rx="2"/>'
        )
        ratio = "" if figure.ratio is None else f" ({figure.ratio:.2f} x)"
        said = f"{shown(figure.value)} {figure.unit}{ratio}"
        yield _text(_BARS + length + 6, line + 11, said)


def _is_ours(figure: Figure) -> bool:
    return figure.subject.startswith(("intercom-data-events", "track", "scripts/"))


def _text(left: float, line: float, text: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{left:.1f}" y="{line}">{escape(text)}</text>'
