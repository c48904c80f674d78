"""Links in the guides lead to files and headings that exist; addresses outside follow a rule."""

from __future__ import annotations

import re

import pytest

from guides import PAGES, PROJECT
from links import anchors, links, slug, target

LINKS = {
    page.relative_to(PROJECT).as_posix(): links(page.read_text(encoding="utf-8")) for page in PAGES
}


def faults(page):
    """What is wrong with each link of a page within the repository."""
    for link in links(page.read_text(encoding="utf-8")):
        if link.is_external:
            continue
        found = target(page, link)
        if not found.is_file():
            yield f"{page}:{link.line}: {link.path} is not a file"
        elif link.anchor and link.anchor not in anchors(found.read_text(encoding="utf-8")):
            yield f"{page}:{link.line}: {link.path}#{link.anchor} is not a heading"


def test_every_markdown_file_is_a_page():
    folders = [PROJECT, *(PROJECT / name for name in ("openapi", "overlays", "scripts", "tests"))]
    found = {
        path
        for folder in folders
        for path in (folder.glob("*.md") if folder == PROJECT else folder.rglob("*.md"))
    }

    assert found == set(PAGES)


@pytest.mark.parametrize("page", PAGES, ids=LINKS)
def test_links_lead_to_files_and_headings(page):
    assert list(faults(page)) == []


@pytest.mark.parametrize(
    ("markdown", "fault"),
    [
        ("[x](b.md)", None),
        ("[x](b.md#one-two)", None),
        ("[x](#here)", None),
        ("[x]( <a folder/c d.md> )", None),
        ("[x](a%20folder/c%20d.md)", None),
        ("![x](p.svg)", None),
        ("`[x](none.md)`", None),
        ("```\n[x](none.md)\n```", None),
        ("[x](none.md)", ":3: none.md is not a file"),
        ("[x](a%20folder)", ":3: a folder is not a file"),
        ("![x](none.svg)", ":3: none.svg is not a file"),
        ('<img src="none.svg">', ":3: none.svg is not a file"),
        ("[x][y]\n\n[y]: none.md", ":3: none.md is not a file"),
        ("[x](#One)", ":3: #One is not a heading"),
        ("[x](b.md#three)", ":3: b.md#three is not a heading"),
        ("| a |\n|---|\n| [x](#no) |", ":5: #no is not a heading"),
    ],
)
def test_a_link_to_nothing_is_found(tmp_path, markdown, fault):
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder" / "c d.md").touch()
    (tmp_path / "p.svg").touch()
    (tmp_path / "b.md").write_text("# One, two!\n", encoding="utf-8")
    page = tmp_path / "a.md"
    page.write_text(f"# Here\n\n{markdown}\n", encoding="utf-8")

    assert list(faults(page)) == ([] if fault is None else [f"{page}{fault}"])


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("Files that are deleted or replaced", "files-that-are-deleted-or-replaced"),
        ("JSON, CSV and exit codes", "json-csv-and-exit-codes"),
        ("Python 3.11: `create_many`?", "python-311-create_many"),
        ("Read / write", "read--write"),
        ("Größe", "größe"),
    ],
)
def test_a_heading_has_the_anchor_that_github_makes(heading, expected):
    assert slug(heading.replace("`", "")) == expected
    assert anchors(f"## {heading}\n") == {expected}


def test_equal_headings_are_numbered():
    assert anchors("# A\n\n## B\n\n## A\n\nA\n===\n\n```\n# C\n```\n") == {"a", "b", "a-1", "a-2"}


def test_addresses_outside_are_encrypted_and_no_package_index():
    outside = {link.path for found in LINKS.values() for link in found if link.is_external}

    assert len(outside) > 5
    for address in outside:
        assert re.match(r"https://(?!pypi\.org|www\.npmjs\.com)[a-z0-9.-]+(/|$)", address), address
