"""A regeneration tells a person what it changed, in the API and in Python."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def plain(make_session_project, describe):
    project = make_session_project("plain")
    assert project.run(describe("2.16")).code == 0
    return project


@pytest.fixture
def report(plain, make_project, describe):
    """Regenerates from a changed 2.16 what was generated from a plain one; returns the report."""
    project = make_project(like=plain.root)

    def report(change):
        description = describe("2.16")
        change(description)
        outcome = project.run(description)
        assert (outcome.code, outcome.err) == (0, "")
        return outcome.out.splitlines()

    return report


def _python(lines):
    """The rows of the table that ends a report: whether it breaks callers, the name, the change."""
    table = lines[lines.index("Python:") + 1 :]
    assert table[0].split() == ["breaks", "name", "change"]
    assert table[-1].startswith("  Changes: ")
    return [
        [breaks, name.removeprefix("intercom_data_events_api."), change]
        for breaks, name, change in (line.split(maxsplit=2) for line in table[1:-1])
    ]


def _operation(description):
    return description["paths"]["/events"]["post"]


def _event(description):
    return description["components"]["schemas"]["data_event"]


def test_nothing_to_say(report):
    assert report(lambda _: None) == ["Nothing changed."]


def test_prose_and_examples_are_nothing_to_say(report):
    def change(description):
        description["info"]["description"] = "Other words."
        _event(description)["properties"]["id"]["example"] = "2"
        _operation(description)["summary"] = "Other words."

    assert report(change) == ["Nothing changed."]


def test_an_order_that_changed_is_said_since_it_is_that_of_positional_arguments(report):
    def change(description):
        event = _event(description)
        event["properties"] = dict(reversed(event["properties"].items()))

    lines = report(change)

    assert lines[0] == "Python:"
    assert ["yes", "models.DataEvent.user_id", "positional parameter was moved"] in _python(lines)


def test_a_form_that_changed_is_said(plain, make_project, describe):
    project = make_project(like=plain.root)
    module = project.package / "models" / "data_event.py"
    module.write_bytes(module.read_bytes() + b"# A remark.\n")

    outcome = project.run(describe("2.16"))

    assert outcome.out == "Nothing but the order or the form changed.\n"


def test_only_the_versions(plain, make_project, describe):
    outcome = make_project(like=plain.root).run(describe("2.14"))

    assert outcome.out.splitlines() == [
        "Versions:",
        "  - accepted: 2.15",
        "  - accepted: 2.16",
        "  - described: 2.16",
        "  + described: 2.14",
        "Only the versions changed.",
    ]


def test_a_version_that_is_not_accepted_any_more(report):
    def change(description):
        description["components"]["schemas"]["intercom_version"]["enum"].remove("1.0")

    assert report(change) == ["Versions:", "  - accepted: 1.0", "Only the versions changed."]


def test_a_parameter_that_came_or_went_or_changed(report):
    def change(description):
        _operation(description)["parameters"] = [
            {"name": "dry_run", "in": "query", "schema": {"type": "boolean"}}
        ]

    lines = report(change)

    assert "  + POST /events: dry_run in query: boolean" in lines
    assert "  - POST /events: Intercom-Version in header: intercom_version" in lines
    function = "api.data_events.create_data_event.sync_detailed"
    assert ["no", f"{function}(dry_run)", "added: keyword-only, bool | Unset = UNSET"] in _python(
        lines
    )
    assert ["yes", f"{function}(intercom_version)", "removed"] in _python(lines)


def test_an_answer_of_an_operation(report):
    def change(description):
        _operation(description)["responses"]["418"] = {"description": "Short and stout"}

    lines = report(change)

    assert lines[0] == "Operations:"
    assert "  - POST /events (createDataEvent): 202, 401" in lines
    assert "  + POST /events (createDataEvent): 202, 401, 418" in lines


def test_an_operation_of_another_name_is_a_module_of_another_name(report):
    def change(description):
        _operation(description)["operationId"] = "submitDataEvent"

    lines = report(change)

    assert "  + POST /events (submitDataEvent): 202, 401" in lines
    assert _python(lines) == [
        ["yes", "api.data_events.create_data_event", "removed"],
        ["no", "api.data_events.submit_data_event", "added: module"],
    ]


def test_a_field_that_came_and_its_python_name(report):
    def change(description):
        _event(description)["properties"]["source"] = {"type": "string", "maxLength": 9}

    lines = report(change)

    assert lines[:2] == ["Schemas:", "  + data_event.source: string, maxLength 9"]
    assert _python(lines) == [
        # Made before the field that a correction adds.
        ["yes", "models.DataEvent.metadata", "positional parameter was moved"],
        ["no", "models.DataEvent.source", "added: str | Unset"],
    ]
    assert lines[-1] == "  Changes: 2; break callers: 1; may break them: 0."


def test_a_field_that_went_and_its_python_name(project, describe):
    description = describe("2.16")
    _event(description)["properties"]["source"] = {"type": "string"}
    project.run(description)

    lines = project.run(describe("2.16")).out.splitlines()

    assert lines[:2] == ["Schemas:", "  - data_event.source: string"]
    assert ["yes", "models.DataEvent.source", "removed"] in _python(lines)


def test_a_field_that_is_required_or_of_another_type_now(project, describe):
    def description(fields, *required):
        made = describe("2.16")
        made["components"]["schemas"]["source"] = {
            "type": "object",
            "properties": {name: {"type": type_} for name, type_ in fields.items()},
            "required": list(required),
        }
        _event(made)["properties"]["source"] = {"$ref": "#/components/schemas/source"}
        return made

    project.run(description({"name": "string", "size": "integer"}))
    outcome = project.run(description({"name": "string", "size": "string"}, "name"))

    assert _python(outcome.out.splitlines()) == [
        ["yes", "models.Source.name", "parameter is now required: str | Unset → str"],
        ["maybe", "models.Source.size", "int | Unset → str | Unset"],
    ]
    assert outcome.out.endswith("  Changes: 2; break callers: 1; may break them: 1.\n")


def test_a_schema_that_came_and_its_class(report):
    def change(description):
        description["components"]["schemas"]["source"] = {"type": "object", "properties": {}}
        _event(description)["properties"]["source"] = {"$ref": "#/components/schemas/source"}

    lines = report(change)

    assert "  + source: object" in lines
    assert "  + data_event.source: source" in lines
    assert ["no", "models.Source", "added: class"] in _python(lines)


def test_what_the_corrections_level(report):
    def change(description):
        _event(description)["properties"]["email"]["nullable"] = True

    assert report(change) == [
        "Schemas:",
        "  - data_event.email: string",
        "  + data_event.email: string, nullable True",
        "The corrections level this: no Python name or signature changed.",
    ]


def test_everything_is_new_where_there_was_nothing(project, describe):
    for path in ("openapi/upstream.yaml", "openapi/data-events.yaml"):
        (project.root / path).unlink()

    lines = project.run(describe("2.17")).out.splitlines()

    assert "  + POST /events/summaries (dataEventSummaries): 200, 401" in lines
    assert "  + data_event_summary_item.count: integer" in lines
    assert not [line for line in lines if line.startswith("  - ") and "described" in line]


def test_a_package_that_does_not_parse_is_as_none(project, describe):
    (project.package / "__init__.py").write_text("def (", encoding="utf-8")

    outcome = project.run(describe("2.17"))

    assert (outcome.code, outcome.err) == (0, "")
    assert _python(outcome.out.splitlines()) == [
        ["no", "intercom_data_events_api", "added: module"]
    ]


def test_a_slice_that_cannot_be_read_does_not_keep_a_new_one_from_being_written(project, describe):
    for damage in ("[", "components: {schemas: {a: {items: 5}}}"):
        (project.root / "openapi" / "upstream.yaml").write_text(damage, encoding="utf-8")

        outcome = project.run(describe("2.17"))

        assert (outcome.code, outcome.err) == (0, "")
