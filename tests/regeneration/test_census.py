"""Which operations of data events are told from others, and which of these the client lacks."""

from __future__ import annotations

import copy
import time
from dataclasses import replace

import pytest

from regeneration.census import unoffered
from regeneration.document import Source, read
from regeneration.operations import Operation, Operations, read_operations

#: Those of a client, whatever the client of this project has meanwhile.
OPERATIONS = Operations(
    "Data Events",
    (
        Operation("post", "/events", "createDataEvent", ("create",)),
        Operation("get", "/events", "listDataEvents", ("list",)),
        Operation("post", "/events/summaries", "createDataEventSummaries", ("create_summary",)),
    ),
    {},
)


def operation(**more):
    return {"tags": ["Workflows"], "operationId": "doSomething", "responses": {}, **more}


def answer(schema):
    return {"200": {"content": {"application/json": {"schema": schema}}}}


def reference(name, kind="schemas"):
    return {"$ref": f"#/components/{kind}/{name}"}


def described_operation(tag, name, **more):
    version = {"name": "Intercom-Version", "in": "header", "schema": reference("intercom_version")}
    responses = answer(reference("error"))
    return {
        "tags": [tag],
        "operationId": name,
        "parameters": [version],
        "responses": responses,
    } | more


@pytest.fixture
def described():
    """A description of the client's operations and of others, which share schemas with them."""
    body = {"content": {"application/json": {"schema": reference("create_data_event_request")}}}
    listed = {"oneOf": [reference("data_event_list"), reference("data_event_summary")]}
    return {
        "openapi": "3.0.1",
        "paths": {
            "/contacts": {
                "get": described_operation("Contacts", "ListContacts"),
                "post": described_operation("Contacts", "CreateContact"),
            },
            "/events": {
                "post": described_operation("Data Events", "createDataEvent", requestBody=body),
                "get": described_operation(
                    "Data Events", "lisDataEvents", responses=answer(listed)
                ),
            },
            "/events/summaries": {"post": described_operation("Data Events", "dataEventSummaries")},
            "/articles/{id}": {"get": described_operation("Articles", "readArticle")},
        },
        "components": {
            "schemas": {
                "create_data_event_request": {"type": "object"},
                "data_event": {"type": "object"},
                "data_event_list": {"properties": {"events": {"items": reference("data_event")}}},
                "data_event_summary": {"items": reference("data_event_summary_item")},
                "data_event_summary_item": {"type": "object"},
                "error": {"type": "object"},
                "intercom_version": {"type": "string"},
            }
        },
    }


def census(description, listed=OPERATIONS):
    """Returns what the client lacks of a description, as people read it."""
    return [str(each) for each in unoffered(Source("it", "0" * 64, description), listed)]


def test_what_the_client_offers_is_not_missing(described):
    assert census(described) == []


@pytest.mark.parametrize(
    "tag",
    [
        "Data Events",
        "Data Event",
        "data-events",
        "DATA_EVENTS",
        "DataEvents",
        "Data  events (beta)",
        "Customer data events",
        "Events",
    ],
)
def test_an_operation_belongs_to_data_events_by_its_tag(described, tag):
    described["paths"]["/things"] = {"get": operation(tags=["Workflows", tag])}

    assert census(described) == ["GET /things (doSomething)"]


@pytest.mark.parametrize("tag", ["Data Export", "Data Attributes", "Metadata Events", "Prevention"])
def test_a_tag_that_only_looks_like_it_is_another(described, tag):
    described["paths"]["/things"] = {"get": operation(tags=[tag])}

    assert census(described) == []


def test_a_renamed_tag_is_still_that_of_data_events(described):
    for path in ("/events", "/events/summaries"):
        for node in described["paths"][path].values():
            node["tags"] = ["Activity"]
    described["paths"]["/things"] = {"get": operation(tags=["Activity"])}

    assert census(described) == ["GET /things (doSomething)"]


def test_a_tag_that_everything_has_says_nothing(described):
    for item in described["paths"].values():
        for method in item.keys() & {"get", "post"}:
            item[method]["tags"] = ["API"]
    described["paths"]["/things"] = {"get": operation(tags=["API"])}

    assert census(described) == []


@pytest.mark.parametrize(
    "path",
    [
        "/events/",
        "/EVENTS",
        "/events/names",
        "/events/{id}",
        "/events/{id}/revisions/{revision}",
        "/v2/events",
        "/contacts/{id}/events",
        "/event",
        "/event/{id}/",
        "/events:search",
        "/events.json",
        "/events{?per_page}",
        "/data_events",
        "/data-event/search",
        "/export/data_events_csv",
        "/exports/{data_event_id}",
    ],
)
def test_an_operation_belongs_to_data_events_by_its_path(described, path):
    described["paths"][path] = {"get": operation()}

    assert census(described) == [f"GET {path} (doSomething)"]


@pytest.mark.parametrize(
    "path",
    [
        "/conversations/{id}/handling_events",
        "/admins/activity_log_event_types",
        "/calendar/{event}",
        "/metadata_events",
        "/data_export/{id}",
        "/prevents",
        "/data/eventualities",
    ],
)
def test_a_path_that_only_looks_like_it_is_another(described, path):
    described["paths"][path] = {"get": operation()}

    assert census(described) == []


@pytest.mark.parametrize("method", ["delete", "put", "patch", "head", "options", "trace"])
def test_every_other_method_of_a_path_of_ours_is_missing(described, method):
    described["paths"]["/events"][method] = operation(operationId="x")
    described["paths"]["/events/summaries"][method] = operation(operationId="y")

    assert census(described) == [
        f"{method.upper()} /events (x)",
        f"{method.upper()} /events/summaries (y)",
    ]


def test_an_operation_belongs_to_data_events_by_its_operation_id(described):
    for number, name in enumerate(["searchDataEvents", "data_event_names", "DATAEVENTS", "toggle"]):
        described["paths"][f"/things/{number}"] = {"get": operation(operationId=name)}

    assert census(described) == [
        "GET /things/0 (searchDataEvents)",
        "GET /things/1 (data_event_names)",
        "GET /things/2 (DATAEVENTS)",
    ]


@pytest.mark.parametrize(
    "uses",
    [
        operation(responses=answer(reference("data_event"))),
        operation(responses=answer({"type": "array", "items": reference("data_event_list")})),
        operation(responses=answer({"properties": {"example": reference("data_event")}})),
        operation(responses=answer({"allOf": [{}, {"not": reference("data_event_summary")}]})),
        operation(responses={"200": reference("found", "responses")}),
        operation(requestBody=reference("sent", "requestBodies")),
        operation(parameters=[reference("which", "parameters")]),
        operation(parameters=[reference("data_event_name", "parameters")]),
        operation(
            responses={"200": {"headers": {"x-last": {"schema": reference("data_event_summary")}}}}
        ),
        operation(responses={"200": {"$ref": "#/paths/~1events/get/responses/200"}}),
        operation(parameters=[{"$ref": "#/paths/~1listed/parameters/1"}]),
        operation(parameters=[{"$ref": "#/components/parameters/the%20one"}]),
        operation(responses=answer({"$ref": "events.yaml#/components/schemas/data_event"})),
    ],
)
def test_an_operation_belongs_to_data_events_by_a_schema_wherever_it_refers(described, uses):
    described["components"]["schemas"]["wrapped"] = {"properties": {"it": reference("data_event")}}
    described["components"] |= {
        "responses": {"found": {"content": {"a/b": {"schema": reference("wrapped")}}}},
        "requestBodies": {"sent": {"content": {"a/b": {"schema": reference("wrapped")}}}},
        "parameters": {name: {"schema": reference("wrapped")} for name in ("which", "the one")},
    }
    described["paths"]["/things"] = {"get": uses}
    listed = [{"schema": {}}, {"schema": reference("data_event_summary_item")}]
    described["paths"]["/listed"] = {"parameters": listed, "get": operation()}

    assert census(described) == ["GET /listed (doSomething)", "GET /things (doSomething)"]


@pytest.mark.parametrize(
    "uses",
    [
        operation(responses=answer(reference("error"))),
        operation(parameters=[{"name": "x", "schema": reference("intercom_version")}]),
        operation(responses=answer(reference("pages"))),
        operation(responses=answer({"example": reference("data_event")})),
        operation(responses=answer({"default": [reference("data_event")], "enum": [{}]})),
        operation(**{"x-see": reference("data_event")}),
        operation(callbacks={"sent": {"{$url}": {"post": answer(reference("data_event"))}}}),
    ],
)
def test_what_others_use_too_and_what_is_no_use_say_nothing(described, uses):
    schemas = described["components"]["schemas"]
    schemas["pages"] = {"properties": {"next": {"type": "string"}}}
    schemas["data_event_list"]["properties"]["pages"] = reference("pages")
    described["paths"]["/things"] = {"get": uses}

    assert census(described) == []


def test_it_says_by_what_an_operation_belongs_to_data_events(described):
    described["paths"]["/events"]["delete"] = operation(
        tags=["Data Event"],
        operationId="deleteDataEvents",
        responses=answer({"items": reference("data_event_list")}),
    )

    (found,) = unoffered(Source("it", "0" * 64, described), OPERATIONS)

    assert (found.method, found.path, found.operation_id) == (
        "delete",
        "/events",
        "deleteDataEvents",
    )
    assert found.why == (
        "its tag Data Event",
        "its path",
        "its operationId",
        "its reference to the schema data_event_list",
    )


def test_a_path_can_be_elsewhere_and_have_methods_beside_its_reference(described):
    described["components"]["pathItems"] = {
        "names": {"get": operation(operationId="a"), "$ref": "#/components/pathItems/more"},
        "more": {"put": operation(operationId="b")},
    }
    described["paths"]["/events/names"] = {
        "$ref": "#/components/pathItems/names",
        "post": operation(operationId="c"),
    }

    assert census(described) == [
        "GET /events/names (a)",
        "POST /events/names (c)",
        "PUT /events/names (b)",
    ]


def test_requests_that_intercom_sends_are_not_missing(described):
    described["webhooks"] = {"data_event.created": {"post": operation(tags=["Data Events"])}}

    assert census(described) == []


def test_what_is_listed_as_unsupported_is_not_missing(described):
    described["paths"]["/events"]["delete"] = operation()
    described["paths"]["/events/{event_id}"] = {"get": operation(), "put": operation()}
    reasons = {
        ("delete", "/events"): "An event is never taken back.",
        ("get", "/events/{id}"): "Listings have the same.",
    }

    assert census(described, replace(OPERATIONS, unsupported=reasons)) == [
        "PUT /events/{event_id} (doSomething)"
    ]


def test_a_path_of_the_client_is_that_of_data_events_whatever_it_is_called(described):
    tracked = Operation("post", "/tracked/{id}", "track", ("track",))
    described["paths"] = {
        "/tracked/{id}": {"post": operation(), "put": operation()},
        "/tracked/{number}/": {"post": operation()},
        "/tracked": {"post": operation()},
    }

    assert census(described, replace(OPERATIONS, client=(tracked,))) == [
        "PUT /tracked/{id} (doSomething)",
        "POST /tracked/{number}/ (doSomething)",
    ]


def test_the_order_of_a_description_changes_nothing(described):
    def backwards(node):
        if isinstance(node, dict):
            return {key: backwards(value) for key, value in reversed(node.items())}
        return [backwards(each) for each in reversed(node)] if isinstance(node, list) else node

    both = {"oneOf": [reference("data_event_list"), reference("data_event")]}
    described["paths"]["/things"] = {"get": operation(responses=answer(both))}
    described["paths"]["/events"]["trace"] = operation()
    described["paths"]["/a/events"] = {"get": operation()}

    found = unoffered(Source("it", "0" * 64, described), OPERATIONS)

    assert [str(each) for each in found] == [
        "GET /a/events (doSomething)",
        "TRACE /events (doSomething)",
        "GET /things (doSomething)",
    ]
    assert unoffered(Source("it", "0" * 64, backwards(described)), OPERATIONS) == found


def _cycle(described):
    described["components"]["schemas"] |= {"a": reference("b"), "b": reference("a")}
    described["components"]["pathItems"] = {
        "a": reference("b", "pathItems"),
        "b": reference("a", "pathItems"),
    }
    described["paths"]["/a"] = {"get": operation(responses=answer(reference("a")))}
    described["paths"]["/b"] = reference("a", "pathItems")
    described["paths"]["/c"] = {"get": {"$ref": "#/paths/~1c/get"}}


def _itself(described):
    node: dict[str, object] = {}
    node["items"] = [node]
    described["paths"]["/a"] = {"get": operation(responses=answer(node))}


def _wrong_types(described):
    described["paths"] |= {
        1: {"get": operation()},
        "/a": None,
        "/b": [],
        "/c": {"get": None, "post": "text", 3: {}, "put": {"tags": "Data", "operationId": 5}},
        "/d": {"parameters": 7, "get": {"tags": [None, 1, ["x"]], "parameters": {"$ref": 1}}},
        "/e": {"$ref": 5, "get": {"responses": {"200": {"$ref": ["x"]}}}},
        "/f": {"$ref": "#/nowhere", "get": {"requestBody": {"$ref": "#/paths/~1d/get/tags/99999"}}},
        "/g": {"get": {"requestBody": {"$ref": f"#/paths/~1d/get/tags/{'9' * 5000}"}}},
    }


def _no_paths(described):
    described["paths"] = ["/events"]


def _nothing(described):
    described.clear()


@pytest.mark.parametrize("change", [_cycle, _itself, _wrong_types, _no_paths, _nothing])
def test_what_is_not_as_it_must_be_is_skipped(described, change):
    change(described)

    assert census(described) == []


def test_a_large_description_takes_time_in_proportion(described):
    schemas = described["components"]["schemas"]
    number = 20_000
    for index in range(number):
        schemas[f"s{index}"] = {"items": reference(f"s{index + 1}"), "not": {"$ref": "#/"}}
    schemas[f"s{number}"] = reference("data_event")
    used = answer({"oneOf": [reference(f"s{index}") for index in range(0, number, 2)]})
    for index in range(number):
        described["paths"][f"/things/{index}"] = {"get": operation(responses=used)}

    began = time.process_time()
    found = census(described)

    assert len(found) == number
    # About half a second; a walk from each operation would take hours.
    assert time.process_time() - began < 20


@pytest.mark.parametrize("text", ["\x1b[31m", "a\nb", "\u202e", "x" * 5_000])
def test_names_are_shown_printable_and_bounded(described, text):
    described["paths"][f"/events/{text}"] = {
        "get": operation(
            tags=[f"Data Events {text}"],
            operationId=f"DataEvent{text}",
            responses=answer({"$ref": f"#/components/schemas/data_event{text}"}),
        )
    }

    (found,) = unoffered(Source("it", "0" * 64, copy.deepcopy(described)), OPERATIONS)

    assert len(found.why) == 4
    for shown in (str(found), *found.why):
        assert shown.isprintable()
        assert len(shown) < 250


def test_nothing_is_missing_of_what_intercom_has_published(sources):
    if not sources.upstream.is_dir():
        pytest.skip(
            f"Intercom's own descriptions, which are not part of this repository, are not in "
            f"{sources.upstream}"
        )
    operations = read_operations(read(str(sources.root / "openapi" / "operations.yaml")))
    missing = {}
    for path in sorted(sources.upstream.glob("*.yaml")):
        description = read(str(path)).content
        missing[path.name] = census(description, operations)
        # The census can tell: it finds one that is added.
        description["paths"]["/events"]["delete"] = operation()
        assert census(description, operations) == ["DELETE /events (doSomething)"]

    assert len(missing) == 11
    assert [name for name, found in missing.items() if found] == []
