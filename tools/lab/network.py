"""Which address of this machine stands in EndpointSlices: they refuse loopback addresses."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess

DOCUMENTATION_ADDRESS = "198.51.100.1"
"""Of TEST-NET-2 (RFC 5737): put on the loopback device where a machine has no address of its own."""


class NoAddressError(RuntimeError):
    """The machine has no address that an EndpointSlice would take."""


def machine_address() -> str:
    """An IPv4 address of this machine that is not loopback; traffic to it never leaves the machine.

    Raises:
        NoAddressError: there is none, and we may not make one.
    """
    for device in json.loads(_ip("-json", "-4", "address", "show", "up")):
        for entry in device.get("addr_info", ()):
            address = ipaddress.ip_address(entry["local"])
            if not address.is_loopback and not address.is_link_local:
                return str(address)
    if os.geteuid() != 0:
        raise NoAddressError(
            "this machine has no IPv4 address besides loopback; run as root, or: "
            f"sudo ip address add {DOCUMENTATION_ADDRESS}/32 dev lo"
        )
    _ip("address", "add", f"{DOCUMENTATION_ADDRESS}/32", "dev", "lo")
    return DOCUMENTATION_ADDRESS


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout
