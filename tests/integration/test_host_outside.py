"""A host outside the cluster, as its how-to page says: every command of it, and the units' own lines, on real parts.

systemd itself does not run here: `systemctl` is `support.unit_runner`. The machine's folders are a mount namespace of
its own, so that users, settings and units are where they are on a real one and nothing of them stays.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tools.control_plane import build
from tools.control_plane.embedded import ControlPlane
from tools.control_plane.processes import free_port
from tools.lab.firmware import Boot, Firmware
from tools.lab.installation import Operator, install
from tools.lab.objects import GROUP, approve, wait_condition
from tools.lab.pool import Pool
from tools.lab.softhsm import SoftHsmToken
from tools.lab.swtpm import Swtpm

from support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "add-a-host-outside-the-cluster.md"
BLOCK = re.compile(
    r'^```sh title="(on the host|where you administer the cluster)"\n(.*?)^```$', re.DOTALL | re.MULTILINE
)
HOST = "hsm-a"
MACHINE = """
set -e
mount -t tmpfs tmpfs {world} && mkdir {world}/up {world}/work {world}/lib {world}/opt
mount -t overlay overlay -o lowerdir=/etc,upperdir={world}/up,workdir={world}/work /etc
mount --bind {world}/lib /var/lib && mkdir /var/lib/chatelaine
mount --bind {world}/opt /opt && mkdir -p /opt/python /opt/packages /opt/chatelaine/bin /opt/bin /opt/log
mount -t tmpfs tmpfs /run
mount --bind {python} /opt/python && mount --bind {packages} /opt/packages
mkdir /opt/token && mount --bind {token} /opt/token
cp {tools}/chatelaine /opt/chatelaine/bin/ && cp {tools}/systemctl {tools}/systemd-ask-password /opt/bin/
touch {ready} && exec sleep infinity
"""


class Machine:
    """A machine with a token, a TPM, and nothing of ours installed."""

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0:
            pytest.fail("this test makes a machine of its own: run the tests as root")
        self.folder = folder
        # Short, and open to the users of units.
        self.home = Path(tempfile.mkdtemp(prefix="chat-out-"))
        self.home.chmod(0o711)
        self.tpm = Swtpm(folder / "tpm")
        Firmware(folder / "event-log", Boot(serial=HOST)).boot(self.tpm)
        self.token = SoftHsmToken.create(self.home / "token", label=HOST)
        conf = self.token.directory / "softhsm2.conf"
        conf.write_text(conf.read_text().replace(str(self.token.directory), "/opt/token"))
        tools = self.home / "tools"
        tools.mkdir()
        # The interpreter's own folder may be in a home folder, which the units' users cannot enter.
        python = f"/opt/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
        paths = f"/opt/packages:{ROOT / 'operator'}:{ROOT / 'tests'}:{ROOT}"
        python = f"env LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH={paths} {python}"
        for name, text in {
            "chatelaine": f'#!/bin/sh\nexec {python} -m chatelaine.cli.main "$@"\n',
            "systemctl": f'#!/bin/sh\n[ "$1" = enable ] || exit 0\nshift 2\n'
            f'{python} -m support.unit_runner /etc/systemd/system /opt/log "$@" >> /opt/pids\n',
            "systemd-ask-password": f"#!/bin/sh\necho {self.token.pin}\n",
        }.items():
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        world, ready = self.home / "world", self.home / "ready"
        world.mkdir()
        script = MACHINE.format(
            world=world,
            python=sys.base_prefix,
            packages=sysconfig.get_path("purelib"),
            token=self.token.directory,
            tools=tools,
            ready=ready,
        )
        self.process = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "bash", "-c", script])
        eventually(lambda: ready.exists() or self.process.poll() is not None, "the machine is there")
        assert self.process.poll() is None

    @property
    def inside(self) -> list[str]:
        """How to enter its folders."""
        return ["nsenter", f"--target={self.process.pid}", "--mount", f"--wdns={self.folder}"]

    def run(self, script: str) -> str:
        """In its folders, as root; stops at the first failure."""
        done = subprocess.run(
            [*self.inside, "bash", "-euo", "pipefail", "-c", script],
            env={"PATH": "/opt/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout

    def logs(self) -> str:
        """What its units have said."""
        done = subprocess.run([*self.inside, "sh", "-c", "cat /opt/log/*"], capture_output=True, text=True, check=False)
        return done.stdout

    def stop(self) -> None:
        pids = self.run("cat /opt/pids 2>/dev/null || true").split()
        for pid in pids:
            os.kill(int(pid), signal.SIGKILL)
        self.process.kill()
        self.process.wait(30)
        self.tpm.stop()
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with ControlPlane(tmp_path / "control-plane") as plane:
        install(plane)
        operator = Operator(plane, tmp_path / "operator")
        operator.start()
        try:
            hosts = Pool(plane, operator, tmp_path / "hosts", policy="hsm-baseline")
            hosts.apply_policy({"kubernetes.io/metadata.name": "payments"})
            yield hosts
        finally:
            operator.stop()


def administer(pool: Pool, folder: Path, script: str) -> None:
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    chatelaine, kubectl = tools / "chatelaine", tools / "kubectl"
    chatelaine.write_text(f'#!/bin/bash\nexec "{sys.executable}" -m chatelaine.cli.main "$@"\n')
    kubectl.write_text(f'#!/bin/bash\nexec "{build.require("kubectl")}" "$@"\n')
    for tool in (chatelaine, kubectl):
        tool.chmod(0o755)
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "KUBECONFIG": str(pool.cluster.kubeconfig)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_a_host_outside_is_installed_joins_and_becomes_ready(pool: Pool, machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "packaging").symlink_to(ROOT / "packaging")
    gateway_port, agent_port = free_port(), free_port()

    def here(block: str) -> str:
        block = block.replace("port: 8443", f"port: {gateway_port}").replace("port: 8444", f"port: {agent_port}")
        return block.replace("hsm-a.example.com", "127.0.0.1").replace("intervalSeconds: 10", "intervalSeconds: 2")

    blocks = BLOCK.findall(PAGE.read_text())
    assert len(blocks) == 6
    for where, block in blocks:
        if "--for=condition=Ready" in block:
            approve(pool.cluster, HOST)
        if where == "on the host":
            machine.run(block)
        else:
            administer(pool, tmp_path, here(block))
        if "host.env" in block:
            # "Edit /etc/chatelaine/hsm-a.env": this machine's token and TPM.
            changes = {
                "GATEWAY_LISTEN": f"127.0.0.1:{gateway_port}",
                "AGENT_LISTEN": f"127.0.0.1:{agent_port}",
                "PKCS11_MODULE": str(machine.token.module),
                "AGENT_TCTI": machine.tpm.tcti,
                "SOFTHSM2_CONF": "/opt/token/softhsm2.conf",
            }
            text = "".join(f"{name}={value}\n" for name, value in changes.items())
            (tmp_path / "edited").write_text(text)
            machine.run("cat edited >> /etc/chatelaine/hsm-a.env; chown -R chatelaine-gateway /opt/token")
            home = Path(machine.tpm.tcti.partition("path=")[2]).parent
            machine.run(f"chown -R chatelaine-agent {home}")
    wait_condition(partial(pool.cluster.admin.read, GROUP, "Hsm", HOST), "Ready", "True")
    assert not (tmp_path / "hsm-a.token").exists()

    # Whoever has taken the agent over reads neither PIN nor keys of the gateway; and nobody's command line shows a PIN.
    for secret in (
        "/run/chatelaine-gateway/hsm-a/pin",
        "/etc/chatelaine/pins/hsm-a",
        "/var/lib/chatelaine/hsm-a/gateway/tls/key.pem",
    ):
        machine.run(
            f"test -s {secret}; ! setpriv --reuid chatelaine-agent --regid chatelaine --clear-groups cat {secret}"
        )
    for pid in machine.run("cat /opt/pids").split():
        process = Path("/proc") / pid
        assert machine.token.pin.encode() not in (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        assert "CapEff:\t0000000000000000" in (process / "status").read_text()
        assert "NoNewPrivs:\t1" in (process / "status").read_text()
