"""Times as a person types them: ``7d``, ``2026-01-01``, ``2026-01-01T12:00:00+02:00``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from dateutil.parser import isoparse

from intercom_data_events._validation import short_repr

#: How long ago.
AGO = re.compile(r"(\d{1,6})\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, now: datetime) -> datetime:
    """Returns the time that a text stands for, in UTC.

    Args:
        text: How long ago (``90s``, ``30m``, ``12h``, ``7d``, ``2w``), a date, which begins at
            midnight in UTC, or a time in ISO 8601, in UTC where it carries no offset.
        now: The present, aware.

    Raises:
        ValueError: It is not one of these; says so.

    Example:
        >>> from datetime import UTC, datetime
        >>> moment("7d", datetime(2026, 1, 31, tzinfo=UTC)).date().isoformat()
        '2026-01-24'
    """
    text = text.strip()
    try:
        if found := AGO.fullmatch(text.lower()):
            return now - timedelta(**{_UNITS[found[2]]: int(found[1])})
        if text.isdecimal() and len(text) > 8:
            return datetime.fromtimestamp(int(text), UTC)
        parsed = isoparse(text)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(
            "a time must be such as 7d, 12h, 2026-01-31 or 2026-01-31T12:00:00Z, not "
            f"{short_repr(text)}"
        ) from error
