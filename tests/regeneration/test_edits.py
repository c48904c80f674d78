"""Whatever Intercom edits, the report denies nothing, and what is generated imports."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from steps import OPERATIONS, correct, slice_of

from profiles import scaled
from regeneration import RegenerationError, reporting
from regeneration.document import read

ROOT = Path(__file__).parents[2]
BEFORE = reporting.committed(ROOT)
SLICE = read(str(ROOT / "openapi" / "upstream.yaml"))

#: What an edit puts somewhere: keywords and values of schemas, and what is none.
VALUES = st.sampled_from(
    [
        True, False, 0, 7, "string", "integer", "object", "array", "date-time", "uuid", "", "2.17",
        [], {}, None, ["string", "null"], {"type": "string"}, {"type": ["integer", "null"]},
        {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}},
        {"type": "object", "required": ["x"], "properties": {"x": {"type": "string"}}},
        {"oneOf": [{"type": "object", "properties": {"a": {"type": "string"}}}, {"const": "b"}]},
        {"allOf": [{"$ref": "#/components/schemas/error"}, {"required": ["z"]}]},
        {"$ref": "#/components/schemas/data_event"}, {"enum": ["one", "other"]},
        {"name": "more", "in": "query", "required": True, "schema": {"type": "string"}},
    ]
)  # fmt: skip
KEYS = st.sampled_from(
    [
        "type", "format", "enum", "const", "pattern", "maxLength", "nullable", "required",
        "properties", "items", "additionalProperties", "oneOf", "anyOf", "allOf", "deprecated",
        "default", "discriminator", "patternProperties", "security", "servers", "events", "pages",
        "email", "more", "schema", "content", "204", "x-more", "description", "not", "minimum",
    ]
)  # fmt: skip
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["put", "remove", "rename", "append"]),
        st.lists(st.integers(0, 40), min_size=1, max_size=9),
        KEYS,
        VALUES,
    ),
    min_size=1,
    max_size=4,
)


def _edited(edits):
    """The committed slice, as the description that it was cut from, with edits at random places."""
    description = read(SLICE.name).content
    del description["info"]["x-source"]
    for how, way, key, value in edits:
        node = description
        for step in way:
            children = list(node.values() if isinstance(node, dict) else node)
            held = [each for each in children if isinstance(each, dict | list) and each]
            if not held:
                break
            node = held[step % len(held)]
        if isinstance(node, list):
            if how == "append":
                node.append(value)
            elif how == "remove" and node:
                node.pop(way[-1] % len(node))
        elif how in ("put", "append"):
            node[key] = value
        elif node:
            name = list(node)[way[-1] % len(node)]
            gone = node.pop(name)
            if how == "rename":
                node[key] = gone
    return description


def _said(sliced):
    """All that a slice says, in its order, but for what it was cut from."""
    return json.dumps({**sliced, "info": {**sliced["info"], "x-source": None}})


@settings(max_examples=scaled(60))
@given(EDITS)
def test_no_edit_of_a_slice_is_denied(edits):
    try:
        sliced = slice_of(_edited(edits))
        corrected = correct(sliced)
        report = reporting.make(
            BEFORE,
            reporting.Made(
                sliced,
                corrected.document,
                BEFORE.surface,
                OPERATIONS,
                corrected.unknown,
                (),
                ("differs: openapi/upstream.yaml",),
                form_only=True,
            ),
            ROOT,
        )
    except RegenerationError:
        return
    same = _said(sliced) == _said(SLICE.content)
    text = report.as_text()

    assert same == (text == "Nothing changed.")
    if not same and not report.changes:
        assert report.verdict == "Only the order or the formatting changed."
    assert all(len(line) <= 120 for line in text.splitlines())
    assert all(each.words.isprintable() for each in report.changes)


@settings(max_examples=scaled(5))
@given(EDITS)
def test_what_is_generated_after_any_edit_imports(make_session_project, edits):
    project = make_session_project("edited")

    outcome = project.run(_edited(edits))

    assert outcome.code in (0, 1, 3)
    assert "Traceback" not in outcome.out + outcome.err
    assert (outcome.code == 1) == bool(outcome.err)
    assert project.imports().code == 0, project.imports().err
