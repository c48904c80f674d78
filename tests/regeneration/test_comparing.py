"""Two documents are compared whole: what is not named as a difference is equal."""

from __future__ import annotations

import copy

import pytest

from regeneration import ABSENT
from regeneration.comparing import differences, place

DOCUMENT = {
    "info": {"version": "2.16", "x-source": {"sha256": "a"}},
    "servers": [{"url": "https://one.example"}, {"url": "https://two.example"}],
    "security": [{"bearerAuth": []}, {"cookie": [], "token": []}],
    "paths": {
        "/events": {
            "get": {
                "tags": ["One", "Two"],
                "parameters": [
                    {"name": "type", "in": "query", "required": True},
                    {"name": "type", "in": "header", "schema": {"maxLength": 1}},
                    {"name": "summary", "in": "query"},
                ],
            }
        }
    },
    "schemas": {
        "event": {
            "type": ["object", "null"],
            "required": ["name", "when"],
            "properties": {"kind": {"enum": ["a", 1, True, None]}},
            "anyOf": [{"required": ["id"]}, {"required": ["email"]}],
        }
    },
}


def _found(change, pick=lambda each: (each.pointer, each.before, each.after)):
    after = copy.deepcopy(DOCUMENT)
    change(after)
    return [pick(each) for each in differences(DOCUMENT, after)]


def _set(*path_and_value):
    *path, key, value = path_and_value

    def change(document):
        node = document
        for part in path:
            node = node[part]
        node[key] = value

    return change


def test_a_document_does_not_differ_from_itself():
    assert _found(lambda _: None) == []


def test_what_a_slice_was_cut_from_is_not_compared():
    assert _found(_set("info", "x-source", {"sha256": "b"})) == []


def test_a_property_of_that_name_is_compared():
    assert _found(_set("schemas", "event", "properties", "x-source", {})) == [
        ("#/schemas/event/properties/x-source", ABSENT, {})
    ]


@pytest.mark.parametrize(
    "path",
    [
        ("servers",),
        ("security",),
        ("paths", "/events", "get", "tags"),
        ("paths", "/events", "get", "parameters"),
        ("schemas", "event", "type"),
        ("schemas", "event", "required"),
        ("schemas", "event", "properties", "kind", "enum"),
        ("schemas", "event", "anyOf"),
    ],
    ids=lambda path: path[-1],
)
def test_an_order_that_means_nothing_is_not_a_difference(path):
    def change(document):
        node = document
        for part in path:
            node = node[part]
        node.reverse()

    assert _found(change) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_set("info", "version", "2.17"), ("#/info/version", "2.16", "2.17")),
        (_set("info", "version", None), ("#/info/version", "2.16", None)),
        (_set("more", {"a": {"b": 1}}), ("#/more", ABSENT, {"a": {"b": 1}})),
        (_set("paths", {}), ("#/paths/~1events", DOCUMENT["paths"]["/events"], ABSENT)),
        (_set("info", {"version": "2.16"}), None),
        (
            _set("paths", "/events", "get", "parameters", 1, "schema", "maxLength", 2),
            ("#/paths/~1events/get/parameters/1/schema/maxLength", 1, 2),
        ),
        (
            _set("paths", "/events", "get", "deprecated", True),
            ("#/paths/~1events/get/deprecated", ABSENT, True),
        ),
        (_set("schemas", "event", "a/b~c", 1), ("#/schemas/event/a~1b~0c", ABSENT, 1)),
        (
            _set("servers", DOCUMENT["servers"][:1]),
            ("#/servers/1", {"url": "https://two.example"}, ABSENT),
        ),
        (
            _set("schemas", "event", "required", ["when", "who", "name"]),
            ("#/schemas/event/required/1", ABSENT, "who"),
        ),
        (
            _set("schemas", "event", "anyOf", 0, {"required": ["id", "name"]}),
            ("#/schemas/event/anyOf/0/required/1", ABSENT, "name"),
        ),
        (
            _set("schemas", "event", "anyOf", [{"required": ["email"]}]),
            ("#/schemas/event/anyOf/0", {"required": ["id"]}, ABSENT),
        ),
        (
            _set("schemas", "event", "type", "object"),
            ("#/schemas/event/type", ["object", "null"], "object"),
        ),
        (
            _set("schemas", "event", "properties", "kind", "enum", ["a", 1, True]),
            ("#/schemas/event/properties/kind/enum/3", None, ABSENT),
        ),
    ],
)
def test_a_difference_is_named_by_its_pointer_once(change, expected):
    assert _found(change) == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("before", "after"),
    [(1, True), (1, "1"), (0, False), (0, None), ([], {}), (1, 1.5), ("", None)],
)
def test_values_of_other_types_differ(before, after):
    assert len(differences({"a": before}, {"a": after})) == 1


def test_a_second_member_of_the_same_name_is_a_member():
    one = {"parameters": [{"in": "query", "name": "a"}]}
    two = {"parameters": [{"in": "query", "name": "a"}, {"in": "query", "name": "a", "style": "b"}]}

    assert [each.pointer for each in differences(one, two)] == ["#/parameters/1"]
    assert [each.pointer for each in differences(two, one)] == ["#/parameters/1"]


def test_without_a_first_document_all_of_the_second_is_new():
    assert [(each.pointer, each.before) for each in differences(None, DOCUMENT)] == [
        (f"#/{key}", ABSENT) for key in DOCUMENT
    ]


def test_a_path_is_the_same_where_the_list_has_another_order():
    def change(document):
        parameters = document["paths"]["/events"]["get"]["parameters"]
        parameters.insert(0, {"name": "new", "in": "query"})
        parameters[1]["required"] = False

    assert _found(change, lambda each: (each.pointer, each.path[4:])) == [
        ("#/paths/~1events/get/parameters/1/required", ("query type", "required")),
        ("#/paths/~1events/get/parameters/0", ("query new",)),
    ]


@pytest.mark.parametrize(
    "pointer",
    [
        "#/paths/~1events/get/parameters/1",
        "#/servers/1",
        "#/schemas/event/required/1",
        "#/info/gone",
    ],
)
def test_a_pointer_leads_to_the_path_of_a_difference_there(pointer):
    parts = [part.replace("~1", "/") for part in pointer.split("/")[1:]]
    path = [int(part) if part.isdecimal() else part for part in parts]
    after = copy.deepcopy(DOCUMENT)
    _set(*path, {"other": 1})(after)

    assert place(after, pointer) in [each.path for each in differences(DOCUMENT, after)]


def test_other_shapes_than_those_of_openapi_are_compared_too():
    strange = {
        "parameters": [1, None, {"name": 5}, []],
        "security": ["a", {}],
        "servers": {"url": 1},
        "required": True,
    }

    assert differences(strange, copy.deepcopy(strange)) == []
    assert {each.path[0] for each in differences(strange, DOCUMENT)} >= set(strange)
