"""Which cgroup hierarchies a sandbox uses, and whose sandbox a name tells."""

from __future__ import annotations

import os
from pathlib import Path

from tools.cluster import cgroups
from tools.cluster.cgroups import Hierarchy

POINT = Path("/sys/fs/cgroup")
UNIFIED = "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
SEPARATE = """29 22 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
30 29 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
31 29 0:28 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
32 29 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
33 29 0:30 /other /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
"""


def test_one_hierarchy_of_version_2_is_used_as_it_is() -> None:
    (found,) = cgroups.parsed("0::/user.slice/session\n", UNIFIED)
    assert found == Hierarchy(POINT, POINT / "user.slice/session", "")
    assert found.options == ""


def test_of_both_versions_the_hierarchies_of_version_1_are_used() -> None:
    own = "5:pids:/\n4:cpu,cpuacct:/limited\n1:name=systemd:/\n0::/\n"
    first, second = cgroups.parsed(own, SEPARATE)
    assert first == Hierarchy(POINT / "cpu,cpuacct", POINT / "cpu,cpuacct/limited", "cpu,cpuacct")
    assert (second.point, second.options) == (POINT / "systemd", "none,name=systemd")


def test_a_sandbox_is_owned_while_the_very_process_lives_that_made_it() -> None:
    name = cgroups.Cgroup(1).name
    assert cgroups.is_owned(name)
    prefix, pid, started, number = name.rsplit("-", 3)
    assert pid == str(os.getpid())
    # Another process that got the same id later.
    assert not cgroups.is_owned(f"{prefix}-{pid}-{int(started) + 1}-{number}")
    assert not cgroups.is_owned(f"{prefix}-{2**30}-{started}-{number}")


def test_names_that_tell_no_owner_are_left_alone() -> None:
    assert cgroups.is_owned("chatelaine-sandbox-of-somebody")
