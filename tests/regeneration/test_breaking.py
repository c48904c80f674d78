"""What requests must have now, and what operations lost, is told apart from what was known."""

from __future__ import annotations

import functools

import pytest
from steps import OPERATIONS, correct, slice_of

from regeneration import RegenerationError
from regeneration.breaking import requirements
from regeneration.withdrawing import withdrawals


def _unchanged(description):
    pass


@pytest.fixture(scope="module")
def sliced(describe):
    """Slices a description of 2.16 that was changed."""

    def sliced(change):
        description = describe("2.16")
        change(description)
        return slice_of(description)

    return sliced


@pytest.fixture(scope="module")
def needed(sliced):
    """What the operations need after a change: the operation, the name, whether callers have it."""

    @functools.cache  # The corrections take most of the time of a test.
    def sent(before):
        return correct(sliced(before)).document

    def needed(change, before=_unchanged):
        old = sliced(before)
        return [
            (str(each.operation), each.name, each.optional)
            for each in requirements(old, sliced(change), sent(before), OPERATIONS)
        ]

    return needed


@pytest.fixture(scope="module")
def lost(sliced):
    """What the operations lost by a change: its kind, what it is, and of which operations."""

    def lost(change, before=_unchanged):
        return [
            (each.kind, ", ".join(each.what), [str(one) for one in each.operations])
            for each in withdrawals(sliced(before), sliced(change), OPERATIONS)
        ]

    return lost


def _operation(description, name):
    method, path = name.lower().split(" ")
    return description["paths"][path][method]


def _parameter(operation, name, place="query", **more):
    def change(description):
        _operation(description, operation)["parameters"].append(
            {"name": name, "in": place, "schema": {"type": "string"}, **more}
        )

    return change


def _event(description):
    return description["components"]["schemas"]["create_data_event_request"]


def _summaries(description):
    return description["components"]["schemas"]["create_data_event_summaries_request"]


def _merged(node, *path_and_value):
    """Changes a node of a description by the keys to it; a mapping is merged into what is there."""

    def change(description):
        *path, value = path_and_value
        held = node(description)
        for key in path:
            held = held.setdefault(key, {})
        held |= value

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            _parameter("GET /events", "workspace", required=True),
            [("GET /events", "workspace", False)],
        ),
        (
            _parameter("GET /events", "per_page", required=True),
            [("GET /events", "per_page", True)],
        ),
        (
            _parameter("POST /events", "Idempotency-Key", "header", required=True),
            [("POST /events", "idempotency-key", False)],
        ),
        (_parameter("POST /events/summaries", "dry_run"), []),
        (_merged(_event, {"required": ["source"]}), [("POST /events", "source", False)]),
        (_merged(_event, {"required": ["email"]}), [("POST /events", "email", True)]),
        (
            _merged(_summaries, {"required": ["user_id", "workspace"]}),
            [("POST /events/summaries", "workspace", False)],
        ),
        (
            _merged(_summaries, "properties", "event_summaries", {"required": ["count", "unit"]}),
            [("POST /events/summaries", "event_summaries.unit", False)],
        ),
        (
            _merged(_event, "properties", "metadata", {"required": ["origin"]}),
            [("POST /events", "metadata.origin", False)],
        ),
        (
            _merged(_event, {"allOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            [("POST /events", "a", False), ("POST /events", "b", False)],
        ),
        (
            _merged(_event, {"oneOf": [{"required": ["a", "b"]}, {"required": ["c", "b"]}]}),
            [("POST /events", "b", False)],
        ),
        (
            _merged(
                _event, {"anyOf": [{"required": ["a", "email"]}, {"required": ["b", "email"]}]}
            ),
            [("POST /events", "email", True)],
        ),
    ],
)
def test_what_a_request_needs_now(needed, change, expected):
    assert needed(change) == expected


@pytest.mark.parametrize(
    "change",
    [
        _unchanged,
        _merged(_event, {"required": ["event_name", "created_at"]}),
        _merged(_summaries, {"required": ["user_id", "event_summaries"]}),
        _merged(_event, {"anyOf": [{"required": ["created_at"]}, {"required": ["event_name"]}]}),
        _merged(
            _event,
            "properties",
            {"source": {"type": "object", "properties": {}, "required": ["name"]}},
        ),
        _parameter("GET /events", "user_id"),
        *(
            _parameter("POST /events", name, "header", required=True)
            for name in ("INTERCOM-VERSION", "Authorization", "accept", "Content-Type")
        ),
    ],
)
def test_what_the_client_sends_already_or_may_leave_out_is_not_needed_newly(needed, change):
    assert needed(change) == []


@pytest.mark.parametrize(
    "change",
    [
        _parameter("GET /events", "workspace", required=True),
        _merged(_event, {"required": ["email", "source"]}),
        _merged(_summaries, "properties", "event_summaries", {"required": ["unit"]}),
    ],
)
def test_what_was_needed_before_is_not_needed_newly(needed, change):
    assert needed(change, before=change) == []


def test_a_field_of_a_schema_that_holds_itself_is_needed_once(needed):
    def change(description):
        description["components"]["schemas"]["part"] = {
            "type": "object",
            "properties": {"part": {"$ref": "#/components/schemas/part"}},
            "required": ["part"],
        }
        _event(description)["properties"]["metadata"] = {"$ref": "#/components/schemas/part"}

    assert needed(change) == [("POST /events", "metadata.part", False)]


def test_a_few_schemas_that_stand_for_billions_are_refused(needed):
    def change(description):
        schemas = description["components"]["schemas"]
        for number in range(40):
            following = {"$ref": f"#/components/schemas/part{number + 1}"}
            schemas[f"part{number}"] = {
                "type": "object",
                "properties": {"a": following, "b": following},
            }
        schemas["part40"] = {"type": "string"}
        _event(description)["properties"]["metadata"] = {"$ref": "#/components/schemas/part0"}

    with pytest.raises(RegenerationError, match=r"POST /events: .* more than 20,000 schemas"):
        needed(change)


def test_without_a_slice_before_nothing_is_known_to_be_new(sliced):
    change = _parameter("GET /events", "workspace", required=True)

    assert requirements(None, sliced(change), None, OPERATIONS) == []
    assert withdrawals(None, sliced(change), OPERATIONS) == []


CREATE, LIST, SUMMARIES = "POST /events", "GET /events", "POST /events/summaries"
AU = {"url": "https://api.au.intercom.io"}


def _deprecated(*operations):
    def change(description):
        for name in operations:
            _operation(description, name)["deprecated"] = True

    return change


def _no_version(*operations, name=None):
    def change(description):
        for each in operations:
            parameters = _operation(description, each)["parameters"]
            if name:
                parameters[0]["name"] = name
            else:
                parameters.pop(0)

    return change


def _bearer_by_another_name(description):
    schemes = description["components"]["securitySchemes"]
    schemes["a token"] = {"$ref": "#/components/securitySchemes/bearerAuth"}
    description["security"] = [{"a token": []}]
    _operation(description, CREATE)["security"] = [{"a token": []}]


def _no_status(operation, status, *others):
    def change(description):
        responses = _operation(description, operation)["responses"]
        gone = responses.pop(status)
        responses |= dict.fromkeys(others, gone)

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_deprecated(LIST), [("deprecated", "", [LIST])]),
        (_deprecated(SUMMARIES, CREATE), [("deprecated", "", [CREATE, SUMMARIES])]),
        (
            lambda description: description["servers"].pop(),
            [("server", AU["url"], [CREATE, LIST, SUMMARIES])],
        ),
        (
            lambda description: _operation(description, CREATE).update(
                servers=description["servers"][:2]
            ),
            [("server", AU["url"], [CREATE])],
        ),
        (
            lambda description: description["paths"]["/events"].update(
                servers=description["servers"][:2]
            ),
            [("server", AU["url"], [CREATE, LIST])],
        ),
        (
            lambda description: description["components"]["securitySchemes"].update(
                bearerAuth={"type": "http", "scheme": "basic"}
            ),
            [("security", "bearerAuth", [CREATE, LIST, SUMMARIES])],
        ),
        (
            lambda description: _operation(description, LIST).update(security=[{"key": []}]),
            [("security", "bearerAuth", [LIST])],
        ),
        (
            lambda description: description["security"].clear(),
            [("security", "bearerAuth", [CREATE, LIST, SUMMARIES])],
        ),
        (
            lambda description: description["security"].__setitem__(0, {"nothing": []}),
            [("security", "bearerAuth", [CREATE, LIST, SUMMARIES])],
        ),
        (
            lambda description: description["servers"].clear(),
            [
                (
                    "server",
                    "https://api.intercom.io, https://api.eu.intercom.io, " + AU["url"],
                    [CREATE, LIST, SUMMARIES],
                )
            ],
        ),
        (_no_version(CREATE), [("header", "Intercom-Version", [CREATE])]),
        (_no_version(LIST, SUMMARIES), [("header", "Intercom-Version", [LIST, SUMMARIES])]),
        (_no_version(CREATE, name="X-Version"), [("header", "Intercom-Version", [CREATE])]),
        (_no_status(CREATE, "202", "200", "201"), [("status", "202", [CREATE])]),
        (_no_status(LIST, "200", "206"), [("status", "200", [LIST])]),
        (_no_status(SUMMARIES, "200"), [("status", "200", [SUMMARIES])]),
    ],
)
def test_what_operations_lost(lost, change, expected):
    assert lost(change) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda description: description["servers"].reverse(),
        lambda description: description["servers"].append({"url": "https://api.us.intercom.io"}),
        lambda description: description["security"].append({}),
        lambda description: _operation(description, CREATE).update(security=[{"bearerAuth": []}]),
        lambda description: description["components"]["securitySchemes"].update(
            bearerAuth={"type": "http", "scheme": "Bearer", "bearerFormat": "JWT"}
        ),
        _bearer_by_another_name,
        _no_version(CREATE, name="intercom-version"),
        _no_status(LIST, "401", "403"),
        _deprecated(),
    ],
)
def test_what_is_there_still_or_anew_is_not_lost(lost, change):
    assert lost(change) == []


def test_what_was_deprecated_before_is_not_lost_again(lost):
    assert lost(_deprecated(LIST), before=_deprecated(LIST)) == []
