"""What all tests share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Machines are noisy, and how long something takes is the benchmark's business.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
