"""openapi-core validates requests and answers: those of both clients, and raw ones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attrs
import httpx

from .fixture import Exchange, Fixture
from .reporting import Report
from .scenarios import KINDS, SCENARIOS, perform

_EVENT = {"event_name": "invited-friend", "created_at": 1671028894, "user_id": "314159"}
_TALLY = {"event_name": "invited-friend", "count": 1, "first": 1671028894, "last": 1671028894}
_SUMMARY = {"user_id": "314159", "event_summaries": _TALLY}
_QUESTION = "type=user&user_id=314159"
_ALLOWED = "the description must not allow it, but does"
_RELATION = "a relation between parameters or fields, which OpenAPI cannot express"

#: The opaque parameters of the addresses in answers.
_CURSORS = {"before", "since"}


@attrs.frozen
class Raw:
    """A request without a client.

    Attributes:
        method: The method, in upper case.
        target: The path and the query.
        body: The body, sent as JSON; None for none.
        headers: Headers besides the access token.
        good: Whether the emulator and the description must accept it.
        unsaid: Why only the emulator can reject it, not the description.
    """

    method: str
    target: str
    body: Any = None
    headers: dict[str, str] = attrs.field(factory=dict[str, str])
    good: bool = False
    unsaid: str | None = None


def _raw_requests() -> Iterator[Raw]:
    yield from _raw_questions()
    yield from _raw_events()
    yield from _raw_summaries()


def _raw_questions() -> Iterator[Raw]:
    for query in (
        _QUESTION,
        f"{_QUESTION}&per_page=50",
        f"{_QUESTION}&summary=true",
        f"{_QUESTION}&summary=false",
        "type=user&email=frodo.baggins%40example.com",
        "type=user&intercom_user_id=63a0979a5eeebeaf28dd",
    ):
        yield Raw("GET", f"/events?{query}", good=True)
    for query in (
        "user_id=314159",
        "type=contact&user_id=314159",
        "type=user&user_id=",
        f"{_QUESTION}&per_page=0",
        f"{_QUESTION}&per_page=-1",
        f"{_QUESTION}&per_page=some",
        f"{_QUESTION}&summary=perhaps",
    ):
        yield Raw("GET", f"/events?{query}")
    for query in ("type=user", f"{_QUESTION}&email=frodo.baggins%40example.com"):
        yield Raw("GET", f"/events?{query}", unsaid=_RELATION)
    yield Raw("GET", f"/events?{_QUESTION}", headers={"Intercom-Version": "9.9"})


def _raw_events() -> Iterator[Raw]:
    for change in (
        {},
        {"created_at": -1},
        {"email": "frodo.baggins@example.com"},
        {"metadata": {}},
        {"metadata": {"source": "desktop", "load": 3.67, "order_date": 1392036272}},
        {"metadata": {"order_number": {"value": "3434", "url": "https://example.org/orders"}}},
        {"metadata": {"price": {"amount": 2999, "currency": "usd"}}},
        {"metadata": {f"key-{number}": number for number in range(12)}},
    ):
        yield Raw("POST", "/events", {**_EVENT, **change}, good=True)
    for change in (
        {"event_name": " "},
        {"event_name": 1},
        {"created_at": "2014-01-16T23:12:21Z"},
        {"created_at": 1671028894000},
        {"created_at": 1671028894.5},
        {"user_id": ""},
        {"user_id": 314159},
        {"metadata": []},
        {"metadata": {"list": [1]}},
        {"metadata": {"none": None}},
        {"metadata": {"true": True}},
        {"metadata": {"nested": {"a": {"b": 1}}}},
        {"metadata": {"link": {"url": "https://example.org"}}},
        {"metadata": {"link": {"url": "https://example.org", "value": "a", "more": 1}}},
        {"metadata": {"price": {"amount": 29.99, "currency": "usd"}}},
        {"metadata": {"price": {"amount": -1, "currency": "usd"}}},
    ):
        yield Raw("POST", "/events", {**_EVENT, **change})
    for name in _EVENT:
        yield Raw("POST", "/events", {key: one for key, one in _EVENT.items() if key != name})
    yield Raw("POST", "/events", [_EVENT])
    yield Raw("POST", "/events", _EVENT, headers={"Intercom-Version": "9.9"})


def _raw_summaries() -> Iterator[Raw]:
    path = "/events/summaries"
    yield Raw("POST", path, _SUMMARY, good=True)
    for change in ({"count": 0}, {"count": 1.5}, {"first": "yesterday"}, {"event_name": ""}):
        yield Raw("POST", path, {**_SUMMARY, "event_summaries": {**_TALLY, **change}})
    for name in _TALLY:
        tally = {key: one for key, one in _TALLY.items() if key != name}
        yield Raw("POST", path, {**_SUMMARY, "event_summaries": tally})
    for name in _SUMMARY:
        yield Raw("POST", path, {key: one for key, one in _SUMMARY.items() if key != name})
    late = {**_TALLY, "first": _TALLY["last"] + 1}
    yield Raw("POST", path, {**_SUMMARY, "event_summaries": late}, unsaid=_RELATION)


#: The documentation's requests, and each kind of invalid request.
RAW: Sequence[Raw] = tuple(_raw_requests())


class Judge:
    """openapi-core with a description; validates requests and answers.

    Args:
        description: The description, parsed.
        url: The server's address, which replaces those in the description.
    """

    def __init__(self, description: dict[str, Any], url: str) -> None:
        from openapi_core import Config, OpenAPI

        self._api = OpenAPI.from_dict(
            {**description, "servers": [{"url": url}]},
            # Otherwise, a sent field that the description lacks would be valid.
            config=Config(additional_properties_default_policy="forbid"),
        )
        self._parameters = {
            (path, method): {one["name"] for one in operation.get("parameters", ())}
            for path, operations in description["paths"].items()
            for method, operation in operations.items()
        }

    def request(self, request: httpx.Request) -> str | None:
        """Returns what is wrong with a request, or None."""
        from openapi_core.exceptions import OpenAPIError

        try:
            self._api.validate_request(_asked(request))
        except OpenAPIError as error:
            return _reason(error)
        # openapi-core ignores parameters that are not described.
        known = self._parameters[request.url.path, request.method.lower()] | _CURSORS
        unknown = set(request.url.params) - known
        return f"undescribed parameters: {', '.join(sorted(unknown))}" if unknown else None

    def answer(self, request: httpx.Request, response: httpx.Response) -> str | None:
        """Returns what is wrong with an answer, or None."""
        from openapi_core.exceptions import OpenAPIError

        try:
            self._api.validate_response(_asked(request), _answered(response))
        except OpenAPIError as error:
            return _reason(error)
        return None


def run(description: Path) -> Report:
    """Runs all scenarios against the emulator, and validates the exchanges."""
    import yaml

    report = Report(f"openapi-core {version('openapi-core')}")
    counts = Counter[str]()
    fixture = Fixture()
    with fixture.serve() as url:
        judge = Judge(yaml.safe_load(description.read_text(encoding="utf-8")), url)
        for kind in KINDS:
            _of_a_client(fixture, url, kind, judge, report, counts)
        _raw(fixture, url, judge, report, counts)
    report.compared = [
        f"{len(SCENARIOS) * len(KINDS)} scenarios of both clients ({', '.join(KINDS)})",
        f"{counts['said']} requests of these scenarios, with their answers",
        f"{counts['beyond']} of these requests are not described, and were rejected",
        f"{counts['taken']} raw requests that both the description and the emulator accept",
        f"{counts['refused']} raw requests that both the description and the emulator reject",
        f"{counts['unsaid']} raw requests that only the emulator rejects: {_RELATION}",
    ]
    return report


def _of_a_client(
    fixture: Fixture, url: str, kind: str, judge: Judge, report: Report, counts: Counter[str]
) -> None:
    def before(name: str) -> None:
        fixture.doing = name

    for outcome in perform(url, kind, before):
        said = [one for one in fixture.exchanges if one.doing == outcome.name]
        counts["said"] += len(said)
        wrong = [] if outcome.wrong is None else [outcome.wrong]
        if not said:
            wrong.append("nothing was sent")
        for exchange in said:
            refused = judge.request(exchange.request)
            if outcome.scenario.beyond is None:
                wrong += _shown(exchange, "request", refused)
            elif refused is None:
                wrong.append(_ALLOWED)
            else:
                counts["beyond"] += 1
            wrong += _shown(exchange, "answer", judge.answer(exchange.request, exchange.response))
        report.violations += [f"{outcome.name}: {one}" for one in wrong]


def _raw(fixture: Fixture, url: str, judge: Judge, report: Report, counts: Counter[str]) -> None:
    with httpx.Client(base_url=url, trust_env=False) as client:
        for number, raw in enumerate(RAW):
            fixture.doing = f"raw: {raw.method} {raw.target} {json.dumps(raw.body)} {raw.headers}"
            headers = {"Authorization": f"Bearer raw-{number}", **raw.headers}
            response = client.request(raw.method, raw.target, json=raw.body, headers=headers)
            exchange = fixture.exchanges[-1]
            refused = judge.request(exchange.request)
            wrong = _shown(exchange, "answer", judge.answer(exchange.request, exchange.response))
            if response.is_success != raw.good:
                wrong.append(f"the emulator answered {response.status_code}: {response.text}")
            if (refused is None) != (raw.good or raw.unsaid is not None):
                wrong.append(f"the description rejects it: {refused}" if refused else _ALLOWED)
            if raw.unsaid is not None:
                counts["unsaid"] += 1
            else:
                counts["taken" if raw.good else "refused"] += 1
            report.violations += [f"{exchange.doing}: {one}" for one in wrong]


def _shown(exchange: Exchange, what: str, wrong: str | None) -> list[str]:
    if wrong is None:
        return []
    request, response = exchange.request, exchange.response
    said = (
        f"{request.method} {request.url.raw_path.decode()} {request.content.decode()}"
        if what == "request"
        else f"{response.status_code} {response.text}"
    )
    return [f"its {what} does not match the description: {wrong}\n{said}"]


def _reason(error: BaseException) -> str:
    """Returns an error with its causes, because the outermost gives no reason."""
    said = [str(error)]
    for one in getattr(error.__cause__, "schema_errors", ()):
        said.append(f"{'/'.join(map(str, one.absolute_path)) or 'it'}: {one.message}")  # noqa: PERF401
    if len(said) == 1 and error.__cause__ is not None:
        said.append(str(error.__cause__))
    return "; ".join(said)


@attrs.define
class _Asked:
    host_url: str
    path: str
    method: str
    content_type: str
    body: bytes | None
    parameters: Any


@attrs.define
class _Answered:
    status_code: int
    content_type: str
    headers: dict[str, str]
    data: bytes


def _asked(request: httpx.Request) -> _Asked:
    from openapi_core.datatypes import RequestParameters
    from werkzeug.datastructures import Headers, ImmutableMultiDict

    url = request.url
    return _Asked(
        host_url=f"{url.scheme}://{url.netloc.decode()}",
        path=url.path,
        method=request.method.lower(),
        content_type=request.headers.get("content-type", ""),
        body=request.content or None,
        parameters=RequestParameters(
            query=ImmutableMultiDict(url.params.multi_items()),
            header=Headers(list(request.headers.multi_items())),
        ),
    )


def _answered(response: httpx.Response) -> _Answered:
    return _Answered(
        status_code=response.status_code,
        content_type=response.headers.get("content-type", ""),
        headers=dict(response.headers),
        data=response.content,
    )
