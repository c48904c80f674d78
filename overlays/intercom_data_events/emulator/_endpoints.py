"""The endpoints: each reads a request, uses a workspace, and returns the answer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import attrs
import httpx

from ._reading import (
    PER_PAGE,
    Question,
    check_declaration,
    read_event,
    read_question,
    read_summary,
)
from ._refusal import JSON, RefusalError
from ._workspace import LISTED_FOR, Contact, EmulatedEvent, Workspace


@attrs.frozen
class Answer:
    """A status and its document."""

    status: int
    document: dict[str, JSON] | None = None


Endpoint = Callable[[Workspace, httpx.Request, float], Answer]


def endpoint_for(method: str, path: str) -> Endpoint:
    """The endpoint for a method and a path.

    Raises:
        RefusalError: There is none. The codes and messages are inferred.
    """
    if (endpoints := _ENDPOINTS.get(path)) is None:
        raise RefusalError(404, "not_found", "The requested resource does not exist")
    if (endpoint := endpoints.get(method)) is None:
        allowed = ", ".join(sorted(endpoints))
        raise RefusalError(
            405, "method_not_allowed", f"{path} supports only {allowed}", headers={"Allow": allowed}
        )
    return endpoint


def _create_event(workspace: Workspace, request: httpx.Request, _now: float) -> Answer:
    event = read_event(_declared(request))
    workspace.record(event.who, event.name, event.created_at, event.metadata)
    return Answer(202)


def _create_summary(workspace: Workspace, request: httpx.Request, _now: float) -> Answer:
    summary = read_summary(_declared(request))
    workspace.summarize(summary.who, summary.tallies)
    return Answer(200)


def _declared(request: httpx.Request) -> bytes:
    """The body, which must be declared as JSON unless it is empty."""
    if request.content:
        check_declaration(request.headers.get("content-type"))
    return request.content


def _list_events(workspace: Workspace, request: httpx.Request, now: float) -> Answer:
    question = read_question(request.url.params)
    contact = workspace.find(question.who)
    if question.summary:
        return Answer(200, _summary(contact))
    return Answer(200, _listing(contact, question, request.url, now))


def _listing(contact: Contact, question: Question, url: httpx.URL, now: float) -> dict[str, JSON]:
    page = contact.page(
        size=question.per_page or PER_PAGE,
        newer_than=now - LISTED_FOR,
        before=question.before,
        since=question.since or 0,
    )

    def link(**query: int | None) -> str:
        given = {name: str(value) for name, value in query.items() if value is not None}
        params = httpx.QueryParams({**given, question.identity[0]: question.identity[1]})
        return str(url.copy_with(params=params.set("type", "user"), fragment=None))

    # Order and parameters are those of the documented examples. `since` stays in `next`, so that
    # a listing of newer events ends with the oldest of these.
    pages: dict[str, JSON] = {"since": link(since=page.since)}
    if page.before is not None:
        pages["next"] = link(per_page=question.per_page, before=page.before, since=question.since)
    return {
        "type": "event.list",
        "events": [_item(event) for event in page.events],
        "pages": pages,
    }


def _item(event: EmulatedEvent) -> dict[str, JSON]:
    known = attrs.asdict(event, recurse=False, filter=lambda _, value: value is not None)
    return {"type": "event", **known}


def _summary(contact: Contact) -> dict[str, JSON]:
    identities = {
        "email": contact.email,
        "intercom_user_id": contact.id,
        "user_id": contact.user_id,
    }
    return {
        "type": "event.summary",
        "events": [
            {
                "name": tally.name,
                "first": _written(tally.first),
                "last": _written(tally.last),
                "count": tally.count,
                # Written in Intercom's settings, for which there is no API.
                "description": "",
            }
            for tally in contact.tallies.values()
        ],
        "pages": {},
        **{name: value for name, value in identities.items() if value is not None},
    }


def _written(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


_ENDPOINTS: dict[str, dict[str, Endpoint]] = {
    "/events": {"GET": _list_events, "POST": _create_event},
    "/events/summaries": {"POST": _create_summary},
}
