"""Every failure is the right member of the tree, says what to do, and gives nothing away."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import traceback
from typing import get_args

import httpx
import pytest
from secrecy import TOKEN, reachable

import intercom_data_events as package
from intercom_data_events import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    DataEventsClient,
    IntercomError,
    IntercomVersion,
    InvalidInputError,
    InvalidVersionError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    UnprocessableEntityError,
    errors,
)
from intercom_data_events.emulator import EmulatedContact, Emulator

TREE = {
    400: BadRequestError,
    401: AuthenticationError,
    402: APIStatusError,
    403: PermissionDeniedError,
    404: NotFoundError,
    405: APIStatusError,
    408: APIStatusError,
    409: ConflictError,
    413: APIStatusError,
    422: UnprocessableEntityError,
    429: RateLimitError,
    300: APIStatusError,
    **dict.fromkeys((500, 501, 502, 503, 504, *range(520, 528), 599), ServerError),
}


def failure(status, code="some_code", **fields):
    body = {"type": "error.list", "request_id": "b3ae", "errors": [{"code": code, **fields}]}
    return httpx.Response(status, json=body)


def raised(call, use=lambda client: client.create("placed-order", user_id="1"), **options):
    with pytest.raises(IntercomError) as caught:
        call(use, **options)
    return caught.value


def test_a_status_is_its_member_of_the_tree_with_all_that_the_answer_says(answering):
    for status, kind in TREE.items():
        call, _ = answering(failure(status, message="Said so", field="user_id"))

        error = raised(call)

        assert type(error) is kind, status
        assert error.status_code == error.response.status_code == status
        assert error.codes == ("some_code",)
        assert (error.message, error.field, error.request_id) == ("Said so", "user_id", "b3ae")
        assert b"some_code" in error.response.content
        for part in (str(status), "POST /events", "Said so", "some_code", "user_id", "b3ae"):
            assert part in str(error)


def test_only_a_servers_failure_leaves_open_what_became_of_an_event(answering):
    possible = {}
    for status in (*TREE, 302, 303, 399, 444, 460, 498, 499):
        call, _ = answering(failure(status))
        error = raised(call)
        possible[status] = error.may_have_been_processed
        said = str(error).endswith("; the request may have been processed")
        assert said is error.may_have_been_processed, status

    # 408 and those of load balancers (444, 460, 499) say that something stopped waiting for the
    # request, which may have been handed on; and a redirect may lead to what came of it.
    assert possible == {
        status: not 400 <= status < 500 or status in (408, 444, 460, 499) for status in possible
    }


def test_a_question_takes_no_effect(answering):
    for failed in (failure(401), failure(500), httpx.ReadError("reset"), httpx.ReadTimeout("slow")):
        call, _ = answering(failed)

        error = raised(call, lambda client: client.summary(user_id="1"))

        assert not error.may_have_been_processed, failed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", None),
        (b"<html><h1>502 Bad Gateway</h1></html>", "502 Bad Gateway"),
        (b"upstream connect error", "upstream connect error"),
        (b'{"type": "error.list", "err', '{"type": "error.list", "err'),
        (b"\xff\xfe\x00\x80", None),
        (b"null", None),
        (b"[]", None),
        (b"5", "5"),
        (b'{"errors": null}', None),
        (b'{"errors": {"code": 1}}', "1"),
        (b'{"errors": [null, 5, "a", {}]}', "5"),
        (b'{"errors": [{"code": null, "message": 5, "field": []}], "request_id": 5}', "5"),
        (b"[" * 100_000, None),
    ],
    ids=lambda content: repr(content)[:40],
)
def test_a_failure_can_have_any_body(answering, content, message):
    for status in (404, 503, 520):
        call, _ = answering(httpx.Response(status, content=content))

        error = raised(call)

        assert type(error) is TREE[status]
        assert (error.codes, error.field, error.request_id) == ((), None, None)
        assert error.message == message
        assert error.response.content == content
        assert isinstance(error.response.text, str)


def test_what_a_cause_says_of_the_request_is_not_whom_it_was_about(answering):
    call, _ = answering(httpx.ReadError("reset"))

    error = raised(call, lambda client: client.summary(email="a@b.co"), access_token=TOKEN)

    assert str(error.__cause__.request.url) == "https://api.intercom.io/events"
    assert dict(error.__cause__.request.headers).keys() == {"host"}


def test_empty_words_of_an_answer_are_none(answering):
    call, _ = answering(failure(422, code="", message="", field=""))

    error = raised(call)

    assert (error.codes, error.message, error.field) == ((), None, None)


def test_a_redirect_is_not_followed(answering):
    for status in (300, 301, 302, 303, 307, 308):
        call, transport = answering(
            httpx.Response(status, headers={"Location": "https://evil.example"})
        )

        error = raised(call)

        assert type(error) is APIStatusError, status
        assert "check the base URL" in str(error)
        assert error.response.headers["location"] == "https://evil.example"
        assert len(transport.requests) == 1, status


def test_several_reasons_are_all_told(answering):
    reasons = [{"code": "a", "message": "First"}, {"code": "b"}]
    call, _ = answering(httpx.Response(422, json={"errors": reasons}))

    error = raised(call)

    assert error.codes == ("a", "b")
    assert "First (a); b" in str(error)


def test_the_request_id_of_the_header_counts(answering):
    call, _ = answering(httpx.Response(500, headers={"X-Request-Id": "from the header"}))

    assert raised(call).request_id == "from the header"


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "access token"),
        (403, "access token does not permit"),
        (404, "check the base URL"),
        (409, "several contacts share"),
        (429, "rate limit"),
    ],
)
def test_a_message_says_what_it_means(answering, status, advice):
    call, _ = answering(httpx.Response(status))

    assert advice in str(raised(call))


def test_a_refused_version_is_an_error_of_its_own(call):
    error = raised(call, version="9.9")

    assert type(error) is InvalidVersionError
    assert error.codes == ("intercom_version_invalid",)


def test_an_unknown_contact_is_not_found(calling):
    emulator = Emulator(contacts=[EmulatedContact(user_id="1")])
    call = calling(emulator.transport())

    error = raised(call, lambda client: client.create("placed-order", user_id="2"))

    assert type(error) is NotFoundError
    assert (error.codes, error.message) == (("not_found",), "User Not Found")


def test_a_failure_of_the_connection_says_whether_the_event_may_have_arrived(answering):
    failures = {
        httpx.ConnectError("refused"): (APIConnectionError, False),
        httpx.ConnectTimeout("slow"): (APITimeoutError, False),
        httpx.PoolTimeout("full"): (APITimeoutError, False),
        httpx.ProxyError("407"): (APIConnectionError, False),
        httpx.UnsupportedProtocol("gopher"): (APIConnectionError, False),
        httpx.LocalProtocolError("illegal header"): (APIConnectionError, True),
        httpx.WriteError("reset"): (APIConnectionError, True),
        httpx.WriteTimeout("slow"): (APITimeoutError, True),
        httpx.ReadError("reset"): (APIConnectionError, True),
        httpx.ReadTimeout(""): (APITimeoutError, True),
        httpx.RemoteProtocolError("cut short"): (APIConnectionError, True),
        httpx.DecodingError("bad gzip"): (APIConnectionError, True),
    }
    for problem, (kind, possible) in failures.items():
        call, _ = answering(problem)

        error = raised(call)

        assert (type(error), error.may_have_been_processed) == (kind, possible), problem
        assert ("may have been processed" in str(error)) is possible
        assert str(error).startswith("POST /events: ")
        assert error.__cause__ is problem
        if not str(problem):
            assert type(problem).__name__ in str(error)


def test_an_answer_that_repeats_the_token_has_it_taken_out(answering):
    for status in (401, 200):
        headers = {"X-Echo": f"Bearer {TOKEN}"}
        body = {"errors": [{"code": "a", "message": f"Bearer {TOKEN} is bad"}]}
        call, _ = answering(httpx.Response(status, json=body, headers=headers))

        error = raised(call, lambda client: client.summary(user_id="1"), access_token=TOKEN)

        assert TOKEN not in str(error)
        assert TOKEN.encode() not in pickle.dumps(error)
        assert "[access token] is bad" in error.response.text
        assert error.response.headers["x-echo"] == "Bearer [access token]"


def test_a_header_that_is_named_like_the_token_is_renamed(answering):
    token = TOKEN.rstrip("=")
    call, _ = answering(httpx.Response(404, headers={token: "1"}))

    error = raised(call, access_token=token)

    assert error.response.headers["access-token"] == "1"
    assert token.lower().encode() not in pickle.dumps(error).lower()


def test_what_an_answer_says_cannot_forge_lines_or_stop_a_terminal(answering):
    message = "a\n\x1b[31mFAKE\ud800" + "b" * 1000
    body = json.dumps({"errors": [{"code": "a", "message": message}]})
    call, _ = answering(httpx.Response(422, content=body))

    said = str(raised(call))

    said.encode()
    assert said.isprintable()
    assert len(said) < 800


@pytest.mark.parametrize("location", ["javascript:x", "http://" + "a" * 70_000, "http://a..b"])
def test_a_redirect_to_what_is_no_address_is_an_error_of_ours(answering, location):
    call, _ = answering(httpx.Response(307, headers={"Location": location}))

    assert isinstance(raised(call), APIConnectionError | APIStatusError)


@pytest.mark.parametrize("verb", ["list", "summary"])
def test_an_identity_that_no_address_can_hold_is_refused(call, emulator, verb):
    with pytest.raises(InvalidInputError, match="address of the request is not valid"):
        call(lambda client: getattr(client, verb)(user_id="x" * 70_000))

    assert emulator.requests == ()


# What to do next.


KNOWN = [
    EmulatedContact(user_id="1", email="shared@example.com"),
    EmulatedContact(user_id="2", email="shared@example.com"),
]


@pytest.mark.parametrize(
    ("use", "named"),
    [
        (lambda c: c.create("a", user_id="314159"), "user_id '314159'"),
        (lambda c: c.create("a", id="63a0979a5eeebeaf28dd56ba"), "id '63a0979a5eeebeaf28dd56ba'"),
        (lambda c: c.create("a", user_id="9", email="frodo@example.com"),
         "user_id '9' and email 'f…@example.com'"),
        (lambda c: c.list(user_id="314159"), "user_id '314159'"),
        (lambda c: c.list(email="frodo@example.com"), "email 'f…@example.com'"),
        (lambda c: c.summary(intercom_user_id="63a0"), "intercom_user_id '63a0'"),
        (lambda c: c.create_summary(user_id="314159", event_name="a", count=1, first=1, last=2),
         "user_id '314159'"),
        (lambda c: c.list(since="type=user&user_id=314159&since=1"), "user_id '314159'"),
    ],
)  # fmt: skip
def test_a_message_names_the_contact_that_was_not_found(calling, use, named):
    call = calling(Emulator(contacts=KNOWN).transport())

    error = raised(call, use)

    assert type(error) is NotFoundError
    assert f"no contact with {named} in" in str(error)
    # What asks does not hear of sending events.
    assert ("create the contact first" in str(error)) is ("POST" in str(error))
    assert ("check the identity" in str(error)) is ("GET" in str(error))
    assert "frodo@" not in str(error)


def test_a_message_names_the_version_that_is_refused_and_those_that_are_known(calling):
    call = calling(Emulator(versions=["2.14"]).transport())

    error = raised(call, version="2.9")

    assert type(error) is InvalidVersionError
    assert "does not accept the API version 2.9, which exists" in str(error)
    assert "set the version, or INTERCOM_VERSION, to one of" in str(error)
    known = (
        str(error)
        .partition("INTERCOM_VERSION, to one of ")[2]
        .partition(". Intercom")[0]
        .split(", ")
    )
    assert set(known) == set(get_args(IntercomVersion))
    numbers = [tuple(map(int, version.split("."))) for version in known if version[0].isdigit()]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("verb", ["create", "list", "summary"])
def test_a_message_says_that_an_address_is_shared_and_what_to_use_instead(calling, verb):
    call = calling(Emulator(contacts=KNOWN).transport())

    arguments = ["placed-order"] if verb == "create" else []
    error = raised(call, lambda c: getattr(c, verb)(*arguments, email="shared@example.com"))

    assert type(error) is ConflictError
    assert "several contacts share the email 's…@example.com'; use user_id or id" in str(error)


@pytest.mark.parametrize("verb", ["create", "create_summary"])
def test_a_message_says_that_the_names_are_used_up_and_which_is_one_too_many(calling, verb):
    emulator = Emulator()
    call = calling(emulator.transport())
    with DataEventsClient("token", transport=emulator.transport()) as client:
        for number in range(120):
            client.create(f"name-{number}", user_id="1")

    times = {} if verb == "create" else {"count": 1, "first": 1, "last": 2}
    error = raised(call, lambda c: getattr(c, verb)(event_name="one-more", user_id="1", **times))

    assert type(error) is UnprocessableEntityError
    assert "maximum number of event names, so Intercom rejects the new name 'one-more'" in str(
        error
    )
    assert "archive names" in str(error)


@pytest.mark.parametrize("content", [b"", b"<html>Not here</html>"])
def test_a_404_that_is_not_intercoms_may_be_a_wrong_address(answering, content):
    call, _ = answering(httpx.Response(404, content=content))

    assert "nothing at this address; check the base URL" in str(raised(call))


def all_errors(answering):
    for answer in (
        failure(401, message="Access Token Invalid"),
        failure(500),
        failure(400, "intercom_version_invalid"),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(302, headers={"Location": "https://evil.example"}),
        httpx.ReadTimeout("slow"),
        httpx.ConnectError("refused"),
    ):
        call, _ = answering(answer)
        yield raised(call, access_token=TOKEN)
        yield raised(call, lambda client: client.list(email="a@b.co"), access_token=TOKEN)
    call, _ = answering(httpx.Response(202))
    for given in (
        {"event_name": ""},
        {"event_name": "a"},
        {"event_name": "a", "user_id": "1", "created_at": True},
        {"event_name": "a", "user_id": "1", "metadata": {"a": None}},
    ):
        yield raised(call, lambda client, given=given: client.create(**given), access_token=TOKEN)
    yield raised(call, access_token=TOKEN + "\n")
    yield raised(call, access_token=lambda: TOKEN + " ")
    yield raised(call, access_token=TOKEN, version="latest")


def test_errors_survive_pickling_and_copying(answering):
    kinds = set()
    for error in all_errors(answering):
        for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(twin) is type(error)
            assert str(twin) == str(error)
            assert twin.may_have_been_processed == error.may_have_been_processed
            for name in (
                "codes", "message", "field", "status_code", "request_id", "key", "tries", "elapsed",
            ):  # fmt: skip
                assert getattr(twin, name, None) == getattr(error, name, None)
            if hasattr(error, "response"):
                assert twin.response.content == error.response.content
                assert twin.response.headers == error.response.headers
        kinds.add(type(error))
    assert len(kinds) >= 11


def test_nothing_that_an_error_holds_has_the_token_or_request_headers(answering):
    for error in all_errors(answering):
        shown = [str(error), repr(error), "".join(traceback.format_exception(error))]
        shown += [repr(thing) for thing in reachable(error)]
        assert not [text for text in shown if TOKEN in text], type(error)
        assert not [t for t in reachable(error) if isinstance(t, bytes) and TOKEN.encode() in t]
        assert TOKEN.encode() not in pickle.dumps(error)


def test_nothing_is_logged_that_is_secret(answering):
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    root = logging.getLogger("intercom_data_events")
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        assert list(all_errors(answering))
    finally:
        root.removeHandler(handler)
        root.setLevel(logging.NOTSET)

    assert "POST /events" in written.getvalue()
    assert TOKEN not in written.getvalue()
    assert "a@b.co" not in written.getvalue()


def test_the_tree_in_the_docstring_is_the_tree():
    drawn: list[tuple[int, str, str]] = []
    path: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        name = line.lstrip("│├└─ ").split(" ")[0]
        if name.endswith("Error") and (line.strip()[0] in "│├└" or name == "IntercomError"):
            depth = (len(line) - len(line.lstrip("│├└─ "))) // 4
            path[depth] = name
            drawn.append((depth, name, path.get(depth - 1, "Exception")))

    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, IntercomError)
    ]
    assert {(name, parent) for _, name, parent in drawn} == {
        (kind.__name__, kind.__bases__[0].__name__) for kind in kinds
    }
    assert {kind.__name__ for kind in kinds} <= set(package.__all__)
