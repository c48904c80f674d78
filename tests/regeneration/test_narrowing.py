"""What Intercom accepts less of heads the report; what it accepts more of does not."""

from __future__ import annotations

import pytest
from steps import OPERATIONS, correct, slice_of

from regeneration.comparing import differences
from regeneration.narrowing import narrowings
from regeneration.uses import Uses


@pytest.fixture(scope="module")
def narrowed(describe):
    """What narrows requests between two changes: the field and the methods that send it."""

    def narrowed(change, before=lambda _: None):
        one, other = describe("2.16"), describe("2.16")
        before(one)
        change(other)
        old, new = slice_of(one), slice_of(other)
        made = correct(new)
        uses = Uses(OPERATIONS.client, [old, new, made.document])
        sent = correct(old).document
        found = narrowings(differences(old, new), made.unknown, new, sent, uses)
        return [
            (each.name, [verb for operation in each.operations for verb in operation.verbs])
            for each in found
        ]

    return narrowed


def _set(name, **keywords):
    """Changes a field of an event that is sent."""

    def change(description):
        request = description["components"]["schemas"]["create_data_event_request"]
        request["properties"].setdefault(name, {"type": "string"}).update(keywords)

    return change


def _whole(**keywords):
    def change(description):
        description["components"]["schemas"]["create_data_event_request"].update(keywords)

    return change


def _parameter(name, **keywords):
    def change(description):
        parameters = description["paths"]["/events"]["post"]["parameters"]
        known = {each["name"]: each for each in parameters}
        if name not in known:
            known[name] = {"name": name, "in": "query", "schema": {"type": "integer"}}
            parameters.append(known[name])
        known[name]["schema"].update(keywords)

    return change


SENT = ["create", "send"]


@pytest.mark.parametrize(
    "keywords",
    [
        {"maxLength": 120},
        {"minLength": 3},
        {"pattern": "^[a-z-]+$"},
        {"enum": ["one", "other"]},
        {"const": "one"},
        {"format": "uuid"},
        {"not": {"enum": ["other"]}},
        {"readOnly": True},
        {"contentEncoding": "base64"},
    ],
)
def test_a_field_that_may_hold_less_is_named(narrowed, keywords):
    assert narrowed(_set("event_name", **keywords)) == [("event_name", SENT)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"maxLength": 90}, {"maxLength": 80}),
        ({"minLength": 2}, {"minLength": 3}),
        ({"enum": ["a", "b", "c"]}, {"enum": ["a", "c"]}),
        ({"nullable": True}, {"nullable": False}),
        ({"type": "number"}, {"type": "integer"}),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, {"anyOf": [{"type": "string"}]}),
        ({}, {"oneOf": [{"maxLength": 3}, {"minLength": 9}]}),
        ({}, {"allOf": [{"maxLength": 20}]}),
        ({"pattern": "^a"}, {"pattern": "^b"}),
    ],
)
def test_a_field_that_may_hold_less_than_it_could_is_named(narrowed, before, after):
    field = "of_our_own"

    assert narrowed(_set(field, **after), before=_set(field, **before)) == [(field, SENT)]
    assert narrowed(_set(field, **before), before=_set(field, **after)) in (
        [],
        # Of two patterns, neither is the wider one.
        *([[(field, SENT)]] if "pattern" in before else []),
    )


@pytest.mark.parametrize("keyword", ["maxLength", "pattern", "enum", "format", "minLength"])
def test_a_bound_that_is_gone_narrows_nothing(narrowed, keyword):
    values = {"enum": ["a"], "pattern": "a", "format": "uuid"}
    before = _set("event_name", **{keyword: values.get(keyword, 5)})

    assert narrowed(lambda _: None, before=before) == []


@pytest.mark.parametrize(
    "change",
    [
        _set("event_name", description="words", deprecated=True, example="x", default="y"),
        _set("new_one", maxLength=5, pattern="a"),
        _set("new_one", type="object", properties={"a": {"type": "string", "enum": ["b"]}}),
        _parameter("dry_run", maximum=5),
        _whole(allOf=[{"type": "object", "properties": {"a": {"type": "string"}}}]),
        _parameter("Intercom-Version", pattern="^2"),
    ],
)
def test_what_is_new_or_says_nothing_of_values_narrows_nothing(narrowed, change):
    assert narrowed(change) == []


@pytest.mark.parametrize(
    "keywords",
    [{"additionalProperties": False}, {"maxProperties": 3}, {"patternProperties": {"^x": {}}}],
)
def test_a_whole_request_that_may_hold_less_is_named(narrowed, keywords):
    assert narrowed(_whole(**keywords)) == [(None, SENT)]


def test_a_parameter_that_may_hold_less_is_named(narrowed):
    before = _parameter("dry_run", maximum=5)

    assert narrowed(_parameter("dry_run", maximum=4), before=before) == [("dry_run", SENT)]


@pytest.mark.parametrize("name", ["user_id", "id", "email"])
def test_what_the_corrections_say_already_narrows_nothing(narrowed, name):
    assert narrowed(_set(name, minLength=1)) == []


@pytest.mark.parametrize("keywords", [{"type": "string"}, {"minimum": 1}, {"format": "int32"}])
def test_what_a_correction_tells_is_not_told_twice(narrowed, keywords):
    assert narrowed(_set("created_at", **keywords)) == []


def test_of_answers_nothing_is_narrowed(narrowed):
    def change(description):
        event = description["components"]["schemas"]["data_event"]
        event["properties"]["email"].update(maxLength=3, enum=["a"])

    assert narrowed(change) == []


def test_a_narrowed_request_heads_the_report(project, describe):
    description = describe("2.17")
    _set("event_name", maxLength=120)(description)

    outcome = project.run(description)

    assert outcome.code == 3
    assert outcome.out.startswith(
        "Review this item before you release:\n1. Intercom accepts fewer values in"
    )
    assert "event_name" in outcome.out.split("What changed upstream")[0]
    assert "Python: no name and no signature changed." in outcome.out
