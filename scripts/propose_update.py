"""Makes a pull request from another job's patch and report, without running any of their code.

    python3 -I scripts/propose_update.py FOLDER

scripts/prepare_update.py writes FOLDER/patch and FOLDER/report.txt in a job that has run generated
code, so this script trusts neither. The patch may change only the regular files that a regeneration
writes, and is never checked out. The report is shown as code, so its mentions notify no account.

The script creates or updates the branch and its pull request. It does not change a branch that has
commits by other authors. It needs git, gh and a token for them, but no Python package.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

BRANCH = "regenerate/upstream"
TITLE = "Regenerate from Intercom's current description"
_REF = f"refs/heads/{BRANCH}"
_AUTHOR = "github-actions[bot]"
_EMAIL = "41898282+github-actions[bot]@users.noreply.github.com"
#: The files that a regeneration writes: two descriptions, and the modules of a package.
_ALLOWED = re.compile(
    r"openapi/(upstream|data-events)\.yaml"
    r"|generated/intercom_data_events_api/([A-Za-z0-9_]+/)*([A-Za-z0-9_]+\.py|py\.typed)"
)
#: The modes of a regular file and of a missing one.
_MODES = {"100644", "000000"}
_NO_HOOKS = {
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "core.hooksPath",
    "GIT_CONFIG_VALUE_0": os.devnull,
}
_MAX_PATCH = 16 * 1024 * 1024
#: GitHub accepts 65,536 characters.
_MAX_BODY = 60_000
_INTRODUCTION = """\
Intercom's description of data events has changed. This is the result of `nox -s regenerate`. \
The report says whether `.ci/run` passed, and what to review before a release.

"""


class ProposalError(Exception):
    """The patch or the report is invalid. The message is one sentence."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 1:
        print(__doc__, file=sys.stderr)
        return 64
    folder = Path(given[0])
    try:
        # The body is cut at a lower limit anyway.
        body = _INTRODUCTION + as_code(_read(folder / "report.txt", 4 * _MAX_BODY, cut=True))
        tree = _tree_of(_read(folder / "patch", _MAX_PATCH))
        return _propose(tree, body)
    except (ProposalError, OSError) as error:
        said = str(error)
    except subprocess.CalledProcessError as error:
        said = f"{' '.join(error.cmd[:2])}: exit code {error.returncode}: {error.stderr.strip()}"
    print(f"propose_update: {_printable(said)}", file=sys.stderr)
    return 1


def as_code(report: bytes) -> str:
    """Returns a report as a Markdown code block, in which mentions notify no account.

    Each line is indented, and nothing in it can end such a block. A fence would have to be longer
    than any fence in the report, so its length would have no limit.
    """
    text = _printable(report.decode("utf-8", "backslashreplace"))
    code = "".join(f"    {line}\n" for line in text.split("\n"))
    return code if len(code) <= _MAX_BODY else f"{code[:_MAX_BODY].rstrip()}\n    [cut]\n"


def _printable(text: str) -> str:
    lines = text.rstrip().splitlines()
    return "\n".join(
        "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines
    )


def _read(path: Path, most: int, *, cut: bool = False) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise ProposalError(f"{path} must be a regular file")
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most and not cut:
        raise ProposalError(f"{path} must have at most {most:,} bytes")
    return content


def _tree_of(patch: bytes) -> str:
    """Returns the tree of HEAD with a patch, without changing the working tree.

    Raises:
        ProposalError: The patch changes no file, or one that a regeneration does not write.
    """
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
        _git("read-tree", "HEAD", **index)
        _git("apply", "--cached", "--allow-empty", "--whitespace=nowarn", stdin=patch, **index)
        changed = _git(
            "diff", "--cached", "--raw", "-z", "--no-renames", "--no-ext-diff", "HEAD", **index
        )
        _check_changed(changed)
        return _git("write-tree", **index)


def _check_changed(raw: str) -> None:
    fields = raw.rstrip("\0").split("\0") if raw else []
    if not fields:
        raise ProposalError("the patch must change at least one file")
    for about, path in zip(fields[::2], fields[1::2], strict=True):
        before, after, *_ = about.removeprefix(":").split(" ")
        if not _ALLOWED.fullmatch(path):
            raise ProposalError(
                f"the patch must change only files that a regeneration writes, not {path}"
            )
        if not {before, after} <= _MODES:
            raise ProposalError(f"the patch must keep {path} a regular file, not mode {after}")


def _propose(tree: str, body: str) -> int:
    tip = _git("ls-remote", "origin", _REF).partition("\t")[0]
    pushed = tip and _look_at(tip)
    if pushed and pushed[0] != _EMAIL:
        print(
            f"The branch {BRANCH} has commits by other authors, so it was not changed; merge or "
            "delete it, then run this workflow again."
        )
        return 0
    if not pushed or pushed[1:] != (tree, _git("rev-parse", "HEAD")):
        identity = {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", _AUTHOR), ("EMAIL", _EMAIL))
        }
        commit = _git("commit-tree", tree, "-p", "HEAD", "-m", TITLE, **identity)
        # With an empty tip, the push fails if the branch exists.
        _git("push", f"--force-with-lease={_REF}:{tip}", "origin", f"{commit}:{_REF}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "body.md")
        file.write_text(body, encoding="utf-8")
        text = ("--title", TITLE, "--body-file", str(file))
        if number := _open_number():
            _call("gh", "pr", "edit", number, *text)
        else:
            _call("gh", "pr", "create", "--head", BRANCH, *text)
    return 0


def _look_at(commit: str) -> tuple[str, str, str]:
    """Returns the author's email address, the tree and the parents of a remote commit."""
    _git("fetch", "--quiet", "--depth=2", "origin", _REF)
    author, tree, *parents = _git("show", "-s", "--format=%ae %T %P", commit).split(" ")
    return author, tree, " ".join(parents)


def _open_number() -> str:
    """Returns the number of the open pull request of our branch, not of a fork's; "" if none."""
    fields = "number,isCrossRepository"
    found = _call("gh", "pr", "list", "--head", BRANCH, "--state", "open", "--json", fields)
    ours = [each["number"] for each in json.loads(found) if not each["isCrossRepository"]]
    return str(ours[0]) if ours else ""


def _git(*arguments: str, stdin: bytes = b"", **environment: str) -> str:
    return _call("git", *arguments, stdin=stdin, **_NO_HOOKS, **environment)


def _call(*command: str, stdin: bytes = b"", **environment: str) -> str:
    done = subprocess.run(
        command, input=stdin, check=False, capture_output=True, env={**os.environ, **environment}
    )
    out, err = (said.decode("utf-8", "backslashreplace") for said in (done.stdout, done.stderr))
    if done.returncode != 0:
        raise subprocess.CalledProcessError(done.returncode, command, out, err)
    return out.removesuffix("\n")


if __name__ == "__main__":
    sys.exit(main())
