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
from public_names import modules, public


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


def test_every_module_that_programs_import_lists_its_public_names():
    for name in modules():
        if not name.startswith("intercom_data_events.cli"):
            module = importlib.import_module(name)
            assert module.__all__ == sorted(module.__all__), module
            assert set(module.__all__) <= set(dir(module)), module


def public_names():
    """Every public name once: where it is defined, its documentation, and what it is."""
    return {f"{one.origin}.{one.name}": (one.doc, one.value) for one in public().values()}


def public_members(thing):
    """The public methods and properties of a class, those that it inherits from ours included."""
    for name in dir(thing):
        owner = next(kind for kind in thing.__mro__ if name in vars(kind) or kind is object)
        member = vars(owner).get(name)
        ours = owner.__module__.startswith("intercom_data_events.")
        method = inspect.isfunction(member) or isinstance(member, classmethod | staticmethod)
        if ours and not name.startswith("_") and (method or isinstance(member, property)):
            yield name, member


def examples(doc):
    """The Python of the examples in a docstring."""
    return "".join(example.source for example in doctest.DocTestParser().get_examples(doc))


#: The example of a fixture is a test function, which doctest cannot call.
FIXTURES = [
    "intercom_data_events.pytest_plugin.intercom_emulator",
    "intercom_data_events.pytest_plugin.intercom_emulator_url",
]


def test_every_public_name_says_what_it_is_and_shows_an_example():
    names = public_names()
    said = {place: doc.partition("Example:")[0].strip() for place, (doc, _) in names.items()}

    assert [place for place in names if not said[place]] == []
    assert [place for place, (doc, _) in names.items() if not examples(doc)] == FIXTURES


def test_every_public_method_and_property_has_a_docstring_and_one_with_arguments_an_example():
    silent, without = [], []
    for place, (class_doc, thing) in public_names().items():
        if not inspect.isclass(thing):
            continue
        for name, member in public_members(thing):
            function = getattr(member, "__func__", member)
            doc = inspect.getdoc(function) or ""
            if not doc:
                silent.append(f"{place}.{name}")
            if isinstance(member, property) or examples(doc):
                continue
            takes = len(inspect.signature(function).parameters) > 1
            if takes and not re.search(rf"\.{name}\(", examples(class_doc)):
                without.append(f"{place}.{name}")

    assert silent == []
    assert without == []


def test_every_field_of_plain_data_is_described():
    missing = [
        f"{place}.{field.name}"
        for place, (doc, thing) in public_names().items()
        if inspect.isclass(thing) and attrs.has(thing)
        for field in attrs.fields(thing)
        if not field.name.startswith("_")
        and not re.search(rf"^    {field.name}: ", doc, re.MULTILINE)
    ]

    assert missing == []


def test_every_error_says_when_it_is_raised_and_whether_the_request_may_have_been_processed():
    for place, (doc, thing) in public_names().items():
        if inspect.isclass(thing) and issubclass(thing, BaseException):
            said = doc.partition("Example:")[0]
            # A subclass of an error that is raised before anything is sent need not repeat it.
            assert re.search(r"processed|[Nn]othing was sent|not sent|may have", said), place


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


def all_examples():
    """The examples of all docstrings, and those of the comments above aliases and constants.

    They are to be copied: an example has the name that it documents, and imports the others.
    """
    found = set()
    for module in public_modules():
        for test in doctest.DocTestFinder().find(module, globs={}):
            name = test.name.removeprefix(module.__name__).lstrip(".").partition(".")[0]
            if name:
                test.globs[name] = getattr(module, name)
            found.add(test.name)
            yield test
    for place, (doc, thing) in public_names().items():
        if place not in found:
            own = {place.rpartition(".")[2]: thing}
            yield doctest.DocTestParser().get_doctest(doc, own, place, place, 0)


def test_the_examples_in_docstrings_run():
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    tests = [test for test in all_examples() if test.examples]

    assert [test.name for test in tests if runner.run(test).failed] == []
    assert len(tests) > 100


@pytest.mark.parametrize("place", FIXTURES)
def test_the_example_of_a_fixture_runs(place, request):
    (block,) = re.findall(r"::\n\n((?: {4,}.*\n?|\n)+)", public_names()[place][0])
    namespace = {}
    exec(inspect.cleandoc(block), namespace)
    (example,) = (value for name, value in namespace.items() if name.startswith("test_"))
    used = inspect.signature(example).parameters

    assert place.rpartition(".")[2] in used
    example(**{name: request.getfixturevalue(name) for name in used})
