"""The words for wrong options and values: what is wrong, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from intercom_data_events._validation import flaw_of, printable, short_repr

# What people call the access token.
_TOKEN = re.compile(r"--?(t|.*(token|key|auth|secret|password|bearer).*)", re.IGNORECASE)
_MACHINE = 10**9
_NUMBER = re.compile(r"-?[0-9]{1,20}")
_ADVICE = (
    "the access token is not an option, because arguments are visible to other users of this "
    "machine and stay in the shell's history; set INTERCOM_ACCESS_TOKEN in the environment, or "
    "leave it unset to be asked for the token on a terminal"
)


def is_usage_error(error: Exception) -> bool:
    """Whether click raised it, or the copy of click that typer has: known by what it can do."""
    return hasattr(error, "format_message") and hasattr(error, "show")


def column(path: Sequence[str]) -> str:
    """Returns what a file of events calls a value: ``created_at``, ``metadata.price.amount``."""
    return ".".join(path)


def worded(error: Exception, named: Callable[[Sequence[str]], str] = column) -> str:
    """Returns what an error says, in the words of files and options instead of Python's.

    Args:
        error: Any error.
        named: Returns what its reader calls an argument of the package.
    """
    flaw = flaw_of(error)
    return (
        str(error) if flaw is None else printable(f"{named(flaw.path)} {flaw.plain}".strip(), None)
    )


def asks_for_help(error: Exception) -> bool:
    """Whether a command that needs arguments was given none; the error's text is its help."""
    return type(error).__name__ == "NoArgsIsHelpError"


def explained(error: Any) -> tuple[str, str | None]:
    """Returns what is wrong, and the command whose help says more, if there is one."""
    context = getattr(error, "ctx", None)
    text = error.format_message().rstrip(".")
    if hasattr(error, "possibilities") and context is not None:
        text = _ADVICE if _TOKEN.fullmatch(error.option_name) else _unknown(error, context)
    elif expected := _expected(getattr(error, "param", None)):
        is_option = error.param.param_type_name == "option"
        name = max(error.param.opts, key=len) if is_option else error.param.metavar
        text = f"{name} must be {expected}, not {_given(error)}"
    return text, context and f"{context.command_path} --help"


def _expected(parameter: Any) -> str | None:
    """What the value of an option or argument must be; None where its declaration does not say."""
    if "|" in (getattr(parameter, "metavar", None) or ""):
        *others, last = parameter.metavar.split("|")
        return f"{', '.join(others)} or {last}"
    # Until 0.27, Typer has a type of click's, named "int", "integer" or "int range".
    kind = getattr(parameter, "type", parameter)
    made = getattr(parameter, "type_descriptor", None)
    named = getattr(kind, "name", "") if made is None else getattr(made.annotation, "__name__", "")
    name = {"int": "an integer", "flo": "a number"}.get(named[:3])
    if getattr(kind, "min", None) is None:
        return name
    # A bound that only a machine has is not worth a word.
    if kind.max >= _MACHINE:
        return f"{name} of at least {kind.min}"
    return f"{name} from {kind.min} to {kind.max:,}"


def _given(error: Any) -> str:
    """The value that cannot be, as it was given."""
    found = getattr(error.__cause__, "errors", None)  # Of pydantic, since Typer 0.28.
    if found is None:
        return str(error.message.partition(" is not ")[0])
    text = str(found()[0]["input"])
    return text if _NUMBER.fullmatch(text) else short_repr(text)


def _unknown(error: Any, context: Any) -> str:
    known = [
        name
        for parameter in context.command.get_params(context)
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    ]
    near = get_close_matches(error.option_name, known, 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"there is no option {error.option_name}{meant}"
