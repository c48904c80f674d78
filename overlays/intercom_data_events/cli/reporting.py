"""Progress, signals and the report of the long commands: `import`, `validate`, `outbox drain`.

A running command shows its progress and the first problems. A signal asks it to stop, without
interrupting anything. The report follows, whatever ended the command; its counts add up to the
total. The next step comes last.
"""

from __future__ import annotations

import signal
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

import typer
from attrs import define, field, frozen

from intercom_data_events._counting import counted
from intercom_data_events.cli import output
from intercom_data_events.cli.exit_codes import Exit
from intercom_data_events.cli.progress import Advance, ProgressShown

#: Seconds between two checks of the progress, and of whether to stop.
LOOK = 0.1
#: Seconds that a stopping command waits for the answers to requests in flight.
GRACE = 0.5
# Problems that are shown one by one.
_SHOWN = 10


@define
class Running:
    """A running command.

    Args:
        progress: Shows the progress, and messages above it.
        quiet: Whether to show neither progress nor single problems.

    Attributes:
        stopped: Whether a signal has asked the command to stop.
    """

    _progress: ProgressShown
    _quiet: bool
    stopped: bool = field(default=False, init=False)
    _problems: int = field(default=0, init=False)

    def show(self, advance: Advance) -> None:
        """Updates the progress."""
        self._progress.show(advance)

    def tell(self, text: str, *, always: bool = False) -> None:
        """Shows a message, on one line.

        Args:
            text: The message.
            always: Whether to show it even if the command is quiet.
        """
        if always or not self._quiet:
            self._progress.tell(" ".join(text.split()))

    def problem(self, text: str) -> None:
        """Shows a problem if it is one of the first; the report counts all."""
        self._problems += 1
        if self._problems <= _SHOWN:
            self.tell(text)
        elif self._problems == _SHOWN + 1:
            self.tell("(further problems are counted, but not shown)")

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopped = True


@contextmanager
def running(name: str, *, quiet: bool) -> Generator[Running]:
    """Shows the progress of a command, and turns SIGINT and SIGTERM into a request to stop."""
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
    """One count of a report.

    Attributes:
        name: Its name in JSON.
        number: The number of events.
        words: Its label in text.
        always: Whether to show it even if it is 0.
    """

    name: str
    number: int
    words: str
    always: bool = False


@frozen
class Report:
    """The outcomes of the events of a file.

    Attributes:
        file: The name of the file.
        counts: The counts, which add up to all events.
        seconds: The duration.
        done: How many events this run has done, for the rate.
        head: Text after the number of events, instead of the duration and the rate.
        remarks: Lines below the counts.
        details: Further entries in JSON.
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
        """The number of all events, which is the sum of the counts."""
        return sum(count.number for count in self.counts)

    def write(self, *, as_json: bool) -> None:
        """Writes the report to standard output, unless its reader has gone."""
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
            rate = f", {self.done / self.seconds:,.0f} per second" if self.seconds > 1 else ""
            head = self.head or f"in {output.duration(self.seconds)}{rate}"
            output.result(f"{self.file}: {counted(self.events)} {head}")
            for count in self.counts:
                if count.number or count.always:
                    output.result(f"{count.number:>12,} {count.words}")
            for remark in self.remarks:
                output.result(remark)


def end(*outcomes: tuple[object, Exit, str]) -> NoReturn:
    """Ends a command with the first outcome that applies.

    Args:
        outcomes: Whether each applies, its exit code, and a message or "".

    Raises:
        typer.Exit: Always.
    """
    for holds, code, text in outcomes:
        if holds:
            if text:
                output.message(text)
            raise typer.Exit(code)
    raise typer.Exit(Exit.DONE)
