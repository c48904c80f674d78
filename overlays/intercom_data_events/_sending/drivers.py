"""The two loops that do what an exchange decides: one blocks, the other awaits."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, TypeVar, cast

import httpx

from intercom_data_events._sending.steps import BodyTooLargeError, RawResponse, Send, Steps, Wait

if TYPE_CHECKING:
    from intercom_data_events._sending.session import Session
    from intercom_data_events.clock import AsyncAlarm, Clock

T = TypeVar("T")

# Bytes, decompressed: far more than any listing has, and more than a failure needs.
_LARGEST_BODY = 64 * 1024 * 1024
_LARGEST_FAILURE = 1024 * 1024
# Seconds by which httpx may give up first, because its error says what it waited for.
_GRACE = 0.05


def run(steps: Steps[T], session: Session[httpx.Client]) -> T:
    """Does the steps, blocking."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Wait):
                (step.alarm or session.clock.alarm()).wait(step.seconds)
                step = next(steps)
            else:
                step = steps.send(_receive(step, session))
    except StopIteration as done:
        return cast("T", done.value)
    finally:
        # An interrupted exchange releases its reservation at once.
        steps.close()


async def arun(steps: Steps[T], session: Session[httpx.AsyncClient]) -> T:
    """Does the steps, awaiting."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Wait):
                alarm = cast("AsyncAlarm", step.alarm or session.clock.async_alarm())
                await alarm.wait(step.seconds)
                step = next(steps)
            else:
                step = steps.send(await _areceive(step, session))
    except StopIteration as done:
        return cast("T", done.value)
    finally:
        # A cancelled exchange releases its reservation at once.
        steps.close()


def _receive(step: Send, session: Session[httpx.Client]) -> RawResponse | Exception:
    body = _Body(step.seconds, session.clock)
    problem: Exception | None = None
    try:
        # Streamed, so that the time is checked between two reads.
        response = session.process_state().http.send(
            step.request, auth=session.auth, stream=True, follow_redirects=False
        )
        try:
            pieces = response.stream if _is_plain(response) else response.iter_bytes()
            for chunk in cast("Iterable[bytes]", pieces):
                body.add(chunk, response)
        except (httpx.HTTPError, BodyTooLargeError, OSError) as error:
            problem = error
        finally:
            response.close()
    except Exception as error:  # noqa: BLE001  # the exchange decides
        return error
    return RawResponse.of(response, b"".join(body.chunks), problem)


async def _areceive(step: Send, session: Session[httpx.AsyncClient]) -> RawResponse | Exception:
    import anyio

    body = _Body(step.seconds, session.clock)
    response: httpx.Response | None = None
    problem: Exception | None = None
    try:
        with anyio.move_on_after(step.seconds + _GRACE) as scope:
            response = await session.process_state().http.send(
                step.request, auth=session.auth, stream=True, follow_redirects=False
            )
            try:
                pieces = response.stream if _is_plain(response) else response.aiter_bytes()
                async for chunk in cast("AsyncIterable[bytes]", pieces):
                    body.add(chunk, response)
            except (httpx.HTTPError, BodyTooLargeError, OSError) as error:
                problem = error
            finally:
                await response.aclose()
    except Exception as error:  # noqa: BLE001  # the exchange decides
        return error
    if scope.cancelled_caught:
        problem = body.late(step.request)
    if response is None:
        return cast("Exception", problem)
    return RawResponse.of(response, b"".join(body.chunks), problem)


def _is_plain(response: httpx.Response) -> bool:
    """Whether the body needs no decoding; its stream is then faster to read."""
    # A caller's hook may have read it already.
    return not response.is_stream_consumed and "content-encoding" not in response.headers


class _Body:
    """The part of a body that has been read, within a size and a time limit."""

    __slots__ = ("_clock", "_ends", "_seconds", "_size", "chunks")

    def __init__(self, seconds: float, clock: Clock) -> None:
        self.chunks: list[bytes] = []
        self._clock = clock
        self._ends = clock.monotonic() + seconds
        self._seconds = seconds
        self._size = 0

    def add(self, chunk: bytes, response: httpx.Response) -> None:
        """Adds what was read, and checks size and time."""
        self.chunks.append(chunk)
        self._size += len(chunk)
        largest = _LARGEST_BODY if response.is_success else _LARGEST_FAILURE
        if self._size > largest:
            raise BodyTooLargeError(f"it is larger than {largest >> 20} MiB")
        if self._clock.monotonic() > self._ends:
            raise self.late(response.request)

    def late(self, request: httpx.Request) -> httpx.ReadTimeout:
        """Returns the error for an answer that takes too long."""
        return httpx.ReadTimeout(f"no whole answer within {self._seconds:g} s", request=request)
