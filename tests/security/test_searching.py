"""The search finds each kind of fault, and names an input that is short."""

from __future__ import annotations

import logging

import pytest
from hypothesis import strategies as st

import fuzz
from intercom_data_events import InvalidInputError
from searching import EMAIL, TOKEN, Target, search

TEXTS = st.lists(st.sampled_from(["a", "<", "b", TOKEN, "\x1b"]), max_size=6).map("".join)


def leaks_an_exception(text):
    return [str({"a": 1}[text])] if "<" in text else []


def recurses(text):
    return recurses(text) if "<b" in text else []


def allocates(text):
    bytes(200_000_000 if text.startswith("<") else 1)
    return []


def never_ends(text):
    while text.startswith("<"):
        pass
    return []


def is_quadratic(text):
    while "<" in text:
        text = text.replace("<", "", 1)
    return []


def is_not_printable(text):
    return ["\x1b" if "<" in text else ""]


def repeats_the_token(text):
    return [text.replace("\x1b", "")]


def shows_a_part_of_the_token(text):
    return [text.replace("\x1b", "")[:20]]


def logs_an_address(text):
    logging.getLogger("intercom_data_events.any").info("sent %s", EMAIL if text else "")
    return []


def is_good(text):
    if "<" in text:
        raise InvalidInputError("must have no tag")
    return ["good"]


class FoundError(Exception):
    """The first fault, which ends the search."""


def first_fault(read, seconds=30.0):
    def stop(fault):
        raise FoundError(fault)

    target = Target("it", TEXTS, read, (str,), of_server=True)
    try:
        return search([target], seconds, 7, tell=stop)["it"]
    except FoundError as found:
        return found.args[0]


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (leaks_an_exception, "KeyError in test_searching.py:leaks_an_exception"),
        (recurses, "RecursionError in test_searching.py:recurses"),
        (allocates, "memory"),
        (is_quadratic, "slower than linear"),
        (is_not_printable, "shows unprintable characters"),
        (repeats_the_token, "shows the access token"),
        (shows_a_part_of_the_token, "shows the access token"),
        (logs_an_address, "logs an e-mail address"),
    ],
)
def test_a_fault_of_each_kind_is_found(read, kind):
    fault = first_fault(read)

    assert fault.kind == kind
    assert repr(fault.given) in str(fault)
    assert len(repr(fault.given)) < 400


def test_a_reader_that_does_not_end_is_found(monkeypatch):
    monkeypatch.setattr("searching.PATIENCE", 0.2)

    fault = first_fault(never_ends)

    assert fault.kind == "hangs in test_searching.py:never_ends"
    assert fault.given == "<"


def test_a_reader_without_a_fault_passes():
    tally = first_fault(is_good, 0.5)

    assert not tally.faults
    assert tally.examples > 20
    assert "it" in fuzz.table({"it": tally})
