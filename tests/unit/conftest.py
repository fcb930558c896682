"""Machines are shared and noisy: no property test may fail because an example took long."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("noisy-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("noisy-machine")
