"""Sessions for people and for CI; `nox --list` says what there is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests", "lint", "typecheck", "drift", "demo"]
nox.options.error_on_external_run = True
nox.options.default_venv_backend = "virtualenv"

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
GENERATE = ("--require-hashes", "--requirement", "scripts/requirements.txt")
#: The tests of scripts that need GENERATE, and nothing that is installed with the package.
PIPELINE = ("tests/regeneration", "tests/test_api_diff.py")
#: All others but those of `conformance`, in as many processes as there are cores.
PACKAGE_TESTS = (
    "--numprocesses=auto",
    *(f"--ignore={path}" for path in (*PIPELINE, "tests/conformance")),
)
DEPENDENCIES = PYPROJECT["project"]["dependencies"]
OPTIONAL = PYPROJECT["project"]["optional-dependencies"]
EXTRAS = f"[{','.join(OPTIONAL)}]"
WITH_EXTRAS = [*DEPENDENCIES, *(need for extra in OPTIONAL.values() for need in extra)]
#: What the wheel is tested with.
RESOLUTIONS = ("lowest", "newest")
#: Where `build` leaves the archives.
ARCHIVES = Path("build", "dist")


def _group(name: str) -> list[str]:
    return nox.project.dependency_groups(PYPROJECT, name)


def _found(version: str) -> Path | None:
    """Finds a real interpreter; pyenv's shims answer even for versions that are not active."""
    name = f"python{version}"
    folders = os.environ.get("PATH", "").split(os.pathsep)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    installed = sorted(
        pyenv.glob(f"versions/{version}.*/bin"),
        key=lambda path: [int(part) for part in path.parent.name.split(".") if part.isdigit()],
    )
    for folder in [*folders, *reversed(installed)]:
        executable = shutil.which(name, path=folder)
        if executable is None:
            continue
        probe = subprocess.run(
            [executable, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if probe.stdout.strip() == version:
            return Path(executable)
    return None


FOUND = {version: path for version in PYTHONS if (path := _found(version)) is not None}
if sys.version_info >= (3, 11):  # noqa: UP036  # an older one can run nox
    # Whoever runs nox is a Python that is here, under whatever name; newer ones too.
    FOUND.setdefault(f"{sys.version_info[0]}.{sys.version_info[1]}", Path(sys.executable))
if not FOUND:
    sys.exit(f"None of Python {', '.join(PYTHONS)} is on this machine: install one of them.")
MISSING = [version for version in PYTHONS if version not in FOUND]
# Where nox looks first: the real ones, before any shim.
os.environ["PATH"] = os.pathsep.join([*(str(p.parent) for p in FOUND.values()), os.environ["PATH"]])
#: The oldest, for everything whose result does not depend on it.
PYTHON = next(iter(FOUND))


def _install_wheel(session: nox.Session, *options: str, extras: str = "") -> None:
    """Installs the package as users get it: pip builds a wheel, and installs that."""
    session.install(*options, f".{extras}")


def _lowest(needs: list[str]) -> list[str]:
    """Pins dependencies to the lowest versions that pyproject.toml says will do."""
    return [re.sub(r">=([\d.]+).*", r"==\1", need) for need in needs]


def _print_versions(session: nox.Session) -> None:
    """Prints the versions of all that the package names as its dependencies."""
    names = [re.split("[<>=]", need)[0] for need in WITH_EXTRAS]
    program = (
        "import importlib.metadata, platform, sys; "
        "print('Python', platform.python_version(), end=' with '); "
        "print(*(f'{n} {importlib.metadata.version(n)}' for n in sys.argv[1:]), sep=', ')"
    )
    session.run("python", "-c", program, *names)


@nox.session(python=list(FOUND))
def tests(session: nox.Session) -> None:
    """Runs the tests against the built wheel, on each supported Python; measures the oldest."""
    for version in MISSING:
        session.warn(f"Python {version} is not on this machine: not tested with it.")
    session.install(*GENERATE)
    session.install(*_group("test"))
    _install_wheel(session, extras=EXTRAS)
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    # The pipeline's run with what is locked, and unmeasured: what is measured are the overlays.
    session.run("pytest", "--numprocesses=auto", *PIPELINE)
    # All others with the newest of what the package needs; the lock may have older ones.
    _install_wheel(session, "--upgrade", "--upgrade-strategy=eager", extras=EXTRAS)
    _print_versions(session)
    others = ("pytest", *PACKAGE_TESTS)
    if session.python != PYTHON:  # Measured once, as it takes its time.
        session.run(*others)
        return
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", *others)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session(python=PYTHON)
def build(session: nox.Session) -> None:
    """Builds and checks sdist and wheel, and tests the wheel: nox -s build [-- --quick].

    Tests it on each Python with the lowest and the newest dependencies; --quick leaves out what
    `tests` does, and other Pythons than the oldest.
    """
    if session.posargs not in ([], ["--quick"]):
        session.error(f"{' '.join(session.posargs)}: there is only --quick")
    for version in MISSING:
        session.warn(f"Python {version} is not on this machine: the wheel is not tested with it.")
    session.install(*_group("build"))
    shutil.rmtree(ARCHIVES, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(ARCHIVES))  # The wheel from the sdist.
    session.run("twine", "check", "--strict", *map(str, ARCHIVES.iterdir()))
    wheel = _wheel(session)
    session.run("check-wheel-contents", str(wheel))
    direct = session.create_tmp()
    session.run("python", "-m", "build", "--wheel", "--outdir", direct)
    differing = _contents(wheel) ^ _contents(Path(direct, wheel.name))
    if differing:
        names = ", ".join(sorted({name for name, _ in differing}))
        session.error(f"the sdist does not build the wheel that the clone builds: {names}")
    session.log(f"{wheel.name}: the same from the sdist as from the clone.")
    for version in [PYTHON] if session.posargs else FOUND:
        for resolution in RESOLUTIONS[:1] if session.posargs else RESOLUTIONS:
            session.notify(f"wheel-{version}({resolution})", posargs=())


@nox.session(python=list(FOUND), default=False)
@nox.parametrize("resolution", [nox.param(name, id=name) for name in RESOLUTIONS])
def wheel(session: nox.Session, resolution: str) -> None:
    """Tests the wheel that `build` makes, which runs this, with these dependencies."""
    built = _wheel(session)
    lowest = resolution == "lowest"
    session.install(str(built), *(_lowest(DEPENDENCIES) if lowest else ()))
    # Before anything else is there that would make up for a dependency that is not named.
    session.run(
        "python", "-c",
        "from intercom_data_events import *; from intercom_data_events.emulator import *",
    )  # fmt: skip
    session.install(f"{built}{EXTRAS}", *(_lowest(WITH_EXTRAS) if lowest else ()), *_group("test"))
    _print_versions(session)
    session.run("pytest", *(session.posargs or PACKAGE_TESTS))


def _wheel(session: nox.Session) -> Path:
    """The wheel that `build` has left."""
    found = list(ARCHIVES.glob("*.whl"))
    if len(found) != 1:
        session.error(f"there is no wheel in {ARCHIVES}: run `nox -s build`")
    return found[0]


def _contents(wheel: Path) -> set[tuple[str, int]]:
    """The files of a wheel, with their checksums."""
    with zipfile.ZipFile(wheel) as archive:
        return {(each.filename, each.CRC) for each in archive.infolist()}


@nox.session(python=PYTHON)
def lint(session: nox.Session) -> None:
    """Checks style and docstrings; says what `ruff check --fix` and `ruff format` would change."""
    session.install(*GENERATE)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=PYTHON)
def typecheck(session: nox.Session) -> None:
    """Checks types with mypy --strict and pyright, also of real uses and the README's examples."""
    session.install(*_group("typecheck"), *_group("test"))
    _install_wheel(session, extras=EXTRAS)
    session.run("python", "scripts/extract_examples.py", "README.md", "build/readme")
    session.run(
        "mypy", "-p", "intercom_data_events", "-p", "intercom_data_events_api",
        env={"MYPYPATH": os.pathsep.join(("overlays", "generated"))},
    )  # fmt: skip
    session.run("mypy", "tests/typing", "build/readme")
    session.run("pyright", "overlays", "tests/typing", "build/readme")


@nox.session(python=PYTHON)
def regenerate(session: nox.Session) -> None:
    """Regenerates the client: nox -s regenerate [-- PATH-OR-URL]."""
    session.install(*GENERATE)
    session.run("python", "scripts/regenerate.py", *session.posargs)


@nox.session(python=PYTHON)
def drift(session: nox.Session) -> None:
    """Fails where openapi/ or generated/ is not what the pipeline gives, and names the files."""
    session.install(*GENERATE)
    session.run("python", "scripts/regenerate.py", "--check")


@nox.session(python=PYTHON, name="api-diff")
def api_diff(session: nox.Session) -> None:
    """Says what changed for callers: nox -s api-diff [-- REV] [--fail-on-breaking]."""
    session.install(*GENERATE)
    session.run("python", "scripts/api_diff.py", *session.posargs)


@nox.session(python=PYTHON)
def demo(session: nox.Session) -> None:
    """Sends, lists and summarises events against the bundled emulator, and shows the requests."""
    _install_wheel(session, extras="[cli]")
    session.run("intercom-events", "demo", *session.posargs)


@nox.session(python=PYTHON)
def bench(session: nox.Session) -> None:
    """Measures the client beside bare httpx and the official SDK: nox -s bench [-- --help]."""
    session.install(*GENERATE)
    session.install(*_group("bench"))
    _install_wheel(session, extras="[fast]")
    session.run("python", "tests/bench/benchmark.py", *session.posargs)


@nox.session(python=PYTHON)
def stress(session: nox.Session) -> None:
    """Sends events through every fault and at full speed, and counts what became of them."""
    session.install(*_group("bench"), *_group("test"))
    _install_wheel(session)
    session.run("python", "tests/endurance/stress.py", *session.posargs)


@nox.session(python=PYTHON)
def backfill(session: nox.Session) -> None:
    """Imports a file of events, measures that beside the official SDK, kills and resumes it."""
    session.install(*_group("bench"), *_group("test"))
    _install_wheel(session, extras=EXTRAS)
    session.run("python", "tests/endurance/backfill.py", *session.posargs)


@nox.session(python=PYTHON)
def rounds(session: nox.Session) -> None:
    """Ends programs that track in all the ways that they end, and counts their events."""
    session.install(*_group("test"))
    _install_wheel(session)
    session.run("python", "tests/endurance/crashes.py", *session.posargs)


@nox.session(python=PYTHON)
def celery_load(session: nox.Session) -> None:
    """Sends events by Celery, kills a worker in the midst, and counts what became of them."""
    session.install(*_group("test"))
    _install_wheel(session, extras="[celery]")
    session.run("python", "tests/endurance/celery_load.py", *session.posargs)


@nox.session(python=PYTHON)
def conformance(session: nox.Session) -> None:
    """Compares client, emulator and description by tools of others; also that these find faults."""
    session.install(*_group("conformance"))
    _install_wheel(session)
    packages = Path(session.create_tmp()).absolute()
    if npm := shutil.which("npm"):
        for name in ("package.json", "package-lock.json"):
            shutil.copy(Path("tests", "conformance", "tools", name), packages)
        session.run(
            npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(packages),
            external=True, silent=True,
        )  # fmt: skip
    else:
        session.warn("npm is not on this machine: Prism is left out.")
    session.run(
        "pytest", "tests/conformance",
        env={"CONFORMANCE_PACKAGES": str(packages) if npm else None},
    )  # fmt: skip
    session.run(
        "python", "tests/conformance/conform.py", "--packages", str(packages), *session.posargs
    )


@nox.session(python=PYTHON)
def lock(session: nox.Session) -> None:
    """Writes scripts/requirements.txt anew: the exact pins of pyproject.toml with all they need."""
    session.install("uv")
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "requirements.in")
        wanted.write_text("\n".join(_group("generate")), encoding="utf-8")
        session.run(
            "uv", "pip", "compile", "--quiet", "--upgrade", "--universal", "--generate-hashes",
            "--python-version", PYTHONS[0], "--no-header", "--no-annotate", "--no-emit-index-url",
            "--output-file", "scripts/requirements.txt", str(wanted),
        )  # fmt: skip
