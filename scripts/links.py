"""The links of a Markdown file, and the anchors of its headings, as GitHub makes them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

_MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
#: The HTML attributes that hold an address, by element.
_ADDRESSES = {"href", "src", "srcset"}


class Link(NamedTuple):
    """A link or a picture: its line, the path or address, and the anchor behind it."""

    line: int
    path: str
    anchor: str

    @property
    def is_external(self) -> bool:
        """Whether it leads out of the repository."""
        return re.match(r"[a-z][a-z0-9+.-]*:|//", self.path, re.IGNORECASE) is not None


def links(markdown: str) -> list[Link]:
    """Returns all links and pictures, in order."""
    return [
        Link(line, unquote(path), anchor)
        for line, token in _tokens(markdown)
        for address in _addresses(token)
        for path, _, anchor in [address.partition("#")]
    ]


def anchors(markdown: str) -> set[str]:
    """Returns the anchors of the headings; those of equal headings are numbered."""
    parsed = _MARKDOWN.parse(markdown)
    found: Counter[str] = Counter()
    result = set()
    for opening, inline in pairwise(parsed):
        if opening.type == "heading_open":
            text = "".join(
                child.content
                for child in inline.children or []
                if child.type in ("text", "code_inline")
            )
            name = slug(text)
            result.add(f"{name}-{found[name]}" if found[name] else name)
            found[name] += 1
    return result


def slug(heading: str) -> str:
    """Returns the anchor of a heading's text."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _tokens(markdown: str) -> Iterator[tuple[int, Token]]:
    line = 0
    for token in _MARKDOWN.parse(markdown):
        line = token.map[0] + 1 if token.map else line
        yield line, token
        for child in token.children or []:
            yield line, child


def _addresses(token: Token) -> Iterator[str]:
    if token.type in ("link_open", "image"):
        yield str(token.attrs["href" if token.type == "link_open" else "src"])
    elif token.type in ("html_inline", "html_block"):
        reader = _Reader()
        reader.feed(token.content)
        yield from reader.found


class _Reader(HTMLParser):
    """Collects the addresses in a piece of HTML."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        """Looks at an element."""
        self.found += [value for name, value in attrs if name in _ADDRESSES and value]


def target(page: Path, link: Link) -> Path:
    """Returns the file or folder that a link within the repository leads to."""
    return (page.parent / link.path).resolve() if link.path else page
