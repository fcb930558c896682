"""The API server is away for longer than a verdict lives: signing goes on, binding waits, all recovers by itself."""

from __future__ import annotations

import time

import pytest
from tools.lab.objects import wait_condition
from tools.lab.system import claim, running

pytestmark = pytest.mark.xdist_group("system-faults")

OUTAGE_SECONDS = 33
"""Longer than the laboratory's maxAgeSeconds: a verdict that were not refreshed would have run out."""


def test_signing_outlasts_an_api_outage_longer_than_any_verdict_and_binding_catches_up() -> None:
    with running(real=1) as lab:
        lab.bind(claim("steady", clients=True))
        pod = lab.pod("steady")
        client = lab.signing_client("steady", pod)
        # A kubelet has projected this one before the outage; the gateway checks it by the key set that it holds.
        second, token = lab.client("steady"), lab.service_account_token(pod)
        lab.control_plane.stop_api()
        signed, deadline = 0, time.monotonic() + OUTAGE_SECONDS
        while time.monotonic() < deadline:
            client.sign("key-0", b"while the API server is away")
            signed += 1
        assert signed
        second.exchange(token)
        second.sign("key-0", b"with a token exchanged during the outage")
        lab.control_plane.start_api()
        lab.bind(claim("late", clients=True), seconds=120)
        client.sign("key-0", b"after the outage")
        wait_condition(lambda: lab.claim("steady"), "Ready", "True", seconds=60)
        assert lab.claim("steady")["status"]["allocation"]["sequence"] == 1
