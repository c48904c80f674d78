"""How many examples Hypothesis makes up: fewer in CI, many more with the profile "nightly"."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from needs import in_ci

_LOCAL = 100


def load() -> None:
    """Registers the profiles, and loads that of this run; `--hypothesis-profile` names another."""
    # Machines are noisy, and how long something takes is the benchmark's business. With CI set, the
    # settings in use are Hypothesis' own for CI, which are not for the others.
    untimed = settings(
        settings.get_profile("default"),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        print_blob=True,
    )
    settings.register_profile("local", untimed, max_examples=_LOCAL)
    settings.register_profile("ci", untimed, max_examples=50, derandomize=True, database=None)
    settings.register_profile("nightly", untimed, max_examples=2_000)
    settings.load_profile("ci" if in_ci() else "local")


def scaled(examples: int) -> int:
    """Scales a test's own number of examples, which is for the profile "local", to this run's."""
    return max(1, examples * settings().max_examples // _LOCAL)
