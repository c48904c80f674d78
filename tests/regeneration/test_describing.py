"""Differences of descriptions are said in words where there are better ones than a pointer."""

from __future__ import annotations

import json

import pytest

from regeneration.comparing import differences
from regeneration.describing import describe

TEXT, SUMMARY = {"type": "string"}, {"type": "boolean"}
SLICE = {
    "servers": [{"url": "https://one.example"}],
    "security": [{"bearerAuth": []}],
    "paths": {
        "/events": {
            "get": {
                "tags": ["Events"],
                "operationId": "listEvents",
                "parameters": [{"name": "summary", "in": "query", "schema": SUMMARY}],
                "responses": {
                    "200": {"content": {"application/json": {"schema": {"$ref": "#/a/b/event"}}}},
                    "204": {"description": ""},
                },
            },
            "post": {"requestBody": {"content": {"application/json": {"schema": TEXT}}}},
        }
    },
    "components": {
        "schemas": {
            "event": {
                "type": "object",
                "properties": {
                    "name": TEXT,
                    "kind": {"type": "string", "enum": ["a", "b"]},
                    "parts": {"type": "array", "items": {"type": "object", "properties": {}}},
                    "more": {"type": "object", "additionalProperties": TEXT},
                },
                "required": ["name"],
                "anyOf": [{"required": ["name"]}],
            }
        }
    },
    "x-other-operations": [],
}
LIST, CREATE = ("paths", "/events", "get"), ("paths", "/events", "post")
EVENT = ("components", "schemas", "event")
FIELDS = (*EVENT, "properties")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("servers",), [], "server https://one.example is gone"),
        (
            ("security",),
            [{"bearerAuth": []}, {"a": [], "b": []}],
            "authentication by a and b is new",
        ),
        (
            ("x-other-operations",),
            [{"operation": "GET /events/names", "why": ["its path"]}],
            "GET /events/names, which the client does not offer, is new",
        ),
        (CREATE, None, "POST /events is gone"),
        ((*LIST, "deprecated"), True, "GET /events is deprecated now"),
        ((*LIST, "tags"), [], 'GET /events: tag "Events" is gone'),
        (
            (*LIST, "operationId"),
            "getEvents",
            'GET /events: operationId "listEvents" → "getEvents" (the client uses its own)',
        ),
        ((*LIST, "parameters"), [], "GET /events: query parameter `summary` is gone"),
        (
            (*LIST, "parameters", 1),
            {"name": "by", "in": "header", "required": True, "schema": {"type": "string"}},
            "GET /events: new header parameter `by`, string, required",
        ),
        (
            (*LIST, "parameters", 1),
            {"name": "by", "in": "query", "schema": {"type": "array", "items": {"enum": [1]}}},
            "GET /events: new query parameter `by`, array of anything, one of [1]",
        ),
        (
            (*LIST, "parameters", 0, "required"),
            True,
            "GET /events: query parameter `summary` is required now",
        ),
        (
            (*LIST, "parameters", 0, "schema", "type"),
            "string",
            'GET /events: query parameter `summary`: type "boolean" → "string"',
        ),
        ((*LIST, "responses", "204"), None, "GET /events: answer 204 is gone"),
        ((*LIST, "responses", "206"), {}, "GET /events: answer 206 is new"),
        (
            (*LIST, "responses", "204", "content"),
            {"application/json": {"schema": {"$ref": "#/components/schemas/event"}}},
            "GET /events: the body of answer 204 (application/json: event) is new",
        ),
        ((*CREATE, "requestBody", "required"), True, "POST /events: the body is required now"),
        (
            (*CREATE, "requestBody", "x-other-media-types"),
            {"application/xml": "sha256:0"},
            "POST /events: the body as application/xml is new",
        ),
        (
            (*CREATE, "requestBody", "content", "application/json", "schema", "format"),
            "date",
            'POST /events: the body (application/json): format absent → "date"',
        ),
        (("components", "schemas", "part"), {"type": "object"}, "part: new schema, object"),
        (EVENT, None, "event is gone"),
        (
            (*FIELDS, "at"),
            {"type": "string", "format": "date"},
            "event: new field `at`, string (date)",
        ),
        ((*FIELDS, "properties"), TEXT, "event: new field `properties`, string"),
        ((*FIELDS, "name"), None, "event: field `name` is gone"),
        ((*FIELDS, "name", "type"), "integer", 'event: field `name`: type "string" → "integer"'),
        ((*FIELDS, "name", "nullable"), True, "event: field `name` can be null now"),
        ((*FIELDS, "kind", "enum"), ["a", "b", "c"], 'event: field `kind`: value "c" is new'),
        (
            (*FIELDS, "parts", "items", "properties", "id"),
            TEXT,
            "event.parts[]: new field `id`, string",
        ),
        (
            (*FIELDS, "parts", "items", "required"),
            ["id"],
            "event.parts[]: field `id` is required now",
        ),
        ((*FIELDS, "more", "additionalProperties"), True, "event.more.*: string → anything"),
        ((*FIELDS, "more", "additionalProperties"), False, "event.more.*: string → nothing"),
        ((*EVENT, "required"), ["name", "at"], "event: field `at` is required now"),
        ((*EVENT, "required"), [], "event: field `name` is no longer required"),
        ((*EVENT, "required"), None, "event: field `name` is no longer required"),
        (
            (*EVENT, "properties"),
            None,
            "event: fields `name`, `kind`, `parts`, `more` are gone",
        ),
        (
            (*FIELDS, "more", "properties"),
            {"id": TEXT},
            "event.more: field `id` is new",
        ),
        (
            (*EVENT, "anyOf", 0, "required"),
            ["name", "id"],
            "event (anyOf 0): field `id` is required now",
        ),
        ((*FIELDS, "name", "deprecated"), True, "event: field `name` is deprecated now"),
        ((*LIST, "tags"), None, 'GET /events: tag "Events" is gone'),
        (
            (*LIST, "responses", "204", "x-unread"),
            {"headers": {"A": 1}},
            'GET /events: answer 204: headers absent → {"A": 1}',
        ),
        (
            (*LIST, "responses", "200", "x-other-media-types"),
            {"text/csv": "sha256:0"},
            "GET /events: answer 200 as text/csv is new",
        ),
        (
            (*LIST, "parameters", 0, "deprecated"),
            True,
            "GET /events: query parameter `summary` is deprecated now",
        ),
        (
            (*LIST, "parameters", 0, "schema", "default"),
            True,
            "GET /events: query parameter `summary`: default absent → true",
        ),
        ((*LIST, "security"), [{}], "GET /events: security absent → [{}]"),
        # Of a keyword that there are no words for, the place has some.
        ((*EVENT, "maxProperties"), 3, "event: maxProperties absent → 3"),
        ((*FIELDS, "name", "pattern"), "^a", 'event: field `name`: pattern absent → "^a"'),
        ((*EVENT, "x-unread"), {"a": 1, "b": 2}, "event: a absent → 1, b absent → 2"),
        (("openapi",), "3.1.0", '#/openapi: absent → "3.1.0"'),
        (
            (*EVENT, "default"),
            ["x" * 200],
            f'event: default absent → ["{"x" * 57}…',
        ),
        ((*EVENT, "x\x1b[31m"), "\u202e\n", "event: x\\x1b[31m absent → "),
        # Where there are no better words.
    ],
)
def test_a_difference_in_words(path, value, words):
    after = json.loads(json.dumps(SLICE))
    *parents, last = path
    node = after
    for key in parents:
        node = node[key]
    if value is None:
        del node[last]
    elif isinstance(node, list):
        node.insert(last, value)
    else:
        node[last] = value

    (difference,) = differences(SLICE, after)

    said = describe(difference)
    assert said.startswith(words) if "\\x1b" in words else said == words
    assert said.isprintable()
