"""The two loops that perform the steps of an exchange: one blocks, the other awaits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from intercom_data_events._sending.steps import Authorize, Steps, Wait

if TYPE_CHECKING:
    from intercom_data_events._sending.engines import AsyncEngine, Engine, RawResponse
    from intercom_data_events._sending.secret import Secret
    from intercom_data_events._sending.session import Session

T = TypeVar("T")


def run(steps: Steps[T], session: Session[Engine]) -> T:
    """Performs the steps with blocking calls."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Wait):
                (step.alarm or session.clock.alarm()).wait(step.seconds)
                step = next(steps)
                continue
            outcome: RawResponse | Secret[str] | Exception
            try:
                if isinstance(step, Authorize):
                    outcome = session.auth.token()
                else:
                    outcome = step.engine.send(step.request)
            except Exception as error:  # noqa: BLE001  # the exchange decides
                outcome = error
            step = steps.send(outcome)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        # An interrupted exchange releases its reservation at once.
        steps.close()


async def arun(steps: Steps[T], session: Session[AsyncEngine]) -> T:
    """Performs the steps with await."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Wait):
                alarm: Any = step.alarm or session.clock.async_alarm()
                await alarm.wait(step.seconds)
                step = next(steps)
                continue
            outcome: RawResponse | Secret[str] | Exception
            try:
                if isinstance(step, Authorize):
                    outcome = await session.auth.atoken(step.seconds)
                else:
                    outcome = await step.engine.send(step.request)
            except Exception as error:  # noqa: BLE001  # the exchange decides
                outcome = error
            step = steps.send(outcome)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        # A cancelled exchange releases its reservation at once.
        steps.close()
