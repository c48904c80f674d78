"""How many examples Hypothesis makes up: fewer in CI, many more with the profile "nightly"."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from needs import in_ci

_LOCAL = 100


def load() -> None:
    """Registers the profiles, and loads that of this run; `--hypothesis-profile` names another."""
    # Machines are noisy, and durations are the benchmark's task. With CI set, Hypothesis starts
    # from its own CI settings, which the other profiles must not have.
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
    """Scales a number of examples for the profile "local" to the profile of this run."""
    return max(1, examples * settings().max_examples // _LOCAL)
