"""Writes each Python example of the READMEs into a module of its own, for type checkers.

    python scripts/extract_examples.py FOLDER

The folder is made anew. Line numbers stay those of the Markdown file, so that what a checker says
of example 3 can be looked up there.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

_EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


PROJECT = Path(__file__).parent.parent


def readmes() -> dict[str, Path]:
    """Returns the READMEs for users: the front page by "", and those of folders by their names."""
    others = sorted((PROJECT / "overlays").rglob("README.md"))
    return {"": PROJECT / "README.md", **{path.parent.name: path for path in others}}


def examples(markdown: str) -> list[tuple[int, str]]:
    """Returns the examples, each with the number of its first line."""
    return [
        (markdown.count("\n", 0, match.start(1)) + 1, match[1])
        for match in _EXAMPLE.finditer(markdown)
    ]


def under(markdown: str, heading: str) -> list[tuple[int, str]]:
    """Returns the examples between a heading of the third level and the next heading."""
    before, found, after = markdown.partition(f"\n### {heading}\n")
    section = re.split(r"^##", after, maxsplit=1, flags=re.MULTILINE)[0]
    above = f"{before}{found}".count("\n")
    return [(above + line, code) for line, code in examples(section)]


def main() -> None:
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, readme in readmes().items():
        found = examples(readme.read_text(encoding="utf-8"))
        for number, (line, code) in enumerate(found, 1):
            module = folder / f"{f'{name}_' if name else ''}example_{number}.py"
            module.write_text("\n" * (line - 1) + code, encoding="utf-8")


if __name__ == "__main__":
    main()
