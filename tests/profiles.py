"""How many examples Hypothesis makes up: fewer in CI, many more with the profile "nightly"."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_LOCAL = 100


def load() -> None:
    """Registers the profiles, and loads that of this run; `--hypothesis-profile` names another."""
    # Machines are noisy, and how long something takes is the benchmark's business.
    untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("local", untimed, max_examples=_LOCAL)
    settings.register_profile("ci", untimed, max_examples=50, print_blob=True)
    settings.register_profile("nightly", untimed, max_examples=2_000, print_blob=True)
    settings.load_profile("ci" if os.environ.get("CI") else "local")


def scaled(examples: int) -> int:
    """Scales a test's own number of examples, which is for the profile "local", to this run's."""
    return max(1, examples * settings().max_examples // _LOCAL)
