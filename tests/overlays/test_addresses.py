"""Where requests go: region and address, http:// beyond this machine, and the proxy variables."""

from __future__ import annotations

import pickle
import sys

import anyio
import httpx
import pytest
from callers import Refusing, every_library

from intercom_data_events import (
    APIConnectionError,
    AsyncDataEventsClient,
    ConfigurationError,
    DataEventsClient,
    Event,
)
from intercom_data_events.emulator import Emulator
from intercom_data_events.tracker import Tracker

CLIENTS = [DataEventsClient, AsyncDataEventsClient]
LOCAL = "http://127.0.0.1:8125"


def create(client):
    return client.create("placed-order", user_id="1")


def host_of(answering, **options):
    """The host that a request of a client with these options goes to."""
    call, transport = answering(httpx.Response(202))
    call(create, **options)
    return transport.requests[0].url.host


# A region while INTERCOM_BASE_URL is set.


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("region", ["us", "eu", "au"])
def test_a_region_in_code_while_an_address_is_set_is_an_error(monkeypatch, kind, region):
    monkeypatch.setenv("INTERCOM_BASE_URL", LOCAL)
    monkeypatch.setenv("INTERCOM_REGION", region)

    for options in ({}, {"enabled": False}, {"transport": None}):
        with pytest.raises(ConfigurationError) as caught:
            kind("token", region=region, **options)
        for part in (repr(region), f"INTERCOM_BASE_URL ({LOCAL})", "unset", "pass a base URL"):
            assert part in str(caught.value)


def test_an_argument_beats_the_environment_and_there_an_address_beats_a_region(
    answering, monkeypatch
):
    monkeypatch.setenv("INTERCOM_REGION", "au")
    assert host_of(answering) == "api.au.intercom.io"
    assert host_of(answering, region="eu") == "api.eu.intercom.io"
    monkeypatch.setenv("INTERCOM_BASE_URL", LOCAL)
    assert host_of(answering) == "127.0.0.1"
    assert host_of(answering, base_url="https://a.example") == "a.example"
    monkeypatch.setenv("INTERCOM_BASE_URL", "")
    assert host_of(answering, region="eu") == "api.eu.intercom.io"


def test_a_view_of_a_client_from_the_environment_keeps_its_address(answering, monkeypatch):
    monkeypatch.setenv("INTERCOM_BASE_URL", LOCAL)
    call, transport = answering(httpx.Response(202))

    call(lambda client: client.with_options(timeout=5).create("a", user_id="1"))

    assert transport.requests[0].url.host == "127.0.0.1"


# http:// beyond this machine.

ELSEWHERE = [
    "http://api.intercom.io", "HTTP://a.example", "http://10.0.0.1:8125", "http://0.0.0.0:1",
    "http://127.0.0.1.example", "http://localhost.example", "http://notlocalhost", "http://[::2]",
    "http://[::ffff:10.0.0.1]", "http://128.0.0.1", "http://emulator:8125",
    "http://127.0.0.1.", "http://2130706433.",  # Names, which a DNS may know.
]  # fmt: skip
HERE = [
    "http://127.0.0.1:8125", "http://127.8.9.10", "http://127.1:1", "http://localhost:8125/x",
    "http://LOCALHOST", "http://localhost.", "http://api.localhost:1", "http://[::1]:8125",
    "http://[::ffff:127.0.0.1]:1", "https://a.example",
]  # fmt: skip


@pytest.mark.parametrize("kind", CLIENTS)
def test_http_beyond_this_machine_has_to_be_allowed(monkeypatch, kind):
    for url in ELSEWHERE:
        with pytest.raises(ConfigurationError, match=r"allow_http=True .*INTERCOM_ALLOW_HTTP=1"):
            kind("token", base_url=url)
        with pytest.raises(ConfigurationError, match="base_url must begin with https://"):
            kind("token", base_url=url, allow_http=False)
        kind("token", base_url=url, allow_http=True)
        with monkeypatch.context() as changed:
            changed.setenv("INTERCOM_BASE_URL", url)
            with pytest.raises(ConfigurationError, match="INTERCOM_BASE_URL must begin with https"):
                kind("token")
            changed.setenv("INTERCOM_ALLOW_HTTP", "1")
            kind("token")
            with pytest.raises(ConfigurationError):
                kind("token", allow_http=False)


def test_http_on_this_machine_and_https_need_no_leave():
    for url in HERE:
        DataEventsClient("token", base_url=url)
        DataEventsClient("token", base_url=url, allow_http=False)


@pytest.mark.parametrize("switch", ["true", " YES", "on"])
def test_the_variable_is_a_switch_like_others(monkeypatch, switch):
    monkeypatch.setenv("INTERCOM_ALLOW_HTTP", switch)
    DataEventsClient("token", base_url="http://a.example")
    for off in ("0", "no", "", "off"):
        monkeypatch.setenv("INTERCOM_ALLOW_HTTP", off)
        with pytest.raises(ConfigurationError):
            DataEventsClient("token", base_url="http://a.example")
    for odd in ("2", "maybe", "http"):
        monkeypatch.setenv("INTERCOM_ALLOW_HTTP", odd)
        with pytest.raises(ConfigurationError, match="INTERCOM_ALLOW_HTTP must be 1 or 0, not"):
            DataEventsClient("token")
    for odd in (1, "yes", [True]):
        with pytest.raises(ConfigurationError, match="allow_http must be True or False, not"):
            DataEventsClient("token", allow_http=odd)


def test_copies_of_a_client_that_may_use_http_may_too(monkeypatch):
    monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", "token")
    client = DataEventsClient(base_url="http://a.example", allow_http=True, enabled=False)

    for copy in (pickle.loads(pickle.dumps(client)), client.with_options(timeout=5)):
        assert "http://a.example" in repr(copy)
    with Tracker(client) as tracker, pickle.loads(pickle.dumps(tracker)) as copy:
        copy.track("placed-order", user_id="1")
        assert copy.flush(20)
        assert copy.counters.sent == 1


def test_what_is_behind_a_transport_is_checked_too():
    """A transport may have sockets, and the address may come from the environment."""
    with pytest.raises(ConfigurationError, match="allow_http"):
        DataEventsClient("token", base_url="http://a.example", transport=Emulator().transport())


# Proxy variables that cannot be used.

UNUSABLE = [
    "http://me:s3cr3t@127.0.0.1:99999", "http://me:s3cr3t@a.example:port", "http://a..example:80",
    f"http://{'a' * 64}.example", "http://me:s3cr3t@", "http://:3128", "socks9://a.example",
    "ftp://a.example", "http://[::1", "http://a b.example", "http://a.example:0", "me:s3cr3t",
    "http://1.2.3.999:1", "::", "http://xn--a.example", "http://a.example:-1",
]  # fmt: skip


def usages(**options):
    """Ways to send an event, on each engine with connections of its own."""

    def blocking():
        with DataEventsClient("token", max_retries=0, **options) as client:
            create(client)

    async def awaited(many):
        async with AsyncDataEventsClient("token", max_retries=0, **options) as client:
            if not many:
                await create(client)
                return
            async for outcome in client.create_many([Event("a", user_id="1")]):
                raise outcome.error

    return (
        blocking,
        lambda: anyio.run(awaited, False),
        lambda: anyio.run(awaited, True),
        lambda: anyio.run(awaited, False, backend="trio"),
    )


@pytest.mark.parametrize(
    "variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"]
)
def test_a_proxy_variable_that_cannot_be_used_is_named_on_every_engine(monkeypatch, variable):
    scheme = "http" if variable.lower() == "http_proxy" else "https"
    for value in UNUSABLE:
        monkeypatch.setenv(variable, value)
        for use in usages(base_url=f"{scheme}://a.example", allow_http=True):
            with pytest.raises(ConfigurationError, match=f"{variable} must be the") as caught:
                use()
            assert "s3cr3t" not in str(caught.value)
            assert caught.value.__cause__ is None


def test_a_socks_proxy_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://me:s3cr3t@a.example:1080")
    for use in usages():
        with pytest.raises(ConfigurationError, match=r"ALL_PROXY.*pip install 'httpx\[socks\]'"):
            use()


def test_a_variable_that_is_not_needed_is_not_looked_at(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://a..example")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/99")
    with Refusing() as url:
        for use in usages(base_url=url.replace("http:", "https:")):
            with pytest.raises(APIConnectionError):
                use()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Refusing() as url:
        for use in usages(base_url=url):
            with pytest.raises(APIConnectionError):
                use()


@every_library
def test_the_callers_own_client_with_such_a_proxy_is_an_error_of_ours(
    calling, library, monkeypatch
):
    monkeypatch.setenv("HTTPS_PROXY", "http://a..example:80")
    call = calling(None)
    with pytest.raises((ConfigurationError, APIConnectionError), match="http_client"):
        call(create, http_client=call.http_client(), max_retries=0)


# Ranges in NO_PROXY.


@pytest.mark.parametrize(
    ("given", "is_excepted"),
    [
        ("127.0.0.0/8", True),
        ("10.0.0.0/8, 127.0.0.0/30", True),
        ("127.0.0.1/32", True),
        ("http://127.0.0.0/8", True),
        ("127.9.9.9/8", True),
        ("0.0.0.0/0", True),
        ("10.0.0.0/8", False),
        ("fd00::/8,::1/128,[::]/0", False),
        ("https://127.0.0.0/8", False),
    ],
)
def test_a_range_excepts_its_addresses(monkeypatch, given, is_excepted):
    with Emulator().serve() as url, Refusing() as nowhere:
        monkeypatch.setenv("HTTP_PROXY", nowhere)
        monkeypatch.setenv("NO_PROXY", given)
        with DataEventsClient("token", base_url=url, max_retries=0) as client:
            if is_excepted:
                create(client)
            else:
                with pytest.raises(APIConnectionError, match="through the proxy"):
                    create(client)


def test_a_range_does_not_touch_names(monkeypatch):
    with Refusing() as nowhere:
        monkeypatch.setenv("HTTPS_PROXY", nowhere)
        monkeypatch.setenv("no_proxy", "0.0.0.0/0,::/0")
        for use in usages():
            with pytest.raises(APIConnectionError, match="through the proxy"):
                use()


@pytest.mark.parametrize(
    "given", ["10.0.0.0/99", "10.0.0/8", "fd00::/129", "10.0.0.0/8/8", "a/8", "10.0.0.0-10.0.0.9"]
)
def test_a_range_that_is_none_is_named_on_every_engine(monkeypatch, given):
    with Refusing() as nowhere:
        monkeypatch.setenv("ALL_PROXY", nowhere)
        for variable in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(variable, f"localhost,{given}")
            for use in usages():
                with pytest.raises(ConfigurationError, match=f"{variable} must list.*'{given}'"):
                    use()


@pytest.mark.parametrize(
    ("base_url", "given", "is_excepted"),
    [
        ("https://127.0.0.1", "127.0.0.1:443", True),
        ("http://127.0.0.1", "127.0.0.1:80", True),
        ("https://127.0.0.1", "127.0.0.1:80", False),
        ("https://[::1]:9", "[::1]:9", True),
        ("https://[::1]:9", "[::1]:10", False),
        ("https://a.localhost:9", "*.localhost", True),
        ("https://127.0.0.1:9", "*.localhost,127.0.0.*", False),
        ("https://127.0.0.1:9", "https://127.0.0.1/", True),
        ("https://127.0.0.1:9", "https://localhost/,b.example/", False),
    ],
)
def test_an_exception_is_the_same_on_every_engine(monkeypatch, base_url, given, is_excepted):
    with Refusing() as nowhere:
        monkeypatch.setenv("HTTP_PROXY", nowhere)
        monkeypatch.setenv("HTTPS_PROXY", nowhere)
        monkeypatch.setenv("NO_PROXY", given)
        for use in usages(base_url=base_url):
            with pytest.raises(APIConnectionError) as caught:
                use()
            assert ("through the proxy" in str(caught.value)) is not is_excepted


@pytest.mark.parametrize(
    "given", ["https://me:s3cr3t@a.example/8", "me:s3cr3t@a.example:80/x", "me:s3cr3t@10.0.0.0/99"]
)
def test_no_password_of_a_wrong_variable_is_shown(monkeypatch, given):
    with Refusing() as nowhere:
        monkeypatch.setenv("ALL_PROXY", nowhere)
        monkeypatch.setenv("NO_PROXY", given)
        with pytest.raises(ConfigurationError, match="NO_PROXY must list") as caught:
            usages()[0]()
        assert "s3cr3t" not in str(caught.value)
