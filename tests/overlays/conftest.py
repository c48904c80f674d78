"""What the tests of the overlays share: an emulator, and clients of either kind that use it.

A decision that is made without I/O is tested once, through the blocking client. What each driver
does itself is in test_contract.py; a test elsewhere that needs all drivers is marked with
``callers.every_driver``, and one that depends on the HTTP library with ``callers.every_library``.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from types import ModuleType
from typing import Any

import httpx
import pytest
import trustme
from callers import NOW, Answers, Caller
from secrecy import LOGGER, package_records

from intercom_data_events.emulator import Emulator


@pytest.fixture
def backend() -> str:
    """The driver that a test uses, unless it is marked with ``every_driver``."""
    return "blocking"


@pytest.fixture
def library() -> ModuleType:
    """The HTTP library that a test uses, unless it is marked with ``every_library``."""
    return httpx


@pytest.fixture
def emulator() -> Emulator:
    return Emulator(clock=lambda: float(NOW))


@pytest.fixture
def calling(backend: str, library: ModuleType) -> Callable[..., Caller]:
    """Makes a client of either kind that sends through a transport."""
    return lambda transport: Caller(backend, {"transport": transport}, library=library)


@pytest.fixture
def call(calling: Callable[..., Caller], emulator: Emulator) -> Caller:
    """A client of the emulator, of either kind."""
    return calling(emulator.transport())


@pytest.fixture
def answering(
    calling: Callable[..., Caller], library: ModuleType
) -> Callable[..., tuple[Caller, Answers]]:
    """Makes a client that is given prepared answers, and the place where its requests end."""

    def make(*answers: Any) -> tuple[Caller, Answers]:
        transport = Answers(*answers)
        return calling(transport.of(library)), transport

    return make


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[str, str]]]:
    """Returns the level and the message of each record that was logged since its last call."""
    caplog.set_level(logging.DEBUG, logger=LOGGER)
    return lambda: [(record.levelname, record.getMessage()) for record in package_records(caplog)]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A private authority, which nothing trusts by itself."""
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    """What a server needs to be trusted by clients that trust the private authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context
