"""Every version of the description, and some to come, give one and the same client."""

from __future__ import annotations

import json

import pytest
from steps import correct, slice_of


def _schemas(description):
    return description["components"]["schemas"]


def _listing(description):
    return description["paths"]["/events"]["get"]


def _as_it_is(description):
    pass


def _per_page_already_there(description):
    _listing(description)["parameters"].append(
        {
            "name": "per_page",
            "in": "query",
            "required": False,
            "description": "How many at once",
            "example": 15,
            "schema": {"type": "integer"},
        }
    )


def _everything_required(description):
    for name in ("data_event", "data_event_list", "data_event_summary", "data_event_summary_item"):
        schema = _schemas(description)[name]
        schema["required"] = list(schema["properties"])
    error = _schemas(description)["error"]
    error["required"] = list(error["properties"])
    # Of requests what the corrections require anyhow.
    request = _schemas(description)["create_data_event_request"]
    request["required"] = ["created_at", "event_name"]
    summaries = _schemas(description)["create_data_event_summaries_request"]
    summaries["required"] = ["event_summaries"]
    summaries["properties"]["event_summaries"]["required"] = ["count"]


def _items_not_nullable(description):
    del _schemas(description)["data_event_summary_item"]["nullable"]


def _everything_nullable(description):
    for name, schema in _schemas(description).items():
        if name.startswith(("data_event", "create_data_event")) or name == "error":
            schema["nullable"] = True
    for name in ("data_event_list", "data_event_summary"):
        _schemas(description)[name]["properties"]["events"]["nullable"] = True
    _schemas(description)["data_event_list"]["properties"]["pages"]["nullable"] = True


def _metadata(**more):
    def change(description):
        for name in ("create_data_event_request", "data_event"):
            metadata = {"type": "object", "description": "Anything.", **more}
            _schemas(description)[name]["properties"]["metadata"] = metadata

    return change


def _parameters_of_the_path(description):
    for item in (description["paths"][path] for path in ("/events", "/events/summaries")):
        version = None
        for operation in item.values():
            version = operation["parameters"].pop(0)
        item["parameters"] = [version]


def _everything_by_reference(description):
    components = description["components"]
    components["parameters"] = {
        "version": _listing(description)["parameters"][0],
        "same": {"$ref": "#/components/parameters/version"},
    }
    components["responses"] = {"denied": _listing(description)["responses"]["401"]}
    components["requestBodies"] = {
        "event": description["paths"]["/events"]["post"]["requestBody"],
    }
    for item in (description["paths"][path] for path in ("/events", "/events/summaries")):
        for operation in item.values():
            operation["parameters"][0] = {"$ref": "#/components/parameters/same"}
            operation["responses"]["401"] = {"$ref": "#/components/responses/denied"}
    body = {"$ref": "#/components/requestBodies/event"}
    description["paths"]["/events"]["post"]["requestBody"] = body
    components["pathItems"] = {"events": description["paths"]["/events"]}
    description["paths"]["/events"] = {"$ref": "#/components/pathItems/events"}


def _levelled_fields_gone(description):
    """What upstream may well mend itself, in the way that our own corrections have it."""
    schemas = _schemas(description)
    schemas["data_event"]["properties"]["type"] = {"type": "string"}
    del schemas["data_event"]["required"]
    del schemas["error"]["properties"]["request_id"]["format"]
    schemas["data_event_summary"]["properties"]["pages"] = {
        "type": "object",
        "properties": {"next": {"type": "string"}},
    }
    _listing(description)["operationId"] = "listDataEvents"


def _openapi_3_1(description):
    schemas = _schemas(description)
    description["openapi"] = "3.1.0"
    description["jsonSchemaDialect"] = "https://spec.openapis.org/oas/3.1/dialect/base"
    item = schemas["data_event_summary_item"]
    del item["nullable"]
    item["type"] = ["object", "null"]
    item["properties"]["count"] = {"type": ["integer", "null"], "exclusiveMinimum": 0}
    event = schemas["data_event"]["properties"]
    event["type"] = {"const": "event"}
    event["user_id"] = {"anyOf": [{"type": "string"}, {"type": "null"}], "examples": ["1"]}
    event["email"] = {"type": ["string", "null"]}
    items = schemas["data_event_summary"]["properties"]["events"]
    items["items"] = {"oneOf": [items["items"], {"type": "null"}]}
    schemas["error"]["properties"]["request_id"] = {"type": ["string", "null"], "format": "uuid"}


def _versions_listed_as(*more):
    def change(description):
        _schemas(description)["intercom_version"]["enum"] += more

    return change


#: What is corrected to the same document, so that the same code is generated from it.
SAME = {
    "2.7": ("2.7", _versions_listed_as("Unstable")),
    "2.11 with per_page": ("2.11", _per_page_already_there),
    "2.14": ("2.14", _as_it_is),
    "2.16 without nullable items": ("2.16", _items_not_nullable),
    "2.17 with everything nullable": ("2.17", _everything_nullable),
    "2.17 with parameters of the path": ("2.17", _parameters_of_the_path),
    "2.17 all by reference": ("2.17", _everything_by_reference),
    "Preview": ("Preview", _metadata(additionalProperties=True)),
    "Preview, metadata by a schema": ("Preview", _metadata(additionalProperties={})),
    "Preview, metadata of any kind": ("Preview", _metadata()),
}
#: What gives the same names otherwise.
VARIANTS = {
    "2.13 that requires everything": ("2.13", _everything_required),
    "2.17": ("2.17", _as_it_is),
    "2.17 with some things mended": ("2.17", _levelled_fields_gone),
    "2.17 as OpenAPI 3.1": ("2.17", _openapi_3_1),
    "Unstable": ("Unstable", _metadata(additionalProperties=True)),
}


@pytest.fixture(scope="module")
def corrected(sources):
    """Slices and corrects a description; the versions that it lists are left out."""

    def corrected(description):
        made = correct(slice_of(description))
        assert made.unknown == ()
        document = made.document
        del document["components"]["schemas"]["intercom_version"]["enum"]
        return document.pop("info")["version"], json.dumps(document)

    return corrected


@pytest.mark.parametrize(("version", "change"), SAME.values(), ids=SAME)
def test_a_variant_is_corrected_to_what_the_committed_version_is(
    describe, corrected, version, change
):
    description = describe(version)
    change(description)

    _, committed = corrected(describe("2.16"))

    assert corrected(description) == (version, committed)


@pytest.mark.parametrize(("version", "change"), VARIANTS.values(), ids=VARIANTS)
def test_a_variant_gives_the_same_names_and_pins_its_version(
    project, describe, committed_names, version, change
):
    description = describe(version)
    change(description)

    outcome = project.run(description)

    assert (outcome.code, outcome.err) == (0, "")
    assert project.names() == committed_names
    imported = project.imports("print(package.API_VERSION, sorted(models.__all__))")
    assert imported.err == ""
    assert imported.out.split()[0] == version


def test_variants_differ_in_the_versions_alone(project, make_project, describe):
    project.run(describe("2.16"))
    other = make_project("other")
    description = describe("2.16")
    for change in (_per_page_already_there, _everything_required, _everything_nullable):
        change(description)

    outcome = other.run(description)

    assert outcome.code == 0
    assert other.generated() == project.generated()


def test_openapi_3_1_gives_the_client_that_3_0_gives(project, make_project, describe):
    description = describe("2.17")
    assert project.run(description).code == 0
    _openapi_3_1(description)
    other = make_project("other")

    assert other.run(description).code == 0

    assert other.generated() == project.generated()


def test_a_new_field_comes_through_to_the_model_and_nothing_else_changes(
    project, describe, committed_names
):
    description = describe("2.17")
    properties = _schemas(description)["data_event"]["properties"]
    properties["conversation_id"] = {"type": "string", "nullable": True, "description": "Hello."}

    outcome = project.run(description)

    assert project.names() - committed_names == {"models/data_event.py DataEvent.conversation_id"}
    assert committed_names <= project.names()
    assert "DataEvent.conversation_id  added: None | str | Unset" in outcome.out
    code = """
event = models.DataEvent.from_dict({"event_name": "e", "created_at": 1, "conversation_id": "7"})
print(event.conversation_id, event.to_dict()["conversation_id"], event.additional_properties)
"""
    assert project.imports(code).out == "7 7 {}\n"


def test_a_new_object_of_a_field_comes_through_as_a_model(project, describe, committed_names):
    description = describe("2.17")
    schemas = _schemas(description)
    schemas["event_source"] = {
        "type": "object",
        "properties": {"of": {"$ref": "#/components/schemas/event_source"}},
    }
    schemas["data_event"]["properties"]["source"] = {"$ref": "#/components/schemas/event_source"}

    assert project.run(description).code == 0

    assert "models/event_source.py EventSource.of" in project.names()
    assert committed_names <= project.names()
    code = """
event = models.DataEvent.from_dict(
    {"event_name": "e", "created_at": 1, "source": {"of": {"of": {}}}}
)
print(type(event.source.of.of).__name__)
"""
    assert project.imports(code).out == "EventSource\n"


def test_nothing_of_other_operations_or_of_prose_comes_through(project, describe):
    project.run(describe("2.17"))

    text = (project.root / "openapi" / "upstream.yaml").read_text(encoding="utf-8")

    for word in ("contact", "article", "Words, words", "example", "x-tags", "A few"):
        assert word not in text


@pytest.mark.parametrize("path", ["scalar", "key"])
def test_what_only_looks_like_a_date_or_a_boolean_stays_text(project, describe, path):
    description = describe("2.17")
    properties = _schemas(description)["create_data_event_request"]["properties"]
    if path == "scalar":
        properties["answer"] = {"type": "string", "enum": ["yes", "2024-01-01", "010", "0x1f"]}
        text = project.write(description).read_text(encoding="utf-8")
        # As a person would write it, who does not think of YAML 1.1.
        text = text.replace("'yes'", "yes").replace("'2024-01-01'", "2024-01-01")
        text = text.replace("'0x1f'", "0x1f")
    else:
        properties["on"] = {"type": "string"}
        text = project.write(description).read_text(encoding="utf-8").replace("'on':", "on:")

    outcome = project.run(project.write(text, "plain.yaml"))

    assert outcome.code == 0, outcome.err
    if path == "scalar":
        expected = '"0x1f",\n    "2024-01-01",\n    "yes"'
        written = (project.package / "models" / "create_data_event_request_answer.py").read_text(
            "utf-8"
        )
        assert '"010",\n    ' + expected in written
    else:
        assert "models/create_data_event_request.py CreateDataEventRequest.on" in project.names()


def test_statuses_may_be_written_as_numbers(project, make_project, describe):
    text = project.write(describe("2.17")).read_text(encoding="utf-8")
    assert "'202':" in text

    assert project.run(project.write(text.replace("'202':", "202:"), "numbers.yaml")).code == 0

    other = make_project("other")
    other.run(describe("2.17"))
    assert project.generated() == other.generated()


@pytest.mark.parametrize("default", [False, True], ids=["without a default", "with a default"])
def test_what_is_read_of_a_response_follows_from_its_status(project, describe, default):
    description = describe("2.17")
    responses = description["paths"]["/events"]["post"]["responses"]
    responses["203"] = {
        "description": "",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/contact"}}},
    }
    responses["418"] = {"description": ""}
    responses["4XX"] = responses["401"]
    if default:
        responses["default"] = responses["401"]
    # Another type of what is returned may break callers.
    assert project.run(description).code == 3

    code = """
import httpx
from intercom_data_events_api.api.data_events import create_data_event

body = models.CreateDataEventRequest.from_dict({"event_name": "e", "created_at": 1, "user_id": "1"})

def sent(status, content):
    transport = httpx.MockTransport(lambda request: httpx.Response(status, content=content))
    client = package.Client(base_url="https://localhost", httpx_args={"transport": transport})
    with client:
        try:
            return type(create_data_event.sync(client=client, body=body)).__name__
        except ValueError:
            return "undecodable"

error = b'{"type": "error.list", "errors": []}'
print(*(sent(status, error) for status in (202, 203, 401, 418, 451, 503)))
print(*(sent(status, b"<html>") for status in (202, 203, 401, 418, 451, 503)))
"""
    others = ("Error", "undecodable") if default else ("NoneType", "NoneType")
    imported = project.imports(code)
    assert imported.err == ""
    assert imported.out.splitlines() == [
        f"NoneType Contact Error NoneType Error {others[0]}",
        f"NoneType undecodable undecodable NoneType undecodable {others[1]}",
    ]


def test_a_version_without_quotes_is_refused_since_2_10_would_be_2_1(project, describe, refused):
    text = project.write(describe("2.10")).read_text(encoding="utf-8")
    before = project.files()

    outcome = project.run(project.write(text.replace("version: '2.10'", "version: 2.10"), "u.yaml"))
    refused(outcome, "u.yaml", "#/info/version", "2.1", "quote")
    outcome = project.run(project.write(text.replace("- '2.10'", "- 2.10"), "u.yaml"))
    refused(outcome, "u.yaml", "#/components/schemas/intercom_version/enum", "2.1", "quote")

    assert project.files() == before


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        (("create_data_event_request", "anyOf"), "create_data_event_request.anyOf"),
        (("data_event", "properties", "metadata"), "data_event.properties.metadata"),
    ],
    ids=["the anyOf of the request", "the metadata of events"],
)
def test_a_correction_that_is_not_needed_any_more_is_named(project, describe, refused, gone, named):
    # What it corrects has changed, so a person has to look: it may be mended, or it may have moved.
    description = describe("2.17")
    *way, last = gone
    schema = _schemas(description)
    for step in way:
        schema = schema[step]
    del schema[last]
    before = project.files()

    outcome = project.run(description)

    refused(outcome, "corrections.yaml", named, "matches nothing", "add `absent`")
    assert project.files() == before


def test_a_correction_that_was_written_against_nothing_may_find_nothing(project, describe):
    description = describe("2.17")
    del _schemas(description)["create_data_event_request"]["anyOf"]
    corrections = project.root / "openapi" / "corrections.yaml"
    text = corrections.read_text(encoding="utf-8")
    _, _, after = text.partition(
        "  - target: $.components.schemas.create_data_event_request.anyOf\n"
    )
    written = "    x-written-against:\n"
    changed = after.replace(written, f"{written}      - absent\n", 1)
    corrections.write_text(text.replace(after, changed), encoding="utf-8")

    assert project.run(description).code == 0
