"""openapi/operations.yaml is checked: what is wrong is told with its place and the remedy."""

from __future__ import annotations

import pytest

from regeneration import RegenerationError
from regeneration.document import read
from regeneration.operations import Operation, read_operations

LISTS = """\
tag: Data Events
client:
  - operation: POST /events
    name: createDataEvent
    verbs: [create, send]
  - operation: GET /events
    name: listDataEvents
    verbs: [list]
unsupported:
  - operation: DELETE /events
    reason: Nothing is deleted.
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "operations.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize("text", [LISTS, LISTS.replace("\n", "\r\n"), "\ufeff" + LISTS])
def test_both_lists_are_read(write, text):
    operations = read_operations(read(str(write(text))))

    assert operations.tag == "Data Events"
    assert operations.client == (
        Operation("post", "/events", "createDataEvent", ("create", "send")),
        Operation("get", "/events", "listDataEvents", ("list",)),
    )
    assert operations.unsupported == {("delete", "/events"): "Nothing is deleted."}


@pytest.mark.parametrize("end", ["unsupported: []\n", ""])
def test_nothing_needs_to_be_left_out(write, end):
    text = LISTS.partition("unsupported")[0] + end

    assert read_operations(read(str(write(text)))).unsupported == {}


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("tag: Data Events", "", "#/tag: must be a tag such as Data Events"),
        ("tag: Data Events", "tag: 3", "#/tag: must be a tag such as Data Events"),
        ("client:", "clients:", "#/clients: the key must be one of tag, client, unsupported"),
        (
            "unsupported:",
            "unsuported:",
            "#/unsuported: the key must be one of tag, client, unsupported",
        ),
        ("    name:", "    nme:", "#/client/0/nme: the key must be one of operation, name, verbs"),
        (
            "    verbs:",
            "    verb:",
            "#/client/0/verb: the key must be one of operation, name, verbs",
        ),
        (
            "    reason:",
            "    because:",
            "#/unsupported/0/because: the key must be one of operation, reason",
        ),
        ("    verbs: [list]\n", "", "#/client/1/verbs: must be a list of client methods"),
        ("[list]", "list", "#/client/1/verbs: must be a list of client methods, such as"),
        ("[list]", "[list-events]", "#/client/1/verbs: must be a method such as create"),
        ("[list]", "[list, send]", "the verb send is listed twice; remove one of them"),
        ("[list]", "[list, list]", "the verb list is listed twice; remove one of them"),
        ("createDataEvent", "create-event", "#/client/0/name: must be a name such as"),
        ("listDataEvents", "createDataEvent", "the name createDataEvent is listed twice"),
        ("POST", "post", "#/client/0/operation: must be a method and a path, such as POST /events"),
        (
            "POST /",
            "POST ",
            "#/client/0/operation: must be a method and a path, such as POST /events",
        ),
        ("DELETE", "FETCH", "#/unsupported/0/operation: must be a method and a path"),
        ("DELETE", "GET", "the operation GET /events is listed twice; remove one of them"),
        ("GET", "POST", "the operation POST /events is listed twice; remove one of them"),
        ("Nothing is deleted.", "''", "#/unsupported/0/reason: must say why the client leaves"),
        ("  - operation: DELETE /events\n    reason: Nothing is deleted.\n", "",
         "#/unsupported: must be a list; write [] for none"),
        ("  - operation: DELETE /events\n    reason: Nothing is deleted.\n", "  - GET /a\n",
         "#/unsupported/0: must be a mapping with an `operation`"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(write, before, after, words):
    assert before in LISTS
    path = write(LISTS.replace(before, after, 1))

    with pytest.raises(RegenerationError) as refusal:
        read_operations(read(str(path)))

    assert str(refusal.value).startswith(f"{path}: {words}")


def test_an_operation_is_left_out_once(write):
    more = LISTS + "  - operation: DELETE /events\n    reason: Once more.\n"

    with pytest.raises(RegenerationError, match="DELETE /events is listed twice"):
        read_operations(read(str(write(more))))


def test_lists_that_are_missing_are_an_error_of_one_sentence(project, refused):
    (project.root / "openapi" / "operations.yaml").unlink()

    refused(project.run(), "openapi/operations.yaml: cannot be read: No such file")
