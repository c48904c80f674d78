"""Imports in advance what sending needs; a fork waits for that.

Python does not reset the import locks of modules in a forked child. If a thread of the parent was
importing a module, the child would wait for it forever. The imports of a first request take a
tenth of a second, and happen just when servers such as gunicorn fork.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from intercom_data_events._sending.runtime import ForkLock

if TYPE_CHECKING:
    from intercom_data_events._sending.engines import Engine
    from intercom_data_events._sending.session import Session

_loading = ForkLock()


def load(session: Session[Engine]) -> None:
    """Imports the modules that threads would import one by one, and sets up connections."""
    # An error, such as too many open files, is reported when the first event meets it again.
    with _loading, suppress(Exception):
        import encodings.idna  # noqa: F401  # for the names of hosts
        import html.entities  # noqa: F401  # for answers that repeat the access token

        from intercom_data_events import metadata  # noqa: F401
        from intercom_data_events._sending import responses  # noqa: F401
        from intercom_data_events_api.api.data_events import create_data_event  # noqa: F401

        session.process_state()
