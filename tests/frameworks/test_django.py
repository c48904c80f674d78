"""Django with a real database: an event is tracked after the commit, and only then."""

from __future__ import annotations

import json

import pytest

from intercom_data_events.emulator import Emulator

pytestmark = [pytest.mark.costly, pytest.mark.processes]

SETTINGS = """
DEBUG = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
INTERCOM_OUTBOX = "intercom.outbox"
USE_TZ = True
"""
PROJECT = """
import json
import os

os.environ["DJANGO_SETTINGS_MODULE"] = "project"

import django

django.setup()

from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.db import transaction

import shop

call_command("migrate", verbosity=0)
Group.objects.create(name="pro")
users = [User.objects.create_user(f"user{number}", id=number) for number in (1, 2)]
"""
ROLLED_BACK_AND_COMMITTED = """
def tracked():
    counters = shop.tracker().counters
    return counters.queued + counters.sent

class Changed(Exception):
    pass

try:
    with transaction.atomic():
        shop.subscribe(users[0], "pro")
        raise Changed
except Changed:
    rolled_back = tracked()
with transaction.atomic():
    shop.subscribe(users[1], "pro")
    before = tracked()
after = tracked()
print(json.dumps({
    "rolled back": rolled_back,
    "before the commit": before,
    "after the commit": after,
    "subscribed": [user.pk for user in User.objects.filter(groups__name="pro")],
}))
"""
COMMITTED_WITHOUT_A_TOKEN = """
del os.environ["INTERCOM_ACCESS_TOKEN"]
shop.subscribe(users[1], "pro")
print(json.dumps([user.pk for user in User.objects.filter(groups__name="pro")]))
"""


@pytest.fixture
def emulator() -> Emulator:
    return Emulator()


@pytest.fixture
def run(start, tmp_path):
    """Runs a program with the example's project, and returns what it says."""

    def begin(code: str) -> tuple[object, str]:
        (tmp_path / "project.py").write_text(SETTINGS, encoding="utf-8")
        program = start("Django", "-c", f"{PROJECT}{code}", pipes=True)
        told, _ = program.process.communicate()
        assert program.process.returncode == 0, program.said
        return json.loads(told), program.said

    return begin


def test_an_event_is_tracked_after_the_commit_and_not_if_that_never_comes(run, emulator):
    told, _ = run(ROLLED_BACK_AND_COMMITTED)

    assert told == {
        "rolled back": 0,
        "before the commit": 0,
        "after the commit": 1,
        "subscribed": [2],
    }
    (event,) = emulator.events
    assert (event.event_name, event.user_id) == ("subscribed", "2")
    assert event.metadata == {"plan": "pro"}


def test_what_is_committed_does_not_fail_with_its_event(run, emulator):
    told, log = run(COMMITTED_WITHOUT_A_TOKEN)

    assert told == [2]
    assert "ConfigurationError" in log
    assert not emulator.events
