"""Corrections say what they were written against; what upstream says instead is found."""

from __future__ import annotations

import copy

import pytest
from steps import CORRECTIONS, OPERATIONS, slice_of

from regeneration import ABSENT, RegenerationError, correcting
from regeneration.document import Source


def _corrected(description, *actions):
    corrections = CORRECTIONS
    if actions:
        corrections = Source("c.yaml", "", {"overlay": "1.0.0", "actions": list(actions)})
    return correcting.correct(slice_of(description), corrections, OPERATIONS)


def _generated_from(description):
    """The corrected document, but for what it was cut from."""
    document = _corrected(description).document
    return {**document, "info": {**document["info"], "x-source": None}}


def _schemas(description):
    return description["components"]["schemas"]


def _properties(description, schema="data_event"):
    return _schemas(description)[schema]["properties"]


def _answered(description):
    return description["paths"]["/events"]["get"]["responses"]["200"]["content"]


def _parameters(description):
    return description["paths"]["/events"]["get"]["parameters"]


def _action(target, *written, **more):
    known = {"x-written-against": list(written)} if written else {}
    return {"target": target, "description": "why", **known, **more}


def test_the_corrections_know_what_they_were_written_against(describe):
    assert _corrected(describe("2.16")).unknown == ()


REQUEST = "create_data_event_request"
SUMMARIES = "create_data_event_summaries_request"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        (
            lambda d: _parameters(d).append(
                {"name": "since", "in": "query", "required": True, "schema": {"type": "string"}}
            ),
            "#/paths/~1events/get/parameters",
        ),
        (lambda d: _parameters(d)[-1].update(required=True), "#/paths/~1events/get/parameters"),
        (lambda d: _parameters(d).pop(), "#/paths/~1events/get/parameters"),
        (lambda d: _properties(d).pop("email"), "#/components/schemas/data_event"),
        (lambda d: _properties(d, REQUEST).pop("email"), f"#/components/schemas/{REQUEST}"),
        (
            lambda d: _properties(d, "data_event_summary_item").pop("count"),
            "#/components/schemas/data_event_summary_item",
        ),
        (
            lambda d: _properties(d)["created_at"].update(type="string"),
            "#/components/schemas/data_event",
        ),
        (
            lambda d: _properties(d, REQUEST)["created_at"].update(type="string"),
            f"#/components/schemas/{REQUEST}",
        ),
        (
            lambda d: _properties(d, REQUEST)["created_at"].update(format="int32"),
            f"#/components/schemas/{REQUEST}",
        ),
        (
            lambda d: _properties(d, "data_event_list")["pages"]["properties"]["next"].update(
                type="object"
            ),
            "#/components/schemas/data_event_list",
        ),
        (
            lambda d: _properties(d, "data_event_list")["type"].update(enum=["events"]),
            "#/components/schemas/data_event_list",
        ),
        (
            lambda d: _properties(d, "data_event_summary")["type"]["enum"].append("event.list"),
            "#/components/schemas/data_event_summary",
        ),
        (
            lambda d: _properties(d, REQUEST)["metadata"].update(additionalProperties=False),
            f"#/components/schemas/{REQUEST}/properties/metadata",
        ),
        (
            lambda d: _schemas(d)[REQUEST]["anyOf"].append({"required": ["event_name", "phone"]}),
            f"#/components/schemas/{REQUEST}/anyOf",
        ),
        (
            lambda d: _schemas(d)[SUMMARIES].update(required=["id"]),
            f"#/components/schemas/{SUMMARIES}",
        ),
        (
            lambda d: d["paths"]["/events"]["get"]["responses"]["200"]["content"][
                "application/json"
            ].update(schema={"$ref": "#/components/schemas/data_event_list"}),
            "#/paths/~1events/get/responses/200",
        ),
        (
            lambda d: d["paths"]["/events"]["get"]["responses"]["200"].pop("content"),
            "#/paths/~1events/get/responses/200",
        ),
        (
            lambda d: _answered(d).update({"text/csv": _answered(d).pop("application/json")}),
            "#/paths/~1events/get/responses/200",
        ),
        *(
            (
                lambda d, schema=schema, change=change: change(_properties(d, schema)),
                f"#/components/schemas/{schema}",
            )
            for schema in ("data_event_list", "data_event_summary")
            for change in (
                lambda p: p.pop("events"),
                lambda p: p.update(data=p.pop("events")),
                lambda p: p.update(events={"type": "object"}),
                lambda p: p["events"].update(items={"type": "string"}),
                lambda p: p["events"].update(items={"$ref": "#/components/schemas/contact"}),
            )
        ),
        (
            lambda d: _properties(d, "data_event_list").update(
                pages={"$ref": "#/components/schemas/contact"}
            ),
            "#/components/schemas/data_event_list",
        ),
        (
            lambda d: _properties(d, "error").update(errors={"type": "string"}),
            "#/components/schemas/error",
        ),
    ],
)  # fmt: skip
def test_what_a_correction_was_not_written_against_is_found(describe, change, pointer):
    description = describe("2.17")
    change(description)

    corrected = _corrected(description)

    assert [each.pointer for each in corrected.unknown] == [pointer]
    (unknown,) = corrected.unknown
    assert unknown.found not in unknown.known
    assert CORRECTIONS.content["actions"][unknown.correction.number - 1]["target"] == (
        unknown.correction.target
    )


#: What the client reads and sends by name: each of them in its schema.
READ = {
    "data_event": ("event_name", "created_at", "user_id", "id", "intercom_user_id", "email"),
    "data_event_list": ("type", "events", "pages"),
    "data_event_summary": ("type", "email", "intercom_user_id", "user_id", "events"),
    "data_event_summary_item": ("name", "first", "last", "count", "description"),
    "error": ("request_id", "errors"),
    REQUEST: ("event_name", "created_at", "user_id", "id", "email"),
    SUMMARIES: ("user_id", "event_summaries"),
}


@pytest.mark.parametrize(
    ("schema", "name"), [(schema, name) for schema, names in READ.items() for name in names]
)
def test_every_field_that_the_client_uses_is_missed_where_it_goes(describe, schema, name):
    for change in (
        lambda fields: fields.pop(name),
        lambda fields: fields.update({f"{name}_": fields.pop(name)}),
        lambda fields: fields.update({name: {"type": "boolean"}}),
        lambda fields: fields.update({name: {"$ref": "#/components/schemas/article"}}),
    ):
        description = describe("2.17")
        change(_properties(description, schema))

        places = [each.pointer for each in _corrected(description).unknown]

        assert places == [f"#/components/schemas/{schema}"]


@pytest.mark.parametrize(
    "schemes",
    [
        {"oauth": {"type": "oauth2", "flows": {}}},
        {"open id": {"type": "openIdConnect", "openIdConnectUrl": "https://example.org"}},
        {"key": {"type": "apiKey", "in": "header", "name": "X-Key"}},
        {"both": {"$ref": "#/components/securitySchemes/one"}, "one": {"type": "mutualTLS"}},
        {},
    ],
)
def test_however_requests_are_authenticated_the_client_sends_its_token(describe, schemes):
    description = describe("2.17")
    description["security"] = [{name: []} for name in schemes]
    description["components"]["securitySchemes"] = schemes

    assert _generated_from(description) == _generated_from(describe("2.17"))


@pytest.mark.parametrize(
    "url", ["http://api.intercom.io", "/", "https://{region}.intercom.io", "//api.intercom.io/v3"]
)
def test_servers_that_no_client_can_use_alone_are_left_out(describe, url):
    description = describe("2.17")
    description["servers"].append({"url": url})

    assert slice_of(description)["servers"][-1]["url"] == url
    assert _generated_from(description) == _generated_from(describe("2.17"))


@pytest.mark.parametrize("media", ["*/*", "text/html", "application/problem+json"])
def test_an_answer_is_read_as_json_alone(describe, media):
    description = describe("2.17")
    failure = description["paths"]["/events"]["post"]["responses"]["401"]
    failure["content"] = {media: failure["content"]["application/json"]}

    assert _corrected(description).unknown == ()
    assert media in slice_of(description)["paths"]["/events"]["post"]["responses"]["401"]["content"]


@pytest.mark.parametrize(
    "change",
    [
        lambda d: _parameters(d)[2]["schema"].update(enum=["user"]),
        lambda d: _parameters(d)[0].update(required=True),
        lambda d: _parameters(d)[0].update(name="intercom-version"),
        lambda d: _parameters(d).pop(0),
        lambda d: _parameters(d).__setitem__(
            slice(1, 2),
            [
                {"name": name, "in": "query", "schema": {"type": "string"}}
                for name in ("user_id", "email", "intercom_user_id")
            ],
        ),
        lambda d: d["paths"]["/events"]["post"]["responses"].pop("401"),
        lambda d: _schemas(d).update({REQUEST: {"allOf": [_schemas(d)[REQUEST]]}}),
    ],
)
def test_what_says_the_same_as_the_client_does_is_known(describe, change):
    description = describe("2.17")
    change(description)

    corrected = _corrected(description)

    assert corrected.unknown == ()
    assert corrected.document["paths"] == _corrected(describe("2.17")).document["paths"]


@pytest.mark.parametrize(
    "change",
    [
        lambda d: _parameters(d).reverse(),
        lambda d: _schemas(d)[REQUEST]["anyOf"].reverse(),
        lambda d: [each["required"].reverse() for each in _schemas(d)[REQUEST]["anyOf"]],
        lambda d: _schemas(d)["data_event"]["required"].reverse(),
        lambda d: _properties(d).update({"id": _properties(d).pop("id")}),
        lambda d: _properties(d)["email"].update(description="Other words", example="x"),
        lambda d: _parameters(d)[-1]["schema"].update(default=True),
    ],
    ids=["parameters", "variants", "required", "fields required", "keys", "prose", "a default"],
)
def test_neither_order_nor_prose_nor_defaults_matter_to_corrections(describe, change):
    description = describe("2.17")
    change(description)

    assert _corrected(description).unknown == ()


def _seconds_as_integers(description):
    for schema in ("data_event", REQUEST):
        _properties(description, schema)["created_at"]["format"] = "int64"


def _failure_described(description):
    responses = description["paths"]["/events"]["post"]["responses"]
    responses["422"] = copy.deepcopy(responses["401"])


def _required_as_ours(description):
    _schemas(description)[REQUEST]["required"] = ["event_name", "created_at"]
    _schemas(description)[SUMMARIES]["required"] = ["user_id"]


def _body_required(description):
    description["paths"]["/events"]["post"]["requestBody"]["required"] = True


@pytest.mark.parametrize(
    "change", [_seconds_as_integers, _failure_described, _required_as_ours, _body_required]
)
def test_upstream_may_come_to_say_what_a_correction_says(describe, change):
    before = _corrected(describe("2.17")).document
    description = describe("2.17")
    change(description)

    corrected = _corrected(description)

    assert corrected.unknown == ()
    assert corrected.document["components"] == before["components"]


def test_a_digest_stands_for_a_long_value_and_is_printed_for_one(describe):
    long = {"type": "object", "properties": {f"field_{n}": {"type": "string"} for n in range(9)}}
    description = describe("2.17")
    _properties(description, REQUEST)["metadata"] = long
    target = f"$.components.schemas.{REQUEST}.properties.metadata"

    (unknown,) = _corrected(description, _action(target, "absent", remove=True)).unknown
    text = correcting.as_written(unknown.found)

    assert (unknown.known, unknown.found) == ((ABSENT,), long)
    assert text.startswith("sha256:")
    assert len(text) == len("sha256:") + 16
    assert _corrected(description, _action(target, text, remove=True)).unknown == ()
    assert correcting.as_written({"type": "string"}) == '{"type": "string"}'
    assert correcting.as_written(ABSENT) == "absent"


def _pages_by_name(description):
    pages = _properties(description, "data_event_list").pop("pages")
    _schemas(description)["cursor"] = {**pages, "properties": {"next": {"type": "object"}}}
    _properties(description, "data_event_list")["pages"] = {"$ref": "#/components/schemas/cursor"}


def _pages_of_several_kinds(description):
    pages = _properties(description, "data_event_list")["pages"]
    pages = {"oneOf": [pages, {"type": "string"}, {"type": "array", "items": pages}]}
    _properties(description, "data_event_list")["pages"] = pages


def _seconds_of_two_kinds(description):
    for schema in ("data_event", REQUEST):
        seconds = _properties(description, schema)["created_at"]
        seconds.clear()
        seconds["oneOf"] = [{"type": "integer"}, {"type": "string", "format": "date-time"}]


def _name_by_name(description):
    _schemas(description)["name"] = {"type": "string", "enum": ["a", "b"]}
    for schema in ("data_event", REQUEST):
        _properties(description, schema)["event_name"] = {"$ref": "#/components/schemas/name"}


@pytest.mark.parametrize(
    "change", [_pages_by_name, _pages_of_several_kinds, _seconds_of_two_kinds, _name_by_name]
)
def test_a_type_that_a_correction_says_stands_alone_whatever_upstream_says(describe, change):
    before = _corrected(describe("2.17")).document["components"]["schemas"]
    description = describe("2.17")
    change(description)

    corrected = _corrected(description)

    assert corrected.unknown
    after = corrected.document["components"]["schemas"]
    assert {name: after[name] for name in before} == before


def test_each_match_of_a_target_is_compared_apart(describe):
    target = f"$.components.schemas['{REQUEST}','{SUMMARIES}'].properties.user_id"
    description = describe("2.17")
    _properties(description, SUMMARIES)["user_id"]["type"] = "integer"

    action = _action(target, {"type": "string"}, update={"type": "string"})
    # What the update makes of it is what it was written against, so that one of two differs.
    corrected = _corrected(description, action)

    (unknown,) = corrected.unknown
    assert unknown.pointer == f"#/components/schemas/{SUMMARIES}/properties/user_id"
    assert unknown.found == {"type": "integer"}


def test_an_action_is_compared_with_what_those_before_it_left(describe):
    target = f"$.components.schemas.{REQUEST}"
    first = _action(
        target, {"properties": {"id": {}}}, update={"properties": {"id": {"format": "x"}}}
    )
    second = _action(f"{target}.properties.id", {"type": "string", "format": "x"}, remove=True)

    assert _corrected(describe("2.17"), first, second).unknown == ()


def test_every_correction_that_cannot_be_applied_is_named_at_once(describe):
    actions = [
        _action("$.info", {}, update={"title": "fine"}),
        _action("$.[", {}, update={}),
        _action("$.nowhere", {}, update={}),
        {**_action("$.info", {}, update={}), "description": " "},
        _action("$.info", update={}),
        _action("$", "absent", remove=True),
        {"update": {}},
        _action("$.info", {}),
        _action("$.gone", "absent", remove=True),
    ]

    with pytest.raises(RegenerationError) as caught:
        _corrected(describe("2.17"), *actions)

    said = str(caught.value)
    for words in (
        "c.yaml: action 2 ($.[): its target must be a JSONPath: ",
        "action 3 ($.nowhere): its target matches nothing in this version of the description; ",
        "; fix the target, remove the action, or add `absent` to its x-written-against",
        "action 4 ($.info): must have a `description` that says why the correction is needed",
        "action 5 ($.info): must have `x-written-against`: a list of values, digests and `absent`",
        "action 6 ($): cannot be applied",
        "action 7: must have a `target`, a JSONPath",
        "action 8 ($.info): must have either `update` or `remove: true`, and not both",
    ):
        assert words in said
    assert "action 1" not in said
    assert "action 9" not in said


def test_what_upstream_requires_of_a_request_stays_required(describe):
    description = describe("2.17")
    _schemas(description)[REQUEST]["required"] = ["id", "event_name"]
    _properties(description, SUMMARIES)["event_summaries"]["required"] = ["count"]
    _properties(description, SUMMARIES)["event_summaries"]["properties"]["kind"] = {
        "type": "string"
    }
    _properties(description, SUMMARIES)["event_summaries"]["required"].append("kind")

    schemas = _corrected(description).document["components"]["schemas"]

    assert sorted(schemas[REQUEST]["required"]) == ["created_at", "event_name", "id"]
    nested = schemas[SUMMARIES]["properties"]["event_summaries"]["required"]
    assert sorted(nested) == ["count", "event_name", "first", "kind", "last"]
