"""Over real sockets: connections of one's own, proxies, certificates, and who does not answer."""

from __future__ import annotations

import contextlib
import socket
import ssl

import anyio
import httpx
import pytest
import trustme

from intercom_data_events import (
    APIConnectionError,
    AsyncDataEventsClient,
    Clock,
    DataEventsClient,
)
from intercom_data_events.emulator import Emulator, Fault, ManualClock

CREATE = {"event_name": "placed-order", "user_id": "1"}
#: With one request after the other; all but the first are processed.
FAULTS = [Fault.failing(503), Fault.reset(processed=True), Fault.cut_short(), None]


def create(client):
    return client.create(**CREATE)


@pytest.fixture
def sending(calling):
    """A client with connections of its own, as a program has it."""
    return calling(None)


@pytest.fixture
def misbehaving(sending):
    """An emulator whose first three answers go wrong, one way after the other."""
    return Emulator(clock=sending.clock, faults=FAULTS)


def with_own(call, use, made, **options):
    """Uses a client of an http_client of the caller's own, and looks whether that stays open."""
    own = call.http_client(**made)
    options = {"access_token": "token", "clock": call.clock, "http_client": own, **options}

    async def run():
        async with own:
            async with AsyncDataEventsClient(**options) as client:
                await use(client)
            assert not own.is_closed
            # What is left open is good for more.
            assert (await own.get(f"{options['base_url']}/nowhere")).status_code == 401

    if call.backend != "blocking":
        return anyio.run(run, backend=call.backend)
    with own:
        with DataEventsClient(**options) as client:
            use(client)
        assert not own.is_closed
        assert own.get(f"{options['base_url']}/nowhere").status_code == 401
    return None


def hook(call, function):
    """A hook of the kind that this kind of httpx client takes."""

    async def async_hook(subject):
        function(subject)

    return function if call.backend == "blocking" else async_hook


def failed(call, **options):
    """What a client's request ends in."""
    with pytest.raises(APIConnectionError) as caught:
        call(create, **options)
    return caught.value


class Refusing(contextlib.ExitStack):
    """An address where nobody listens, and which nobody else is given meanwhile."""

    def __enter__(self):
        taken = self.enter_context(socket.socket())
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


class NeverClock(Clock):
    """For a server that does not come round to answering."""

    def async_alarm(self):
        return _Never()


class _Never:
    def set(self):
        pass

    async def wait(self, seconds):
        await anyio.sleep_forever()


# Who does not answer, or not well.


def test_an_event_gets_through_whatever_goes_wrong_with_its_first_three_tries(sending, misbehaving):
    with misbehaving.serve() as url:
        sending(create, base_url=url)

    assert len(misbehaving.events) == 1
    counts = misbehaving.counts
    assert (counts.requests, counts.stored, counts.duplicates) == (4, 1, 2)
    assert len(sending.clock.waits) == 3


def test_a_server_that_nobody_reaches_is_tried_again_and_has_processed_nothing(sending):
    with Refusing() as url:
        error = failed(sending, base_url=url)

    assert type(error) is APIConnectionError
    assert isinstance(error.__cause__, httpx.ConnectError)
    assert (error.tries, error.may_have_been_processed) == (5, False)
    assert len(sending.clock.waits) == 4
    assert "tried 5 times" in str(error)


def test_a_server_that_is_there_in_the_end_gets_the_event(backend, calling, emulator):
    """A server is restarted while a client waits to try again."""
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


def test_an_answer_that_takes_longer_than_a_try_may_is_not_waited_for(sending):
    emulator = Emulator(clock=NeverClock(), faults=[Fault.slow(3600), None])
    with emulator.serve() as url:
        sending(create, base_url=url, timeout=0.2)

    # The server did its work in both, and took the second for the first; on a busy machine, it may
    # take too long for more of them.
    assert emulator.counts.stored == 1
    assert emulator.counts.duplicates >= 1
    assert len(sending.clock.waits) >= 1


# An http_client of one's own.


def test_hooks_of_an_http_client_of_ones_own_see_every_try_and_every_answer(sending, misbehaving):
    sent, answered = [], []
    made = {
        "headers": {"X-App": "shop"},
        "event_hooks": {
            "request": [hook(sending, sent.append)],
            "response": [hook(sending, lambda response: answered.append(response.status_code))],
        },
    }
    with misbehaving.serve() as url:
        with_own(sending, create, made, base_url=url)

    *tries, _ = sent
    assert [request.headers["authorization"] for request in tries] == ["Bearer token"] * 4
    # The next two tries end without an answer.
    assert answered == [503, 202, 401]
    *requests, _ = misbehaving.requests
    assert [request.headers["x-app"] for request in requests] == ["shop"] * 4
    # Each try sends the same event.
    assert len({request.body for request in requests}) == 1
    assert len(misbehaving.events) == 1


def test_the_timeout_of_an_http_client_of_ones_own_ends_each_try(sending):
    emulator = Emulator(clock=NeverClock(), faults=[Fault.slow(3600), None])
    seen = []
    made = {
        "timeout": httpx.Timeout(20, read=0.2),
        "event_hooks": {
            "request": [hook(sending, lambda request: seen.append(request.extensions["timeout"]))]
        },
    }
    with emulator.serve() as url:
        with_own(sending, create, made, base_url=url)

    own = {"connect": 20, "read": 0.2, "write": 20, "pool": 20}
    # On a busy machine, more than one try may take too long.
    assert len(seen) >= 3
    assert [one for one in seen if one != own] == []
    assert emulator.counts.faults == {"slow": 1}
    assert len(emulator.events) == 1


def test_an_error_of_a_hook_of_ones_own_is_ones_own_and_ends_it(sending, emulator):
    def unwilling(request):
        raise KeyError("unwilling")

    made = {"event_hooks": {"request": [hook(sending, unwilling)]}}
    with pytest.raises(KeyError, match="unwilling"), emulator.serve() as url:
        with_own(sending, create, made, base_url=url)

    assert sending.clock.waits == []
    assert emulator.requests == ()


# Proxies.


def test_the_proxy_of_the_environment_is_used_for_every_try(sending, misbehaving, monkeypatch):
    with misbehaving.serve() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        sending(create, base_url="http://api.example")

    assert [request.headers["host"] for request in misbehaving.requests] == ["api.example"] * 4
    assert len(misbehaving.events) == 1


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY", "http_proxy"])
def test_an_event_reaches_its_host_through_a_proxy(sending, emulator, monkeypatch, variable):
    with emulator.serve() as url:
        monkeypatch.setenv(variable, url.replace("//", "//user:password@"))
        sending(create, base_url="http://api.example")

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
        error = failed(sending, base_url="http://api.example")

    assert (error.tries, error.may_have_been_processed) == (5, False)


def test_a_proxy_that_leads_no_further_has_handed_nothing_on(sending, emulator, monkeypatch):
    with emulator.serve() as url:
        # For https it is asked for a tunnel, which the emulator does not dig.
        monkeypatch.setenv("HTTPS_PROXY", url)
        error = failed(sending, base_url="https://api.example")

    assert isinstance(error.__cause__, httpx.ProxyError)
    assert not error.may_have_been_processed
    assert emulator.requests == ()


# Certificates.


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_an_http_client_of_ones_own_can_trust_a_private_authority(
    sending, misbehaving, authority, server_context
):
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with misbehaving.serve(tls=server_context) as url:
        assert url.startswith("https://")
        with_own(sending, create, {"verify": trusting}, base_url=url)

    assert len(misbehaving.events) == 1
    # And one that asks what stays open whether it does.
    assert misbehaving.counts.requests == 4 + 1


def test_the_authority_of_the_environment_is_trusted(
    sending, misbehaving, authority, server_context, monkeypatch, tmp_path
):
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    with misbehaving.serve(tls=server_context) as url:
        sending(create, base_url=url)

    assert (misbehaving.counts.requests, len(misbehaving.events)) == (4, 1)


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


def test_an_error_says_why_a_certificate_cannot_be_verified(sending, emulator, server_context):
    # Under trio, httpx's own error says nothing; what led to it does.
    with emulator.serve(tls=server_context) as url:
        assert "certificate verify failed" in str(failed(sending, base_url=url))


def test_a_certificate_of_another_host_is_no_reason_to_try_again(sending, emulator, authority):
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


def test_a_server_that_speaks_no_tls_is_tried_again(sending, emulator):
    with emulator.serve() as url:
        error = failed(sending, base_url=url.replace("http:", "https:"))

    assert (error.tries, error.may_have_been_processed) == (5, False)
    assert emulator.requests == ()


def test_an_address_without_tls_that_needs_it_gets_no_event(sending, emulator, server_context):
    with emulator.serve(tls=server_context) as url:
        error = failed(sending, base_url=url.replace("https:", "http:"))

    assert error.tries == 5
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

    async def async_use(client):
        await client.summary(user_id="1")
        for _ in range(3):
            await client.create(**CREATE)

    call = calling(httpx.MockTransport(answer))
    call(use if call.backend == "blocking" else async_use)

    assert len(seen) == 4
    assert all(brought in (None, current) for brought, current in seen)
