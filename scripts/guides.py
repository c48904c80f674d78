"""Lists the guides, which are Markdown files beside the code, and their Python examples.

    python scripts/guides.py FOLDER

The command replaces FOLDER with one module for each example, for type checkers. An example keeps
its line numbers, so a type checker's message leads to its place in the guide.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

PROJECT = Path(__file__).parent.parent
#: Each guide by the name of its folder or page; the front page by "".
GUIDES = {
    "": PROJECT / "README.md",
    **{name.lower(): PROJECT / f"{name}.md" for name in ("CONTRIBUTING", "SECURITY")},
    **{
        path.parent.name: path
        for folder in ("openapi", "overlays", "tests")
        for path in sorted((PROJECT / folder).rglob("README.md"))
    },
}
#: All Markdown files, which are pages of the site.
PAGES = [*GUIDES.values(), PROJECT / "CHANGELOG.md"]

_EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(markdown: str) -> list[tuple[int, str]]:
    """Returns the examples, each with the number of its first line."""
    return [
        (markdown.count("\n", 0, match.start(1)) + 1, match[1])
        for match in _EXAMPLE.finditer(markdown)
    ]


def under(markdown: str, heading: str) -> list[tuple[int, str]]:
    """Returns the examples between a heading of the second or third level and the next heading."""
    parts = re.split(rf"^###? {re.escape(heading)}\n", markdown, maxsplit=1, flags=re.MULTILINE)
    if len(parts) == 1:
        return []
    section = re.split(r"^##", parts[1], maxsplit=1, flags=re.MULTILINE)[0]
    above = markdown[: len(markdown) - len(parts[1])].count("\n")
    return [(above + line, code) for line, code in examples(section)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Writes each Python example of the guides into a separate module."
    )
    parser.add_argument("folder", type=Path, help="the folder for the modules, which is replaced")
    folder: Path = parser.parse_args().folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, guide in GUIDES.items():
        for number, (line, code) in enumerate(examples(guide.read_text(encoding="utf-8")), 1):
            module = folder / f"{f'{name}_' if name else ''}example_{number}.py"
            module.write_text("\n" * (line - 1) + code, encoding="utf-8")


if __name__ == "__main__":
    main()
