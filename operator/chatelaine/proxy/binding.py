"""The binding of a claim, as the Service Binding specification projects it: a folder with a file for each entry."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from chatelaine.model.identifiers import DIGEST_PREFIX
from chatelaine.model.printable import printable
from chatelaine.pki.chain import load_bundle
from chatelaine.pki.errors import CertificateRefused
from chatelaine.proxy.errors import BindingUnusable, SettingsRefused
from chatelaine.proxy.files import NotAsExpected, one_state_of, read_bounded
from chatelaine.proxy.limits import MAX_ENTRY_BYTES, MAX_PINS

ROOT_VARIABLE: Final = "SERVICE_BINDING_ROOT"
TYPE: Final = "hsm"
PROVIDER: Final = "chatelaine"

_ENTRIES: Final = ("type", "provider", "host", "port", "endpoint", "ca.crt", "gateway-spki")
_HOST: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9.:]{0,251}[A-Za-z0-9])?", re.ASCII)
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_MAX_PORT: Final = 65535
_PIN: Final = re.compile(rf"{DIGEST_PREFIX}[0-9a-f]{{64}}", re.ASCII)
_NAME: Final = r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?"
_ENDPOINT: Final = re.compile(rf"https://[^/\s]{{1,300}}/v1/keys/({_NAME})/({_NAME})", re.ASCII)
_SHOWN: Final = 80
_MAX_FOLDERS: Final = 64


@dataclass(frozen=True, slots=True)
class Binding:
    """Which claim, and where and who its gateway is. `pins` are digests (`sha256:…`) of the keys of the gateway's
    attested TLS identity; `bundle` the CAs that its certificate may come from.
    """

    namespace: str
    claim: str
    host: str
    port: int
    bundle: tuple[x509.Certificate, ...]
    pins: frozenset[str]

    @property
    def name(self) -> str:
        """The claim, as people write it."""
        return f"{self.namespace}/{self.claim}"

    @property
    def base_url(self) -> str:
        """URL up to the path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"


def folder_of(given: Path | None, root: str | None) -> Path:
    """The folder to read: the one that was given, else the only one below the root that is a claim's.

    Args:
        given: the folder, if somebody named it.
        root: `$SERVICE_BINDING_ROOT`.

    Raises:
        SettingsRefused: neither is given, or the root has none or several.
    """
    if given is not None:
        return given
    if not root:
        raise SettingsRefused(f"--binding is needed: the folder of the claim's binding (${ROOT_VARIABLE} is not set)")
    try:
        folders = sorted(path for path in Path(root).iterdir() if path.is_dir())[:_MAX_FOLDERS]
    except OSError as error:
        raise SettingsRefused(
            f"${ROOT_VARIABLE}, {root}, cannot be read ({error.strerror}); mount the binding"
        ) from error
    ours = [path for path in folders if _is_ours(path)]
    if len(ours) != 1:
        found = ", ".join(path.name for path in ours) or "none"
        raise SettingsRefused(
            f"below ${ROOT_VARIABLE}, {root}, exactly one binding of type {TYPE} and provider {PROVIDER} was expected, "
            f"found {found}; name the folder by --binding"
        )
    return ours[0]


def read(folder: Path) -> Binding:
    """The binding as it lies there now.

    Raises:
        BindingUnusable: an entry is missing, over its bound or malformed; the message names it.
    """
    entries = {name: _entry(folder, name, data) for name, data in _raw(folder).items()}
    if (entries["type"], entries["provider"]) != (TYPE, PROVIDER):
        found = f"{_shown(entries['type'])} of {_shown(entries['provider'])}"
        raise BindingUnusable(f"{folder}: expected a binding of type {TYPE} of {PROVIDER}, found {found}")
    if not _HOST.fullmatch(entries["host"]):
        raise _malformed(folder, "host", "a name or an address", entries["host"])
    if not _PORT.fullmatch(entries["port"]) or int(entries["port"]) > _MAX_PORT:
        raise _malformed(folder, "port", "a port", entries["port"])
    path = _ENDPOINT.fullmatch(entries["endpoint"])
    if path is None:
        raise _malformed(folder, "endpoint", "https://…/v1/keys/<namespace>/<claim>", entries["endpoint"])
    pins = entries["gateway-spki"].split("\n")
    if len(pins) > MAX_PINS or not all(_PIN.fullmatch(pin) for pin in pins):
        raise _malformed(folder, "gateway-spki", f"1 to {MAX_PINS} lines of sha256:<64 hex digits>", pins[0])
    try:
        bundle = load_bundle(entries["ca.crt"])
    except CertificateRefused as error:
        raise BindingUnusable(f"{folder}/ca.crt: expected PEM certificates, found: {error}") from error
    return Binding(path[1], path[2], entries["host"], int(entries["port"]), bundle, frozenset(pins))


def _raw(folder: Path) -> dict[str, bytes]:
    name = ""
    try:
        with one_state_of(folder) as state:
            found = {}
            for name in _ENTRIES:
                found[name] = read_bounded(name, MAX_ENTRY_BYTES, folder=state)
            return found
    except NotAsExpected as error:
        raise BindingUnusable(f"{folder}/{name}: {error}") from error
    except OSError as error:
        raise BindingUnusable(
            f"{folder}{'/' if name else ''}{name} cannot be read ({error.strerror}); mount the Secret that the claim's "
            "spec.binding.secretName names. The operator writes it once the claim's keys are ready"
        ) from error


def _entry(folder: Path, name: str, data: bytes) -> str:
    try:
        return data.decode("ascii").rstrip("\n")
    except UnicodeDecodeError as error:
        raise BindingUnusable(f"{folder}/{name}: expected plain ASCII, found other bytes") from error


def _is_ours(folder: Path) -> bool:
    try:
        with one_state_of(folder) as state:
            said = [read_bounded(name, MAX_ENTRY_BYTES, folder=state).strip() for name in ("type", "provider")]
    except (OSError, NotAsExpected):
        return False
    return said == [TYPE.encode(), PROVIDER.encode()]


def _malformed(folder: Path, name: str, expected: str, found: str) -> BindingUnusable:
    return BindingUnusable(f"{folder}/{name}: expected {expected}, found {_shown(found)}")


def _shown(text: str) -> str:
    return printable(text, _SHOWN) or "nothing"
