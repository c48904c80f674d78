"""The benchmark's figures are medians of rounds, printed and written in three formats."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest

from measuring import chart, environments, figures, instructions, servers, starting
from measuring.figures import Figure, Goal, Question, Run
from needs import require

pytestmark = pytest.mark.costly

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent


def question(**given):
    """Ours takes twice as long as theirs, but for the first round, and for one noisy one."""
    subjects = {
        "theirs": chain((9.0,), (1.0, 5.0, 1.0)).__next__,
        "ours": chain((0.0,), (2.0, 10.0, 2.0)).__next__,
    }
    return Question("doing it", "ms", subjects, scale=1e3, **given)


def test_figures_are_medians_without_the_first_round_and_ratios_to_the_first_subject():
    theirs, ours = question().answer(3)

    assert (theirs.value, theirs.ratio) == (1000, 1)
    assert (ours.value, ours.ratio) == (2000, 2)


def test_subjects_take_turns():
    turns = []
    subjects = {name: lambda name=name: turns.append(name) or 1.0 for name in "ab"}

    Question("", "s", subjects).answer(2)

    assert turns == ["a", "b"] * 3


def test_what_is_the_same_each_time_is_measured_once():
    size = iter((5.0,))

    (figure,) = Question("", "MB", {"a": size.__next__}, most=0).answer(9)

    assert figure.value == 5


def test_of_nothing_there_is_no_ratio():
    figures = Question("", "%", {"a": lambda: 0.0, "b": lambda: 1.0}).answer(1)

    assert [figure.ratio for figure in figures] == [None, None]


@pytest.mark.parametrize(
    ("goal", "more", "said"),
    [
        (Goal(12), False, "≤ 12 ms"),
        (Goal(1.5, of="theirs"), False, "≤ 1.50 x theirs"),
        (Goal(1.5, of="theirs"), True, "≥ 1.50 x theirs"),
        (Goal(1.5, of="ours"), True, "≥ 1.50 x ours: 1.00 x"),
        (Goal(5, of="what is not installed"), True, ""),
    ],
)
def test_goals_are_beside_what_they_are_about(goal, more, said):
    theirs, ours = question(goals={"ours": goal}, more_is_better=more).answer(3)

    assert (theirs.goal, ours.goal) == ("", said)


def test_a_line_has_a_cell_for_each_heading():
    lines = [figures.row(figures.HEADINGS), figures.rule(), *figures.rows(question().answer(3))]

    assert {line.count("|") for line in lines} == {len(figures.HEADINGS) + 1}
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["doing it", ""]
    assert "2,000 ms" in lines[3]
    assert "2.00 x" in lines[3]


def test_the_readme_shows_figures_without_goals():
    run = Run({}, question(goals={"ours": Goal(12)}).answer(3))

    printed, written = "\n".join(figures.rows(run.figures)), run.to_markdown(headlines=False)

    assert "≤ 12 ms" in printed
    assert "≤" not in written


def test_the_readme_has_a_line_for_each_question_and_a_column_for_each_peer():
    subjects = {
        "json.loads": lambda: 2.0,
        "intercom-data-events": lambda: 4.0,
        "python-intercom (model only)": lambda: 8.0,
        "with an outbox": lambda: 1.0,
    }
    run = Run({}, Question("doing it", "ms", subjects, headline=True).answer(1))

    assert run.to_markdown(headlines=True).splitlines() == [
        f"|  | {' | '.join(figures.PEERS)} |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        (
            "| doing it | 2 ms (json.loads) | 4 ms, 2.00 x<br>1 ms, 0.50 x (with an outbox) |  "
            "| 8 ms, 4.00 x (model only) |  |"
        ),
    ]


def test_the_readme_and_the_chart_show_headlines_only():
    headline = question(headline=True).answer(1)
    other = Question("doing more", "s", {"ours": lambda: 1.0}).answer(1)
    run = Run(dict.fromkeys(("date", "machine", "Python"), ""), [*headline, *other])

    assert "doing more" in run.to_markdown(headlines=False)
    for shown in (run.to_markdown(headlines=True), chart.svg(run)):
        assert "doing it" in shown
        assert "doing more" not in shown


def test_eight_questions_are_headlines():
    run = Run.from_json((FOLDER / "figures.json").read_text("utf-8"))

    assert len(run.questions(headlines=True)) == 8


def test_the_readme_has_the_table_and_the_chart_of_the_figures_beside_it():
    run = Run.from_json((FOLDER / "figures.json").read_text("utf-8"))

    assert run.to_markdown(headlines=True) in (FOLDER / "README.md").read_text("utf-8")
    assert (FOLDER / "chart.svg").read_text("utf-8") == chart.svg(run)


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1,234")],
)
def test_figures_are_shown_with_what_can_be_known_of_them(value, said):
    assert figures.shown(value) == said


def test_the_chart_has_a_bar_for_each_figure_as_long_as_it_says():
    answer = question(headline=True).answer(3)
    run = Run(dict.fromkeys(("date", "machine", "Python"), "<&>"), answer)

    drawn = ElementTree.fromstring(chart.svg(run))  # drawn here
    bars = [one for one in drawn.iter() if one.tag.endswith("rect")]
    lengths = [float(bar.attrib["width"]) for bar in bars]
    said = ["".join(one.itertext()) for one in drawn.iter() if one.tag.endswith("}text")]

    assert lengths[1] == pytest.approx(2 * lengths[0])
    assert said[-5:-1] == ["doing it", "less is better", "1,000 mstheirs", "2,000 msours"]
    assert said[-1] == "<&>; <&>; <&>"


@pytest.mark.parametrize(
    ("subject", "peer", "beside"),
    [
        ("intercom-data-events", "intercom-data-events", ""),
        ("intercom-data-events[fast]", "intercom-data-events[fast]", ""),
        ("python-intercom (model only)", "python-intercom", "model only"),
        ("aiohttp", "aiohttp", ""),
        ("track, with an outbox", "intercom-data-events", "track, with an outbox"),
    ],
)
def test_a_peer_has_one_color_and_the_legend_names_it_once(subject, peer, beside):
    subjects = {name: lambda: 1.0 for name in ("httpx", subject)}
    run = Run(
        dict.fromkeys(("date", "machine", "Python"), ""),
        Question("doing it", "ms", subjects, headline=True).answer(1),
    )

    drawn = ElementTree.fromstring(chart.svg(run))  # drawn here
    color = [one for one in drawn.iter() if one.tag.endswith("rect")][-1].attrib["fill"]
    said = ["".join(one.itertext()) for one in drawn.iter() if one.tag.endswith("}text")]

    assert color == chart.COLORS[peer]
    assert said[: len(figures.PEERS)] == list(figures.PEERS)
    assert said[-2] == f"1 ms{beside}"


def test_a_chart_of_nothing_is_one():
    figure = Figure(
        "errors", "ours", 0.0, "", None, "", more_is_better=False, rounds=1, headline=True
    )

    run = Run(dict.fromkeys(("date", "machine", "Python"), ""), [figure])

    assert "<svg" in chart.svg(run)


@pytest.mark.processes
def test_an_environment_holds_distributions_with_what_they_need_and_nothing_else(tmp_path):
    program = (
        "from importlib.metadata import distributions; import httpx, attrs; "
        "print(*sorted(f'{one.name} {one.version}' for one in distributions()), sep='; ')"
    )
    environments.create(tmp_path, "pytest")

    python = environments.create(tmp_path, "httpx", "attrs")

    done = subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, check=True)
    found = dict(one.split(" ") for one in done.stdout.strip().split("; "))
    assert {"anyio", "attrs", "certifi", "h11", "httpcore", "httpx", "idna"} <= found.keys()
    # These are needed by older Pythons, or by older versions of anyio.
    assert found.keys() - {"sniffio", "typing-extensions", "typing_extensions"} <= {
        "anyio", "attrs", "certifi", "h11", "httpcore", "httpx", "idna"
    }  # fmt: skip
    assert found == {name: version(name) for name in found}


def test_an_environment_needs_its_distributions_to_be_installed(tmp_path):
    with pytest.raises(SystemExit, match=r"no-such-package is not installed\."):
        environments.create(tmp_path, "No_Such.Package")


@pytest.mark.parametrize(
    ("report", "counted"),
    [
        ("==17908== \n==17908== I   refs:      401,424,656\n", 401_424_656),
        ("==7== I refs:        37\n", 37),
        ("==7== I   refs:      1,000\n==7== I1  misses:          12\n", 1_000),
        ("what a program says: I refs: 12\n", None),
        ("", None),
    ],
)
def test_the_count_of_instructions_is_read_from_valgrinds_report(report, counted):
    assert instructions.parse(report) == counted


@pytest.mark.processes
def test_a_count_that_failed_is_an_error():
    # Python, which knows no such options, stands in for a valgrind that fails.
    with pytest.raises(RuntimeError, match="valgrind failed"):
        instructions.count(sys.executable, Path(sys.executable), "pass")


@pytest.mark.processes
@pytest.mark.parametrize("valgrind", [sys.executable, "/no/such/valgrind"])
def test_a_valgrind_that_cannot_run_python_does_not_work(valgrind):
    assert not instructions.works(valgrind)


def test_without_valgrind_the_benchmark_says_that_it_counts_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert instructions.counter() == (None, "not counted: valgrind is not installed")


@pytest.mark.processes
def test_valgrind_counts_the_instructions_of_a_program():
    require("valgrind")
    count, how = instructions.counter()

    assert count is not None, how
    assert count(Path(sys.executable), "pass") > 1_000_000


@pytest.mark.processes
def test_nginx_accepts_all_requests():
    require("nginx")
    with servers.accepting() as url:
        answer = httpx.post(f"{url}/events", json={})

    assert answer.status_code == httpx.codes.ACCEPTED
    assert answer.headers["Server"].startswith("nginx")


def test_nginx_is_found_in_system_folders_that_are_not_in_path(monkeypatch, tmp_path):
    nginx = tmp_path / "sbin" / "nginx"
    nginx.parent.mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(servers, "SYSTEM_FOLDERS", (str(nginx.parent),))

    before = servers.accepting_server()
    nginx.symlink_to(sys.executable)

    assert before == "the emulator, as nginx is not installed"
    assert servers.accepting_server() == "nginx"


def counts(given):
    asked = starting.questions("http://127.0.0.1:1", Path("unused"), given)
    return [one.title for one in asked if one.title.endswith(": instructions")]


def test_instructions_are_counted_of_all_that_is_timed_where_they_can_be():
    def count(python, program):
        raise AssertionError

    assert counts(None) == []
    assert counts(count) == [
        "import: instructions",
        "cold start to first event, in-process transport: instructions",
        "cold start to first event, over a socket: instructions",
    ]


def test_the_interpreters_own_instructions_are_left_out_of_an_import(tmp_path):
    def count(python, program):
        assert python.is_relative_to(tmp_path)
        return {"pass": 37_000_000, "import httpx, attrs": 401_000_000}[program]

    asked = starting.questions("http://127.0.0.1:1", tmp_path, count)
    (imports,) = (one for one in asked if one.title == "import: instructions")

    assert imports.subjects["httpx, attrs"]() * imports.scale == pytest.approx(364)


def run_benchmark(*arguments, **variables):
    return subprocess.run(
        [sys.executable, str(ROOT / "tests" / "bench" / "benchmark.py"), *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, **variables},
    )  # fmt: skip


@pytest.mark.processes
def test_a_part_is_measured_and_written_down(tmp_path):
    into, table, drawn = (tmp_path / name for name in ("figures.json", "table.md", "chart.svg"))

    done = run_benchmark(
        "--quick", "--only", "reading",
        "--json", str(into), "--markdown", str(table), "--svg", str(drawn),
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    known = json.loads(into.read_text(encoding="utf-8"))
    assert known["machine"]["medians of rounds"] == "1 at most"
    read = [one for one in known["figures"] if one["subject"] == "intercom-data-events"]
    assert [one["unit"] for one in read] == ["µs", "µs"]
    assert all(one["value"] > 0 for one in known["figures"])
    assert drawn.read_text(encoding="utf-8").startswith("<svg")
    assert "| json.loads" in done.stdout
    assert "≤ 8 µs" in done.stdout
    assert "(json.loads)" in table.read_text(encoding="utf-8")
    assert "≤" not in table.read_text(encoding="utf-8")
    assert sorted(tmp_path.iterdir()) == sorted((into, table, drawn))


@pytest.mark.processes
def test_the_figures_of_earlier_runs_are_joined_without_measuring(tmp_path):
    runs = []
    for name in ("starting", "sending"):
        answer = Question(name, "ms", {"ours": lambda: 2.0}, headline=True).answer(1)
        runs.append(tmp_path / f"{name}.json")
        runs[-1].write_text(Run({"date": name}, answer).to_json(), "utf-8")
    table = tmp_path / "table.md"
    earlier = [word for path in runs for word in ("--from", str(path))]

    done = run_benchmark(*earlier, "--markdown", str(table), "--json", str(tmp_path / "joined"))

    assert done.returncode == 0, done.stderr
    assert table.read_text("utf-8").splitlines()[2:] == [
        "| starting | 2 ms (ours) |  |  |  |  |",
        "| sending | 2 ms (ours) |  |  |  |  |",
    ]
    assert json.loads((tmp_path / "joined").read_text("utf-8"))["machine"] == {"date": "starting"}


@pytest.mark.processes
def test_a_file_without_figures_is_named(tmp_path):
    path = tmp_path / "figures.json"
    path.write_text("{}", "utf-8")

    done = run_benchmark("--from", str(path), "--markdown", str(tmp_path / "table.md"))

    assert done.returncode == 1
    assert f"--from: {path} has no figures; pass a file that --json wrote" in done.stderr
    assert not (tmp_path / "table.md").exists()


def run_with_nginx(folder, script, *parts):
    """Runs parts of the benchmark with a script instead of nginx, and returns the files, too."""
    require("sh")
    nginx = folder / "bin" / "nginx"
    nginx.parent.mkdir()
    nginx.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    nginx.chmod(0o755)
    files = {name: folder / f"file.{name}" for name in ("json", "markdown", "svg")}
    for file in files.values():
        file.write_text("earlier", encoding="utf-8")
    wanted = [word for part in parts for word in ("--only", part)]
    paths = [word for name, file in files.items() for word in (f"--{name}", str(file))]
    path = f"{nginx.parent}{os.pathsep}{os.environ['PATH']}"
    done = run_benchmark("--quick", *wanted, *paths, PATH=path)
    return done, {name: file.read_text(encoding="utf-8") for name, file in files.items()}


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("exit 1", 1, "nginx did not start."),
        ("kill -INT $PPID", 130, "Stopped; the figures above are complete."),
    ],
)
def test_a_run_that_ends_early_writes_its_figures_and_keeps_earlier_tables(
    script, code, said, tmp_path
):
    done, files = run_with_nginx(tmp_path, script, "reading", "sending")

    assert done.returncode == code
    assert said in done.stderr
    assert "file.svg was not written: the run is incomplete." in done.stderr
    read = json.loads(files.pop("json"))["figures"]
    assert [one["unit"] for one in read] == ["µs"] * len(read)
    assert read
    assert set(files.values()) == {"earlier"}


def test_a_run_that_ends_before_its_first_figure_writes_nothing(tmp_path):
    done, files = run_with_nginx(tmp_path, "exit 1", "sending")

    assert done.returncode == 1
    assert "file.json was not written: nothing was measured." in done.stderr
    assert set(files.values()) == {"earlier"}


def test_paths_are_checked_without_creating_files(tmp_path):
    path = tmp_path / "figures.json"

    done = run_benchmark("--json", str(path), "--svg", "no/such/chart.svg")

    assert "cannot write no/such/chart.svg" in done.stderr
    assert not path.exists()


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--rounds", "0"), "--rounds must be at least 1, not 0"),
        (("--only", "everything"), "invalid choice: 'everything'"),
        (("--json", "no/such/folder.json"), "--json: cannot write no/such/folder.json"),
        (("--markdown", "no/such/table.md"), "--markdown: cannot write no/such/table.md"),
        (("--svg", "/"), "--svg: cannot write / (Is a directory); choose"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_measured(arguments, said):
    done = run_benchmark(*arguments)

    assert done.returncode == 2
    assert said in done.stderr
    assert not done.stdout
