"""Links and description of a release, which commits can be released, and what a release prints."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tomllib
from pathlib import Path

import pytest
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

import prepare_release
import project_links
from intercom_data_events import __version__
from links import links, target
from needs import require

pytestmark = pytest.mark.once
PROJECT = Path(__file__).parent.parent
REPOSITORY = "https://github.com/acme/data-events"


@pytest.fixture
def metadata(tmp_path):
    """Returns the metadata that the build gives the package for an address of the project."""
    # An sdist has metadata of its own, which the build takes over.
    for name in ("LICENSE", "README.md", "overlays", "scripts"):
        (tmp_path / name).symlink_to(PROJECT / name)
    pyproject = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))

    def build(repository):
        pyproject["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"] = repository
        found = ProjectMetadata(str(tmp_path), PluginManager(), pyproject)
        # Also that each classifier is one.
        found.validate_fields()
        return found.core

    return build


def test_without_an_address_the_metadata_has_no_links(metadata):
    core = metadata("")

    assert core.urls == {}
    assert core.readme == (PROJECT / "README.md").read_text(encoding="utf-8")


def test_all_links_come_from_the_one_address(metadata):
    assert metadata(REPOSITORY).urls == {
        "Homepage": REPOSITORY,
        "Documentation": f"{REPOSITORY}/tree/v{__version__}#readme",
        "Repository": REPOSITORY,
        "Changelog": f"{REPOSITORY}/blob/HEAD/CHANGELOG.md",
        "Issues": f"{REPOSITORY}/issues",
        "Security": f"{REPOSITORY}/security/policy",
    }


def test_no_link_or_picture_of_the_description_is_relative(metadata):
    core = metadata(REPOSITORY)
    page = PROJECT / "README.md"
    written = links(page.read_text(encoding="utf-8"))
    published = links(core.readme)

    assert core.readme_content_type == "text/markdown"
    assert len(published) == len(written) > 10
    assert [link for link in published if not link.is_external] == []
    for before, after in zip(written, published, strict=True):
        if before.is_external:
            assert after == before
        else:
            path = target(page, before).relative_to(PROJECT).as_posix()
            view = "raw" if path.endswith(".svg") else "blob"
            assert after.path == f"{REPOSITORY}/{view}/v{__version__}/{path}"
            assert after.anchor == before.anchor


@pytest.mark.parametrize(
    ("written", "published"),
    [
        ("[a](b/c.md)", f"[a]({REPOSITORY}/blob/v2.0/b/c.md)"),
        ("[a](./LICENSE)", f"[a]({REPOSITORY}/blob/v2.0/LICENSE)"),
        ("[a](#part)", f"[a]({REPOSITORY}/blob/v2.0/README.md#part)"),
        ("[`a`](b.md#c)", f"[`a`]({REPOSITORY}/blob/v2.0/b.md#c)"),
        ('[a](b.md "c")', f'[a]({REPOSITORY}/blob/v2.0/b.md "c")'),
        ("![a](b/c.svg)", f"![a]({REPOSITORY}/raw/v2.0/b/c.svg)"),
        ('<img src="c.png">', f'<img src="{REPOSITORY}/raw/v2.0/c.png">'),
        (
            "[![a](b.png)](c.md)",
            f"[![a]({REPOSITORY}/raw/v2.0/b.png)]({REPOSITORY}/blob/v2.0/c.md)",
        ),
        ("[a]: b.md", f"[a]: {REPOSITORY}/blob/v2.0/b.md"),
    ],
)
def test_relative_links_lead_to_the_files_of_the_tag(written, published):
    assert project_links.absolute(f"x\n{written}\n", REPOSITORY, "2.0") == f"x\n{published}\n"


@pytest.mark.parametrize(
    "unchanged",
    [
        "[a](https://example.org/b.md)",
        "[a](mailto:a@b.co)",
        "`[a](b.md)`",
        "```python\nx[a](b)\n```",
        "a[0] (b) and (c.md)",
    ],
)
def test_other_addresses_and_code_stay(unchanged):
    assert project_links.absolute(f"{unchanged}\n", REPOSITORY, "2.0") == f"{unchanged}\n"


@pytest.mark.parametrize(
    "address",
    [
        f"{REPOSITORY}/",
        f"{REPOSITORY}.git",
        "http://github.com/acme/data-events",
        "git@github.com:acme/data-events.git",
        "https://github.com/acme",
        f"{REPOSITORY}/tree/main",
        f" {REPOSITORY}",
    ],
)
def test_an_address_of_another_form_fails_the_build(metadata, address):
    with pytest.raises(ValueError, match="must have the form https://") as caught:
        metadata(address)

    assert str(caught.value).endswith(f"not {address!r}; change it in pyproject.toml")


@pytest.fixture
def clone(tmp_path):
    """A project in version 1.2.3, whose changelog says that it is unreleased."""
    require("git")
    root = tmp_path / "clone"
    package = root / "overlays" / "intercom_data_events"
    package.mkdir(parents=True)
    (package / "__about__.py").write_text('"""Says it."""\n\n__version__ = "1.2.3"\n', "utf-8")
    (root / "CHANGELOG.md").write_text("# All\n\n## 1.2.3 (unreleased)\n\n## 1.2.2\n", "utf-8")
    (root / "pyproject.toml").write_text(
        f'[tool.hatch.metadata.hooks.custom]\nrepository = "{REPOSITORY}"\n', "utf-8"
    )
    git(root, "init", "--quiet")
    commit(root)
    return root


def git(root, *arguments):
    somebody = ("-c", "user.name=A", "-c", "user.email=a@b.co")
    subprocess.run(["git", "-C", str(root), *somebody, *arguments], check=True)


def commit(root):
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "Change")


def date(root):
    changelog = root / "CHANGELOG.md"
    changelog.write_text(changelog.read_text("utf-8").replace("unreleased", "2026-01-31"), "utf-8")
    commit(root)


def problems(root, *, tagged=False):
    return prepare_release.State.of(root).problems(tagged=tagged)


def test_a_clean_commit_can_be_rehearsed_before_it_has_a_tag_and_a_day(clone):
    assert problems(clone) == []


def test_a_commit_with_its_tag_and_a_day_can_be_released(clone):
    date(clone)
    git(clone, "tag", "v1.2.3")

    assert problems(clone, tagged=True) == []


def test_what_is_not_committed_is_not_released(clone):
    (clone / "new.py").touch()
    (clone / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.3 (unreleased)\n", "utf-8")

    (said,) = problems(clone)

    assert said == (
        "the working tree must be clean, but these files differ from HEAD: CHANGELOG.md, new.py; "
        "commit or remove them"
    )


def test_a_changelog_of_another_version_is_not_released(clone):
    about = clone / "overlays" / "intercom_data_events" / "__about__.py"
    about.write_text('__version__ = "1.3.0"\n', "utf-8")
    commit(clone)

    (said,) = problems(clone)

    assert said == (
        "the first section of CHANGELOG.md must be '## 1.3.0 (YYYY-MM-DD)' or "
        "'## 1.3.0 (unreleased)', not '## 1.2.3 (unreleased)'; change the section or the version"
    )


def test_a_tag_of_another_version_is_not_released(clone):
    date(clone)
    git(clone, "tag", "v1.2.4")

    (said,) = problems(clone)

    assert said == (
        "the only tag of HEAD that begins with v must be v1.2.3, not v1.2.4; delete the tag, or "
        "change the version"
    )


def test_with_a_tag_the_changelog_names_the_day(clone):
    git(clone, "tag", "v1.2.3")

    (said,) = problems(clone)

    assert said == (
        "the first section of CHANGELOG.md must be '## 1.2.3 (YYYY-MM-DD)', "
        "not '## 1.2.3 (unreleased)'; change the section or the version"
    )


def test_a_workflow_releases_only_what_has_its_tag(clone):
    date(clone)

    assert problems(clone, tagged=True) == ["HEAD must have the tag v1.2.3; run: git tag v1.2.3"]


@pytest.fixture
def built(tmp_path, clone):
    """The folders with the archives, and with the SBOM as the tool writes it."""
    archives, folder = tmp_path / "dist", tmp_path / "release"
    archives.mkdir()
    folder.mkdir()
    for name in ("1.2.3-py3-none-any.whl", "1.2.3.tar.gz"):
        (archives / f"intercom_data_events-{name}").write_bytes(name.encode())
    sbom = {
        "metadata": {"component": {"name": "intercom-data-events"}},
        "components": [{"name": "a", "licenses": [{"expression": "MIT"}]}, {"name": "b"}],
    }
    (folder / "intercom_data_events-1.2.3.cdx.json").write_text(json.dumps(sbom), "utf-8")
    return archives, folder


def test_the_checksums_are_those_of_archives_and_sbom(clone, built):
    archives, folder = built
    prepare_release.finish(clone, archives, folder)
    sums = dict(
        reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines()
    )
    files = [*archives.iterdir(), folder / "intercom_data_events-1.2.3.cdx.json"]

    assert sums == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_the_sbom_names_the_package_with_version_and_archives(clone, built):
    archives, folder = built
    prepare_release.finish(clone, archives, folder)
    sbom = json.loads((folder / "intercom_data_events-1.2.3.cdx.json").read_text("utf-8"))
    component = sbom["metadata"]["component"]

    assert component["version"] == "1.2.3"
    assert component["purl"] == "pkg:pypi/intercom-data-events@1.2.3"
    assert {
        each["url"]: each["hashes"][0]["content"] for each in component["externalReferences"]
    } == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in archives.iterdir()}


def test_what_would_be_uploaded_is_printed_with_size_and_checksum(clone, built):
    archives, folder = built
    said = prepare_release.finish(clone, archives, folder)
    wheel = archives / "intercom_data_events-1.2.3-py3-none-any.whl"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()

    assert "without a tag: this is a rehearsal" in said
    assert f"  {wheel.name}  22 bytes  sha256 {digest}\n" in said
    assert "would add a PEP 740 attestation for each" in said
    assert "2 dependencies with all extras, without a license: b" in said
    assert f"lead to {REPOSITORY}.\n" in said
    assert said.endswith("Nothing was uploaded.")


def test_archives_of_another_version_are_not_described(clone, built):
    archives, folder = built
    (archives / "intercom_data_events-1.2.2.tar.gz").touch()

    with pytest.raises(ValueError, match=r", not intercom_data_events-1\.2\.2\.tar"):
        prepare_release.finish(clone, archives, folder)
