"""Settings come from arguments, then from the environment; wrong ones are errors with a remedy."""

from __future__ import annotations

import copy
import pickle
import typing

import httpx
import pytest

import intercom_data_events
from intercom_data_events import (
    API_VERSION,
    AsyncDataEventsClient,
    ConfigurationError,
    DataEventsClient,
    IntercomVersion,
)

ACCEPTED = httpx.Response(202)
CREATE = {"event_name": "placed-order", "user_id": "1"}


def requested(answering, **options):
    """The request that a client with these options makes."""
    call, transport = answering(ACCEPTED)
    call(lambda client: client.create(**CREATE), **options)
    return transport.requests[-1]


# The version.


def test_every_request_is_for_the_version_that_the_client_was_generated_from(answering):
    call, transport = answering(httpx.Response(200, json={"events": []}))

    call(lambda client: client.list(user_id="1"))
    call(lambda client: client.summary(user_id="1"))
    call(
        lambda client: client.create_summary(user_id="1", event_name="a", count=1, first=1, last=1)
    )

    assert [r.headers.get_list("intercom-version") for r in transport.requests] == [
        [API_VERSION]
    ] * 3


def test_a_known_or_well_formed_version_is_sent(answering):
    for version in (*typing.get_args(IntercomVersion), "2.17", "3.0", "10.42", "Preview"):
        assert requested(answering, version=version).headers["intercom-version"] == version


@pytest.mark.parametrize(
    "version",
    [2.14, 2, "", "latest", "preview", "2", "v2.14", "0.9", "2.14\n", "2.14.1", "٢.١٤", b"2.1"],
)
def test_another_version_is_refused_before_sending(answering, version):
    call, transport = answering(ACCEPTED)

    with pytest.raises(ConfigurationError, match="version"):
        call(lambda client: client.create(**CREATE), version=version)
    with pytest.raises(ConfigurationError, match="version"):
        call(lambda client: client.with_options(version=version).create(**CREATE))

    assert transport.requests == []


def test_a_version_that_lost_its_quotes_is_told_how_to_get_them_back():
    with pytest.raises(ConfigurationError, match=r"pass the string '2\.14'"):
        DataEventsClient("token", version=2.14)


def test_the_version_of_the_environment_counts_after_the_argument(answering, monkeypatch):
    monkeypatch.setenv("INTERCOM_VERSION", "2.13")

    assert requested(answering).headers["intercom-version"] == "2.13"
    assert requested(answering, version="2.12").headers["intercom-version"] == "2.12"


def test_a_wrong_version_in_the_environment_is_named_as_such(monkeypatch):
    monkeypatch.setenv("INTERCOM_VERSION", "latest")

    with pytest.raises(ConfigurationError, match=r"^INTERCOM_VERSION must be an API version"):
        DataEventsClient("token")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("Intercom-Version", "pass version instead"),
        ("intercom-version", "pass version instead"),
        ("AUTHORIZATION", "pass access_token instead"),
        ("Host", "pass base_url instead"),
        ("Content-Type", "the body is always JSON"),
        ("content-length", "the client computes it from the body"),
        ("Expect", "the client always sends the body at once"),
    ],
)
def test_headers_cannot_take_the_place_of_settings_or_of_the_body(answering, name, remedy):
    call, transport = answering(ACCEPTED)

    with pytest.raises(ConfigurationError, match=f"{name}.*{remedy}"):
        call(lambda client: client.create(**CREATE), headers={name: "2.14"})
    with pytest.raises(ConfigurationError, match=f"{name}.*{remedy}"):
        call(lambda client: client.with_options(headers={name: "2.14"}).create(**CREATE))

    assert transport.requests == []


def test_further_headers_replace_the_usual_ones_whatever_their_case(answering):
    headers = {"user-agent": "shop/1", "ACCEPT": "*/*", "x-trace": "1"}

    sent = requested(answering, headers=headers).headers

    assert sent.get_list("User-Agent") == ["shop/1"]
    assert sent.get_list("Accept") == ["*/*"]
    assert sent.get_list("X-Trace") == ["1"]


def test_a_header_that_differs_in_case_replaces_the_one_before(answering):
    call, transport = answering(ACCEPTED)

    call(
        lambda client: client.with_options(headers={"x-TRACE": "2"}).create(**CREATE),
        headers={"X-Trace": "1"},
    )

    assert transport.requests[0].headers.get_list("x-trace") == ["2"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("INTERCOM_REGION", "EU"),
        ("INTERCOM_BASE_URL", "a.example"),
        ("INTERCOM_ACCESS_TOKEN", "s3cr3t\n"),
    ],
)
def test_a_wrong_setting_of_the_environment_is_named_as_such(monkeypatch, variable, value):
    monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", "token")
    monkeypatch.setenv(variable, value)

    with pytest.raises(ConfigurationError, match=f"^{variable} must ") as caught:
        DataEventsClient()

    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HTTPS_PROXY", "socks9://a.example", "^HTTPS_PROXY must be the address of a proxy"),
        (
            "SSL_CERT_FILE",
            "/nowhere",
            "^cannot read the certificates of SSL_CERT_FILE='/nowhere': .*; set it to a file",
        ),
        ("ALL_PROXY", "http://[:::", "^ALL_PROXY must be the address of a proxy"),
    ],
)
def test_connections_that_cannot_be_set_up_are_an_error_of_ours(monkeypatch, variable, value, said):
    monkeypatch.setenv(variable, value)
    client = DataEventsClient("token")

    with pytest.raises(ConfigurationError, match=said):
        client.create(**CREATE)
    client.close()


def test_preview_and_unstable_are_one_version(answering, caplog):
    call, _ = answering(httpx.Response(202, headers={"Intercom-Version": "Unstable"}))

    call(lambda client: client.create(**CREATE), version="Preview")

    assert caplog.records == []


def test_an_answer_for_the_version_asked_for_is_no_warning(call, caplog):
    call(lambda client: client.create(**CREATE), version="Preview")

    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


# Where the API is.


@pytest.mark.parametrize(
    ("options", "host"),
    [
        ({}, "api.intercom.io"),
        ({"region": "us"}, "api.intercom.io"),
        ({"region": "eu"}, "api.eu.intercom.io"),
        ({"region": "au"}, "api.au.intercom.io"),
        ({"base_url": "https://proxy.example:8443"}, "proxy.example"),
    ],
)
def test_a_region_or_an_address_says_where_the_api_is(answering, options, host):
    assert requested(answering, **options).url.host == host


@pytest.mark.parametrize(
    "base_url", ["https://proxy.example/intercom", "https://proxy.example/intercom/"]
)
def test_an_address_can_have_a_path(answering, base_url):
    url = str(requested(answering, base_url=base_url).url)

    assert url == "https://proxy.example/intercom/events"


@pytest.mark.parametrize(
    ("environment", "options", "host"),
    [
        ({"INTERCOM_REGION": "eu"}, {}, "api.eu.intercom.io"),
        ({"INTERCOM_REGION": "eu"}, {"region": "au"}, "api.au.intercom.io"),
        ({"INTERCOM_BASE_URL": "https://a.example"}, {}, "a.example"),
        ({"INTERCOM_BASE_URL": "https://a.example", "INTERCOM_REGION": "eu"}, {}, "a.example"),
        (
            {"INTERCOM_BASE_URL": "https://a.example"},
            {"base_url": "https://b.example"},
            "b.example",
        ),
        ({"INTERCOM_BASE_URL": "", "INTERCOM_REGION": ""}, {}, "api.intercom.io"),
    ],
)
def test_the_environment_counts_after_the_arguments(
    answering, monkeypatch, environment, options, host
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert requested(answering, **options).url.host == host


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"region": "mars"}, "us, eu or au"),
        ({"region": "eu", "base_url": "https://a.example"}, "either base_url or region"),
        ({"base_url": "api.intercom.io"}, "http or https"),
        ({"base_url": "ftp://a.example"}, "http or https"),
        ({"base_url": "https://"}, "http or https"),
        ({"base_url": "https://a.example?x=1"}, "without a query or fragment"),
        ({"base_url": "https://a.example#x"}, "without a query or fragment"),
        ({"base_url": "https://user:secret@a.example"}, "credentials"),
        ({"base_url": "https://[::1"}, "http or https"),
        ({"base_url": 5}, "http or https"),
        ({"base_url": "https://user:secret@a.example:port"}, "credentials"),
        ({"base_url": "https://a.example/?"}, "without a query or fragment"),
        ({"base_url": "https://a.example#"}, "without a query or fragment"),
        ({"base_url": "https://a.example "}, "http or https"),
        ({"base_url": "https://a.example/\ud800"}, "http or https"),
        ({"base_url": "https://a..example"}, "valid host and port"),
        ({"base_url": "https://a.example:101389"}, "valid host and port"),
        ({"region": ["eu"]}, "us, eu or au"),
        ({"enabled": "false"}, "True or False"),
        ({"timeout": float("inf")}, "at most 86400"),
        ({"headers": [("a", "b")]}, "mapping"),
        ({"headers": {"bad name": "1"}}, "bad name"),
        ({"headers": {"": "1"}}, "name"),
        ({"headers": {"X-Trace": " a"}}, "X-Trace"),
        ({"transport": "a transport"}, "transport"),
        ({"version": 10**5000}, "cannot be shown"),
        ({"timeout": 0}, "seconds greater than 0"),
        ({"timeout": -1}, "seconds greater than 0"),
        ({"timeout": "30"}, "seconds greater than 0"),
        ({"timeout": True}, "seconds greater than 0"),
        ({"timeout": float("nan")}, "seconds greater than 0"),
        ({"max_retries": -1}, "pass 0 to turn retries off"),
        ({"max_retries": 1.5}, "integer of at least 0"),
        ({"max_retries": True}, "integer of at least 0"),
        ({"max_retries": None}, "integer of at least 0"),
        ({"deadline": 0}, "greater than 0"),
        ({"deadline": "5"}, "math.inf"),
        ({"deadline": float("nan")}, "greater than 0"),
        ({"deadline": True}, "greater than 0"),
        ({"pace": 1}, "True or False"),
        ({"quota_share": 0}, "at most 1"),
        ({"quota_share": 1.1}, "at most 1"),
        ({"quota_share": "1"}, "at most 1"),
        ({"clock": 5}, "intercom_data_events.Clock"),
        ({"headers": {"X-Trace": "a\nb"}}, "X-Trace"),
        ({"headers": {"X-Trace": 5}}, "X-Trace"),
        ({"headers": {5: "a"}}, "header name .* not 5"),
        ({"http_client": "a client"}, "http_client"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(answering, options, said):
    call, transport = answering(ACCEPTED)

    with pytest.raises(ConfigurationError, match=said) as caught:
        call(lambda client: client.create(**CREATE), **options)

    assert "secret" not in str(caught.value)
    assert transport.requests == []


def test_a_client_takes_one_way_to_send(answering):
    with pytest.raises(ConfigurationError, match="either transport or http_client"):
        DataEventsClient("t", transport=httpx.MockTransport(print), http_client=httpx.Client())


def test_timeouts_are_sent_along(answering):
    default = requested(answering).extensions["timeout"]
    own = requested(answering, timeout=httpx.Timeout(5, connect=1)).extensions["timeout"]

    assert set(default.values()) == {30}
    assert own == {"connect": 1, "read": 5, "write": 5, "pool": 5}


# The token.


def test_the_token_of_the_environment_is_used_where_none_is_given(answering, monkeypatch):
    monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", "from-the-environment")

    assert (
        requested(answering, access_token=None).headers["authorization"]
        == "Bearer from-the-environment"
    )
    assert requested(answering).headers["authorization"] == "Bearer token"


def test_without_a_token_there_is_no_client():
    for kind in (DataEventsClient, AsyncDataEventsClient):
        with pytest.raises(ConfigurationError, match="INTERCOM_ACCESS_TOKEN"):
            kind()


@pytest.mark.parametrize(
    "token",
    ["", "s3 cr3t", "s3cr3t\n", "\ts3cr3t", "s3cr3t\u00f6", "s3cr3t\0", b"s3cr3t", 5],
)
def test_a_token_that_no_header_can_hold_is_refused_and_not_shown(answering, token):
    call, transport = answering(ACCEPTED)

    for given in (token, lambda: token):
        with pytest.raises(ConfigurationError, match="access_token must") as caught:
            call(lambda client: client.create(**CREATE), access_token=given)
        assert "cr3t" not in str(caught.value)

    assert transport.requests == []


def test_a_blocking_client_takes_no_async_token_function(answering):
    async def token():
        return "awaited"

    call, transport = answering(ACCEPTED)
    with pytest.raises(ConfigurationError, match="AsyncDataEventsClient"):
        call(lambda client: client.create(**CREATE), access_token=token)

    assert transport.requests == []


# Switched off.


@pytest.mark.parametrize("switch", ["1", "true", "YES", "on"])
def test_the_environment_can_switch_a_client_off(answering, monkeypatch, switch):
    monkeypatch.setenv("INTERCOM_DISABLED", switch)
    call, transport = answering(ACCEPTED)

    assert call(lambda client: client.create(**CREATE), access_token=None) is None

    assert transport.requests == []


def test_an_empty_version_in_the_environment_is_none(answering, monkeypatch):
    monkeypatch.setenv("INTERCOM_VERSION", "")

    assert requested(answering).headers["intercom-version"] == API_VERSION


def test_a_request_says_what_it_accepts_and_who_asks(answering):
    headers = requested(answering).headers

    assert headers["accept"] == "application/json"
    assert headers["user-agent"] == (
        f"intercom-data-events/{intercom_data_events.__version__} python-httpx/{httpx.__version__}"
    )


@pytest.mark.parametrize("switch", ["", " ", "0", "false", "No", " off "])
def test_a_client_is_on_unless_it_is_switched_off(answering, monkeypatch, switch):
    monkeypatch.setenv("INTERCOM_DISABLED", switch)

    assert requested(answering).method == "POST"


def test_the_argument_counts_before_the_environment(answering, monkeypatch):
    monkeypatch.setenv("INTERCOM_DISABLED", "1")

    assert requested(answering, enabled=True).method == "POST"


def test_a_switch_that_is_neither_on_nor_off_is_refused(monkeypatch):
    monkeypatch.setenv("INTERCOM_DISABLED", "maybe")

    with pytest.raises(ConfigurationError, match="INTERCOM_DISABLED must be 1 or 0, not 'maybe'"):
        DataEventsClient("token")


# What a client shows, copies and pickles.


@pytest.mark.parametrize("kind", [DataEventsClient, AsyncDataEventsClient])
def test_a_client_shows_its_settings_and_never_its_token(kind):
    client = kind("very-secret-token", region="eu", headers={"X-Key": "also-secret"})

    assert "api.eu.intercom.io" in repr(client)
    assert API_VERSION in repr(client)
    assert "secret" not in repr(client)


@pytest.mark.parametrize("kind", [DataEventsClient, AsyncDataEventsClient])
def test_a_pickle_holds_the_settings_without_the_token(kind, monkeypatch):
    client = kind("very-secret-token", version="2.14", region="eu", timeout=5)
    pickled = pickle.dumps(client)
    assert b"very-secret-token" not in pickled

    monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", "another-token")
    assert repr(pickle.loads(pickled)) == repr(client)


def test_an_unpickled_client_sends_with_the_token_of_the_environment(monkeypatch, emulator):
    monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", "another-token")
    with emulator.serve() as url:
        client = pickle.loads(pickle.dumps(DataEventsClient("a-token", base_url=url)))
        with client:
            client.create(**CREATE)

    assert emulator.requests[0].headers["authorization"] == "Bearer another-token"


def test_a_client_cannot_be_unpickled_where_there_is_no_token():
    pickled = pickle.dumps(DataEventsClient("very-secret-token"))

    with pytest.raises(ConfigurationError, match="INTERCOM_ACCESS_TOKEN"):
        pickle.loads(pickled)


def test_a_disabled_client_stays_so_in_a_pickle():
    client = pickle.loads(pickle.dumps(DataEventsClient(enabled=False)))

    assert client.create(**CREATE) is None


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_shares_connections_and_token(emulator, copied):
    with DataEventsClient("token", transport=emulator.transport()) as client:
        copied(client).close()
        copied(client).create(**CREATE)

    assert emulator.requests[0].headers["authorization"] == "Bearer token"
