"""What answers hold is read whatever it is, by one rule; requests and a few fields stay strict."""

from __future__ import annotations

import copy
import json

import pytest
import yaml

#: Whatever may stand where something else was described.
VALUES = [
    *(None, "", "text", "2024-02-30T25:00:00Z", 0, -1, 1.5, True, [], {}, [None], [[]], [{}], [1]),
    *([["text"]], [[None]], [[{}]], {"a": None}, {"a": {}}, {"a": [1]}, {"type": 5, "id": []}),
]  # fmt: skip


def _to(name):
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas(description):
    return description["components"]["schemas"]


STRICT = {
    "type": "object",
    "required": ["at", "kind"],
    "additionalProperties": False,
    "maxProperties": 2,
    "properties": {
        "at": {"type": "string", "format": "date-time"},
        "kind": {"type": "string", "enum": ["a", "b"]},
        "within": {"type": "object", "required": ["deep"], "properties": {"deep": _to("level")}},
    },
}
DATE = {"type": "string", "format": "date"}
#: A field of each kind that refuses values, or combines some.
FIELDS = {
    "an_enum": {"type": "string", "enum": ["a", "b"]},
    "an_enum_of_integers": {"enum": [1, 2]},
    "an_enum_by_name": _to("level"),
    "a_date_time": {"type": "string", "format": "date-time"},
    "a_date": {"type": "string", "format": "date", "default": "2024-01-01"},
    "a_binary": {"type": "string", "format": "binary"},
    "an_identifier": {"type": "string", "format": "uuid"},
    "a_number": {"type": "number", "minimum": 5, "multipleOf": 5, "default": 5},
    "a_flag": {"type": "boolean", "default": True},
    "a_pattern": {"type": "string", "pattern": "^[a-z]$", "minLength": 1},
    "an_object": STRICT,
    "an_object_by_name": _to("strict"),
    "itself": _to("data_event"),
    "a_map": {"type": "object", "additionalProperties": {"type": "string", "format": "date-time"}},
    "a_map_of_objects": {"type": "object", "additionalProperties": STRICT},
    "a_list_of_dates": {"type": "array", "items": DATE, "minItems": 1},
    "a_list_of_objects": {"type": "array", "items": STRICT},
    "a_list_of_lists": {"type": "array", "items": {"type": "array", "items": STRICT}},
    "a_list_of_names": {"type": "array", "items": _to("strict"), "uniqueItems": True},
    "all_of": {"allOf": [_to("strict"), {"required": ["x"], "properties": {"more": _to("level")}}]},
    "all_of_itself": {"allOf": [_to("data_event"), {"properties": {"more": {"type": "integer"}}}]},
    "a_list_of_kinds": {"type": "array", "items": {"oneOf": [STRICT, {"type": "string"}]}},
    "all_of_one": {"allOf": [_to("strict")], "nullable": True},
    "one_of_objects": {
        "oneOf": [_to("strict"), _to("other")],
        "discriminator": {"propertyName": "kind"},
    },
    "one_of_kinds": {"oneOf": [{"type": "string", "format": "uuid"}, STRICT, {"type": "integer"}]},
    "any_of_lists": {"anyOf": [{"type": "array", "items": STRICT}, {"type": "string"}]},
    "any_of_requirements": {**STRICT, "anyOf": [{"required": ["at"]}, {"required": ["kind"]}]},
    "nothing_but": {"not": {"type": "string"}},
    "nothing_said": {},
}  # fmt: skip


def _strict(description):
    """A description whose answers are as strict as descriptions can be."""
    schemas = _schemas(description)
    schemas["level"] = {"type": "string", "enum": ["high", "low"]}
    schemas["strict"] = copy.deepcopy(STRICT)
    schemas["other"] = {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"type": "integer"}, "of": _to("strict")},
    }
    schemas["data_event"]["properties"].update(copy.deepcopy(FIELDS))
    schemas["data_event"]["required"] = list(schemas["data_event"]["properties"])
    for name in ("data_event_list", "data_event_summary", "data_event_summary_item", "error"):
        schema = schemas[name]
        schema["properties"]["more"] = copy.deepcopy(STRICT)
        schema["required"] = list(schema["properties"])
    errors = schemas["error"]["properties"]["errors"]
    errors["items"] = {"oneOf": [errors["items"], {"type": "string"}]}
    plain = {"type": "object", "properties": {"a": {"type": "string"}}}
    schemas["create_data_event_request"]["properties"].update(
        contexts={"type": "array", "nullable": True, "items": plain},
        context={**plain, "nullable": True},
        origin={"anyOf": [{"type": "string"}, plain]},
    )
    return description


@pytest.fixture(scope="module")
def strict(make_session_project, describe):
    """A project that was regenerated from a description with strict answers."""
    project = make_session_project("strict")
    outcome = project.run(_strict(describe("2.17")))
    assert (outcome.code in (0, 3), outcome.err) == (True, "")
    return project


def _answers(project):
    text = (project.root / "openapi" / "data-events.yaml").read_text(encoding="utf-8")
    schemas = yaml.safe_load(text)["components"]["schemas"]
    return {
        name: list(schema["properties"])
        for name, schema in schemas.items()
        if not name.startswith(("create_", "rich_", "monetary_")) and "properties" in schema
    }


READING = """
answers, values = json.loads(DATA)
least = {
    "data_event": {"event_name": "e", "created_at": 1},
    "data_event_list": {"type": "event.list"},
    "data_event_summary": {"type": "event.summary"},
}
read = 0
for name, fields in answers.items():
    model = getattr(models, "".join(part.capitalize() for part in name.split("_")))
    for field in fields:
        if field == "type" and name in ("data_event_list", "data_event_summary"):
            continue
        for value in values:
            source = {**least.get(name, {}), field: value}
            found = model.from_dict(source)
            assert found.to_dict() == source, (name, field, value, found)
            read += 1
    assert model.from_dict(least.get(name, {})).to_dict() == least.get(name, {})
print(read)
"""


def test_any_value_of_any_field_of_an_answer_is_read_and_written_back(strict):
    answers = _answers(strict)
    assert {"strict", "data_event_an_object_within", "error_errors_item"} <= set(answers)

    outcome = strict.imports(f"DATA = {json.dumps([answers, VALUES])!r}\n{READING}")

    assert outcome.err == ""
    assert int(outcome.out) == sum(map(len, answers.values())) * len(VALUES) - 2 * len(VALUES)


def test_what_an_event_and_the_kinds_of_answers_need_stays_strict(strict):
    code = """
for model, source in (
    (models.DataEvent, {"event_name": "e"}),
    (models.DataEvent, {"created_at": 1}),
    (models.DataEventList, {}),
    (models.DataEventList, {"type": "event.summary"}),
    (models.DataEventSummary, {"type": "event.list"}),
):
    try:
        model.from_dict(source)
    except (KeyError, TypeError):
        print("refused")
"""
    assert strict.imports(code).out == "refused\n" * 5


def test_no_model_is_numbered(strict):
    assert [path.stem for path in strict.package.glob("models/*type_*[0-9]*")] == []
    for name in ("contexts_item", "context", "origin"):
        assert (strict.package / "models" / f"create_data_event_request_{name}.py").is_file()


def test_what_several_schemas_describe_is_read_as_an_object_with_all_of_their_fields(strict):
    code = """
event = models.DataEvent.from_dict({
    "event_name": "e", "created_at": 1,
    "all_of": {"at": "now", "more": "high"}, "one_of_objects": {"kind": "c", "of": {"at": "x"}},
    "one_of_kinds": {"within": {"deep": "low"}}, "any_of_requirements": {"at": "then"},
})
print(event.all_of.at, event.all_of.more, event.one_of_objects.of.at, event.one_of_objects.kind)
print(event.one_of_kinds.within.deep, event.any_of_requirements.at)
"""
    assert strict.imports(code).out == "now high x c\nlow then\n"


def test_the_order_of_a_description_changes_no_name_of_the_client(strict, project, describe):
    description = _strict(describe("2.17"))
    schemas = _schemas(description)
    for name, schema in list(schemas.items()):
        schemas[name] = schemas.pop(name)
        if "properties" in schema:
            schema["properties"] = dict(reversed(schema["properties"].items()))
    for name in ("one_of_objects", "one_of_kinds"):
        schemas["data_event"]["properties"][name]["oneOf"].reverse()
    description["components"]["schemas"] = dict(reversed(schemas.items()))

    assert project.run(description).code in (0, 3)

    assert project.names() == strict.names()


def test_answers_that_are_combined_too_deeply_are_refused(project, describe, refused):
    description = describe("2.17")
    for number in range(500):
        part = {"allOf": [_to(f"part{number + 1}"), {"properties": {"a": {"type": "string"}}}]}
        _schemas(description)[f"part{number}"] = {"type": "object", "properties": {"next": part}}
    _schemas(description)["part500"] = {"type": "object"}
    _schemas(description)["data_event"]["properties"]["part"] = _to("part0")
    before = project.files()

    refused(project.run(description), "combine schemas at most 100 levels deep")

    assert project.files() == before


def test_what_requests_share_with_answers_stays_strict(project, describe):
    description = describe("2.17")
    schemas = _schemas(description)
    schemas["level"] = {"type": "string", "enum": ["high", "low"]}
    for name in ("create_data_event_request", "data_event"):
        schemas[name]["properties"]["level"] = _to("level")

    assert project.run(description).code in (0, 3)

    code = """
event = models.DataEvent.from_dict({"event_name": "e", "created_at": 1, "level": "middle"})
print(event.level, models.Level.__args__)
try:
    models.CreateDataEventRequest.from_dict({"event_name": "e", "created_at": 1, "level": "middle"})
except TypeError:
    print("refused")
"""
    assert project.imports(code).out == "middle ('high', 'low')\nrefused\n"
