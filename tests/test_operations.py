"""Each generated operation has a verb, each verb an operation, and the emulator answers each."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import httpx
import pytest
from verbs import ARGUMENTS, OPERATIONS, VERBS

import intercom_data_events as package
from intercom_data_events.emulator._endpoints import _ENDPOINTS

CLIENTS = (
    package.DataEventsClient,
    package.AsyncDataEventsClient,
    package.RawDataEventsClient,
    package.AsyncRawDataEventsClient,
)
CONTACTS = (package.Contact, package.AsyncContact)
#: Methods that send nothing, or send by other verbs.
HELPERS = {"aclose", "close", "contact", "create_many", "with_options"}
HERE = Path(__file__).parent


def snake(name):
    """How the generator spells a name of the description."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[ -]+", "_", name).lower()


API = f"intercom_data_events_api.api.{snake(OPERATIONS.tag)}"


def generated():
    """The operations of the generated package, by the names of their modules."""
    api = import_module("intercom_data_events_api.api")
    return {found.name for found in pkgutil.walk_packages(api.__path__, f"{api.__name__}.")} - {API}


def sent_by(verb):
    """The one request of a verb, as its method and path."""
    sent = []

    def answer(request):
        sent.append((request.method.lower(), request.url.path))
        return httpx.Response(401)

    transport = httpx.MockTransport(answer)
    raw = package.DataEventsClient("token", transport=transport).with_raw_response
    with pytest.raises(package.AuthenticationError):
        getattr(raw, verb)(**ARGUMENTS[verb])
    (request,) = sent
    return request


def verbs_of(client):
    found = {name for name, _ in inspect.getmembers(client, inspect.isroutine)}
    return {name for name in found if not name.startswith("_")} - HELPERS


def test_each_generated_operation_is_listed_and_each_listed_one_is_generated():
    assert generated() == {f"{API}.{snake(each.name)}" for each in OPERATIONS.client}


def test_each_generated_operation_is_used_by_the_client():
    used = {
        f"{node.module}.{alias.name}"
        for path in Path(package.__path__[0]).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }

    assert generated() - used == set()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_has_the_verbs_of_all_operations_and_no_other(client):
    assert verbs_of(client) == set(VERBS)


@pytest.mark.parametrize("contact", CONTACTS)
def test_a_contact_has_the_verbs_that_take_an_identity_and_no_other(contact):
    taking = {
        verb
        for verb in VERBS
        if "user_id" in inspect.signature(getattr(package.DataEventsClient, verb)).parameters
    }

    assert verbs_of(contact) == taking


def test_each_verb_is_called_here():
    assert ARGUMENTS.keys() == set(VERBS)


@pytest.mark.parametrize("operation", OPERATIONS.client, ids=str)
def test_a_verb_sends_the_operation_that_it_is_listed_with(operation):
    # Its parameters stand in braces.
    path = re.compile(re.sub(r"\{[^{}]*\}", "[^/]+", operation.path))
    for verb in operation.verbs:
        method, sent = sent_by(verb)

        assert method == operation.method, verb
        assert path.fullmatch(sent), verb


def test_the_emulator_has_an_endpoint_for_each_operation_and_no_other():
    endpoints = {(method.lower(), path) for path, each in _ENDPOINTS.items() for method in each}

    assert endpoints == {(each.method, each.path) for each in OPERATIONS.client}


@pytest.mark.parametrize("file", ["typing/uses.py", "conformance/tools/scenarios.py"])
def test_each_verb_is_used_where_others_judge_it(file):
    text = (HERE / file).read_text(encoding="utf-8")

    assert [verb for verb in VERBS if f"client.{verb}(" not in text] == []
