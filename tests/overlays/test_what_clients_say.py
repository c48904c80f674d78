"""What a client, and what is made of it, says of itself: its settings, and its repr."""

from __future__ import annotations

import httpx
import pytest
from callers import every_driver

from intercom_data_events import API_VERSION, AsyncDataEventsClient, DataEventsClient
from intercom_data_events.emulator import Emulator
from intercom_data_events.tracker import AsyncTracker, Tracker

TOKEN = "a-very-secret-token"
KINDS = (DataEventsClient, AsyncDataEventsClient)
SETTINGS = ("base_url", "region", "version", "timeout", "deadline", "max_retries", "enabled")
every_kind = pytest.mark.parametrize("kind", KINDS)


def settings(client):
    return {name: getattr(client, name) for name in SETTINGS}


@every_kind
def test_a_client_says_its_defaults(kind):
    client = kind(TOKEN)

    assert settings(client) == {
        "base_url": "https://api.intercom.io",
        "region": "us",
        "version": API_VERSION,
        "timeout": 30,
        "deadline": 120,
        "max_retries": 4,
        "enabled": True,
    }
    assert client.is_closed is False


@every_kind
def test_a_client_says_what_it_was_given(kind):
    limits = httpx.Timeout(5, connect=1)
    client = kind(
        TOKEN, region="au", version="2.7", timeout=limits, deadline=7, max_retries=0, enabled=False
    )

    assert list(settings(client).values()) == [
        "https://api.au.intercom.io", "au", "2.7", limits, 7, 0, False,
    ]  # fmt: skip


@every_kind
def test_a_client_says_what_the_environment_gave(kind, monkeypatch):
    monkeypatch.setenv("INTERCOM_REGION", "eu")
    monkeypatch.setenv("INTERCOM_VERSION", "2.9")
    monkeypatch.setenv("INTERCOM_DISABLED", "1")
    client = kind(TOKEN)

    assert (client.region, client.version, client.enabled) == ("eu", "2.9", False)


@pytest.mark.parametrize(
    ("address", "region"),
    [
        ("https://api.eu.intercom.io/", "eu"),
        ("https://api.au.intercom.io", "au"),
        ("https://proxy.example.org/intercom", None),
        ("http://127.0.0.1:8125", None),
    ],
)
def test_the_region_is_that_of_the_address(address, region):
    assert DataEventsClient(TOKEN, base_url=address).region == region


@every_kind
def test_a_view_says_its_own_options_and_the_rest_of_its_client(kind):
    client = kind(TOKEN, region="eu", max_retries=1)
    view = client.with_options(version="2.14", timeout=2, deadline=3)

    assert settings(view) == settings(client) | {"version": "2.14", "timeout": 2, "deadline": 3}


def test_the_time_limit_of_an_own_http_client_is_its_own():
    with httpx.Client() as http_client:
        assert DataEventsClient(TOKEN, http_client=http_client).timeout is None


@every_kind
@pytest.mark.parametrize("name", [*SETTINGS, "is_closed"])
def test_what_a_client_says_cannot_be_set(kind, name):
    client = kind(TOKEN)
    value = getattr(client, name)

    with pytest.raises(AttributeError):
        setattr(client, name, value)


@every_driver
def test_both_clients_have_close_and_views_see_it(call):
    def use(client):
        view = client.with_options(timeout=5)
        yield client.create("placed-order", user_id="314159")
        yield view.close()
        assert not client.is_closed
        yield client.create("placed-order", user_id="314159")
        yield client.close()
        assert client.is_closed
        assert view.is_closed
        with pytest.raises(RuntimeError, match="closed"):
            yield client.create("placed-order", user_id="314159")
        yield client.close()  # Again does nothing.

    call.steps(use)


# What they show.


@every_kind
def test_a_disabled_and_a_closed_client_say_so(kind):
    assert "enabled=True, is_closed=False" in repr(kind(TOKEN))
    assert "enabled=False" in repr(kind(enabled=False))
    assert "enabled=False" in repr(kind(enabled=False).with_options(timeout=3))


def test_a_closed_client_says_so():
    client = DataEventsClient(TOKEN)
    client.close()

    assert "is_closed=True" in repr(client)


@every_kind
def test_what_is_made_of_a_client_shows_it_without_its_token(kind):
    client = kind(
        TOKEN, base_url="https://proxy.example.org/intercom", headers={"X-Key": "also-secret"}
    )
    is_async = kind is AsyncDataEventsClient
    tracker = (AsyncTracker if is_async else Tracker)(client)

    for one in (client, client.with_raw_response, client.with_options(max_retries=9), tracker):
        assert repr(one).startswith(f"{type(one).__name__}(")
        assert "https://proxy.example.org/intercom" in repr(one)
        assert "secret" not in repr(one)


def test_a_tracker_shows_its_outbox(tmp_path):
    client = DataEventsClient(TOKEN, transport=Emulator().transport())
    with Tracker(client, outbox=tmp_path / "an.outbox") as tracker:
        assert "an.outbox" in repr(tracker)
    assert "outbox=None" in repr(Tracker(client))
