"""The emulator as a command: `python -m intercom_data_events.emulator`."""

from __future__ import annotations

import argparse
import json
import logging
import math
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from queue import Empty, SimpleQueue

import attrs

from intercom_data_events._arguments import ArgumentParser
from intercom_data_events._validation import printable, short_repr
from intercom_data_events_api import API_VERSION

from . import _access
from ._emulator import Emulator, EmulatorCounts
from ._faults import random_faults
from ._workspace import RATE_LIMIT, WINDOW, EmulatedContact

_PROG = "python -m intercom_data_events.emulator"

_EXAMPLE = """\
example:
  {prog} --port 8125 \\
    --contact user_id=314159,email=a@b.co

  curl -i http://127.0.0.1:8125/events \\
    -H 'Authorization: Bearer token' -H 'Content-Type: application/json' \\
    -d '{{"event_name": "placed-order", "user_id": "314159",
         "created_at": 1389913941}}'

  curl 'http://127.0.0.1:8125/events?type=user&user_id=314159&summary=true' \\
    -H 'Authorization: Bearer token'

To see whether a program loses events, make a fifth of its requests fail, the
same ones each time, and compare what the program sent with the counts that the
emulator writes when it stops:

  {prog} --port 8125 \\
    --faults 0.2 --seed 1 --skew 30

Ctrl-C stops the emulator, which then writes its counts. It keeps events in
memory only.
Until then, it writes a line for each request on standard error: time, method,
path, status, bytes, milliseconds, and the fault, if there is one. The line has
no access token and no body, and hides user_id, email and intercom_user_id.
"""

# A larger one would exceed the years that the Date header can show.
_SKEW = 10**9


def main(arguments: Sequence[str] | None = None, prog: str = _PROG) -> int:
    """Serve until interrupted or terminated.

    Args:
        arguments: The arguments; None takes those of the process.
        prog: The name of the command in its help and its error messages.

    Returns:
        The exit code: 0 when stopped, 2 if it cannot listen on the address.

    Raises:
        SystemExit: The arguments are invalid, or ask for help.
    """
    parser = _parser(prog)
    options = parser.parse_args(arguments)
    if options.seed is not None and options.faults is None:
        parser.error("argument --seed: requires --faults; pass both")
    try:
        emulator = Emulator(
            contacts=options.contact,
            tokens=options.token,
            version=options.version,
            rate_limit=options.rate_limit or None,
            window=options.window,
            faults=random_faults(options.faults or 0.0, seed=options.seed),
            record=False,
        )
    except ValueError as error:
        parser.error(str(error))
    emulator.advance(options.skew)
    # SimpleQueue.put is reentrant: a signal handler may call it while `get` waits.
    signals: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: signals.put(number))
    with ExitStack() as serving:
        if not options.quiet:
            serving.enter_context(_logging(as_json=options.json))
        try:
            url = serving.enter_context(emulator.serve(options.host, options.port))
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            said = (
                f"Cannot listen on {options.host}:{options.port}: {reason}; choose another port or "
                "host."
            )
            sys.stderr.write(f"{printable(said, None)}\n")
            return 2
        # A program that starts this in the background waits for this line.
        sentence = f"Emulating Intercom's data events at {url}"
        _say(json.dumps({"url": url}) if options.json else sentence)
        _wait(signals)
    if options.json:
        _say(json.dumps(attrs.asdict(emulator.counts)))
    else:
        sys.stderr.write(f"{_summary(emulator.counts)}\n")
    return 0


@contextmanager
def _logging(*, as_json: bool) -> Iterator[None]:
    """Writes the access log on standard error."""
    handler = _access.AccessLog(sys.stderr, as_json=as_json)
    log, level, propagates = _access.log, _access.log.level, _access.log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    # INTERCOM_LOG would write each line a second time.
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagates


def _wait(signals: SimpleQueue[int]) -> None:
    """Waits for a signal; if one arrives just before `get` waits, `get` sees it at its timeout."""
    while True:
        with suppress(Empty):
            signals.get(timeout=0.5)
            return


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  # the command's result


def _summary(counts: EmulatorCounts) -> str:
    faults = counts.faults
    kinds = ", ".join(f"{name} {number}" for name, number in sorted(faults.items()))
    return (
        f"requests: {counts.requests}, stored: {counts.stored}, duplicates: {counts.duplicates}, "
        f"rejected: {counts.refused}, rate-limited: {counts.limited}, "
        f"faults: {sum(faults.values())}{f' ({kinds})' if kinds else ''}"
    )


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog=prog,
        description="Run a mock server of Intercom's data-event endpoints.",
        epilog=_EXAMPLE.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="interface to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=_port, default=0, help="port to listen on (default: a free one)"
    )
    parser.add_argument(
        "--token",
        action="append",
        help="access token to accept; each has its own workspace; repeatable (default: any token)",
    )
    parser.add_argument(
        "--contact",
        action="append",
        type=_contact,
        metavar="FIELD=VALUE,...",
        help="a known contact, by user_id, email, id or several of them; requests for all other "
        "contacts are then answered with 404; repeatable (default: an event creates its contact)",
    )
    parser.add_argument(
        "--version",
        default=API_VERSION,
        help="API version for requests without a version header (default: %(default)s)",
    )
    parser.add_argument(
        "--faults",
        type=_share,
        metavar="SHARE",
        help="share of the requests, from 0 to 1, that fail at random: slow answers, reset "
        "connections, errors before and after an event is stored (default: 0)",
    )
    parser.add_argument(
        "--seed",
        type=_seed,
        metavar="N",
        help="seed for --faults, to repeat the same faults (default: random)",
    )
    parser.add_argument(
        "--rate-limit",
        type=_rate_limit,
        default=RATE_LIMIT,
        metavar="N",
        help="requests per token and window; further ones are answered with 429; 0 for no limit "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--window",
        type=_window,
        default=WINDOW,
        metavar="SECONDS",
        help="length of a rate-limit window (default: %(default)g)",
    )
    parser.add_argument(
        "--skew",
        type=_skew,
        default=0.0,
        metavar="SECONDS",
        help="clock skew: seconds by which the emulator's clock is ahead of this machine's, or "
        "behind if negative; affects the Date header and rate-limit windows (default: %(default)g)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help='write JSON: on standard output, {"url": ...} on the first line and the counts on the '
        "last; on standard error, the access log with one object per line",
    )
    parser.add_argument(
        "--quiet", action="store_true", help="write no access log (default: on standard error)"
    )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be a port from 0 to 65535, not {short_repr(text)}")
    return int(text)


def _share(text: str) -> float:
    if not 0 <= (share := _number(text)) <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {short_repr(text)}")
    return share


def _rate_limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(
            f"must be a positive integer, or 0 for no limit, not {short_repr(text)}"
        )
    return int(text)


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an integer, not {short_repr(text)}") from None


def _window(text: str) -> float:
    if not 0 < (seconds := _number(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"must be greater than 0 seconds, not {short_repr(text)}")
    return seconds


def _skew(text: str) -> float:
    if not abs(seconds := _number(text)) <= _SKEW:
        raise argparse.ArgumentTypeError(
            f"must be from -{_SKEW:,} to {_SKEW:,} seconds, not {short_repr(text)}"
        )
    return seconds


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _contact(text: str) -> EmulatedContact:
    known = attrs.fields_dict(EmulatedContact)
    fields: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in known or not value or name in fields:
            raise argparse.ArgumentTypeError(
                f"must be FIELD=VALUE,... with the fields {', '.join(known)}, "
                f"not {short_repr(text)}"
            )
        fields[name] = value
    return EmulatedContact(**fields)


if __name__ == "__main__":
    sys.exit(main())
