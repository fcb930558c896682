"""The image for evaluation: tokens and TPMs in software, in a pod as restricted as any."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools.cluster.cluster import Cluster
from tools.image.product import build

from support.cluster_pods import Pods

TOKEN = """
import os, pathlib, subprocess
home = pathlib.Path("/tmp/home")
(home / "tokens").mkdir(parents=True)
(home / "softhsm2.conf").write_text(f"directories.tokendir = {home / 'tokens'}\\n")
os.environ["SOFTHSM2_CONF"] = str(home / "softhsm2.conf")
subprocess.run("softhsm2-util --init-token --free --label one --pin 1234 --so-pin 1234".split(), check=True)
import pkcs11
print(pkcs11.lib("/usr/lib/softhsm/libsofthsm2.so").get_token(token_label="one").label)
"""
TPM = """
import subprocess, tpm2_pytss
state = "/tmp/tpm"
subprocess.run(["mkdir", state], check=True)
sockets = ["--server", "type=tcp,port=2321", "--ctrl", "type=tcp,port=2322"]
start = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--flags", "startup-clear", "--daemon"]
subprocess.run([*start, *sockets], check=True)
with tpm2_pytss.ESAPI("swtpm:host=127.0.0.1,port=2321") as tpm:
    print(len(bytes(tpm.get_random(16))))
"""


@pytest.fixture(scope="module")
def evaluation(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of the image for evaluation, which the cluster then knows."""
    built = build(tmp_path_factory.mktemp("evaluation") / "image.tar", "e2e", evaluation=True)
    cluster.load_image(Path(built.archive))
    return built.name


@pytest.fixture
def pod(pods: Pods, evaluation: str) -> Pods:
    """A pod called `pod` of the image for evaluation."""
    found = Pods(pods.cluster, pods.namespace, evaluation)
    found.start("pod")
    return found


def test_gateway_and_token_meet_in_one_pod(pod: Pods) -> None:
    assert pod.python("pod", TOKEN).splitlines()[-1] == "one"


def test_agent_and_tpm_meet_in_one_pod(pod: Pods) -> None:
    assert pod.python("pod", TPM).splitlines()[-1] == "16"
