"""An application that sends events by Celery; `celery -A shop worker` runs it."""

from __future__ import annotations

import json
import os

from celery import Celery

import intercom_data_events.celery  # noqa: F401  # the task

app = Celery("shop", set_as_current=False)
app.conf.update(json.loads(os.environ["SHOP"]))
