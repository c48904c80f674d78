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

    assert report(change) == ["Nothing but the order or the form changed."]


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
    assert any(line.startswith("  + ") and "dry_run: bool" in line for line in lines)


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
    assert any("data_events.create_data_event.sync:" in line and "-" in line for line in lines)
    assert any("data_events.submit_data_event.sync:" in line and "+" in line for line in lines)


def test_a_field_that_came_and_its_python_name(report):
    def change(description):
        _event(description)["properties"]["source"] = {"type": "string", "maxLength": 9}

    assert report(change) == [
        "Schemas:",
        "  + data_event.source: string, maxLength 9",
        "Python:",
        "  + intercom_data_events_api.models.data_event.DataEvent.source: str | Unset",
    ]


def test_a_field_that_went_and_its_python_name(project, describe):
    description = describe("2.16")
    _event(description)["properties"]["source"] = {"type": "string"}
    project.run(description)

    assert project.run(describe("2.16")).out.splitlines() == [
        "Schemas:",
        "  - data_event.source: string",
        "Python:",
        "  - intercom_data_events_api.models.data_event.DataEvent.source: str | Unset",
    ]


def test_a_schema_that_came_and_its_class(report):
    def change(description):
        description["components"]["schemas"]["source"] = {"type": "object", "properties": {}}
        _event(description)["properties"]["source"] = {"$ref": "#/components/schemas/source"}

    lines = report(change)

    assert "  + source: object" in lines
    assert "  + data_event.source: source" in lines
    assert "  + intercom_data_events_api.models.source.Source: class" in lines


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


def test_a_slice_that_cannot_be_read_does_not_keep_a_new_one_from_being_written(project, describe):
    for damage in ("[", "components: {schemas: {a: {items: 5}}}"):
        (project.root / "openapi" / "upstream.yaml").write_text(damage, encoding="utf-8")

        outcome = project.run(describe("2.17"))

        assert (outcome.code, outcome.err) == (0, "")
