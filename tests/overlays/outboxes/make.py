"""Made the files beside it, with the code of earlier versions; each version's stay as they are.

In a clone, for the last commit whose files have version 1 of the schema, and the last whose files
have version 2 and no auto_vacuum::

    git worktree add ../version-1 856b64e
    git worktree add ../version-2 43f2797
    for version in version-1 version-2; do
        PYTHONPATH=../$version/overlays:../$version/generated \
            python tests/overlays/outboxes/make.py tests/overlays/outboxes/$version
    done

It writes ``version-1.db``, closed by its process, and ``version-1-killed.db`` with its ``-wal``
file, as a process leaves them that is killed. In each are events that wait, one that is delayed,
one that a process has claimed, and two dead letters. ``version-1.json`` has what is in them.
"""

import contextlib
import json
import shutil
import sqlite3
import sys
from pathlib import Path

from intercom_data_events import DataEventsClient, Event, MonetaryAmount, NotFoundError, RichLink
from intercom_data_events.emulator import Emulator
from intercom_data_events.outbox import Binding, Outbox

NOW = 1_671_028_900.0
EVENTS = [
    Event("placed-order", user_id="1", created_at=1_671_028_001),
    Event("placed-order", email="ä@example.com", created_at=1_671_028_002),
    Event("placed-order", id="63a0979a5eeebeaf28dd56ba", created_at=1_671_028_003),
    Event(
        "placed-order",
        user_id="4",
        created_at=1_671_028_004,
        metadata={
            "price": MonetaryAmount(1_050, "eur"),
            "order": RichLink("https://example.com/4", "ORDER-4"),
            "paid_at": 1_671_028_000,
            "weight": 1.5,
            "note": "“naïve” 🙂 \n\t\\",
        },
    ),
    *(
        Event("placed-order", user_id=str(number), created_at=1_671_028_000 + number)
        for number in range(5, 9)
    ),
]
DEAD = [
    Event("placed-order", user_id="20", created_at=1_671_028_020),
    Event("placed-order", user_id="21", created_at=1_671_028_021, metadata={"note": "ü"}),
]


def main(stem):
    path = Path(f"{stem}.db")
    killed = path.with_name(f"{path.stem}-killed.db")
    binding = Binding("https://api.intercom.io", "the-token")
    with contextlib.closing(Outbox(path, binding)) as box:
        # The methods of version 1 had other names.
        enqueue = getattr(box, "enqueue", None) or box.put
        claim = getattr(box, "claim", None) or box.take
        nack = getattr(box, "nack", None) or box.later
        dead_letter = getattr(box, "dead_letter", None) or box.refused
        error = refusal()
        for event in DEAD:
            enqueue(event, NOW - 60)
            dead_letter(claim(NOW), error, NOW - 30)
        for number, event in enumerate(EVENTS):
            enqueue(event, NOW - 50 + number / 8)
        delayed = claim(NOW)
        nack(delayed, 20, NOW)
        claimed = claim(NOW)
        # The log is in them, too.
        for end in ("", "-wal"):
            shutil.copy(f"{path}{end}", f"{killed}{end}")
    found = {
        "events": [event.to_dict() for event in EVENTS],
        "delayed": delayed.event.to_dict(),
        "claimed": claimed.event.to_dict(),
        "dead": [event.to_dict() for event in DEAD],
        "error": {
            "error": type(error).__name__,
            "message": str(error),
            "status": error.status_code,
            "request_id": error.request_id,
        },
    }
    path.with_suffix(".json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        versions = [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("user_version", "auto_vacuum")
        ]
    print(path, *versions)


def refusal():
    client = DataEventsClient("token", transport=Emulator(contacts=[]).transport())
    with client:
        try:
            client.create("placed-order", user_id="20", created_at=1_671_028_020)
        except NotFoundError as error:
            return error


if __name__ == "__main__":
    main(sys.argv[1])
