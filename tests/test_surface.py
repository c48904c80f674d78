"""The public names: listed, sorted, loaded on demand, documented; their examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import pydoc
import re
from pathlib import Path
from typing import TypeVar

import attrs
import pytest
from verbs import VERBS

import intercom_data_events as package
from intercom_data_events_api import models


def public_modules():
    for found in pkgutil.walk_packages(package.__path__, "intercom_data_events."):
        if "__main__" not in found.name:
            yield importlib.import_module(found.name)


def test_the_names_are_sorted_and_each_is_there():
    assert package.__all__ == sorted(package.__all__)
    assert len(set(package.__all__)) == len(package.__all__)
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(package.__all__) <= set(dir(package))


def test_every_name_that_type_checkers_see_is_listed_and_no_other():
    tree = ast.parse(Path(package.__file__).read_bytes())
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name for node in checked.body for alias in node.names}

    assert seen == set(package.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Nonsense"):
        package.Nonsense  # noqa: B018  # asking is the test
    with pytest.raises(ImportError):
        exec("from intercom_data_events import Nonsense")


def annotations(thing):
    """The annotations of a public class: of its fields, properties and public methods."""
    yield from inspect.get_annotations(thing).values()
    for attribute, member in vars(thing).items():
        function = member.fget if isinstance(member, property) else member
        function = getattr(function, "__func__", function)
        public = attribute == "__init__" or not attribute.startswith("_")
        if inspect.isfunction(function) and public:
            yield from inspect.get_annotations(function).values()


def test_whatever_public_signatures_mention_of_ours_is_public():
    ours = {
        name
        for module in public_modules()
        for name, value in vars(module).items()
        if str(getattr(value, "__module__", "")).startswith("intercom_data_events")
        and not isinstance(value, TypeVar)
    }
    generated = set(models.__all__) - {"IntercomVersion", "MonetaryAmount", "RichLink"}
    unlisted = {}
    for name in package.__all__:
        thing = getattr(package, name)
        if inspect.isclass(thing) and thing.__module__.startswith("intercom_data_events."):
            mentioned = set(re.findall(r"[A-Za-z_]+", " ".join(map(str, annotations(thing)))))
            unlisted[name] = mentioned & (ours | generated) - set(package.__all__)
    # A client, its session, and what makes a lazy list are handed over by the package itself.
    assert {name: found for name, found in unlisted.items() if found} == {
        "EventList": {"Answer"},
        "AsyncEventList": {"Answer"},
        "Outcomes": {"Session", "Settings"},
        "AsyncOutcomes": {"Session", "Settings"},
    }


def test_every_public_class_method_and_property_has_a_docstring():
    missing = []
    for name in package.__all__:
        thing = getattr(package, name)
        if not inspect.isclass(thing) or not thing.__module__.startswith("intercom_data_events."):
            continue
        if not inspect.getdoc(thing):
            missing.append(name)
        for attribute, member in vars(thing).items():
            documented = inspect.isfunction(member) or isinstance(member, property | classmethod)
            if documented and not attribute.startswith("_") and not inspect.getdoc(member):
                missing.append(f"{name}.{attribute}")
    assert missing == []


RAW = (package.RawDataEventsClient, package.AsyncRawDataEventsClient)
BOUND = (package.Contact, package.AsyncContact)
CLIENTS = (package.DataEventsClient, package.AsyncDataEventsClient, *RAW, *BOUND)
#: What a contact says itself, by whichever names a verb has for it.
IDENTITY = {"user_id", "email", "id", "intercom_user_id"}


def having(verb):
    """The clients, raw clients and contacts that have a verb; the first is DataEventsClient."""
    return [client for client in CLIENTS if hasattr(client, verb)]


def returned_by(client, returned):
    """What a verb returns where that of DataEventsClient returns the given type."""
    if client in RAW:
        return f"APIResponse[{'Page' if returned == 'EventList' else returned}]"
    lists = returned == "EventList" and client.__name__.startswith("Async")
    return "AsyncEventList" if lists else returned


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_one_signature_on_every_client_and_a_contacts_lacks_the_identity(verb):
    first = inspect.signature(getattr(package.DataEventsClient, verb))
    for client in having(verb):
        method = getattr(client, verb)
        found = inspect.signature(method)
        expected = [
            one
            for name, one in first.parameters.items()
            if client not in BOUND or name not in IDENTITY
        ]

        assert list(found.parameters.values()) == expected, client
        assert found.return_annotation == returned_by(client, first.return_annotation), client
        assert next(iter(found.parameters)) == "self", client
        assert method.__name__ == verb, client


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_shows_its_whole_docstring_on_every_client(verb):
    for client in having(verb):
        method = getattr(client, verb)
        doc = inspect.getdoc(method)
        listed = re.findall(
            r"^    (\w+): ", doc.partition("Args:")[2].partition("\n\n")[0], re.MULTILINE
        )

        assert listed == list(inspect.signature(method).parameters)[1:], client
        assert "InvalidResponseError" in doc.partition("Raises:")[2], client
        assert " see :meth:" not in doc, client
        # Without the identities, a contact's is another one; every other client has the same.
        shared = package.Contact if client in BOUND else package.DataEventsClient
        assert doc == inspect.getdoc(getattr(shared, verb)), client


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_a_verb_as_a_method_with_its_docstring(verb):
    for client in having(verb):
        text = pydoc.render_doc(client, renderer=pydoc.plaintext)
        signature = f"{verb}{inspect.signature(getattr(client, verb))}"

        # From Python 3.13 on, it is broken into lines.
        assert re.sub(r"[\s'|]", "", signature) in re.sub(r"[\s'|]", "", text), client
        assert inspect.getdoc(getattr(client, verb)).splitlines()[0] in text, client


def test_a_verb_that_is_awaited_is_a_coroutine_function():
    for client in CLIENTS:
        is_async = client.__name__.startswith("Async")
        for verb in VERBS:
            method = getattr(client, verb, None)
            if method is not None:
                lists = inspect.signature(method).return_annotation == "AsyncEventList"

                assert inspect.iscoroutinefunction(method) is (is_async and not lists), method


def test_plain_data_is_frozen():
    for name in package.__all__:
        thing = getattr(package, name)
        if inspect.isclass(thing) and attrs.has(thing):
            assert thing.__setattr__ is not object.__setattr__, name


def test_sync_and_async_have_the_same_verbs_and_arguments():
    twins = [
        ("DataEventsClient", "AsyncDataEventsClient"),
        ("Contact", "AsyncContact"),
        ("RawDataEventsClient", "AsyncRawDataEventsClient"),
    ]
    for blocking, awaiting in ((getattr(package, a), getattr(package, b)) for a, b in twins):
        verbs = {name for name in vars(blocking) if not name.startswith("_")}
        # An async client has two names for closing.
        also = {"aclose"} if "close" in verbs else set()
        assert verbs | also == {name for name in vars(awaiting) if not name.startswith("_")}
        for verb in verbs:
            one, other = getattr(blocking, verb), getattr(awaiting, verb)
            if inspect.isfunction(one):
                assert (
                    inspect.signature(one).parameters.keys()
                    == inspect.signature(other).parameters.keys()
                )


def test_the_examples_in_docstrings_run():
    results = {
        module.__name__: doctest.testmod(module, optionflags=doctest.ELLIPSIS)
        for module in public_modules()
    }

    assert [name for name, result in results.items() if result.failed] == []


def test_there_are_examples_in_docstrings():
    finder = doctest.DocTestFinder()
    found = [test for module in public_modules() for test in finder.find(module) if test.examples]

    assert len(found) > 15
