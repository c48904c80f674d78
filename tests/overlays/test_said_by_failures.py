"""What a failure says is shown whatever its shape, and its message names thing, place, remedy."""

from __future__ import annotations

import html
import json
import socket
import ssl
import time

import anyio
import httpx
import pytest
from callers import Caller, Refusing, every_driver, every_library, with_own
from raw_server import RawServer
from secrecy import TOKEN, reachable

from intercom_data_events import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncDataEventsClient,
    BadRequestError,
    DataEventsClient,
    IntercomError,
    InvalidResponseError,
    InvalidVersionError,
)
from intercom_data_events.emulator import Emulator
from intercom_data_events.tracker import Tracker


def create(client):
    return client.create("placed-order", user_id="1")


def listed(code, **fields):
    return {"type": "error.list", "request_id": "b3ae", "errors": [{"code": code, **fields}]}


def raised(call, use=create, kind=IntercomError, **options):
    with pytest.raises(kind) as caught:
        call(use, **{"max_retries": 0, **options})
    return caught.value


def said(answering, status, body, use=create, **options):
    """The error that a client makes of an answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    call, _ = answering(httpx.Response(status, content=content))
    return raised(call, use, APIStatusError, **options)


@pytest.fixture
def sending(calling):
    """A client with connections of its own, as a program has it."""
    return calling(None)


# The words.


@pytest.mark.parametrize(
    ("body", "message", "codes", "field"),
    [
        # Lists, at the top or below a key.
        ({"errors": ["is too long", "is odd"]}, "is too long", (), None),
        (["is too long"], "is too long", (), None),
        ([{"code": "too_long", "message": "is too long"}], "is too long", ("too_long",), None),
        ({"errors": [["is too long"]]}, "is too long", (), None),
        ({"message": ["one", "two"]}, "one; two", (), None),
        ({"message": [["one"]]}, "one", (), None),
        ({"error": ["one", "two"]}, "one", (), None),
        ({"Errors": ["is odd"]}, "is odd", (), None),
        ({"Error": {"Code": "Denied", "Message": "No"}}, "No", ("Denied",), None),
        ({"errorMessage": "No"}, "No", (), None),
        # By field.
        ({"errors": [{"field": "email", "errors": ["is odd"]}]}, "is odd", (), "email"),
        ({"ERRORS": {"created_at": ["is too old"]}}, "is too old", (), "created_at"),
        ({"errors": {"created_at": ["is too old"]}}, "is too old", (), "created_at"),
        ({"errors": {"created_at": "is too old"}}, "is too old", (), "created_at"),
        ({"errors": {"title": ["is blank"]}}, "is blank", (), "title"),
        ({"created_at": ["is too old"]}, "is too old", (), "created_at"),
        ({"errors": {"metadata": {"price": ["is odd"]}}}, "is odd", (), "price"),
        # One key with a string or an object.
        ({"error": "Request Entity Too Large"}, "Request Entity Too Large", (), None),
        ({"error": "not so"}, "not so", (), None),
        ({"error": {"message": "No", "type": "bad_thing"}}, "No", ("bad_thing",), None),
        ({"error": {"message": "No", "code": "odd", "param": "id"}}, "No", ("odd",), "id"),
        ({"error": "invalid_token"}, "invalid_token", ("invalid_token",), None),
        ({"errors": "not so"}, "not so", (), None),
        ({"message": "no Route matched"}, "no Route matched", (), None),
        ({"Message": "User is not authorized"}, "User is not authorized", (), None),
        ({"detail": "Not found."}, "Not found.", (), None),
        ({"message": "Invalid", "errors": {"a": ["b"]}}, "Invalid", (), "a"),
        ({"reply": {"text": "Go away"}}, "Go away", (), "text"),
        # Of standards.
        ({"type": "about:blank", "title": "No", "detail": "Not so"}, "No: Not so", (), None),
        ({"error": "invalid_token", "error_description": "expired"}, "expired",
         ("invalid_token",), None),
        ({"status": 404, "error": "Not Found", "message": "No page"}, "Not Found: No page", (),
         None),
        # What is no string.
        ({"errors": [{"code": "odd", "message": 5}]}, "5", ("odd",), None),
        ({"error": 1016}, "1016", (), None),
        ({"message": None, "error": True}, None, (), None),
        ({"message": {"a": 1.5}}, "1.5", (), "a"),
        ("Forbidden", "Forbidden", (), None),
        # Pages and plain text.
        (b"upstream connect error\n or reset", "upstream connect error or reset", (), None),
        (b"<html><title>\n502 Bad &amp; Gateway</title><h1>x</h1>", "502 Bad & Gateway", (), None),
        (b"<!doctype html><h1>Who <i>are</i> you?</h1>", "Who are you?", (), None),
        (b"<html><title></title><h2>Second</h2>", "Second", (), None),
        (b"<style>a {}</style><p>Access denied<script>b()</script>", "Access denied", (), None),
        (b"<Error><Message>Denied</Message></Error>", "Denied", (), None),
        (b"\xef\xbb\xbf<title>Gone</title>", "Gone", (), None),
    ],
    ids=lambda one: str(one)[:50],
)  # fmt: skip
def test_the_words_of_a_failure_are_shown_whatever_their_shape(
    answering, body, message, codes, field
):
    for status in (400, 404, 503):
        error = said(answering, status, body)

        assert (error.message, error.codes, error.field) == (message, codes, field)
        assert f" says: {message}" in str(error) or message is None
        assert "None" not in str(error)
        assert all(code in str(error) for code in codes)
        assert field is None or f"at {field}" in str(error)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<script>a = '<h1>No</h1>'</script><h1>Denied</h1>", "Denied"),
        (b"<style>/* <title>No</title> */</style><title>Denied</title>", "Denied"),
        (b"<!-- <title>No</title> --><p>Denied</p>", "Denied"),
        (b"<!-- <script>x</script><h1>No</h1> --><h1>Denied</h1>", "Denied"),
        (b"<!--[if gt IE 8]><!--> <title>Denied</title> <!--<![endif]-->", "Denied"),
        (b"<p>Denied<script>no end <h1>No</h1>", "Denied"),
        (b"<Message><![CDATA[Denied]]></Message>", "Denied"),
    ],
)
def test_what_a_page_does_not_show_is_not_what_it_says(answering, body, message):
    assert said(answering, 403, body).message == message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"])
@pytest.mark.parametrize("page", ["<title>Größe verweigert</title>", "<p>Größe verweigert"])
def test_words_are_read_in_other_encodings(answering, encoding, page):
    assert said(answering, 403, page.encode(encoding)).message == "Größe verweigert"


def test_no_words_are_said_twice(answering):
    assert str(said(answering, 400, {"error": ["one", "two"]})).endswith("says: one; two")


def test_words_are_bounded_and_harmless_and_on_one_line(answering):
    escape = "\x1b]0;owned\x07\u202e\r\nFAKE "
    for body in (
        {"errors": [escape * 5000]},
        {"errors": {escape * 5000: ["x"]}},
        {"error": {"message": escape * 5000, "type": escape}},
        {"errors": [escape] * 5000},
        f"<title>{escape * 5000}</title>".encode(),
        (escape * 5000).encode(),
    ):
        error = said(answering, 404, body)

        assert str(error).isprintable()
        assert len(str(error)) < 2000
        for words in (error.message or "", error.field or "", *error.codes):
            assert words.isprintable()
            assert len(words) <= 501


def test_a_large_or_deep_body_costs_little(answering):
    million = 1_000_000
    for content in (
        b"[" * million,
        b'{"a":' * (million // 5),
        b'{"errors":' * 900 + b"1" + b"}" * 900,
        b"[" + b"null," * (million // 6) + b"1]",
        b"<" * million,
        b"<h1" * (million // 3),
        b"<title>" * (million // 7),
        b"<script" * (million // 7),
        b"<script></script" * (million // 16),
        b"<!--" * (million // 4),
        b"<&amp" * (million // 5),
        b" " * million,
    ):
        began = time.process_time()
        error = said(answering, 404, content)

        assert time.process_time() - began < 5
        assert len(str(error)) < 2000


def test_the_token_stays_out_of_words_that_escape_it(answering):
    for body in (
        f"<title>{html.escape(TOKEN).replace('=', '&#x3D;')} is bad</title>".encode(),
        json.dumps({"error": f"{TOKEN} is bad"}).replace("=", "\\u003d").encode(),
        json.dumps({"errors": {TOKEN: ["bad"]}}).replace("=", "\\u003d").encode(),
    ):
        error = said(answering, 401, body, access_token=TOKEN)

        assert "[access token]" in str(error)
        assert "[access token]" in f"{error.message} {error.field}"
        assert not [one for one in reachable(error) if isinstance(one, str) and TOKEN in one]


def test_words_that_are_not_intercoms_have_another_speaker(answering):
    assert "Intercom says: No (odd)" in str(said(answering, 400, listed("odd", message="No")))
    for body in ({"errors": ["No"]}, {"error": {"message": "No"}}, b"No"):
        assert "The answer says: No" in str(said(answering, 400, body))


def test_a_success_that_is_a_page_has_its_words_and_its_place(answering):
    call, _ = answering(httpx.Response(200, content=b"<title>Sign in to Wi-Fi</title>"))

    error = raised(call, lambda client: client.summary(user_id="1"), InvalidResponseError)

    assert "The answer says: Sign in to Wi-Fi" in str(error)
    assert "(https://api.intercom.io:443, region us, through your transport)" in str(error)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (listed("token_expired", message="No"), "No (token_expired)"),
        ({"errors": [{"message": "No", "field": "id"}]}, "No at id"),
        ({"error": {"message": "No"}}, "No"),
        ({"message": "No"}, "No"),
    ],
)
def test_a_success_that_reports_a_failure_has_its_words(answering, body, words):
    for use in (lambda c: c.list(user_id="1"), lambda c: c.summary(user_id="1")):
        call, _ = answering(httpx.Response(200, json=body))
        error = raised(call, use, InvalidResponseError)

        assert f"it must have events. The answer says: {words}" in str(error)


def test_a_success_that_is_something_else_shows_none_of_it(answering):
    for body in ({"email": "a@b.co"}, {"user": {"name": "Jane"}}, {"events": {"email": "a@b.co"}}):
        call, _ = answering(httpx.Response(200, json=body))
        message = str(raised(call, lambda c: c.summary(user_id="1"), InvalidResponseError))

        assert "says" not in message
        assert "a@b.co" not in message


# A code says more than a status.


@pytest.mark.parametrize(
    ("code", "usual", "others"),
    [
        ("conflict", 409, (400, 403, 422)),
        ("not_found", 404, (400, 409, 422)),
        ("unauthorized", 401, (400, 404, 422)),
        ("token_revoked", 401, (403, 404)),
        ("forbidden", 403, (400, 401)),
        ("api_plan_restricted", 402, (400, 403, 404)),
        ("rate_limit_exceeded", 429, (400, 403)),
        ("intercom_version_invalid", 400, (403, 404, 422)),
    ],
)
def test_a_code_gets_its_advice_under_any_status(answering, code, usual, others):
    def advice(status):
        return str(said(answering, status, listed(code))).partition("POST /events: ")[2]

    for status in others:
        assert advice(status) == advice(usual)
    assert advice(usual).partition(". Intercom says")[0] in advice(500)
    assert "Intercom or a proxy in front of it failed" in advice(500)


def test_of_several_codes_a_systemic_one_counts(answering):
    body = {"errors": [{"code": "not_found"}, {"code": "token_expired"}]}

    assert "the access token is missing, wrong" in str(said(answering, 404, body))


def test_a_code_of_another_server_is_not_intercoms(answering):
    for body in ({"error": {"code": "not_found"}}, {"error": "conflict"}, [{"code": "conflict"}]):
        error = said(answering, 400, body)

        assert type(error) is BadRequestError
        assert "the answer is not in Intercom's format; check the base URL" in str(error)


# Remedies.


@pytest.mark.parametrize("body", [b"", b"<h1>Denied</h1>", b'{"message": "no Route"}', b"Denied"])
def test_an_answer_that_is_not_intercoms_says_so_and_names_region_and_proxy(
    sending, monkeypatch, body
):
    proxy = RawServer(lambda connection: answer(connection, status, body))
    with proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url.replace("://", "://me:s3cr3t@"))
        for status in (401, 403, 404, 405, 407):
            error = raised(sending, base_url="http://a.example/x", allow_http=True)

            assert "not in Intercom's format" in str(error) or (
                status == 404 and "nothing at this address" in str(error)
            )
            assert f"(http://a.example:80, through the proxy {proxy.url} (ALL_PROXY))" in str(error)
            assert "s3cr3t" not in str(error)


def answer(connection, status, body):
    connection.request()
    head = f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    connection.send(head.encode() + body)


def test_an_answer_that_is_not_intercoms_names_the_region(answering):
    for region in ("us", "eu", "au"):
        for status in (401, 403, 404):
            assert f", region {region}, " in str(said(answering, status, b"No", region=region))


def test_a_version_that_is_known_may_be_one_that_the_app_lacks(calling):
    known = ("2.9", "1.4", "Preview", "Unstable")
    for version, is_known in (*((one, True) for one in known), ("9.9", False)):
        call = calling(Emulator(versions=["2.14"]).transport())

        error = raised(call, kind=InvalidVersionError, version=version)

        assert (
            ", which exists but is not available for the app or the resource;" in str(error)
        ) is is_known


def test_404_by_e_mail_says_how_a_lead_is_known(calling):
    call = calling(Emulator(contacts=[]).transport())
    for use in (
        lambda c: c.create("a", email="a@b.co"),
        lambda c: c.list(email="a@b.co"),
        lambda c: c.summary(email="a@b.co"),
    ):
        message = str(raised(call, use))
        assert "for a lead, pass its id in Intercom, because it has no other identity" in message
    for use in (
        lambda c: c.create("a", user_id="5"),
        lambda c: c.create("a", email="a@b.co", id="5"),
        lambda c: c.list(user_id="5"),
    ):
        assert "lead" not in str(raised(call, use))


@pytest.mark.parametrize(
    "given", ["jane.public@b.co", "jane.public", "jane.public@", "@jane.public@b"]
)
def test_a_message_shows_a_part_of_an_e_mail_address(calling, given):
    call = calling(Emulator(contacts=[]).transport())

    message = str(raised(call, lambda client: client.create("a", email=given)))

    assert f"no contact with email '{given[0]}…" in message
    assert "jane.public" not in message


def test_404_of_a_query_does_not_speak_of_sending(calling):
    call = calling(Emulator(contacts=[]).transport())
    for use in (
        lambda c: c.list(user_id="5"),
        lambda c: c.summary(email="a@b.co"),
        lambda c: c.contact(id="5").summary(),
    ):
        message = str(raised(call, use))
        assert "create the contact" not in message
        assert "accepts events" not in message


def test_a_bare_422_names_the_limit_of_names_where_a_name_was_sent(answering):
    def summary(client):
        return client.create_summary(user_id="1", event_name="one-more", count=1, first=1, last=2)

    for use, named in ((create, "'placed-order'"), (summary, "'one-more'")):
        message = str(said(answering, 422, b"", use))
        assert f"if the event name {named} is new, the workspace may have 120 active" in message
        assert "archive names" in message
    assert "120" not in str(said(answering, 422, b" ", lambda c: c.list(user_id="1")))
    assert "120" not in str(said(answering, 422, listed("odd")))


def test_a_redirect_names_where_it_leads_without_the_rest(answering):
    leads = {
        "https://me:s3cr3t@login.example/in?s3cr3t=1": "redirects to https://login.example:443 are",
        "//login.example:8080/": "redirects to https://login.example:8080 are",
        "//login.example/": "redirects to https://login.example:443 are",
        "/elsewhere": "redirects are not followed",
        "http://[": "redirects to http://%5B:80 are not",
    }
    for location, words in leads.items():
        call, _ = answering(httpx.Response(302, headers={"Location": location}))
        message = str(raised(call))
        assert words in message
        assert "check the base URL (https://api.intercom.io:443, region us" in message
        assert "s3cr3t" not in message


@every_driver
@pytest.mark.parametrize(
    "location",
    ["https://xn--zz--.example/", "mailto:me", "http://\x1b[31m.example", "http://" + "a" * 66_000],
)
def test_a_redirect_to_what_is_not_an_address_is_a_redirect(sending, location):
    head = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 15\r\n\r\n"

    def redirect(connection):
        connection.request()
        connection.send(head.encode() + b"<title>Go</title"[:15])

    with RawServer(redirect) as server:
        error = raised(sending, kind=APIStatusError, base_url=server.url)

    assert error.status_code == 302
    assert "redirects are not followed" in str(error)
    assert error.response.headers["location"] == location


# Connections.


def served(use, url, *, fast=False, **options):
    """The error of an event that the async client sends, alone or with `create_many`."""

    async def main():
        options.update(access_token="token", base_url=url, max_retries=0)
        async with AsyncDataEventsClient(**options) as client:
            if not fast:
                return await use(client)
            event = {"event_name": "a", "user_id": "1", "created_at": 1671028894}
            (outcome,) = [outcome async for outcome in client.create_many([event])]
            return outcome.error

    return anyio.run(main)


@every_driver
def test_a_refused_connection_names_scheme_host_and_port(sending):
    with Refusing() as url:
        message = str(raised(sending, kind=APIConnectionError, base_url=url))
    assert f"POST /events: no connection to {url}: " in message
    remedy = "; check the base URL, the network, and any proxy in between"
    reason = message.removesuffix(remedy)
    assert reason != message
    assert reason.endswith(("Connection refused", "All connection attempts failed"))


def test_through_aiohttp_a_connection_is_named_in_the_same_words():
    with Refusing() as url:
        message = str(served(create, url, fast=True))
    assert f"POST /events: no connection to {url}: [Errno" in message
    assert "ssl:" not in message


@every_library
def test_the_callers_own_connections_are_named_as_such(calling, library):
    call = calling(None)
    with Refusing() as url, pytest.raises(APIConnectionError) as caught:
        with_own(call, create, {}, base_url=url, max_retries=0)
    assert f"no connection to {url} through your http_client: " in str(caught.value)


def test_a_transport_of_the_callers_is_named_as_such(answering):
    for problem in (
        httpx.ReadError("gone"),
        ConnectionResetError("gone"),
        httpx.ReadTimeout("gone"),
    ):
        call, _ = answering(problem)
        message = str(raised(call, kind=APIConnectionError))
        assert "from https://api.intercom.io:443 through your transport" in message
        assert "gone" in message


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_proxy_in_between_is_named_without_its_password(sending, monkeypatch, scheme):
    with Refusing() as nowhere:
        variable = f"{scheme.upper()}_PROXY"
        monkeypatch.setenv(variable, nowhere.replace("://", "://me:s3cr3t@"))
        monkeypatch.setenv("INTERCOM_ALLOW_HTTP", "1")
        url = f"{scheme}://api.example"
        port = {"http": 80, "https": 443}[scheme]
        for error in (
            raised(sending, kind=APIConnectionError, base_url=url),
            served(create, url, fast=True),
        ):
            place = f"{url}:{port} through the proxy {nowhere} ({variable}): "
            assert f"no connection to {place}" in str(error)
            assert "s3cr3t" not in str(error)


def test_a_name_that_is_not_known_is_told_from_a_refusal(sending, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    url = "https://nowhere.invalid:8443"
    for error in (
        raised(sending, kind=APIConnectionError, base_url=url),
        served(create, url, fast=True),
    ):
        assert f"no connection to {url}: [Errno -2] Name or service not known" in str(error)
        assert "check the host names of the base URL and of any proxy, DNS" in str(error)


def test_tls_that_fails_says_what_to_look_at(sending, server_context):
    with Emulator().serve(tls=server_context) as url, Emulator().serve() as plain:
        for address, remedy in (
            (url, "set SSL_CERT_FILE to its certificate file"),
            (plain.replace("http:", "https:"), "supports TLS on this port"),
        ):
            for error in (
                raised(sending, kind=APIConnectionError, base_url=address),
                served(create, address, fast=True),
            ):
                assert f"no connection to {address}: [SSL" in str(error)
                assert remedy in str(error)
                assert any(isinstance(one, ssl.SSLError) for one in reachable(error))


def test_a_proxy_that_opens_no_tunnel_is_told_what_it_wants(sending, monkeypatch):
    remedies = {407: "set the proxy's username and password", 403: "does not allow requests"}
    with RawServer(lambda connection: answer(connection, status, b"")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        for status, remedy in remedies.items():
            for error in (
                raised(sending, kind=APIConnectionError, base_url="https://a.example"),
                served(create, "https://a.example", fast=True),
            ):
                place = f"https://a.example:443 through the proxy {proxy.url} (HTTPS_PROXY)"
                assert f"{place}: {status}" in str(error)
                assert remedy in str(error)


def test_a_time_limit_names_the_place(sending):
    with RawServer(lambda connection: connection.hold()) as silent:
        error = raised(sending, kind=APITimeoutError, base_url=silent.url, timeout=0.1)
    assert f"no answer in time from {silent.url} (" in str(error)
    assert "pass a longer timeout" in str(error)


def test_what_fails_before_a_connection_names_none():
    async def slow() -> str:
        await anyio.sleep_forever()

    call = Caller("asyncio", {"transport": httpx.MockTransport(lambda _: httpx.Response(202))})
    error = raised(call, kind=APITimeoutError, access_token=slow, timeout=0.05, deadline=0.1)

    assert str(error).startswith("POST /events: the access_token function took more than 0.0")
    assert "http" not in str(error)


def test_a_tracker_that_fails_shows_the_same():
    page = httpx.Response(403, content=b"<title>Blocked</title>")
    transport = httpx.MockTransport(lambda _: page)
    with DataEventsClient("token", transport=transport, region="eu") as client:
        tracker = Tracker(client, close_timeout=0)
        tracker.track("placed-order", user_id="1")
        ends = time.monotonic() + 20
        while tracker.counters.failing is None:
            assert time.monotonic() < ends
            tracker.flush(0.01)
        message = str(tracker.counters.failing)
        tracker.close(0)
    assert "Blocked" in message
    assert "https://api.eu.intercom.io:443, region eu, through your transport" in message
