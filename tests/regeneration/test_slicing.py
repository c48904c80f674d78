"""A slice keeps every fact of the operations, and of what is named twice or hostile nothing."""

from __future__ import annotations

import copy
import json

import pytest
from steps import correct, slice_of

from regeneration import RegenerationError
from regeneration.document import dump, read


def _facts(sliced):
    """A slice without what is computed from it."""
    sliced = copy.deepcopy(sliced)
    del sliced["info"]["x-source"]
    return sliced


def _corrected(sliced):
    document = correct(sliced).document
    # What the client is not made of.
    return {key: value for key, value in document.items() if key not in ("info", "servers")}


def _item(description):
    return description["paths"]["/events"]


def _operation(description):
    return _item(description)["post"]


def _parameter(description):
    return _item(description)["get"]["parameters"][-1]


def _answer(description):
    return _item(description)["get"]["responses"]["200"]


def _body(description):
    return _operation(description)["requestBody"]


def _media(description):
    return _body(description)["content"]["application/json"]


def _event(description):
    return description["components"]["schemas"]["data_event"]


def _request(description):
    return description["components"]["schemas"]["create_data_event_request"]


def _set(get, **more):
    return lambda description: get(description).update(copy.deepcopy(more))


URL = {"url": "https://other.example.org"}
LONG = {"a": {"b": ["/" * 300]}}
#: A change of each kind that means nothing to the generated code, and that still is a fact.
FACTS = {
    "a server of an operation": _set(_operation, servers=[URL]),
    "a server of a path": _set(_item, servers=[URL]),
    "a variable of a server": lambda d: d["servers"][0].update(variables={"x": {"default": "y"}}),
    "another server": lambda d: d["servers"].append(URL),
    "no security of an operation": _set(_operation, security=[]),
    "a scope of an operation": _set(_operation, security=[{"bearerAuth": ["write:events"]}]),
    "a scheme of security": lambda d: d["components"]["securitySchemes"]["bearerAuth"].update(
        flows={"implicit": {}}
    ),
    "callbacks": _set(_operation, callbacks={"done": {"{$url}": {"post": {}}}}),
    "a deprecated operation": _set(_operation, deprecated=True),
    "a deprecated parameter": _set(_parameter, deprecated=True),
    "a parameter with reserved characters": _set(_parameter, allowReserved=True),
    "a parameter by its content": _set(_parameter, content={"application/json": {"schema": {}}}),
    "a header of an answer": _set(_answer, headers={"X-Next": {"schema": {"type": "string"}}}),
    "a link of an answer": _set(_answer, links={"next": {"operationId": "x"}}),
    "an encoding": _set(_media, encoding={"metadata": {"contentType": "text/plain"}}),
    "a pattern": _set(_event, pattern="^[a-z]$"),
    "a pattern with quotes": _set(_event, pattern="\"'\\d"),
    "a default": _set(_request, default=5),
    "a default with quotes": _set(_request, default="'''"),
    "a default that is false": lambda d: _request(d)["properties"]["id"].update(default=False),
    "bounds of an object": _set(_request, maxProperties=9, minProperties=2),
    "an exclusive bound": _set(_request, exclusiveMinimum=1),
    "a multiple": _set(_event, multipleOf=0.5),
    "a discriminator": _set(_event, discriminator={"propertyName": "type"}),
    "a mapping": _set(
        _event, discriminator={"propertyName": "t", "mapping": {"a": "#/components/schemas/b"}}
    ),
    "a deprecated field": lambda d: _event(d)["properties"]["id"].update(deprecated=True),
    "fields by patterns": _set(_event, patternProperties={"^x": {"type": "string"}}),
    "what is not evaluated": _set(_event, unevaluatedProperties=False),
    "a new keyword": _set(_request, newKeyword=LONG),
    "a keyword of an odd name": lambda d: _request(d).update({"a new\nkeyword": 1}),
    "siblings of a reference": lambda d: _event(d)["properties"].update(
        held={"$ref": "#/components/schemas/error", "maxProperties": 3}
    ),
    "another media type": lambda d: _body(d)["content"].update({"text/csv": {}}),
    "another media type of an answer": lambda d: _answer(d)["content"].update({"text/csv": {}}),
    "an odd tag": lambda d: _operation(d).update(tags=["Data (events)", "Ereignisse·é"]),
    "another tag": lambda d: _operation(d).update(tags=["Data Event"]),
    "no tag": lambda d: _operation(d).pop("tags"),
    "two tags": lambda d: _operation(d)["tags"].append("Contacts"),
    "another operationId": lambda d: _operation(d).update(operationId="Submit Event"),
    "an odd operationId": lambda d: _operation(d).update(operationId="Submit-Event (v2) é"),
    "no operationId": lambda d: _operation(d).pop("operationId"),
    "an operationId twice": lambda d: _operation(d).update(operationId="lisDataEvents"),
}  # fmt: skip


@pytest.mark.parametrize("fact", FACTS)
def test_a_slice_keeps_every_fact_and_the_code_does_not_depend_on_it(describe, fact):
    plain = describe("2.17")
    # What refers to an error, so that a sibling of the reference is all that is new.
    _event(plain)["properties"]["held"] = {"$ref": "#/components/schemas/error"}
    description = copy.deepcopy(plain)
    FACTS[fact](description)

    before, after = slice_of(plain), slice_of(description)

    assert _facts(before) != _facts(after)
    assert _corrected(after) == _corrected(before)


@pytest.mark.parametrize("fact", FACTS)
def test_a_slice_of_a_slice_is_the_slice(describe, tmp_path, fact):
    description = describe("2.17")
    FACTS[fact](description)
    sliced = slice_of(description)
    path = tmp_path / "slice.yaml"
    path.write_bytes(dump(sliced, "A slice"))

    assert slice_of(read(str(path)).content, "0" * 64) == sliced


@pytest.mark.parametrize(
    "change",
    [
        lambda d: _event(d).update(title="x", description="y", example={}, examples=[1]),
        lambda d: _operation(d).update(externalDocs={"url": "x"}, summary="s", **{"x-more": 1}),
        lambda d: _answer(d)["content"]["application/json"].update(example=1, examples={"a": {}}),
        lambda d: _parameter(d).update(description="new", example=5, examples={}),
        lambda d: d["servers"][0].update(description="new"),
        lambda d: d["tags"][0].update(description="new"),
        lambda d: d["paths"].update({"/more": {"get": {"responses": {}}}}),
        lambda d: d["components"]["schemas"].update(more={"type": "string"}),
    ],
)
def test_prose_and_other_operations_stay_behind(describe, change):
    description = describe("2.17")
    change(description)

    assert slice_of(description) == slice_of(describe("2.17"))


def test_what_a_record_refers_to_belongs_to_it(describe):
    description = describe("2.17")
    description["components"]["headers"] = {
        "limit": {"schema": {"$ref": "#/components/schemas/number"}, "description": "x"}
    }
    _answer(description)["headers"] = {"X-Limit": {"$ref": "#/components/headers/limit"}}
    description["components"]["schemas"]["number"] = {"type": "integer", "description": "x"}
    before = _facts(slice_of(description))
    description["components"]["headers"]["limit"]["description"] = "other"
    assert _facts(slice_of(description)) == before

    description["components"]["schemas"]["number"]["type"] = "string"

    assert _facts(slice_of(description)) != before


def test_records_of_what_refers_to_itself_end(describe):
    description = describe("2.17")
    description["components"]["headers"] = {"a": {"$ref": "#/components/headers/a"}}
    _answer(description)["headers"] = {"X": {"$ref": "#/components/headers/a"}}

    assert "x-unread" in slice_of(description)["paths"]["/events"]["get"]["responses"]["200"]


def test_more_records_than_a_slice_can_have_are_refused(describe):
    description = describe("2.17")
    _event(description).update({f"keyword{number}": 1 for number in range(5_001)})

    with pytest.raises(RegenerationError, match="data_event: the extensions must be small"):
        slice_of(description)


@pytest.mark.parametrize(
    "media",
    [
        "application/json; charset=utf-8", "Application/JSON", "application/json;charset=UTF-8",
        'APPLICATION/json ; charset="utf-8"',
    ],
)  # fmt: skip
def test_json_by_any_spelling_is_json(describe, media):
    description = describe("2.17")
    for holder in (_body(description), _answer(description)):
        holder["content"] = {media: holder["content"]["application/json"]}

    assert _facts(slice_of(description)) == _facts(slice_of(describe("2.17")))


@pytest.mark.parametrize("other", ["text/csv", "application/x-www-form-urlencoded", "text/*"])
def test_of_several_media_types_json_alone_is_read_and_the_others_are_recorded(describe, other):
    description = describe("2.17")
    for holder in (_body(description), _answer(description)):
        holder["content"] = {other: {"schema": {"type": "string"}}, **holder["content"]}

    sliced = slice_of(description)

    for holder in (_body(sliced), _answer(sliced)):
        assert list(holder["content"]) == ["application/json"]
        assert list(holder["x-other-media-types"]) == [other]


@pytest.mark.parametrize("media", ["text/csv", "application/vnd.api+json", "multipart/form-data"])
def test_a_request_that_takes_no_json_is_refused_with_its_place(describe, media):
    description = describe("2.17")
    _body(description)["content"] = {media: {"schema": {"type": "string"}}}

    with pytest.raises(RegenerationError) as caught:
        slice_of(description)

    assert str(caught.value).startswith("d.yaml: #/paths/~1events/post/requestBody/content: ")
    assert media in str(caught.value)


def test_names_of_upstream_change_nothing_of_the_client(project, describe):
    before = project.generated()
    description = describe("2.16")
    for number, item in enumerate(("/events", "/events/summaries")):
        for method in description["paths"][item].values():
            method["tags"] = [["Événements (v2)"], []][number]
            method["operationId"] = "The SAME name"
    del _operation(description)["operationId"]

    outcome = project.run(description)

    assert (outcome.code, outcome.err) == (0, "")
    assert project.generated() == before


def test_an_operation_that_our_code_would_not_find_is_refused(project, describe, refused):
    template = project.root / "openapi" / "templates" / "endpoint_module.py.jinja"
    text = template.read_text(encoding="utf-8")
    template.write_text(text.replace("def parse_response(", "def parse_answer("), encoding="utf-8")
    before = project.files()

    refused(project.run(describe("2.16")), "operations.yaml", "parse_response")

    assert project.files() == before


DUPLICATES = [
    ("yaml", "a: 1\nb: 2\na: 3\n", "3:1", "a"),
    ("yaml", "a: {b: 1, c: [{d: 1, d: 2}]}\n", "1:22", "d"),
    ("yaml", "200: x\n'200': y\n", "2:1", "200"),
    ("yaml", "a: 1\n? a\n: 2\n", "2:3", "a"),
    ("yaml", "a: &x\n  b: 1\n  b: 2\nc: *x\n", "3:3", "b"),
    ("yaml", "a: &x b\nc:\n  b: 1\n  *x : 2\n", "4:3", "b"),
    ("yaml", "true: 1\n'true': 2\n", "2:1", "true"),
    ("json", '{"a": 1,\n "b": {}, "a": 2}', "2:11", "a"),
    ("json", '{"a": [{"b": "}", "c": "\\"", "b": {}}]}', "1:30", "b"),
    ("json", '{"a\\u0062": 1, "ab": 2}', "1:16", "ab"),
    ("json", '{"a": {"x": 1}, "b": {"x": 1,\n\n"x": {"x": 1}}}', "3:1", "x"),
    ("json", '{"": 1, "": 2}', "1:9", ""),
]


@pytest.mark.parametrize(("kind", "text", "place", "key"), DUPLICATES)
def test_a_key_that_stands_twice_is_refused_with_its_place(tmp_path, kind, text, place, key):
    path = tmp_path / f"twice.{kind}"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(RegenerationError) as caught:
        read(str(path))

    start = f"{path}:{place}: the keys of a mapping must be unique, but {key!r} occurs"
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize("name", ["corrections.yaml", "operations.yaml", "upstream.yaml"])
def test_our_own_documents_are_held_to_that_too(project, refused, name):
    path = project.root / "openapi" / name
    text = path.read_text(encoding="utf-8")
    first = next(line for line in text.splitlines() if line[:1].isalpha())
    path.write_text(f"{text}{first.partition(':')[0]}: again\n", encoding="utf-8")

    refused(project.run(), f"{path}:", "occurs twice")


def test_the_same_key_in_other_mappings_is_fine(tmp_path):
    content = {"a": {"a": [{"a": 1}, {"a": 2}]}, "b": {"a": ":{a"}}
    for name, text in (("x.json", json.dumps(content)), ("x.yaml", dump(content, "x").decode())):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert read(str(tmp_path / name)).content == content
