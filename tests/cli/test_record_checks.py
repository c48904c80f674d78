"""What is wrong with a record is told at once; what other tools and listings call it is known."""

from __future__ import annotations

import json

import pytest

from intercom_data_events import DataEventsClient

from .conftest import NOON, event, times


@pytest.fixture
def problems(command, ndjson):
    """The problems of the events of a file, each as one text."""

    def check(*events, options=()):
        done = command("validate", ndjson(list(events)), "--json", *options)
        return [line["reason"] for line in done.lines]

    return check


def test_all_problems_of_a_line_are_told_at_once(problems):
    [said] = problems(
        {
            "event_name": " ",
            "created_at": "2026-01-01",
            "email": 5,
            "user_id": "",
            "metadata": {"paid_at": "yesterday", "a": [1], "": 1},
        }
    )

    for part in (
        "event_name must be",
        "created_at must have an offset",
        "email must be a string",
        "user_id must not be empty",
        "metadata.paid_at must be",
        "metadata.a is a list",
        "a metadata key must be",
    ):
        assert part in said
    assert said.count("; ") >= 6


def test_what_is_missing_is_told_at_once(problems):
    [said] = problems({"metadata": 5})
    assert said.split("; ")[0] == "event_name is missing"
    for part in (
        "the event has no contact: add user_id, email or id",
        "created_at is missing; add it, or",
        "metadata must be an object, not ",
    ):
        assert part in said


def test_problems_of_a_row_are_told_at_once(command, tmp_path):
    path = tmp_path / "events.csv"
    path.write_text(
        "event_name,email,metadata.a:number,metadata.paid_at,metadata.b.amount,metadata.b.currency,"
        "metadata.c.amount,metadata.c.currency\nran,,much,2026-01-01,29.99,usd,5,\n"
    )

    said = command("validate", path).out

    for part in (
        "metadata.a:number must be",
        "metadata.paid_at must have an offset",
        "metadata.b.amount must be an integer from 0 to 9223372036854775807 in minor currency",
        "pass 2999 for 29.99",
        "metadata.c is an object, which the API supports only as",
        "no contact",
        "created_at",
    ):
        assert part in said
    assert len(said.splitlines()) == 1


def test_many_problems_are_told_in_part(problems):
    [said] = problems({**event(), **{f"key{number}": 1 for number in range(1_000)}})
    assert said.count("events have no field") == 20
    assert said.endswith("; and more problems")


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        ({"event": "ran", "userId": "1", "timestamp": NOON, "properties": {}}, 4),
        ({"event": "ran", "distinct_id": "1", "time": NOON}, 3),
        ({"event_type": "ran", "user_id": "1", "event_time": NOON, "event_properties": {}}, 3),
        ({"event_name": "ran", "anonymousId": "1", "originalTimestamp": NOON}, 2),
        ({"name": "ran", "external_id": "1", "time": NOON}, 3),
    ],
)
def test_fields_of_other_tools_are_told_with_what_they_may_mean(fields, meant, problems):
    [said] = problems(fields)
    assert said.count("did you mean ") == meant
    assert "missing" not in said
    assert "no contact" not in said


def test_a_field_without_a_counterpart_can_be_metadata(problems):
    [said] = problems({**event(), "anonymousId": "2", "library": "x"})
    assert "did you mean" not in said
    assert said.count("remove it, or move it into metadata") == 2


def test_the_values_of_fields_of_other_tools_are_checked_as_well(problems):
    [said] = problems({"event": "ran", "userId": 5, "timestamp": "2026-01-01"})
    assert "user_id must be a string" in said
    assert "created_at must have an offset" in said


@pytest.mark.parametrize(
    "fields",
    [
        event(event_name="\ud800"),
        event(user_id="\udc00"),
        event(email="\ud800"),
        event(metadata={"a": "\ud800"}),
        event(metadata={"\ud800": 1}),
        event(metadata={"a": {"url": "https://x", "value": "\ud800"}}),
        event(metadata={"a": {"amount": 1, "currency": "\ud800"}}),
        event(created_at="\ud800"),
        event(**{"\ud800": 1}),
    ],
)
def test_half_of_a_character_is_told_wherever_it_is(fields, problems):
    [said] = problems(fields)
    assert "surrogate" in said or "\\ud800" in said


def test_a_null_time_is_a_missing_time(problems):
    assert problems(event(created_at=None))[0].startswith("created_at is missing")
    assert problems(event(created_at=None), options=["--stamp-now"]) == []


def test_what_a_listing_shows_is_imported(emulator, command, tmp_path):
    listed = {"type": "event", "id": "e1", "intercom_user_id": "5f", "metadata": {}, "new": 1}
    path = tmp_path / "listed.ndjson"
    path.write_text(
        "".join(
            json.dumps(one) + "\n"
            for one in [
                {**event(1), **listed},
                {**event(2), "type": "event", "id": "e1", "email": None},
                {"event_name": "ran", "created_at": NOON, "intercom_user_id": "60"},
            ]
        )
    )

    assert command("import", path).code == 0
    sent = sorted((one.json for one in emulator.requests), key=lambda one: one["created_at"])
    assert [(one.get("user_id"), one.get("id")) for one in sent] == [
        (None, "60"),
        ("1", "5f"),
        ("2", None),
    ]


def test_list_and_import_fit_together(emulator, command, tmp_path):
    with DataEventsClient() as client:
        client.create(
            "ran",
            user_id="1",
            created_at=NOON,
            metadata={"price": {"amount": 1, "currency": "usd"}},
        )
    path = tmp_path / "listed.ndjson"
    path.write_text(command("list", "--user-id", "1", "--json").out)

    done = command("validate", path)

    assert (done.code, done.out) == (0, "")


def test_a_page_of_a_listing_is_told_with_what_splits_it(problems):
    [said] = problems({"type": "event.list", "events": [event()], "pages": None})
    assert (
        said
        == "the line must be one event, not a page of events; convert it with: jq -c '.events[]'"
    )


def test_what_the_api_does_not_support_is_left_out_where_that_is_asked_for(
    emulator, command, ndjson
):
    bad = {"a": True, "b": None, "c": ["x"], "d": {"e": 1}, "plan": "pro"}
    file = ndjson([event(0, metadata=bad), event(1, metadata={"plan": "pro"})])

    refused = command("validate", file)
    assert refused.code == 1
    for part in (
        "metadata.a is true, which",
        "metadata.b is null, which",
        "metadata.c is a list, which",
    ):
        assert part in refused.out
    assert "pass --drop-unsupported" in refused.out

    done = command("import", file, "--drop-unsupported", "--json")
    assert (done.code, done.json["accepted"], done.json["without_unsupported"]) == (0, 2, 1)
    assert [one.metadata for one in emulator.events] == [{"plan": "pro"}] * 2


def test_only_what_is_not_supported_is_left_out(problems):
    found = problems(
        event(0, metadata={"paid_at": "yesterday", "a": None}),
        event(1, metadata={"price": {"amount": -1, "currency": "usd"}}),
        event(2, metadata={f"key{number}": 1 for number in range(11)}),
        options=["--drop-unsupported"],
    )
    assert [said.partition(" must")[0] for said in found] == [
        "metadata.paid_at",
        "metadata.price.amount",
        "metadata",
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_first_line_of_excel_names_the_delimiter(delimiter, emulator, command, tmp_path):
    path = tmp_path / "events.csv"
    rows = ["event_name|created_at|user_id|metadata.a,b;c", f"ran|{NOON}|1|x,;y", "|||5"]
    text = "\n".join(f'"{row}"' for row in rows).replace("|", f'"{delimiter}"')
    path.write_text(f"sep={delimiter}\n{text}\n")

    done = command("import", path)

    assert (done.code, times(emulator)) == (1, [NOON])
    assert "line 4 rejected: event_name is missing" in done.err
    assert command("validate", tmp_path / "events.refused.csv").code == 1
