"""How a long command runs, is stopped and tells: `import`, `validate` and `outbox drain`.

While it runs, progress and the first problems are shown; a signal asks it to stop, and breaks
nothing off. At the end comes a report whose counts add up to the number above them, whatever has
ended the command, and then what to do next.
"""

from __future__ import annotations

import signal
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

import typer
from attrs import define, field, frozen

from intercom_data_events.cli import output
from intercom_data_events.cli.exit_codes import Exit
from intercom_data_events.cli.progress import Advance, ProgressShown

#: Seconds between two looks at how far a command has come, and whether it is to stop.
LOOK = 0.1
#: Seconds for the answers to the requests in flight when a command is to stop.
GRACE = 0.5
# Problems that are shown one by one.
_SHOWN = 10


@define
class Running:
    """A command that runs.

    Args:
        progress: Where progress is shown, and messages without breaking it.
        quiet: Whether neither progress nor single problems are shown.

    Attributes:
        stopped: Whether a signal has asked it to stop.
    """

    _progress: ProgressShown
    _quiet: bool
    stopped: bool = field(default=False, init=False)
    _problems: int = field(default=0, init=False)

    def show(self, advance: Advance) -> None:
        """Shows how far it has come."""
        self._progress.show(advance)

    def tell(self, text: str, *, always: bool = False) -> None:
        """Shows a message, on one line.

        Args:
            text: What it says.
            always: Whether to show it although the command is quiet.
        """
        if always or not self._quiet:
            self._progress.tell(" ".join(text.split()))

    def problem(self, text: str) -> None:
        """Shows one of the first problems; all are counted in the report."""
        self._problems += 1
        if self._problems <= _SHOWN:
            self.tell(text)
        elif self._problems == _SHOWN + 1:
            self.tell("(further ones are counted, and not shown here)")

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopped = True


@contextmanager
def running(name: str, *, quiet: bool) -> Generator[Running]:
    """Runs a command with progress shown, until its end or until a signal asks it to stop."""
    with ProgressShown(name, quiet=quiet) as progress:
        command = Running(progress, quiet)
        before: dict[int, Any] = {
            number: signal.signal(number, command._stop)  # noqa: SLF001  # of this module
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield command
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@frozen
class Count:
    """One of the counts that a report has.

    Attributes:
        name: Its name in JSON.
        number: How many events.
        words: What people read beside it.
        always: Whether it is shown when it is 0.
    """

    name: str
    number: int
    words: str
    always: bool = False


@frozen
class Report:
    """What became of the events of a file.

    Attributes:
        file: The file.
        counts: The counts, which are all events.
        seconds: How long it took; None where nothing was to be done.
        done: How many events this run has done, for the rate.
        head: What stands beside the file's name instead of the time and the rate.
        remarks: What is said below the counts.
        details: What JSON has besides.
    """

    file: str
    counts: tuple[Count, ...]
    seconds: float
    done: int
    head: str = ""
    remarks: tuple[str, ...] = ()
    details: Mapping[str, object] = field(factory=dict[str, object])

    @property
    def events(self) -> int:
        """All events, which is what the counts add up to."""
        return sum(count.number for count in self.counts)

    def write(self, *, as_json: bool) -> None:
        """Writes it to standard output; the exit code says it where nothing reads that."""
        with suppress(BrokenPipeError):
            if as_json:
                counts = {count.name: count.number for count in self.counts}
                output.result_json(
                    {
                        "file": self.file,
                        "events": self.events,
                        **counts,
                        **self.details,
                        "seconds": round(self.seconds, 3),
                    }
                )
                return
            rate = f", {self.done / self.seconds:,.0f} a second" if self.seconds > 1 else ""
            head = self.head or f"in {output.duration(self.seconds)}{rate}"
            output.result(f"{self.file}: {output.counted(self.events)} {head}")
            for count in self.counts:
                if count.number or count.always:
                    output.result(f"{count.number:>12,} {count.words}")
            for remark in self.remarks:
                output.result(remark)


def end(*outcomes: tuple[object, Exit, str]) -> NoReturn:
    """Ends a command with the first exit code that holds, and says why.

    Args:
        outcomes: Whether each holds, its exit code, and a message or "".

    Raises:
        typer.Exit: Always.
    """
    for holds, code, text in outcomes:
        if holds:
            if text:
                output.message(text)
            raise typer.Exit(code)
    raise typer.Exit(Exit.DONE)
