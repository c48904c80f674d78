"""What a mistyped command line is told: the option or value, and what to write instead."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

# What people call the access token.
_TOKEN = re.compile(r"--?(t|.*(token|key|auth|secret|password|bearer).*)", re.IGNORECASE)
_MACHINE = 10**9
_ADVICE = (
    "the access token is not an option, because arguments are visible to other users of this "
    "machine and stay in the shell's history; set INTERCOM_ACCESS_TOKEN in the environment, or "
    "leave it unset to be asked for the token on a terminal"
)


def is_usage_error(error: Exception) -> bool:
    """Whether click raised it, or the copy of click that typer has: known by what it can do."""
    return hasattr(error, "format_message") and hasattr(error, "show")


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
        given = error.message.partition(" is not ")[0]
        is_option = error.param.param_type_name == "option"
        name = max(error.param.opts, key=len) if is_option else error.param.metavar
        text = f"{name} must be {expected}, not {given}"
    return text, context and f"{context.command_path} --help"


def _expected(parameter: Any) -> str | None:
    """What the value of an option or argument must be; None where its type does not say."""
    kind = getattr(parameter, "type", None)
    if choices := getattr(kind, "choices", None):
        *others, last = choices
        return f"{', '.join(others)} or {last}"
    # Typer has said "integer", then "int", and each with " range".
    names = {"int": "an integer", "flo": "a number"}
    name = names.get(getattr(kind, "name", "")[:3])
    if kind is None or getattr(kind, "min", None) is None:
        return name
    # A bound that only a machine has is not worth a word.
    if kind.max >= _MACHINE:
        return f"{name} of at least {kind.min}"
    return f"{name} from {kind.min} to {kind.max:,}"


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
