"""The PIN of a token is changed under a gateway that serves: it goes on, and never spends tries on the old PIN."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tools.lab.softhsm import SoftHsmToken

from support import pki
from support.control_plane import ROOT
from support.gateway import Client, GatewayProcess, Operator
from support.tokens import Cluster
from support.waiting import eventually

CLAIM = "checkout-hsm"
NEW = "another-pin-7261"
PAGE = ROOT / "docs" / "how-to" / "rotate-a-pin.md"
COMMAND = re.compile(r"^ *(pkcs11-tool .*--change-pin)$", re.MULTILINE)


class Scene:
    """A gateway, its operator, and a client with a token."""

    def __init__(self, tmp_path: Path, cluster: Cluster) -> None:
        self.gateway = GatewayProcess(tmp_path / "g", pki.new_authority()).start()
        self.operator = Operator(self.gateway, cluster, tmp_path / "op")
        self.operator.bind(CLAIM, str(uuid.uuid4()))
        self.operator.tell()
        self.client = Client(self.gateway, cluster, tmp_path / "c").login(CLAIM)

    @property
    def token(self) -> SoftHsmToken:
        assert self.gateway.token is not None
        return self.gateway.token

    def signs(self) -> int:
        """Status of one signature."""
        with self.client.line() as line:
            return int(self.client.sign(line, CLAIM).status)

    def change_pin(self, new: str) -> None:
        """As the page says; what a person types at the prompt comes by the environment."""
        [command] = COMMAND.findall(PAGE.read_text())
        words = [self.token.label if word == "hsm-a" else word for word in command.split()]
        words[words.index("--module") + 1] = str(self.token.module)
        done = subprocess.run(
            [*words, "--pin", "env:OLD_PIN", "--new-pin", "env:NEW_PIN"],
            env={**self.token.env, "OLD_PIN": self.token.pin, "NEW_PIN": new},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "successfully changed" in done.stdout + done.stderr

    def end_worker(self) -> None:
        """The worker dies, as a module sometimes makes it; the next one has to log in."""
        os.kill(self.gateway.worker_pid(), signal.SIGKILL)

    def rejections(self) -> int:
        """How often the log tells that a PIN was not accepted."""
        return self.gateway.log.read_text().count("PinRejected")

    def rejected_more_than(self, before: int) -> bool:
        """Was it told again?"""
        return self.rejections() > before

    def refused_pins(self) -> list[int]:
        """How often each PIN was tried that the token refused, or has not answered."""
        [memory] = self.gateway.state.rglob("pin-attempts.json")
        return [attempt["tries"] for attempt in json.loads(memory.read_text()).values()]


@pytest.fixture
def scene(tmp_path: Path, cluster: Cluster) -> Iterator[Scene]:
    scene = Scene(tmp_path, cluster)
    try:
        yield scene
    finally:
        scene.gateway.close()


def test_changed_pin_is_taken_up_without_a_restart_and_no_signature_is_missed(scene: Scene) -> None:
    scene.change_pin(NEW)
    assert scene.signs() == 200  # the session that is open stays open
    scene.token.write_pin(NEW)
    assert scene.signs() == 200
    scene.end_worker()
    eventually(lambda: scene.signs() == 200, "the next worker logs in with the new PIN")
    assert scene.refused_pins() == []
    assert NEW not in scene.gateway.log.read_text()


def test_old_pin_is_tried_once_where_the_file_comes_late_and_never_again(scene: Scene) -> None:
    scene.change_pin(NEW)
    scene.end_worker()
    eventually(lambda: "PinRejected" in scene.gateway.log.read_text(), "the refusal is told")
    assert scene.signs() == 503
    assert scene.refused_pins() == [1]
    scene.token.write_pin(NEW)
    eventually(lambda: scene.signs() == 200, "the new file clears the way by itself")
    # Put back by mistake: the token is not asked.
    scene.token.write_pin(scene.token.pin)
    scene.end_worker()
    eventually(partial(scene.rejected_more_than, 1), "it is told again")
    assert scene.refused_pins() == [1]


def test_wrong_new_pin_is_tried_once_also_after_restarts(scene: Scene) -> None:
    scene.change_pin(NEW)
    scene.token.write_pin("mistyped")
    scene.end_worker()
    eventually(lambda: "PinRejected" in scene.gateway.log.read_text(), "the refusal is told")
    for _ in range(2):
        scene.gateway.kill()
        before = scene.rejections()
        scene.gateway.start()
        eventually(partial(scene.rejected_more_than, before), "told, not tried")
    assert scene.refused_pins() == [1]
    scene.token.write_pin(NEW)
    eventually(lambda: scene.operator.ask("GET", "/control/v1/hello").status == 200, "it is logged in")
    scene.operator.tell()
    eventually(lambda: scene.signs() == 200, "the right one is taken")
