"""Nothing in a description is executed, and no text of it enters the generated code as code."""

from __future__ import annotations

import ast
import copy
from contextlib import suppress

import pytest
import regenerate
import steps
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from profiles import scaled
from regeneration import RegenerationError, correcting
from regeneration.document import Source, dump, read
from regeneration.slicing import slice_description

OPERATIONS = steps.OPERATIONS.client
#: Finds what got through: a call in code, a word in text.
MARK = "canary_e1f7"
PAYLOADS = {
    "a call": f"__import__('os').system('touch {MARK}')",
    "the end of text": f'"; open("{MARK}", "w"); "',
    "the end of other text": f"'; open('{MARK}', 'w'); '",
    "the end of a docstring": f'"""\nopen("{MARK}", "w")\n"""',
    "a line": f'x\nopen("{MARK}", "w")\n',
    "an escape": f'\\"; open("{MARK}", "w") #',
    "a backslash": f"{MARK}\\",
    "a template": f"{{{{ 7*7 }}}}{{% for x in y %}}{MARK}",
    "an f-string": f"{{open('{MARK}', 'w')}}",
    "NUL": f"{MARK}\0",
    "right to left": f"{MARK}\u202e\u2066",
    "a line separator": f"{MARK}\u2028open('{MARK}')",
    "a comment": f"{MARK} # type: ignore; {MARK}",
    "a lone surrogate": f"{MARK}\ud800",
    "a path": f"../../{MARK}",
    "nothing": "",
}


def _schemas(description):
    return description["components"]["schemas"]


def _event(description):
    return _schemas(description)["data_event"]


def _operation(description):
    return description["paths"]["/events"]["post"]


def _prose(description, text):
    description["info"].update(title=text, description=text, termsOfService=text)
    description.update({"tags": [{"name": text, "description": text}], "x-more": text, text: text})
    description["servers"][0].update(description=text, variables={text: {"default": text}})
    for method in description["paths"]["/events"].values():
        method.update({"summary": text, "description": text, "x-more": {text: text}, text: 1})
        method["externalDocs"] = {"url": text}
        for parameter in method["parameters"]:
            parameter.update(description=text, example=text, examples={text: {"value": text}})
        for answer in method["responses"].values():
            answer.update({"description": text, "headers": {text: {}}, "links": {text: {}}})
            for media in answer.get("content", {}).values():
                media.update(example=text, examples={text: {"value": text}})
    for schema in _schemas(description).values():
        schema.update(title=text, description=text, example=text, default=text, pattern=text)
        schema.update({"x-more": text, text: text, "externalDocs": {"url": text}, "xml": text})
        for value in schema.get("properties", {}).values():
            value.update(title=text, description=text, example={text: text}, default=text)
            value.update({"pattern": text, "$comment": text, "discriminator": text})
    description["components"]["securitySchemes"]["bearerAuth"]["description"] = text


def _operation_id(description, text):
    _operation(description)["operationId"] = text


def _tag(description, text):
    for item in ("/events", "/events/summaries"):
        for method in description["paths"][item].values():
            method["tags"] = [text]


def _parameter_name(description, text):
    _operation(description)["parameters"].append(
        {"name": text, "in": "query", "schema": {"type": "string"}}
    )


def _parameter_place(description, text):
    _operation(description)["parameters"][0]["in"] = text


def _parameter_style(description, text):
    _operation(description)["parameters"][0]["style"] = text


def _parameter_default(description, text):
    schema = {"type": "string", "default": text, "enum": ["a", "b"]}
    _operation(description)["parameters"].append({"name": "extra", "in": "query", "schema": schema})


def _property_name(description, text):
    _event(description)["properties"][text] = {"type": "string"}


def _required_name(description, text):
    # Those of an event are levelled; those of a failure come through.
    _schemas(description)["error"]["required"].append(text)


def _schema_name(description, text):
    _schemas(description)[text] = {"type": "object", "properties": {"a": {"type": "string"}}}
    escaped = text.replace("~", "~0").replace("/", "~1")
    _event(description)["properties"]["held"] = {"$ref": f"#/components/schemas/{escaped}"}


def _enum_value(description, text):
    _event(description)["properties"]["held"] = {"type": "string", "enum": ["a", text]}


def _constant(description, text):
    _event(description)["properties"]["held"] = {"const": text}


def _accepted_version(description, text):
    _schemas(description)["intercom_version"]["enum"].append(text)


def _described_version(description, text):
    description["info"]["version"] = text


def _format(description, text):
    _event(description)["properties"]["held"] = {"type": "string", "format": text}


def _type(description, text):
    _event(description)["properties"]["held"] = {"type": text}


def _media_type(description, text):
    content = _operation(description)["responses"]["401"]["content"]
    content[text] = content.pop("application/json")


def _media_type_of_the_body(description, text):
    content = _operation(description)["requestBody"]["content"]
    content[text] = copy.deepcopy(content["application/json"])


def _status(description, text):
    _operation(description)["responses"][text] = {"description": "More"}


def _reference(description, text):
    _event(description)["properties"]["held"] = {"$ref": text}


def _server(description, text):
    description["servers"][0]["url"] = text


def _server_of_a_name(description, text):
    description["servers"][0]["url"] = f"https://example.org/{text}"


def _security_scheme(description, text):
    schemes = description["components"]["securitySchemes"]
    schemes[text] = schemes.pop("bearerAuth")
    description["security"] = [{text: []}]


def _security_type(description, text):
    description["components"]["securitySchemes"]["bearerAuth"]["scheme"] = text


def _openapi(description, text):
    description["openapi"] = text


def _method(description, text):
    description["paths"]["/events"][text] = _operation(description)


def _path(description, text):
    description["paths"][f"/{text}"] = description["paths"]["/events"]


def _limit(description, text):
    _event(description)["properties"]["id"].update(minLength=text, nullable=text, maximum=text)


#: What a text that nobody vouches for can be, and whether any such text is let through.
PLACES = {
    place.__name__.strip("_").replace("_", " "): place
    for place in (
        _prose, _operation_id, _tag, _parameter_name, _parameter_place, _parameter_style,
        _parameter_default, _property_name, _required_name, _schema_name, _enum_value, _constant,
        _accepted_version, _described_version, _format, _type, _media_type,
        _media_type_of_the_body, _status, _reference, _server, _server_of_a_name,
        _security_scheme, _security_type, _openapi, _method, _path, _limit,
    )
}  # fmt: skip
#: Where text is only ever a value; everywhere else it is left behind or refused.
VALUES = {"enum value", "constant", "accepted version"}


def _assert_harmless(project, payloads):
    """In no module is a payload anything but the whole of a text that is not a docstring."""
    for path in project.package.rglob("*.py"):
        source = path.read_bytes()
        tree = ast.parse(source)
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        values = 0
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant):
                if isinstance(node.value, str) and MARK in node.value:
                    assert node.value in payloads
                    assert id(node) not in docstrings
                    values += node.value.count(MARK)
            else:
                for _, value in ast.iter_fields(node):
                    assert not (isinstance(value, str) and MARK in value)
        # No comment either: every occurrence is in one of those values.
        assert source.count(MARK.encode()) == values
        assert MARK not in path.name


def _assert_clear(error, start):
    assert str(error).startswith(start)


@pytest.mark.parametrize("place", PLACES)
def test_a_payload_is_refused_or_left_behind_when_slicing(describe, place):
    through = []
    for name, payload in PAYLOADS.items():
        description = describe("2.17")
        PLACES[place](description, payload)
        try:
            sliced = slice_description(
                Source("hostile.yaml", "0" * 64, description), OPERATIONS, ["data_event", "error"]
            )
        except RegenerationError as error:
            _assert_clear(error, "hostile.yaml: #")
        else:
            # By the letter, escapes undone.
            through += [name] if MARK in repr(sliced) else []
    # An address may have any path; it does not come into the code.
    assert place in VALUES | {"server", "server of a name"} or through == []


def test_what_is_typed_is_repeated_printable(capsys):
    for arguments in (["\x1b[2J", "\x9b2J"], ["--\u202e"], ["--check=\x1b[2J"], ["no/\x1b[2J"]):
        with suppress(SystemExit):
            regenerate.main(arguments)
        said = capsys.readouterr().err.removesuffix("\n").split("\n")
        assert "\\" in said[-1]
        assert all(line.isprintable() for line in said)


@pytest.fixture(scope="module")
def harmless(make_session_project, describe):
    """The package that is generated from a description without anything odd in it."""
    project = make_session_project("harmless")
    assert project.run(describe("2.17")).code == 0
    return project.generated()


@pytest.mark.parametrize(
    "payload",
    [
        PAYLOADS[name]
        for name in ("a call", "the end of a docstring", "a template", "NUL", "nothing")
    ],
)
def test_prose_defaults_examples_and_extensions_do_not_come_into_the_code(
    project, describe, harmless, refused, monkeypatch, tmp_path, payload
):
    monkeypatch.chdir(tmp_path)
    description = describe("2.17")
    _prose(description, payload)
    before = project.files()

    # As JSON: YAML has no NUL and no lone surrogates.
    outcome = project.run(project.write(description, "description.json"))

    if outcome.code == 1:
        # A text can be in the way where a key of this name means something.
        refused(outcome, "description.json")
        assert project.files() == before
    else:
        assert project.generated() == harmless
    assert not list(tmp_path.rglob(f"*{MARK}*"))


def test_a_value_of_an_enum_is_text_and_nothing_else(project, describe, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    payloads = [text for text in PAYLOADS.values() if text and text.isprintable()]
    assert len(payloads) > 6
    description = describe("2.17")
    for payload in payloads:
        _accepted_version(description, payload)
    held = {"type": "string", "enum": payloads}
    request = _schemas(description)["create_data_event_request"]
    request["properties"]["held"] = held
    _operation(description)["parameters"].append({"name": "held", "in": "query", "schema": held})
    _schemas(description)["error"]["properties"]["kind"] = {"const": payloads[0]}

    outcome = project.run(description)

    assert (outcome.code, outcome.err) == (0, "")
    _assert_harmless(project, payloads)
    code = f"""
for payload in {payloads!r}:
    assert payload in models.IntercomVersion.__args__
    assert payload in models.CreateDataEventRequestHeld.__args__
    fields = {{"event_name": "e", "created_at": 1, "held": payload}}
    event = models.CreateDataEventRequest.from_dict(fields)
    assert event.held == payload and event.to_dict()["held"] == payload
"""
    imported = project.imports(code)
    assert imported.err == ""
    assert not list(tmp_path.rglob(f"*{MARK}*"))


@pytest.mark.parametrize("name", ["NUL", "right to left", "a line separator", "a line"])
def test_a_value_with_a_control_character_is_refused(project, describe, refused, name):
    description = describe("2.17")
    _accepted_version(description, PAYLOADS[name])
    before = project.files()

    path = project.write(description, "description.json")
    refused(project.run(path), "#/components/schemas/intercom_version/enum", "must be a printable")

    assert project.files() == before


@pytest.mark.parametrize(
    "place",
    [
        _operation_id, _tag, _parameter_name, _schema_name, _described_version,
        _media_type, _status, _server, _security_scheme, _required_name, _format,
    ],
)  # fmt: skip
def test_a_payload_in_a_name_is_refused_by_a_whole_run(project, describe, refused, place):
    description = describe("2.17")
    place(description, PAYLOADS["the end of a docstring"])
    before = project.files()

    refused(project.run(description), "description.yaml", "must be a valid ", ", not ")

    assert project.files() == before


@pytest.mark.parametrize("name", ["größe", "a b", "", "canary_e1f7()", '"""'])
def test_a_field_whose_name_no_code_can_have_is_left_out_and_recorded(describe, name):
    described, other = describe("2.17"), describe("2.17")
    _property_name(other, name)

    one, sliced = (
        slice_description(Source("d.yaml", "0" * 64, each), OPERATIONS, ["data_event"])
        for each in (described, other)
    )

    event = sliced["components"]["schemas"]["data_event"]
    record = event.pop("x-unread")["properties"]
    assert record.startswith("sha256:")
    assert event == one["components"]["schemas"]["data_event"]


def test_properties_of_awkward_names_are_read_and_written_back(project, describe):
    names = [
        *("import", "None", "__class__", "__init__", "self", "$where", "@odd", "3d", "a.b"),
        *("print", "T", "UNSET", "DataEvent", "src_dict", "datetime", "__builtins__"),
        *("annotations", "user-id", "userId", "id_", "_id", "properties"),
    ]
    description = describe("2.17")
    for name in names:
        _property_name(description, name)

    outcome = project.run(description)

    assert (outcome.code, outcome.err) == (0, "")
    code = f"""
source = {{name: name for name in {names!r}}}
source.update(event_name="e", created_at=1, id="1", user_id="2", more=3)
event = models.DataEvent.from_dict(source)
assert event.to_dict() == source
assert (event.event_name, event.id, event.user_id) == ("e", "1", "2")
assert event.additional_properties == {{"more": 3}}
"""
    assert project.imports(code).err == ""


# The space of texts, by the step that lets them in or not.

_TEXT = st.text(max_size=40) | st.sampled_from(sorted(PAYLOADS.values()))
_NAMES = st.text("abcZ09_.$@- /~#\"'\\\n{}é", max_size=12)


def _strings(node):
    """Every text in a slice, keys too."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield key
            yield from _strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value)
    elif isinstance(node, str):
        yield node


@settings(max_examples=scaled(300))
@given(st.sampled_from(sorted(PLACES)), _TEXT | _NAMES)
@example("described version", "2.17\n")
@example("described version", "2.\u0661")
@example("status", "2\u0660\u0662")
@example("server", "https://example.org\n")
@example("tag", "Data Events\n")
def test_whatever_the_text_a_slice_is_refused_or_harmless(describe, place, text):
    description = describe("2.17")
    plain = set(
        _strings(slice_description(Source("a", "0" * 64, description), OPERATIONS, ["data_event"]))
    )
    PLACES[place](description, text)
    try:
        sliced = slice_description(Source("a", "0" * 64, description), OPERATIONS, ["data_event"])
    except RegenerationError as error:
        _assert_clear(error, "a: #")
        return
    for string in set(_strings(sliced)) - plain - {sliced["info"]["x-source"]["slice-sha256"]}:
        if place in VALUES:
            assert string.isprintable()
        else:
            assert string.isascii()
            string = string.removeprefix("#/components/schemas/")
            assert not set(string) & set("\"'\\\n\r{}();=#`\0"), string


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
        max_leaves=8,
    ),
    st.sampled_from(
        [
            ("info",), ("paths",), ("servers",), ("security",), ("components",),
            ("paths", "/events"), ("paths", "/events", "post"),
            ("paths", "/events", "post", "parameters"), ("paths", "/events", "post", "responses"),
            ("paths", "/events", "post", "requestBody"), ("paths", "/events", "post", "tags"),
            ("components", "schemas"), ("components", "schemas", "data_event"),
            ("components", "schemas", "data_event", "properties"),
            ("components", "schemas", "data_event", "required"),
            ("components", "schemas", "data_event", "properties", "id"),
            ("components", "schemas", "intercom_version", "enum"),
            ("components", "securitySchemes"), ("components", "securitySchemes", "bearerAuth"),
        ]
    ),
)  # fmt: skip
def test_whatever_the_value_a_slice_is_made_or_refused(describe, value, place):
    description = describe("2.17")
    *way, last = place
    node = description
    for step in way:
        node = node[step]
    node[last] = value
    try:
        slice_description(Source("a", "0" * 64, description), OPERATIONS, ["data_event"])
    except RegenerationError as error:
        _assert_clear(error, "a: #")


@settings(max_examples=scaled(200), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.text("ab:-[]{},&*!\"'\n #|>?1.\t", max_size=40))
@example("a: !!bool x")
@example("!!int")
@example("? &a [*a]")
@example("a: &b\n  <<: *b")
def test_whatever_the_bytes_they_are_read_or_refused(tmp_path, data):
    path = tmp_path / "any.yaml"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    try:
        content = read(str(path)).content
    except RegenerationError as error:
        _assert_clear(error, str(path))
    else:
        assert set(_strings(content)) or content == {}


@settings(max_examples=scaled(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=10),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=20),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab1.:# ~"), inner),
            max_leaves=6,
        ),
    )
)
@example({"08": "08", "1e3": ["1e3", "0o14", "0x1f", "1_000", ".5", "-1", "+.inf", "."]})
@example({"yes": ["on", "~", "null", "2024-01-01", "1:30", "=", "<<", "\x85", "a\n b", " a\n"]})
def test_what_is_written_is_read_back_as_it_was(tmp_path, content):
    path = tmp_path / "written.yaml"
    path.write_bytes(dump(content, "A heading"))

    assert read(str(path)).content == content


def test_the_corrections_name_every_schema_of_the_events(sources):
    corrections = read(str(sources.root / "openapi" / "corrections.yaml"))

    assert {"data_event", "data_event_list", "data_event_summary_item", "error"} <= set(
        correcting.referenced_schemas(corrections)
    )
