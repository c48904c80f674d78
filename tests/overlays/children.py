"""Forked processes that call a function, guarded, as some of them are to show a deadlock."""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
from collections.abc import Callable
from typing import Any

#: Seconds after which a use that has not ended is stuck.
PATIENCE = 30


class Child:
    """A forked process that calls a function; guarded, as it is deadlocks that are looked for."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._reading, writing = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            # A copy of the test run, of which nothing may go on but this.
            faulthandler.enable(2)
            try:
                said = {"returned": function()}
            except BaseException as error:  # noqa: BLE001  # told to the parent
                said = {"raised": type(error).__name__, "message": str(error)}
            try:
                os.write(writing, json.dumps(said).encode())
            finally:
                os._exit(0)
        os.close(writing)

    def said(self, patience: float = PATIENCE) -> dict[str, Any]:
        """What the function returned or raised; fails where it does neither in so many seconds."""
        with os.fdopen(self._reading, "rb") as pipe:
            if not select.select([pipe], [], [], patience)[0]:
                # It says where each thread is.
                os.kill(self._process, signal.SIGABRT)
            said = pipe.read()
        os.waitpid(self._process, 0)
        assert said, "the child is stuck"
        return json.loads(said)
