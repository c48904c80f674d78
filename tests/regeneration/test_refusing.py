"""Bad input ends with one sentence that says what is wrong and where, and changes nothing."""

from __future__ import annotations

import json

import pytest
from verbs import OPERATIONS


@pytest.fixture
def refuses(project, refused):
    """Runs on a description or a path; asserts that it is refused and that nothing changed."""

    def refuses(argument, *mentioned):
        before = project.files()
        refused(project.run(argument), *mentioned)
        assert project.files() == before

    return refuses


def _schemas(description):
    return description["components"]["schemas"]


def _hold(description, schema):
    """Makes an event hold a value of the named schema."""
    reference = {"$ref": f"#/components/schemas/{schema}"}
    _schemas(description)["data_event"]["properties"]["held"] = reference


BOMB = "a: &a [{items}]\n".format(items=", ".join("lol" for _ in range(10))) + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefghijk", "bcdefghijkl", strict=True)
)


@pytest.mark.parametrize(
    ("content", "mentioned"),
    [
        ("", ["must be a mapping at its top level, not an empty document"]),
        ("# nothing but a comment\n", ["not an empty document"]),
        ("just some words", ["must be a mapping", "not a string"]),
        ("- openapi: 3.0.1\n- paths: {}\n", ["must be a mapping", "not a list"]),
        ("openapi: 3.0.1\npaths: [\n", [":3:1: cannot be read as YAML"]),
        ("openapi: 3.0.1\n\tpaths: {}\n", [":2:1: cannot be read as YAML"]),
        ("openapi: 3.0.1\n--- \nopenapi: 3.0.1\n", [":2:1", "must contain only one document"]),
        ("openapi: *nothing\n", [":1:10", "'nothing' must refer to an earlier anchor"]),
        ("? [openapi]\n: 3.0.1\n", [":1:11", "a key must be a string, not a list"]),
        ("openapi: 3.0.1\nx: \u0000\n".encode(), ["cannot be read as YAML"]),
        ('{"openapi": "3.0.1", "paths": }', [":1:31: cannot be read as JSON"]),
        ('{"openapi": "3.0.1"', [":1:20: cannot be read as JSON"]),
        ('{"a": ' * 100 + "1" + "}" * 100, ["must not be nested more than 64 levels deep"]),
        ('{"a": ' * 200_000, ["cannot be parsed"]),
        ("[" * 200_000, ["must not be nested more than 64 levels deep"]),
        ("x: " + "{a: " * 200_000, ["must not be nested more than 64 levels deep"]),
        ("- " * 200_000, ["must not be nested more than 64 levels deep"]),
        (
            "openapi: 3.0.1\npaths: &a {x: *a}\n",
            [":2:15", "'a'", "does not contain the alias itself"],
        ),
        ("paths: &a [[*a]]\n", ["'a'", "does not contain the alias itself"]),
        ('{"a": [' + "{}, " * 1_000_000 + "{}]}", ["must not have more than 1,000,000 values"]),
        (BOMB, ["cannot be read as YAML", "1,000,000"]),
        (f"openapi: 3.0.1\ninfo: {{version: '2.1'}}\n{BOMB}paths: *e\n", ["1,000,000"]),
        (f"x: {'9' * 5000}\n", ["cannot be parsed"]),
        (b"openapi: 3.0.1\n# caf\xe9\n", ["byte 20 is not UTF-8"]),
        ("openapi: 3.0.1".encode("utf-16"), ["byte 0 is not UTF-8"]),
        (b"\x89PNG\r\n\x1a\n", ["must be YAML or JSON in UTF-8"]),
        ("swagger: '2.0'\npaths: {}\n", ["#/openapi", "Swagger 2"]),
        ("openapi: 4.0.0\npaths: {}\n", ["#/openapi", "4.0.0"]),
        ("openapi: 3.0\npaths: {}\n", ["#/openapi", "3.0"]),
        ("openapi: [3, 0, 1]\n", ["#/openapi", "a list"]),
        ("openapi: 3.0.1\n", ["#/info", "must be a mapping, but is missing"]),
        ("openapi: 3.0.1\ninfo: [1]\n", ["#/info", "a list"]),
        ("openapi: 3.0.1\ninfo: {version: '2.16'}\n", ["#/paths", "but is missing"]),
        ("openapi: 3.0.1\ninfo: {version: '2.16'}\npaths: 5\n", ["#/paths", "5"]),
        (
            "openapi: 3.0.1\ninfo: {version: '2.16'}\npaths: {}\n",
            ["must have data-events operations"],
        ),
    ],
    ids=lambda value: (
        repr(value[:24]) if isinstance(value, str | bytes) and len(value) < 200 else ""
    ),
)
def test_what_is_no_openapi_is_refused(project, refuses, content, mentioned):
    path = project.write(content, "bad.yaml")

    refuses(path, str(path), *mentioned)


@pytest.mark.parametrize(
    "tagged",
    [
        "!!python/object/apply:os.system ['touch canary']",
        "!!python/object/new:os.system ['touch canary']",
        "!!python/name:os.system ''",
        "!!python/module:antigravity ''",
        "!!binary aGVsbG8=",
        "!!timestamp 2024-01-01",
        "!!set {a, b}",
        "!!omap [a: b]",
        "!!bool maybe",
        "!!int ''",
        "!!float x",
        "!mine {a: b}",
        "!<tag:example.org,2024:x> y",
    ],
)
def test_no_tag_is_executed(project, describe, refuses, monkeypatch, tmp_path, tagged):
    monkeypatch.chdir(tmp_path)
    text = project.write(describe()).read_text(encoding="utf-8")
    path = project.write(f"{text}x-more: {tagged}\n", "tagged.yaml")

    refuses(path, f"{path}:{len(text.splitlines()) + 1}:9: cannot be read as YAML", "tag")

    assert not (tmp_path / "canary").exists()


def test_a_file_that_is_not_there_is_refused(project, refuses):
    refuses(project.root / "nowhere.yaml", "nowhere.yaml", "No such file")


def test_a_folder_is_refused(project, refuses):
    refuses(project.root / "openapi", "openapi", "directory")


def test_a_name_that_no_file_can_have_is_refused(refuses):
    refuses("nul\0.yaml", "nul\\x00.yaml", "cannot be read")
    refuses("x" * 5000, "cannot be read")


def test_an_endless_file_is_refused(refuses):
    refuses("/dev/zero", "/dev/zero", "must not be larger than")


def test_a_description_without_data_events_is_refused(describe, refuses):
    description = describe()
    for operation in OPERATIONS.client:
        description["paths"].pop(operation.path, None)

    refuses(description, "description.yaml", "#/paths", "must have data-events operations")


@pytest.mark.parametrize("operation", OPERATIONS.client, ids=str)
def test_a_description_that_lacks_one_of_the_operations_is_refused(describe, refuses, operation):
    description = describe()
    del description["paths"][operation.path][operation.method]

    refuses(description, "description.yaml", "#/paths", f"must have the operation {operation}")


def _operation(description):
    return description["paths"]["/events"]["post"]


def _event(description):
    return _schemas(description)["data_event"]


def _request(description):
    return _schemas(description)["create_data_event_request"]


AT = "#/paths/~1events/post"
EVENT = "#/components/schemas/data_event"


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        (lambda d: d["paths"].update({"/events": [1]}), "#/paths/~1events", "a list"),
        (lambda d: d["paths"]["/events"].update(post=None), AT, "but is missing"),
        (lambda d: d["paths"]["/events"].update(parameters={}), "#/paths/~1events/param", "list"),
        (lambda d: _operation(d).update(operationId=5), f"{AT}/operationId", "5"),
        (lambda d: _operation(d).update(operationId="a\nb"), f"{AT}/operationId", "'a\\nb'"),
        (lambda d: _operation(d).update(operationId="a" * 201), f"{AT}/operationId", "'aaa"),
        (lambda d: _operation(d).update(tags=[5]), f"{AT}/tags", "5"),
        (lambda d: _operation(d).update(tags="Data Events"), f"{AT}/tags", "'Data Events'"),
        (lambda d: _operation(d).update(parameters=None), f"{AT}/parameters", "but is missing"),
        (lambda d: _operation(d)["parameters"].append(1), f"{AT}/parameters/1", "1"),
        (
            lambda d: _operation(d)["parameters"][0].pop("name"),
            f"{AT}/parameters/0/name",
            "is missing",
        ),
        (
            lambda d: _operation(d)["parameters"][0].pop("in"),
            f"{AT}/parameters/0/in",
            "but is missing",
        ),
        (lambda d: _operation(d)["parameters"][0].update({"in": "heart"}), "", "heart"),
        (lambda d: _operation(d)["requestBody"].pop("content"), f"{AT}/requestBody/content", "n"),
        (lambda d: _operation(d).pop("responses"), f"{AT}/responses", "but is missing"),
        (lambda d: _operation(d)["responses"].update({"600": {}}), f"{AT}/responses", "'600'"),
        (lambda d: _operation(d)["responses"].update({"401": []}), f"{AT}/responses/401", "list"),
        (lambda d: _event(d).update(type="objekt"), f"{EVENT}/type", "'objekt'"),
        (lambda d: _event(d).update(type=["string", {}]), f"{EVENT}/type", "a mapping"),
        (lambda d: _event(d).update(properties=["id"]), f"{EVENT}/properties", "a list"),
        (lambda d: _event(d)["properties"].update(id="x"), f"{EVENT}/properties/id", "'x'"),
        (lambda d: _event(d).update(required=[1]), f"{EVENT}/required", "1"),
        (lambda d: _event(d).update(required="id"), f"{EVENT}/required", "'id'"),
        (lambda d: _event(d).update(items=[]), f"{EVENT}/items", "a list"),
        (lambda d: _event(d).update(allOf={}), f"{EVENT}/allOf", "a mapping"),
        (lambda d: _event(d).update(enum="a"), f"{EVENT}/enum", "'a'"),
        (lambda d: _event(d).update(enum=[[1]]), f"{EVENT}/enum", "a list"),
        (lambda d: _event(d).update(minLength=float("inf")), f"{EVENT}/minLength", "inf"),
        (lambda d: _event(d).update(maximum=float("nan")), f"{EVENT}/maximum", "nan"),
        (lambda d: _request(d).update(maxLength=-1), "description.json", "-1"),
        (lambda d: _request(d)["properties"]["id"].update(enum=["a", "a"]), "enum", "non-unique"),
        (lambda d: d["info"].update(version="latest"), "#/info/version", "'latest'"),
        # Digits, but not ours.
        (lambda d: d["info"].update(version="2.\u0661"), "#/info/version", "'2.\u0661'"),
        (lambda d: d.update(openapi="3.\u0660.1"), "#/openapi", "'3.\u0660.1'"),
        (lambda d: d.update(servers="https://x.org"), "#/servers", "'https://x.org'"),
        (lambda d: d["servers"].append({"url": "https://x org"}), "#/servers/3/url", "x org"),
        (lambda d: d["servers"].append({"url": 5}), "#/servers/3/url", "5"),
        (lambda d: d.update(security={}), "#/security", "a mapping"),
        (lambda d: d.update(security=[{'a"b': []}]), "#/security/0", 'a"b'),
        (
            lambda d: d["components"].update(schemas=[]),
            "/schema/$ref",
            "must point to an existing part",
        ),
        (lambda d: d.update(components=7), "#/components", "must point to an existing part"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_place(
    project, describe, refuses, change, place, words
):
    description = describe()
    change(description)

    # As JSON, which keeps numbers that YAML's core does not know.
    refuses(project.write(description, "description.json"), "description.json", place, words)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("#/components/schemas/nowhere", "must point to an existing part"),
        ("#/components/schemas/", "must be a valid schema name"),
        ("#/components/schemas/contact/properties/id", "must be a valid schema name"),
        ("#/components/parameters/x", "must point to #/components/schemas/…, not to '#/comp"),
        ("https://example.org/evil.yaml#/x", "must point to #/components/schemas/…, not to '"),
        ("other.yaml", "must point to #/components/schemas/…, not to '"),
        ("file:///etc/passwd", "must point to #/components/schemas/…, not to '"),
        ("", "must point to #/components/schemas/…, not to '"),
        (None, "must point to #/components/schemas/…, not to null"),
        ([], "must point to #/components/schemas/…, not to a list"),
    ],
)
def test_a_reference_of_a_schema_to_elsewhere_is_refused(describe, refuses, reference, words):
    description = describe()
    _event(description)["properties"]["held"] = {"$ref": reference}

    refuses(description, "description.yaml", f"{EVENT}/properties/held/$ref", words)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("#/components/responses/nowhere", "must point to an existing part"),
        ("https://example.org/evil.yaml#/x", "must point into this document"),
        ("#nowhere", "must point into this document"),
        (5, "must point into this document"),
    ],
)
def test_a_reference_of_an_operation_to_elsewhere_is_refused(describe, refuses, reference, words):
    node = {"$ref": reference}
    parts = {"parameters": [node], "requestBody": node, "responses": {"202": node}}
    for part, value in parts.items():
        description = describe()
        _operation(description)[part] = value

        refuses(description, "description.yaml", f"{AT}/{part}", words)


def test_a_reference_that_would_break_the_sentence_is_shown_in_one_line(describe, refuses):
    description = describe()
    odd = "a\nb\x1b[31m\u202e"
    description["components"]["responses"] = {odd: 5}
    _operation(description)["responses"]["202"] = {"$ref": f"#/components/responses/{odd}"}

    refuses(description, "description.yaml", "#/components/responses/a b\\x1b[31m\\u202e")


def _to(name):
    return {"$ref": f"#/components/schemas/{name}"}


@pytest.mark.parametrize(
    ("schemas", "cycle"),
    [
        ({"a": _to("a")}, "a → a"),
        ({"a": _to("b"), "b": _to("a")}, "a → b → a"),
        ({"a": {"allOf": [_to("a")]}}, "a → a"),
        ({"a": {"allOf": [_to("b")]}, "b": {"oneOf": [{"anyOf": [_to("a")]}]}}, "a → b → a"),
        ({"a": {"anyOf": [{"type": "string"}, _to("a")]}}, "a → a"),
        ({"a": {"type": "array", "items": _to("a")}}, "circular"),
    ],
    ids=["itself", "two", "allOf", "two by allOf and oneOf", "anyOf", "a list of itself"],
)
def test_a_schema_that_is_made_of_itself_is_refused(describe, refuses, schemas, cycle):
    description = describe()
    _schemas(description).update(schemas)
    _hold(description, "a")

    refuses(description, "description.yaml", "/components/schemas/", cycle)


def test_a_request_that_is_made_of_itself_is_refused(describe, refuses):
    description = describe()
    request = _schemas(description)["create_data_event_request"]
    request["allOf"] = [_to("create_data_event_request")]

    refuses(description, "description.yaml", "create_data_event_request → create_data_event_req")


@pytest.mark.parametrize(
    ("part", "length"),
    [("parameters", 1), ("parameters", 2), ("requestBodies", 1), ("responses", 3)],
)
def test_references_of_an_operation_in_a_circle_are_refused(describe, refuses, part, length):
    description = describe()
    names = [f"#/components/{part}/{number}" for number in range(length)]
    description["components"][part] = {
        str(number): {"$ref": names[(number + 1) % length]} for number in range(length)
    }
    node = {"$ref": names[0]}
    operation = _operation(description)
    if part == "parameters":
        operation["parameters"] = [node]
    elif part == "requestBodies":
        operation["requestBody"] = node
    else:
        operation["responses"]["202"] = node

    refuses(
        description,
        "description.yaml",
        "must not be a cycle of $refs",
        " → ".join([*names, names[0]]),
    )


def test_a_path_that_refers_to_itself_is_refused(describe, refuses):
    description = describe()
    description["paths"]["/events"] = {"$ref": "#/paths/~1events"}

    refuses(description, "description.yaml", "#/paths/~1events", "must not be a cycle of $refs")


def test_a_very_long_chain_of_references_is_refused(describe, refuses):
    description = describe()
    for number in range(3000):
        _schemas(description)[f"s{number}"] = {"allOf": [_to(f"s{number + 1}")]}
    _schemas(description)["s3000"] = {"type": "string"}
    _hold(description, "s0")

    refuses(description, "description.yaml", "must refer to other schemas at most 64 levels deep")


def test_a_list_of_a_million_schemas_is_refused(project, describe, refuses):
    description = describe()
    _event(description)["properties"]["held"] = "HERE"
    bomb = "&a {type: string}"
    for name in "bcdef":
        alias = f"*{chr(ord(name) - 1)}"
        bomb = f"&{name} {{oneOf: [{bomb}{f', {alias}' * 9}]}}"
    text = project.write(description).read_text(encoding="utf-8").replace("HERE", bomb)

    refuses(project.write(text, "many.yaml"), "many.yaml", "50,000 schemas")


@pytest.mark.parametrize(
    "name",
    ["to_dict", "from-dict", "D", "check_data_event_list_type"],
)
def test_a_property_whose_name_the_generated_code_needs_is_refused(describe, refuses, name):
    description = describe()
    _schemas(description)["data_event_list"]["properties"][name] = {"type": "string"}

    place = f"#/components/schemas/data_event_list/properties/{name}"
    refuses(description, "description.yaml", place, "the generated code reserves this name")


@pytest.mark.parametrize(
    "name", ["headers", "params", "cookies", "client", "body", "build_request", "sync-detailed"]
)
def test_a_parameter_whose_name_the_generated_code_needs_is_refused(describe, refuses, name):
    description = describe()
    _operation(description)["parameters"].append(
        {"name": name, "in": "query", "schema": {"type": "string"}}
    )

    refuses(description, "description.yaml", name)


@pytest.mark.parametrize("name", ["Data_Event", "dataEvent", "DataEvent"])
def test_two_schemas_that_would_be_one_class_are_refused(describe, refuses, name):
    description = describe()
    _schemas(description)[name] = {"type": "object", "properties": {"x": {"type": "string"}}}
    _hold(description, name)

    refuses(description, "description.yaml", "openapi-python-client")


# Our own documents.


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "must be a mapping"),
        ("[", "cannot be read as YAML"),
        ("a: b", "must be an OpenAPI Overlay"),
        ("overlay: 2.0.0\nactions: [{target: $, update: {}}]", "must be an OpenAPI Overlay"),
        ("overlay: 1.0.0\n", "must be an OpenAPI Overlay"),
        ("overlay: 1.0.0\nactions: []", "must be an OpenAPI Overlay"),
        ("overlay: 1.0.0\nactions: 5", "must be an OpenAPI Overlay"),
        ("overlay: 1.0.0\nactions: {target: $}", "must be an OpenAPI Overlay"),
        ("overlay: 1.0.0\nactions: [5]", "action 1: must have a `target`"),
        ("overlay: 1.0.0\nactions: [{update: {}}]", "action 1: must have a `target`"),
        ("overlay: 1.0.0\nactions: [{target: $.info, description: why}]", "either `update` or"),
        (
            "overlay: 1.0.0\nactions: [{target: $.info, remove: true, update: {}}]",
            "either `update` or",
        ),
        ("overlay: 1.0.0\nactions: [{target: $.info, update: {}}]", "must have a `description`"),
        (
            "overlay: 1.0.0\nactions: [{target: $.info, update: {}, description: ' '}]",
            "must have a `description`",
        ),
    ],
)
def test_damaged_corrections_are_refused(project, refuses, content, words):
    path = project.root / "openapi" / "corrections.yaml"
    path.write_text(content, encoding="utf-8")

    refuses(project.root / "openapi" / "upstream.yaml", str(path), words)


def test_corrections_that_break_openapi_are_refused(project, refuses):
    path = project.root / "openapi" / "corrections.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(
        f"{text}\n  - target: $.info\n    description: why\n    x-written-against: anything\n"
        "    update: {title: 5}\n",
        "utf-8",
    )

    refuses(project.root / "openapi" / "upstream.yaml", "corrected: #/info/title: must be valid")


@pytest.mark.parametrize("name", ["corrections.yaml", "generator.yaml"])
def test_a_document_of_ours_that_is_gone_is_named(project, refuses, name):
    (project.root / "openapi" / name).unlink()

    refuses(project.root / "openapi" / "upstream.yaml", name)


@pytest.mark.parametrize(
    "content", ["", "[", "- a\n", "literal_enums: perhaps\n", "class_overrides: 5\n", "\0"]
)
def test_damaged_settings_of_the_generator_are_refused(project, refuses, content):
    path = project.root / "openapi" / "generator.yaml"
    path.write_text(content, encoding="utf-8")

    refuses(project.root / "openapi" / "upstream.yaml", str(path), "cannot be used")


def test_a_template_that_fails_is_refused(project, refuses):
    template = project.root / "openapi" / "templates" / "package_init.py.jinja"
    template.write_text("{{ nothing.at.all }}", encoding="utf-8")

    refuses(project.root / "openapi" / "upstream.yaml", "openapi-python-client failed")


def test_a_template_that_gives_no_python_is_refused(project, refuses):
    template = project.root / "openapi" / "templates" / "package_init.py.jinja"
    template.write_text("def def", encoding="utf-8")

    refuses(project.root / "openapi" / "upstream.yaml", "__init__.py", "does not parse")


def test_json_is_refused_like_yaml(project, describe, refuses):
    description = describe()
    description["info"]["version"] = 2.16

    path = project.write(json.dumps(description), "number.json")

    refuses(path, str(path), "#/info/version", "2.16", "quote")
