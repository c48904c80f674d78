"""Searches for inputs on which a reader fails.

A *target* is a reader with its inputs. For each input:

- the reader raises only the errors that it documents, and ends in time;
- it allocates at most 100 MB, also for a short input that expands to a long one;
- its time is proportional: four times the input takes at most eight times as long;
- its output and logs are printable; logs have no e-mail address; if a server repeats the access
  token, in any encoding, no part of it is shown.

Hypothesis generates the inputs and shortens one that fails. Long inputs repeat a piece.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import signal
import time
import traceback
import tracemalloc
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import hypothesis
from attrs import define, field, frozen
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky, HypothesisWarning

from intercom_data_events import IntercomError

TOKEN = "dG9rOmEtdmVyeS1zZWNyZXQtdG9rZW4="  # noqa: S105  # made up
EMAIL = "frodo.baggins@example.com"
#: Bytes that a reader may allocate for one input.
MOST_MEMORY = 100_000_000
#: How much longer four times the input may take: 4 is linear, 16 is quadratic.
MOST_RATIO = 8
#: CPU seconds below which a ratio is ignored, because machines are noisy.
MEASURABLE = 0.02
# CPU seconds that are measured once, because noise is a small part of them.
_STEADY = 0.1
# CPU seconds above which an input is not made longer.
_LONG_ENOUGH = 0.25
#: Time limit for one input in seconds; tracing the memory is slow.
PATIENCE = 20
# Seconds for shortening an input that fails.
_SHORTENING = 10
_EXAMPLES, _TURNS = 20, 2
# The most characters of an input in a report.
_SHOWN = 1_000
_SHORTEST, _LONGEST = 4_096, 262_144
_LOGGER = logging.getLogger("intercom_data_events")

#: The token as servers write it, and a part that is long enough to be recognized.
_WRITTEN = [TOKEN.replace("=", end) for end in ("=", "\\u003d", "%3D", "%3d", "&#x3d;", "&equals;")]
_PART = TOKEN[:16]

#: Parts of formats, and characters with a meaning for terminals, shells and parsers.
PIECES = (
    *"[]{}\"'\\/<>&%=:;,.#|*@!-+_ 019eaNTé\t\n\r\0\x1b\x9b\u202e\u2028\ufeff\ud800\U0001f600",
    *('{"a":', "[[", "[],", "{},", "0,", '"a",', "null,", "\\u003d", "\\ud800", "%3D", "%00"),
    *("&#x3d;", "&amp;", "<!--", "-->", "<script>", "</script", "<h1>", "<title>", "<![CDATA["),
    *("]]>", "1e999"),
    *("\r\n", '""', "=0\r\n", "gzip,", "; ", "9" * 30, "<<: *a\n", "&a [*a,", "- ", "? ", ": "),
    *('{"event_name":"a"}\n', "metadata.a,", ":text", ":number", "2024-01-01T00:00:00Z"),
    *(*_WRITTEN, EMAIL, "user_id=", "?since=", "://", "GMT", "+00:00"),
)  # fmt: skip


@frozen
class Target:
    """A reader with its inputs.

    Attributes:
        name: The name in the table.
        inputs: The strategy for the inputs.
        read: Reads an input, and returns the output.
        lengthened: Functions that make an input from a string of any length.
        allowed: The documented errors.
        of_server: Whether a server sends the input, which may repeat the token.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    read: Callable[[Any], Iterable[str]]
    lengthened: tuple[Callable[[str], Any], ...] = ()
    allowed: tuple[type[BaseException], ...] = (IntercomError,)
    of_server: bool = False


class Fault(Exception):  # noqa: N818  # a finding, not an error of the search
    """An input on which a reader breaks a rule.

    Attributes:
        kind: The rule and the place; faults of one kind are reported once.
    """

    def __init__(self, target: str, kind: str, details: str, given: object) -> None:
        super().__init__(details)
        self.target, self.kind, self.details, self.given = target, kind, details, given

    def __str__(self) -> str:
        """Returns everything that is needed to repeat it."""
        given = repr(self.given)
        length = f" [{len(given):,} characters]" if len(given) > _SHOWN else ""
        return f"{self.target}: {self.kind}\n  {self.details}\n  {given[:_SHOWN]}{length}"


@define
class Tally:
    """The results of a target.

    Attributes:
        examples: The number of inputs.
        seconds: Their time.
        ratio: The largest ratio of times, for four times the input.
        peak: The largest allocation, in bytes.
        faults: The faults by kind.
    """

    examples: int = 0
    seconds: float = 0.0
    ratio: float = 0.0
    peak: int = 0
    faults: dict[str, Fault] = field(factory=dict[str, Fault])


class _SlowError(BaseException):
    """A reader did not end in time."""


@contextlib.contextmanager
def _in_time(seconds: float) -> Iterator[None]:
    """Raises a _SlowError in the main thread after a time, if the system has such timers."""

    def end(_: int, __: FrameType | None) -> None:
        raise _SlowError

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class _Kept(logging.Handler):
    """Records log lines as a handler formats them."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if record.exc_info and record.exc_info[1]:
            self.lines += _said(record.exc_info[1])


@contextlib.contextmanager
def _log() -> Iterator[list[str]]:
    kept = _Kept()
    level, propagate = _LOGGER.level, _LOGGER.propagate
    _LOGGER.addHandler(kept)
    _LOGGER.setLevel(logging.DEBUG)
    _LOGGER.propagate = False
    try:
        yield kept.lines
    finally:
        _LOGGER.removeHandler(kept)
        _LOGGER.setLevel(level)
        _LOGGER.propagate = propagate


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Limits this process to 1 GiB more address space, so that a bomb does no harm."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def judge(target: Target, given: Any) -> tuple[Fault | None, int]:
    """Reads an input; returns the fault, if there is one, and the peak memory."""
    said: list[str] = []
    fault = None
    with _log() as logged:
        tracemalloc.start()
        try:
            with _in_time(PATIENCE):
                said += target.read(given)
        except target.allowed as error:
            said += _said(error)
        except _SlowError as error:
            place = _place(error)
            fault = Fault(target.name, f"hangs in {place}", f"{PATIENCE} s passed", given)
        except Exception as error:  # noqa: BLE001  # any error is a finding
            kind = f"{type(error).__name__} in {_place(error)}"
            fault = Fault(target.name, kind, str(error)[:500], given)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    if peak > MOST_MEMORY:
        details = f"{peak:,} bytes allocated, more than {MOST_MEMORY:,}"
        return Fault(target.name, "memory", details, given), peak
    if fault is None:
        shown = [*((text, False) for text in said), *((line, True) for line in logged)]
        for text, is_log in shown:
            if wrong := _wrong(text, target, given, is_log=is_log):
                fault = Fault(target.name, wrong, repr(text[:500]), given)
                break
    return fault, peak


def _said(error: BaseException) -> list[str]:
    """Returns the text of an error and of its attributes."""
    shown = [str(error), repr(error)]
    for name in ("message", "field", "request_id", "codes"):
        value = getattr(error, name, None)
        shown += [value] if isinstance(value, str) else map(str, value or ())
    # A traceback has line ends and text of other libraries, so only the token is searched in it.
    whole = "".join(traceback.format_exception(error))
    return [*shown, TOKEN] if TOKEN in whole else shown


def _wrong(text: str, target: Target, given: object, *, is_log: bool) -> str | None:
    """Returns what a text contains and must not contain."""
    if target.of_server and _PART in text and (TOKEN in text or _is_whole(repr(given))):
        return "shows the access token"
    if is_log and EMAIL in text:
        return "logs an e-mail address"
    if not text.replace("\n", "").isprintable():
        return "shows unprintable characters"
    return None


def _is_whole(given: str) -> bool:
    """Whether a server sends the whole token; no client can recognize a part of it."""
    return given.count(_PART) == sum(map(given.replace("\\\\", "\\").count, _WRITTEN))


def _place(error: BaseException) -> str:
    """Returns the innermost place of an error in the project, and the innermost of all."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__  # The timer raises in slow code.
    ]
    ours = [frame for frame in frames if "intercom_data_events" in frame.filename] or frames
    places = dict.fromkeys(
        f"{Path(one.filename).name}:{one.name}" for one in (ours[-1], frames[-1])
    )
    return ", ".join(places)


def example(target: Target, seed: str, tally: Tally, until: float) -> Fault | None:
    """Reads some generated inputs; returns a fault of a new kind, shortened."""
    failed: dict[str, Fault] = {}
    shorten_until = 0.0

    def check(given: Any) -> None:
        nonlocal shorten_until
        now, key = time.monotonic(), repr(given)
        if key not in failed:
            if now > (shorten_until or until):
                return
            tally.examples += 1
            fault, peak = judge(target, given)
            if fault is None or fault.kind in tally.faults:
                # A known fault is reported once, and so is its peak.
                tally.peak = max(tally.peak, peak if fault is None else 0)
                return
            failed[key] = fault
            shorten_until = shorten_until or now + _SHORTENING
        raise failed[key]

    quiet = settings(
        max_examples=_EXAMPLES,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    # A short input can have a long repr, which is then not shown.
    warnings.filterwarnings("ignore", category=HypothesisWarning)
    number = random.Random(seed).getrandbits(64)  # noqa: S311  # guards nothing
    try:
        hypothesis.seed(number)(quiet(hypothesis.given(target.inputs)(check)))()
    except Fault as fault:
        return fault
    except Flaky:
        # A flaky fault counts if its shortest input fails once more.
        shortest = min(failed.values(), key=lambda fault: len(repr(fault.given)))
        return judge(target, shortest.given)[0]
    return None


def lengthen(target: Target, seed: str, tally: Tally, until: float) -> Fault | None:
    """Reads an input, then ones four times as long; returns a fault of a new kind."""
    chance = random.Random(seed)  # noqa: S311  # guards nothing
    lengthened = chance.choice(target.lengthened)
    parts = ["".join(chance.choices(PIECES, k=chance.choice((0, 1, 1, 2)))) for _ in range(3)]
    first, repeated, last = parts[0], parts[1] or chance.choice(PIECES), parts[2]

    @functools.cache
    def made(length: int) -> Any:
        return lengthened(first + repeated * (length // len(repeated)) + last)

    def explained(fault: Fault) -> Fault:
        count = f"{repeated!a} * {length // len(repeated)}"
        fault.details += f"; {length:,} characters: {first!a} + {count} + {last!a}, in:"
        fault.given = made(0)
        return fault

    before, length, ratio, steep = 0.0, _SHORTEST, 0.0, 0
    while True:
        tally.examples += 1
        after = _seconds(target, made(length))
        if before and after > MEASURABLE:
            ratio = after / before
            for _ in range(2):
                if ratio > MOST_RATIO:  # Another process may have used the time.
                    before = _seconds(target, made(length // 4))
                    ratio = min(ratio, _seconds(target, made(length)) / before)
            steep = steep + 1 if ratio > MOST_RATIO else 0
        is_late = time.monotonic() > until
        # A cache that is too small can cause a small jump, so a steep ratio must persist.
        if is_late or length >= _LONGEST or after > (_LONG_ENOUGH / 3 if steep else _LONG_ENOUGH):
            break
        before, length = after, length * 4
    tally.ratio = max(tally.ratio, ratio)
    if steep > is_late:
        details = f"{after:.3f} s, {ratio:.1f} times as long as for a quarter of the length"
        return explained(Fault(target.name, "slower than linear", details, None))
    fault, peak = judge(target, made(length))
    if fault is None:
        tally.peak = max(tally.peak, peak)
        return None
    return explained(fault)


def _seconds(target: Target, given: Any) -> float:
    """Returns the CPU seconds of this thread for an input, the least of up to three."""
    shortest = float(PATIENCE)
    for _ in range(3):
        begin = time.thread_time()
        # `judge` checks the errors.
        with _log(), contextlib.suppress(Exception, _SlowError), _in_time(PATIENCE):
            list(target.read(given))
        shortest = min(shortest, time.thread_time() - begin)
        if shortest > _STEADY:
            break
    return max(shortest, 1e-6)


def search(
    targets: Iterable[Target],
    seconds: float,
    seed: int,
    tell: Callable[[Fault], object] = lambda _: None,
) -> dict[str, Tally]:
    """Reads inputs for some seconds, which the targets share.

    Args:
        targets: The targets.
        seconds: The duration, for all targets together.
        seed: The seed; the same seed gives the same inputs in the same order.
        tell: Is called once with each fault.

    Returns:
        The results of each target, by name.
    """
    tallies = {target.name: Tally() for target in targets}
    by_name = {target.name: target for target in targets}
    turns = dict.fromkeys(tallies, 0)
    end = time.monotonic() + seconds
    with bounded():
        # Each target gets at least two turns.
        while (now := time.monotonic()) < end or min(turns.values()) < _TURNS:
            # The target with the least time so far is next.
            name = min(tallies, key=lambda name: (turns[name] >= _TURNS, tallies[name].seconds))
            target, tally, turn = by_name[name], tallies[name], turns[name]
            turns[name] += 1
            one = lengthen if turn % 2 and target.lengthened else example
            fault = one(target, f"{seed} {name} {turn}", tally, max(end, now + 1))
            tally.seconds += time.monotonic() - now
            if fault is not None and fault.kind not in tally.faults:
                tally.faults[fault.kind] = fault
                tell(fault)
    return tallies
