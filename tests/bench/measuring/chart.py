"""Draws a run's headline figures as bars: one SVG file, legible on white and on black."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from measuring.figures import PEERS, Figure, Run, peer_of, shown

_COLUMNS = 2
_WIDTH, _MARGIN, _BARS = 416, 16, 200
_TITLE, _BAR, _GAP, _BELOW = 36, 13, 4, 18
_HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
    'height="{height}" role="img">'
)
#: By peer: the color of its bars in each facet.
COLORS = dict(zip(PEERS, ("#8c959f", "#2f6feb", "#54aeff", "#d0883b", "#8957e5"), strict=True))
_STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600 }
  .note { fill: #59636e }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .note { fill: #9198a1 }
  }
"""


def svg(run: Run) -> str:
    """Returns the chart: a facet for each headline question, whose longest bar fills the width."""
    facets = list(run.questions(headlines=True))
    width, top = 2 * _MARGIN + _COLUMNS * _WIDTH, 52
    parts = list(_legend())
    for first in range(0, len(facets), _COLUMNS):
        line = facets[first : first + _COLUMNS]
        for column, (title, group) in enumerate(line):
            parts += _facet(title, group, _MARGIN + column * _WIDTH, top)
        most = max(len(group) for _, group in line)
        top += _TITLE + most * (_BAR + _GAP) + _BELOW
    machine = "; ".join(run.machine[name] for name in ("date", "machine", "Python"))
    parts.append(_text(_MARGIN, top + 6, machine, "note"))
    return "\n".join(
        (
            _HEAD.format(width=width, height=top + 20),
            "<title>intercom-data-events compared with bare httpx and the official SDK</title>",
            f"<style>{_STYLE}</style>",
            *parts,
            "</svg>\n",
        )
    )


def _legend() -> Iterator[str]:
    left = float(_MARGIN)
    for name, color in COLORS.items():
        yield f'<circle cx="{left + 5:.1f}" cy="22" r="5" fill="{color}"/>'
        yield _text(left + 15, 26, name)
        left += 44 + 6.6 * len(name)


def _facet(title: str, group: list[Figure], left: float, top: float) -> Iterator[str]:
    yield _text(left, top + 12, title, "title")
    better = "more is better" if group[0].more_is_better else "less is better"
    yield _text(left, top + 27, better, "note")
    longest = max(figure.value for figure in group) or 1.0
    for place, figure in enumerate(group):
        line = top + _TITLE + place * (_BAR + _GAP)
        # The legend names the peer; the bar names only what differs from that.
        peer, variant = peer_of(figure, group)
        length = max(1.0, _BARS * figure.value / longest)
        yield (
            f'<rect x="{left:.1f}" y="{line}" width="{length:.1f}" height="{_BAR}" rx="2" '
            f'fill="{COLORS[peer]}"/>'
        )
        value = f"{shown(figure.value)} {figure.unit}"
        yield _text(left + length + 6, line + 11, value, more=variant)


def _text(left: float, line: float, text: str, kind: str = "", more: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    noted = f'<tspan class="note" dx="8">{escape(more)}</tspan>' if more else ""
    return f'<text{named} x="{left:.1f}" y="{line}">{escape(text)}{noted}</text>'
