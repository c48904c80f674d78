"""Over real sockets: the caller's own connections, proxies, certificates, and late servers.

What each driver does over real sockets is in test_contract.py.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

import httpx
import pytest
import trustme
from callers import NeverClock, Refusing, every_library, with_own

from intercom_data_events import (
    APIConnectionError,
    APITimeoutError,
    DataEventsClient,
    IntercomError,
)
from intercom_data_events.emulator import Emulator, EmulatorServer, Fault, ManualClock

CREATE = {"event_name": "placed-order", "user_id": "1"}


def create(client):
    return client.create(**CREATE)


@pytest.fixture
def sending(calling):
    """A client with connections of its own, as a program has it."""
    return calling(None)


def failed(call, **options):
    """What a client's request ends in."""
    with pytest.raises(APIConnectionError) as caught:
        call(create, **options)
    return caught.value


# A server that is restarted.


def test_a_server_that_is_there_in_the_end_gets_the_event(calling, emulator):
    """It is restarted while a client waits to try again."""
    call = calling(None)
    with contextlib.ExitStack() as servers:
        address = httpx.URL(servers.enter_context(Emulator().serve()))
        servers.close()

        class StartingClock(ManualClock):
            def pass_by(self, seconds):
                super().pass_by(seconds)
                if len(self.waits) == 2:
                    servers.enter_context(emulator.serve(port=address.port))

        clock = StartingClock()
        call(create, base_url=str(address), clock=clock)

    assert len(clock.waits) == 2
    assert len(emulator.events) == 1


# Names and addresses.


@pytest.mark.parametrize("unsupported", [socket.AF_INET6, socket.AF_INET])
def test_a_family_of_addresses_that_the_system_lacks_is_passed_over(
    sending, emulator, monkeypatch, unsupported
):
    original = socket.socket

    def make(family=-1, *arguments, **options):
        if family == unsupported:
            raise OSError(97, "Address family not supported by protocol")
        return original(family, *arguments, **options)

    with emulator.serve() as url:
        port = httpx.URL(url).port
        v6 = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0))
        v4 = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [v6, v4])
        monkeypatch.setattr(socket, "socket", make)
        if unsupported == socket.AF_INET6:
            sending(create, base_url=url)
        else:
            failed(sending, base_url=url, max_retries=0)

    assert len(emulator.events) == (unsupported == socket.AF_INET6)


def test_a_name_that_is_looked_up_for_too_long_ends_in_time(sending, monkeypatch):
    original, found = socket.getaddrinfo, threading.Event()

    def look_up(host, *arguments, **options):
        if host == "slow.test" and not options.get("flags"):
            found.wait(30)
        return original(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        error = failed(
            sending, base_url="http://slow.test", allow_http=True, timeout=0.2, max_retries=0
        )
    finally:
        found.set()

    assert isinstance(error, APITimeoutError)
    assert not error.may_have_been_processed
    assert error.elapsed < 10


def test_what_a_time_out_says_is_not_about_its_insides(sending):
    with Emulator(faults=[Fault.slow(3600)] * 9, clock=NeverClock()).serve() as url:
        error = failed(sending, base_url=url, timeout=0.2, max_retries=0)

    assert "Errno" not in str(error)
    assert "no answer in time" in str(error)


@pytest.mark.parametrize(
    ("exception", "is_excepted"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:{port}", True),
        ("http://127.0.0.1", True),
        ("all://127.0.0.1:{port}", True),
        ("localhost, 127.0.0.1", True),
        ("*", True),
        ("127.0.0.1:1", False),
        ("https://127.0.0.1", False),
        ("127.0.0.11", False),
        ("", False),
    ],
)
def test_a_host_that_is_excepted_from_the_proxy_is_reached_directly(
    sending, emulator, monkeypatch, exception, is_excepted
):
    proxy = Emulator()
    with emulator.serve() as url, proxy.serve() as between:
        monkeypatch.setenv("HTTP_PROXY", between)
        monkeypatch.setenv("NO_PROXY", exception.format(port=httpx.URL(url).port))
        sending(create, base_url=url)

    assert [len(emulator.events), len(proxy.events)] == [is_excepted, not is_excepted]


# A client that is closed.


def test_closing_a_client_during_a_request_leaves_its_result_or_an_error_of_ours():
    arrived, go_on = threading.Event(), threading.Event()

    def answer(_):
        arrived.set()
        assert go_on.wait(30)
        return httpx.Response(202)

    results = []

    def send(client):
        try:
            results.append(client.create(**CREATE))
        except IntercomError as error:
            results.append(error.may_have_been_processed)

    with EmulatorServer(answer) as url:
        client = DataEventsClient("token", base_url=url, max_retries=0)
        thread = threading.Thread(target=send, args=(client,))
        thread.start()
        assert arrived.wait(30)
        client.close()
        go_on.set()
        thread.join(30)

    assert results in ([None], [True])


# The caller's own http_client.


@every_library
def test_the_timeout_of_an_http_client_of_ones_own_ends_each_try(sending, library):
    emulator = Emulator(clock=NeverClock(), faults=[Fault.slow(3600), None])
    seen = []
    made = {
        "timeout": library.Timeout(20, read=0.2),
        "event_hooks": {"request": [lambda request: seen.append(request.extensions["timeout"])]},
    }
    with emulator.serve() as url:
        with_own(sending, create, made, base_url=url)

    own = {"connect": 20, "read": 0.2, "write": 20, "pool": 20}
    # On a busy machine, more than one attempt may take too long.
    assert len(seen) >= 3
    assert [one for one in seen if one != own] == []
    assert emulator.counts.faults == {"slow": 1}
    assert len(emulator.events) == 1


@every_library
def test_an_error_of_a_hook_of_ones_own_is_ones_own_and_ends_it(sending, library, emulator):
    def unwilling(request):
        raise KeyError("unwilling")

    made = {"event_hooks": {"request": [unwilling]}}
    with pytest.raises(KeyError, match="unwilling"), emulator.serve() as url:
        with_own(sending, create, made, base_url=url)

    assert sending.clock.waits == []
    assert emulator.requests == ()


# Proxies.


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY", "http_proxy"])
def test_an_event_reaches_its_host_through_a_proxy(sending, emulator, monkeypatch, variable):
    with emulator.serve() as url:
        monkeypatch.setenv(variable, url.replace("//", "//user:password@"))
        sending(create, base_url="http://api.example", allow_http=True)

    (request,) = emulator.requests
    assert request.headers["host"] == "api.example"
    assert request.headers["authorization"] == "Bearer token"
    assert request.headers["proxy-authorization"].startswith("Basic ")


def test_a_host_that_needs_no_proxy_is_reached_without(sending, emulator, monkeypatch):
    with Refusing() as nowhere, emulator.serve() as url:
        monkeypatch.setenv("HTTP_PROXY", nowhere)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        sending(create, base_url=url)

    assert len(emulator.events) == 1


def test_a_proxy_that_nobody_reaches_is_tried_again(sending, monkeypatch):
    with Refusing() as nowhere:
        monkeypatch.setenv("HTTP_PROXY", nowhere)
        error = failed(sending, base_url="http://api.example", allow_http=True)

    assert (error.tries, error.may_have_been_processed) == (5, False)


# Certificates.


@pytest.mark.parametrize("trusted", ["usual", "another private one"])
def test_a_certificate_that_cannot_be_verified_is_no_reason_to_try_again(
    sending, emulator, server_context, monkeypatch, tmp_path, trusted
):
    if trusted != "usual":
        trustme.CA().cert_pem.write_to_path(tmp_path / "another.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "another.pem"))
    with emulator.serve(tls=server_context) as url:
        error = failed(sending, base_url=url)

    assert type(error) is APIConnectionError
    assert (error.tries, error.may_have_been_processed) == (1, False)
    assert sending.clock.waits == []
    assert emulator.requests == ()


@every_library
def test_a_certificate_of_another_host_is_no_reason_to_try_again(
    sending, library, emulator, authority
):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("api.example").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with (
        emulator.serve(tls=context) as url,
        pytest.raises(APIConnectionError) as caught,
    ):
        with_own(sending, create, {"verify": trusting}, base_url=url)

    assert (caught.value.tries, caught.value.may_have_been_processed) == (1, False)
    assert emulator.requests == ()


# Cookies, which the API has no use for, but proxies before it do.


def test_no_request_brings_a_cookie_that_has_been_replaced_since(calling):
    seen, latest = [], []

    def answer(request):
        seen.append((request.headers.get("cookie"), latest[-1] if latest else None))
        latest.append(f"route={len(seen)}")
        headers = {"Set-Cookie": f"{latest[-1]}; Path=/"}
        if request.method == "GET":
            return httpx.Response(200, headers=headers, json={"events": []})
        return httpx.Response(202, headers=headers)

    def use(client):
        client.summary(user_id="1")
        for _ in range(3):
            client.create(**CREATE)

    calling(httpx.MockTransport(answer))(use)

    assert len(seen) == 4
    assert all(brought in (None, current) for brought, current in seen)
