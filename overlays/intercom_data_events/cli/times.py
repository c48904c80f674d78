"""Times that users type: ``7d``, ``2026-01-01``, ``2026-01-01T12:00:00+02:00``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from dateutil.parser import isoparse

from intercom_data_events._validation import short_repr

#: A duration, which means so long ago.
AGO = re.compile(r"(\d{1,6})\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, now: datetime) -> datetime:
    """Returns a time in UTC from a string.

    Args:
        text: A duration before now (``90s``, ``30m``, ``12h``, ``7d``, ``2w``), a date, which means
            midnight in UTC, or a time in ISO 8601, in UTC unless it has an offset.
        now: The current time, with a time zone.

    Raises:
        ValueError: The string is none of these.

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
            "must be a time such as 7d, 12h, 2026-01-31 or 2026-01-31T12:00:00Z, not "
            f"{short_repr(text)}"
        ) from error
