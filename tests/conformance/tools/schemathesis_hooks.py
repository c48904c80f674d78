"""Rules that OpenAPI cannot express. Schemathesis loads this module."""

from __future__ import annotations

from typing import Any

import schemathesis

#: A contact of the workspace, with more than one page of events.
KNOWN = {"user_id": "314159", "email": "frodo.baggins@example.com"}
_IDENTITIES = ("user_id", "email", "intercom_user_id")
_EVENT = {
    "event_name": "placed-order",
    "created_at": 1389913941,
    "user_id": "314159",
    "metadata": {
        "order_date": 1392036272,
        "stripe_invoice": "inv_3434343434",
        "order_number": {"value": "3434-3434", "url": "https://example.org/orders/3434-3434"},
        "price": {"currency": "usd", "amount": 2999},
    },
}
_SUMMARY = {
    "user_id": "314159",
    "event_summaries": {
        "event_name": "invited-friend",
        "count": 1,
        "first": 1671028894,
        "last": 1671028894,
    },
}


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:  # noqa: ARG001  # given by name
    """Adds the documentation's examples, and links from sent events to listings and summaries."""
    events = raw_schema["paths"]["/events"]
    summaries = raw_schema["paths"]["/events/summaries"]
    for operation, example in ((events["post"], _EVENT), (summaries["post"], _SUMMARY)):
        operation["requestBody"]["content"]["application/json"]["example"] = example
    for parameter in events["get"]["parameters"]:
        if parameter["name"] in ("type", "user_id"):
            parameter["example"] = {"type": "user", **KNOWN}[parameter["name"]]
    for operation, status in ((events["post"], "202"), (summaries["post"], "200")):
        operation["responses"][status]["links"] = {
            name: {
                "operationId": "listDataEvents",
                "parameters": {
                    "query.type": "user",
                    "query.user_id": "$request.body#/user_id",
                    "query.summary": wanted,
                },
            }
            for name, wanted in (("listed", "false"), ("summarized", "true"))
        }


@schemathesis.hook
def map_case(context: schemathesis.HookContext, case: schemathesis.Case) -> schemathesis.Case:  # noqa: ARG001  # given by name
    """Makes the parts of a valid request fit together.

    Invalid requests stay unchanged, because they must be rejected anyway.
    """
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return case
    if case.method == "GET":
        _ask_for_one(case)
    elif case.path == "/events/summaries" and isinstance(case.body, dict):
        tally = case.body.get("event_summaries")
        if isinstance(tally, dict) and tally["first"] > tally["last"]:
            tally["first"], tally["last"] = tally["last"], tally["first"]
    return case


def _ask_for_one(case: schemathesis.Case) -> None:
    """Sets exactly one identity. Half are of a known contact, which random values rarely hit."""
    query = case.query
    given = [name for name in _IDENTITIES if name in query]
    for name in given[1:]:
        del query[name]
    if not given:
        query.update(user_id=KNOWN["user_id"])
    elif given[0] in KNOWN and case.meta.phase.name != "stateful" and len(query[given[0]]) % 2:
        query[given[0]] = KNOWN[given[0]]
