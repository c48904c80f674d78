"""The messages for an invalid command line: the option or value, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from intercom_data_events._validation import flaw_of, printable, short_repr

# Names that users may try for the access token.
_TOKEN = re.compile(r"--?(t|.*(token|key|auth|secret|password|bearer).*)", re.IGNORECASE)
# Messages of click, whose errors have no attributes for these parts.
_COMMAND = re.compile(r"No such command '(.+?)'(?:\. Did you mean '(.+)'\?)?")
_EXTRA = re.compile(r"Got unexpected extra argument\S* \((.+)\)")
_MACHINE = 10**9
_LONGEST_NAME = 80
_NUMBER = re.compile(r"-?[0-9]{1,20}")
_ADVICE = (
    "the access token must not be an argument, because other users of this machine and the shell's "
    "history would see it; set INTERCOM_ACCESS_TOKEN in the environment, or enter the token when "
    "the terminal asks for it"
)


def is_usage_error(error: Exception) -> bool:
    """Whether click, or the copy of click in Typer, raised the error; detected by its methods."""
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
    if flaw is None:
        return str(error)
    # A key of metadata can be of any length.
    name = named([printable(part, _LONGEST_NAME) for part in flaw.path])
    return f"{name} {printable(flaw.plain, None)}".strip()


def asks_for_help(error: Exception) -> bool:
    """Whether a command got none of its required arguments; the error's text is its help."""
    return type(error).__name__ == "NoArgsIsHelpError"


def explained(error: Any) -> tuple[str, str | None]:
    """Returns the problem, and the command that shows help about it, if there is one."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    text = error.format_message().rstrip(".")
    if hasattr(error, "possibilities") and context is not None:
        text = _ADVICE if _TOKEN.fullmatch(error.option_name) else _unknown(error, context)
    elif hasattr(error, "option_name"):
        takes_none = "not take" in text
        text = f"{error.option_name} must {'not ' if takes_none else ''}have a value"
    elif hasattr(error, "param_type"):
        text = f"{_name(parameter)} is missing; add it"
    elif expected := _expected(parameter):
        text = f"{_name(parameter)} must be {expected}, not {_given(error)}"
    elif found := _COMMAND.match(text):
        text = f"there is no command {found[1]}"
        text += f"; did you mean {found[2]}?" if found[2] else ""
    elif found := _EXTRA.match(text):
        text = (
            f"unexpected arguments: {found[1]}; remove them, or quote arguments that contain spaces"
        )
    return text, context and f"{context.command_path} --help"


def _name(parameter: Any) -> str:
    """Returns an option or argument as help shows it."""
    if parameter.param_type_name == "option":
        return str(max(parameter.opts, key=len))
    return str(parameter.metavar)


def _expected(parameter: Any) -> str | None:
    """Returns what the value of an option or argument must be, if its declaration says so."""
    if "|" in (getattr(parameter, "metavar", None) or ""):
        *others, last = parameter.metavar.split("|")
        return f"{', '.join(others)} or {last}"
    # Typer up to 0.27 uses a type of click named "int", "integer" or "int range".
    kind = getattr(parameter, "type", parameter)
    made = getattr(parameter, "type_descriptor", None)
    named = getattr(kind, "name", "") if made is None else getattr(made.annotation, "__name__", "")
    name = {"int": "an integer", "flo": "a number"}.get(named[:3])
    if getattr(kind, "min", None) is None:
        return name
    # Bounds that come from the machine do not help the user.
    if kind.max >= _MACHINE:
        return f"{name} of at least {kind.min}"
    return f"{name} from {kind.min} to {kind.max:,}"


def _given(error: Any) -> str:
    """Returns the invalid value as the user typed it."""
    found = getattr(error.__cause__, "errors", None)  # From pydantic, since Typer 0.28.
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
