"""Adds the project's links and the front page to the metadata, from one address.

hatchling calls this as a metadata hook. pyproject.toml has the address. While it is empty, there
are no links, and the description is the front page unchanged.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_ADDRESS = re.compile(r"https://[\w.-]+/[\w.-]+/[\w.-]*[\w-]", re.ASCII)
# Code has no links: blocks between fences, and spans within a line.
_CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_TARGET = re.compile(r'(\]\(|^\[[^\]\n]+\]: *|\b(?:src|href)=")([^)\s"]+)', re.MULTILINE)
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
_PICTURES = (".gif", ".jpg", ".png", ".svg")


def urls(repository: str, version: str) -> dict[str, str]:
    """Returns the project's links; none if the address is empty.

    Args:
        repository: The address of the project on GitHub.
        version: The version; the links of its documentation lead to its tag.

    Raises:
        ValueError: The address is invalid.
    """
    if not repository:
        return {}
    if not _ADDRESS.fullmatch(repository) or repository.endswith(".git"):
        raise ValueError(
            "repository must have the form https://github.com/OWNER/NAME, without a slash or .git "
            f"at its end, not {repository!r}; change it in pyproject.toml"
        )
    return {
        "Homepage": repository,
        "Documentation": f"{repository}/tree/v{version}#readme",
        "Repository": repository,
        "Changelog": f"{repository}/blob/HEAD/CHANGELOG.md",
        "Issues": f"{repository}/issues",
        "Security": f"{repository}/security/policy",
    }


def absolute(markdown: str, repository: str, version: str) -> str:
    """Returns the front page with absolute links, which lead to the files at a tag.

    Args:
        markdown: The content of README.md.
        repository: The address of the project on GitHub; if it is empty, nothing changes.
        version: The version, which gives the tag its name.
    """
    if not repository:
        return markdown

    def replace(found: re.Match[str]) -> str:
        before, target = found.groups()
        if _ELSEWHERE.match(target):
            return found[0]
        # A package index gives headings no anchors.
        path = f"README.md{target}" if target.startswith("#") else target.removeprefix("./")
        view = "raw" if path.endswith(_PICTURES) else "blob"
        return f"{before}{repository}/{view}/v{version}/{path}"

    parts = _CODE.split(markdown)
    # Every second part is code.
    parts[::2] = (_TARGET.sub(replace, part) for part in parts[::2])
    return "".join(parts)


class ProjectLinks(MetadataHookInterface):
    """Sets `urls` and `readme`, which pyproject.toml declares as dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Changes the metadata in place; hatchling calls this once the version is known."""
        repository, version = self.config["repository"], metadata["version"]
        metadata["urls"] = urls(repository, version)
        page = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": absolute(page, repository, version),
        }
