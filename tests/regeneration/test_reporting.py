"""A regeneration says what it means for callers, first of all whether a person has to look."""

from __future__ import annotations

import json
import shutil

import pytest
import regenerate
import yaml

from regeneration import pipeline
from regeneration.pipeline import PARTS, stage
from regeneration.publishing import publish
from regeneration.releasing import suggest

CREATE, LIST, SUMMARIES = ("/events", "post"), ("/events", "get"), ("/events/summaries", "post")
NAMES = {
    "tags": ["Data Events"],
    "operationId": "listEventNames",
    "responses": {"200": {"description": "Names"}},
}


@pytest.fixture(scope="module")
def plain(make_session_project, describe):
    project = make_session_project("plain")
    assert project.run(describe("2.16")).code == 0
    return project


@pytest.fixture
def report(plain, make_project, describe):
    """Regenerates from a changed description what was generated from a plain 2.16.

    Returns the project, the lines of the report, and the same as JSON, both of one run.
    """

    def report(change, code, version="2.16"):
        description = describe(version)
        change(description)
        project = make_project("project", like=plain.root)
        project.say_version("1.4.2")
        staged = project.root / ".staged"
        staged.mkdir()
        made = stage(staged, project.root, str(project.write(description, "description.json")))
        said = pipeline.report(staged, project.root, made)
        publish(staged, project.root, PARTS)
        shutil.rmtree(staged)
        assert said.exit_code == code
        return project, said.as_text().splitlines(), said.as_json()

    return report


def _operation(description, operation):
    path, method = operation
    return description["paths"][path][method]


def _schema(description, name):
    return description["components"]["schemas"][name]


def _python(lines):
    """The rows of the table of Python: whether it breaks callers, the name, the change."""
    start = lines.index("Python:") + 1
    assert lines[start].split() == ["breaks", "name", "change"]
    rows = lines[start + 1 : lines.index("", start)]
    assert rows.pop().startswith("  Changes: ")
    return [
        [breaks, name.removeprefix("intercom_data_events_api."), change]
        for breaks, name, change in (row.split(maxsplit=2) for row in rows)
    ]


def _invented(description):
    """A new optional field of an answer, a required query parameter, a new operation."""
    _schema(description, "data_event")["properties"]["source"] = {"type": "string"}
    _operation(description, LIST)["parameters"].append(
        {"name": "workspace", "in": "query", "required": True, "schema": {"type": "string"}}
    )
    description["paths"]["/events/names"] = {"get": NAMES}


# Where there is nothing to look at.


def _other_prose(description):
    description["info"]["description"] = "Other words."
    _schema(description, "data_event")["properties"]["id"]["example"] = "2"
    _operation(description, CREATE)["summary"] = "Other words."
    _operation(description, LIST)["x-internal"] = {"owner": "another"}


@pytest.mark.parametrize("change", [lambda _: None, _other_prose])
def test_without_a_change_there_is_nothing_to_say(report, change):
    _, lines, said = report(change, 0)

    assert lines == ["Nothing changed."]
    assert said["changes"] == said["look"] == said["python"] == said["files"] == []
    assert said["release"]["level"] == "none"


def test_a_form_that_changed_is_said(plain, make_project, describe):
    project = make_project(like=plain.root)
    module = project.package / "models" / "data_event.py"
    module.write_bytes(module.read_bytes() + b"# A remark.\n")

    outcome = project.run(describe("2.16"))

    assert outcome.code == 0
    assert outcome.out.splitlines()[0] == "Only the order or the formatting changed."


def test_code_that_changed_is_not_called_form(plain, make_project, describe):
    project = make_project(like=plain.root)
    module = project.package / "models" / "data_event.py"
    module.write_bytes(module.read_bytes() + b"import this\n")

    outcome = project.run("--json", describe("2.16"))

    said = json.loads(outcome.out)
    assert said["verdict"] == "Nothing that callers use changed."
    assert said["files"] == ["differs: generated/intercom_data_events_api/models/data_event.py"]
    assert said["release"]["level"] == "patch"


def test_other_versions_are_said_in_their_order_with_the_one_that_callers_send(report):
    def change(description):
        for version in ("1.0", "2.10", "2.9"):
            _schema(description, "intercom_version")["enum"].remove(version)
        _schema(description, "intercom_version")["enum"] += ["Preview", "2.18"]

    _, lines, said = report(change, 0, "2.17")

    assert lines[0] == "Nothing that callers use changed, except the default version (now 2.17)."
    assert "Versions: newly listed: 2.17, 2.18, Preview; no longer listed: 1.0, 2.9, 2.10." in lines
    assert "Default Intercom-Version: 2.17 (before: 2.16)." in lines
    assert "Release: minor, 1.4.2 → 1.5.0. Add to CHANGELOG.md:" in lines
    assert said["versions"] == {
        "listed": ["2.17", "2.18", "Preview"],
        "unlisted": ["1.0", "2.9", "2.10"],
        "default": {"before": "2.16", "after": "2.17"},
    }


# Each change is shown, with where it ends.


def _bounds(description):
    event = _schema(description, "create_data_event_request")
    event["maxProperties"] = 9
    event["properties"]["user_id"]["pattern"] = "[a-z]+"
    _operation(description, LIST)["responses"]["200"]["content"]["application/json"]["schema"] = {
        "$ref": "#/components/schemas/data_event_list"
    }


def test_what_changed_is_shown_whatever_it_is(report):
    _, lines, said = report(_bounds, 3)

    assert "  create_data_event_request: maxProperties absent → 9 [not used]" in lines
    assert (
        '  create_data_event_request: field `user_id`: pattern absent → "[a-z]+" [not used]'
        in lines
    )
    assert any(
        line.startswith("  GET /events: answer 200 ") and line.endswith("[read tolerantly]")
        for line in lines
    )
    assert len(said["changes"]) == 3


def _new_fields(description):
    _schema(description, "data_event")["properties"] |= {
        "source": {"type": "string", "maxLength": 9},
        "origin": {"$ref": "#/components/schemas/origin"},
    }
    description["components"]["schemas"]["origin"] = {"type": "object", "properties": {}}
    _schema(description, "data_event_summary_item")["properties"]["count"]["minimum"] = 0
    _schema(description, "create_data_event_request")["properties"]["source"] = {"type": "string"}
    _operation(description, LIST)["parameters"].append(
        {"name": "per_page", "in": "query", "schema": {"type": "integer"}}
    )
    _operation(description, CREATE)["responses"]["418"] = {"description": "Short and stout"}
    _operation(description, CREATE)["operationId"] = "submitDataEvent"


def test_where_a_change_ends_is_said(report):
    _, lines, _ = report(_new_fields, 0)

    assert lines[0] == "Nothing that callers use changed."
    start = lines.index("What changed upstream:")
    assert sorted(lines[start + 1 : lines.index("", start)]) == sorted(
        [
            "  POST /events: answer 418 is new [comes through]",
            (
                '  POST /events: operationId "createDataEvent" → "submitDataEvent" (the client '
                "uses its own) [levelled]"
            ),
            "  GET /events: new query parameter `per_page`, integer [levelled]",
            "  create_data_event_request: new field `source`, string [comes through]",
            "  data_event: new field `source`, string [comes through]",
            "  data_event: new field `origin`, origin [comes through]",
            "  origin: new schema, object [comes through]",
            ("  data_event_summary_item: field `count`: minimum absent → 0 [read tolerantly]"),
        ]
    )
    names = [(breaks, name) for breaks, name, _ in _python(lines)]
    assert ("no", "models.DataEvent.source") in names
    assert ("no", "models.Origin") in names
    assert ("no", "models.CreateDataEventRequest.source") in names


def test_what_is_long_is_cut_to_a_screen_and_whole_as_json(report):
    def change(description):
        for number in range(30):
            _schema(description, "data_event")["properties"][f"field_{number}"] = {"type": "string"}
            description["paths"][f"/events/{number}"] = {"get": NAMES}

    _, lines, said = report(change, 3)

    assert lines[0] == "Review these 30 items before you release:"
    assert len(lines) < 66
    assert max(map(len, lines)) <= 120
    assert [line for line in lines if "more; pass --json to see all" in line] == [
        "… and 24 more; pass --json to see all",
        "  … and 50 more; pass --json to see all",
        "  … and 20 more; pass --json to see all",
    ]
    assert len(said["look"]) == 30
    assert len(said["changes"]) == 60
    assert len(said["python"]) == 30


# What a person has to look at.


def test_an_invented_version_is_told_on_one_screen(plain, make_project, describe):
    description = describe("2.17")
    _invented(description)
    project, same = (make_project(name, like=plain.root) for name in ("project", "same"))
    project.say_version("1.4.2")
    same.say_version("1.4.2")

    outcome = project.run(description)
    as_json = same.run("--json", description)

    assert (outcome.code, outcome.err) == (as_json.code, as_json.err) == (3, "")
    lines, said = outcome.out.splitlines(), json.loads(as_json.out)
    assert lines[:2] == [
        "Breaks callers: list and summary do not send `workspace`, which GET /events requires now.",
        "Review these 2 items before you release:",
    ]
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120
    assert "  data_event: new field `source`, string [comes through]" in lines
    assert "  GET /events: new query parameter `workspace`, string, required [levelled]" in lines
    assert any(line[1:].startswith(". GET /events/names (listEventNames) ") for line in lines)
    assert "   - {operation: GET /events/names, reason: …}" in lines
    # The guide shows it.
    guide = (project.root / "openapi" / "README.md").read_text(encoding="utf-8")
    assert f"```text\n{outcome.out}```\n" in guide
    # The same for programs.
    assert said["verdict"] == lines[0]
    assert said["exit_code"] == 3
    assert [each["kind"] for each in said["look"]] == ["break", "operation"]
    text = " ".join(" ".join(lines).split())
    for each in said["look"]:
        assert each["title"] in text
        assert each["meaning"] in text
        assert " ".join(each["to_do"].split()) in text
    for each in said["changes"]:
        of_versions = each["pointer"] == "#/info/version" or "/intercom_version/" in each["pointer"]
        assert of_versions or f"{each['words']} [{each['effect']}]" in text
    assert said["release"]["changelog"] in text
    assert said["breaks"] == [lines[0].removeprefix("Breaks callers: ")]
    # What is committed does not go away; what breaks callers has been said.
    again = project.run()
    assert again.code == 3
    assert again.out.splitlines()[0] == "Review these 2 items before you release:"
    assert "GET /events/names (listEventNames)" in again.out
    # What was decided does, as the report and the guide say.
    (unknown,) = said["look"][0]["corrections"]
    assert f"   - {unknown['as_written']}" in lines
    corrections = project.root / "openapi" / "corrections.yaml"
    content = yaml.safe_load(corrections.read_text(encoding="utf-8"))
    action = content["actions"][unknown["correction"]["number"] - 1]
    action["x-written-against"].append(unknown["as_written"])
    corrections.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    operations = project.root / "openapi" / "operations.yaml"
    text = operations.read_text(encoding="utf-8")
    left_out = "unsupported:\n  - {operation: GET /events/names, reason: A test.}"
    operations.write_text(text.replace("unsupported: []", left_out), encoding="utf-8")
    assert project.run().out == "Nothing changed.\n"


def _source_in_the_body(description):
    event = _schema(description, "create_data_event_request")
    event["properties"]["source"] = {"type": "string"}
    for alternative in event["anyOf"]:
        alternative["required"].append("source")


def test_a_cause_is_one_item_also_where_a_correction_was_not_written_for_it(report):
    def change(description):
        parameter = {"name": "workspace", "in": "query", "required": True}
        _operation(description, LIST)["parameters"].append(parameter)
        _source_in_the_body(description)

    _, lines, said = report(change, 3)

    told = []
    for each in said["look"]:
        (correction,) = each["corrections"]
        number, target = correction["correction"]["number"], correction["correction"]["target"]
        told.append((each["kind"], target))
        heading = f"   Correction {number} ({target}) was written against: "
        assert any(line.startswith(heading) for line in lines)
        assert f"   - {correction['as_written']}" in lines
    assert told == [
        ("break", "$.components.schemas.create_data_event_request.anyOf"),
        ("break", "$.paths['/events'].get.parameters"),
    ]


def test_of_what_a_correction_was_written_for_the_part_is_shown_that_differs(report):
    def change(description):
        _schema(description, "create_data_event_request")["properties"]["created_at"] = {
            "type": "string",
            "format": "date-time",
        }
        del _schema(description, "data_event")["properties"]["email"]
        _operation(description, LIST)["parameters"][1]["required"] = False

    _, lines, _ = report(change, 3)

    assert lines[0] == "Review these 3 items before you release:"
    shown = [line[3:] for line in lines if line[3:].startswith(("Written", "Upstream", "Means"))]
    assert shown == [
        'Written against: created_at: {"type": "integer", "format": "date-time"}',
        'Upstream now: created_at: {"type": "string", "format": "date-time"}',
        "Means: Intercom may reject the unchanged requests of create and send.",
        "Written against: query filter.required: true",
        "Upstream now: query filter.required: absent",
        "Means: Intercom may reject the unchanged requests of list and summary.",
        'Written against: email: {"type": "string"}',
        "Upstream now: email: absent",
        (
            "Means: a value that list and summary cannot read is None, and is kept unchanged in "
            "additional_properties."
        ),
    ]


def test_what_is_said_of_requests_is_not_called_unchanged(report):
    def change(description):
        facts = {"deprecated": True, "default": "ran"}
        event = _schema(description, "create_data_event_request")
        event["properties"]["event_name"] |= facts

    _, lines, said = report(change, 0)

    assert (
        lines[0] == "Nothing that callers use changed, except Intercom's description of requests."
    )
    assert [each["effect"] for each in said["changes"]] == ["not used"] * 2


def test_a_field_that_the_body_must_have_is_said_once(report):
    def change(description):
        event = _schema(description, "create_data_event_request")
        event["properties"]["source"] = {"type": "string"}
        event["required"] = ["source"]
        _schema(description, "create_data_event_summaries_request")["required"] = ["user_id"]

    _, lines, said = report(change, 3)

    assert lines[0] == (
        "Breaks callers: create and send do not send `source`, which POST /events requires now."
    )
    assert len(said["breaks"]) == 1
    assert "Intercom may reject the requests of create and send." in "\n".join(lines)


@pytest.fixture(scope="module")
def extended(make_session_project, describe):
    """A project whose description has fields that others lack, or have otherwise."""
    project = make_session_project("extended")
    description = describe("2.16")
    _schema(description, "data_event")["properties"]["source"] = {"type": "string"}
    _schema(description, "create_data_event_request")["properties"] |= {
        "origin": {"type": "string"},
        "size": {"type": "integer"},
    }
    assert project.run(description).code == 0
    return project


def test_names_that_go_break_callers_and_types_that_change_may(extended, make_project, describe):
    description = describe("2.16")
    size = {"type": "string"}
    _schema(description, "create_data_event_request")["properties"]["size"] = size

    outcome = make_project(like=extended.root).run(description)

    lines = outcome.out.splitlines()
    assert outcome.code == 3
    assert lines[0] == (
        "Breaks callers: generated names were changed or removed: "
        "models.CreateDataEventRequest.origin, models.DataEvent.source."
    )
    assert (
        "2. Intercom accepts fewer values in the requests of create and send: "
        "create_data_event_request: field `size`: type"
    ) in " ".join(outcome.out.split())
    assert [breaks for breaks, *_ in _python(lines)] == ["yes", "yes", "maybe"]
    assert "  data_event: field `source` is gone [comes through]" in lines


def test_what_operations_lost_is_to_be_looked_at(report):
    def change(description):
        description["servers"].pop()
        description["security"] = [{"key": []}]
        description["components"]["securitySchemes"]["key"] = {"type": "http", "scheme": "basic"}
        _operation(description, SUMMARIES)["deprecated"] = True
        responses = _operation(description, CREATE)["responses"]
        responses["204"] = responses.pop("202")

    _, lines, said = report(change, 3)

    assert lines[0].startswith(("Review these ", "Breaks callers: "))
    kinds = [each["kind"] for each in said["look"]]
    assert {"server", "security", "deprecated", "status"} <= set(kinds)
    text = "\n".join(lines)
    assert "The server https://api.au.intercom.io is gone" in text
    assert "POST /events/summaries is deprecated now." in text
    assert "POST /events no longer answers with status 202." in text
    operations = "POST /events, GET /events and POST /events/summaries"
    assert f"{operations} no longer accept bearerAuth authentication as before." in text


@pytest.mark.parametrize("version", ["3.0", "Preview"])
def test_a_version_that_its_own_description_does_not_list_is_to_be_looked_at(report, version):
    def change(description):
        _schema(description, "intercom_version")["enum"].remove(version)

    project, lines, _ = report(change, 3, version)

    assert lines[0] == "Review this item before you release:"
    assert lines[1].startswith(f"1. The description is of version {version}, which its own list ")
    assert f"   Means: each request would have Intercom-Version: {version}, " in "\n".join(lines)
    assert project.run().code == 3


def test_text_from_outside_controls_no_terminal(report):
    def change(description):
        description["paths"] |= {
            "/events/\x1b]0;owned\x07": {"get": {**NAMES, "operationId": "a\nVerdict"}},
            "/events/\u202egnp.exe": {"post": NAMES},
            "/events/" + "long" * 5_000: {"delete": NAMES},
            "/events/\u8d64\ud83d": {"get": {**NAMES, "tags": ["Data Events\r\u2028"]}},
        }
        _schema(description, "data_event")["properties"]["kind"] = {
            "type": "string",
            "enum": ["x" * 5_000, "Nothing changed."],
        }

    _, lines, said = report(change, 3)

    assert lines[0] == "Review these 4 items before you release:"
    assert all(line.isprintable() and len(line) <= 120 for line in lines)
    assert len(lines) < 50
    assert all(text.isprintable() for each in said["look"] for text in each["why"])


# Where there is nothing to compare with, and nothing to report.


def test_everything_is_new_where_there_was_nothing(project, describe):
    for path in ("openapi/upstream.yaml", "openapi/data-events.yaml"):
        (project.root / path).unlink()
    shutil.rmtree(project.package)

    outcome = project.run(describe("2.17"))

    lines = outcome.out.splitlines()
    assert (outcome.code, outcome.err) == (0, "")
    assert lines[0] == "Everything is new: openapi/upstream.yaml is missing or damaged."
    assert "  /events/summaries is new [comes through]" in lines
    assert _python(lines) == [["no", "intercom_data_events_api", "added: module"]]
    assert "Default Intercom-Version: 2.17 (before: unknown)." in lines


@pytest.mark.parametrize("damage", ["[", "{}", "components: {schemas: {a: {items: 5}}}"])
def test_damaged_files_do_not_keep_new_ones_from_being_written(project, describe, damage):
    for path in ("openapi/upstream.yaml", "openapi/data-events.yaml"):
        (project.root / path).write_text(damage, encoding="utf-8")
    (project.package / "__init__.py").write_text("def (", encoding="utf-8")

    outcome = project.run(describe("2.17"))

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[0].startswith("Everything is new")
    assert project.run().out == "Nothing changed.\n"


def test_a_refusal_is_json_for_programs(project, describe):
    description = describe("2.17")
    del description["paths"]["/events"]["post"]
    before = project.files()

    outcome = project.run("--json", description)

    assert (outcome.code, outcome.err) == (1, "")
    said = json.loads(outcome.out)
    assert said["exit_code"] == 1
    assert "must have the operation POST /events" in said["refused"]
    assert project.files() == before


def test_a_check_is_json_for_programs(project):
    assert json.loads(project.run("--check", "--json").out) == {"drift": [], "exit_code": 0}
    (project.package / "client.py").unlink()
    (project.root / "openapi" / "data-events.yaml").write_text("{}", encoding="utf-8")

    outcome = project.run("--check", "--json")

    assert (outcome.code, outcome.err) == (1, "")
    assert json.loads(outcome.out) == {
        "drift": [
            "missing: generated/intercom_data_events_api/client.py",
            "differs: openapi/data-events.yaml",
        ],
        "exit_code": 1,
    }


def test_help_says_what_exit_codes_mean(capsys):
    with pytest.raises(SystemExit):
        regenerate.main(["--help"])

    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines() if line[:3].strip().isdecimal()] == list(
        "0123"
    )
    assert "`release`\n               (`level`," in said


# The release.


@pytest.fixture
def suggested(tmp_path):
    """Suggests the release of a project of a version."""
    about = tmp_path / "overlays" / "intercom_data_events" / "__about__.py"
    about.parent.mkdir(parents=True)

    def suggested(version, **facts):
        about.write_text(f'"""What it is."""\n\n__version__ = "{version}"\n', encoding="utf-8")
        nothing = {
            "is_break": False, "changed": (), "new": (), "gone": (), "pin": ("2.16", "2.16"),
            "rewritten": False,
        }  # fmt: skip
        release = suggest(tmp_path, **nothing | facts)
        assert release.before == version
        return release

    return suggested


BREAKS = {"is_break": True, "changed": ["models.A"], "rewritten": True}


@pytest.mark.parametrize(
    ("version", "facts", "level", "after"),
    [
        ("0.1.0", BREAKS, "minor", "0.2.0"),
        ("1.4.2", BREAKS, "major", "2.0.0"),
        ("1.4.2", {"is_break": True}, "major", "2.0.0"),
        ("0.9.3", {"new": ["models.A"], "rewritten": True}, "minor", "0.10.0"),
        ("1.4.2", {"new": ["models.A"], "rewritten": True}, "minor", "1.5.0"),
        ("1.4.2", {"gone": ["2.7"], "rewritten": True}, "minor", "1.5.0"),
        ("1.4.2", {"pin": ("2.16", "2.17"), "rewritten": True}, "minor", "1.5.0"),
        ("1.4.2", {"rewritten": True}, "patch", "1.4.3"),
        ("1.4.2", {}, "none", "1.4.2"),
    ],
)
def test_a_release_follows_from_what_callers_notice(suggested, version, facts, level, after):
    release = suggested(version, **facts)

    assert (release.level, release.after) == (level, after)
    assert bool(release.changelog) == (level != "none")


def test_a_line_for_the_changelog_says_what_callers_notice(suggested):
    release = suggested(
        "1.4.2",
        is_break=True,
        changed=["models.A"],
        new=list("abcdefg"),
        gone=["2.7"],
        pin=("2.16", "2.17"),
    )

    assert release.changelog == (
        "- Breaking: generated names changed or removed: models.A. Generated from Intercom's "
        "description of version 2.17, which is now the default (before: 2.16). New: a, b, c, d, "
        "e, 2 more. No longer listed: 2.7."
    )
