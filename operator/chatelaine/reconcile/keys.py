"""Key versions of a claim: intents first, then the key, then Active; retired, suspected and destroyed by rules.

States are those of NIST SP 800-57 Part 1, section 7. A version belongs to one allocation (its `sequence`): another
allocation means new versions. A version is PreActive in the status before anything is made, so that a crash leaves
no key that nobody knows of.
"""

from __future__ import annotations

from typing import Final

from chatelaine.model.claim import ClaimAllocation, HsmRefStatus, KeySpec, KeyStatus, KeyVersionStatus, ReclaimPolicy
from chatelaine.model.common import MAX_CLAIM_KEYS, MAX_KEY_VERSIONS
from chatelaine.model.conditions import timestamp
from chatelaine.model.identifiers import ANNOTATION_DESTROY
from chatelaine.model.keys import KeyState
from chatelaine.model.reasons import ConditionType, Reason
from chatelaine.model.verdict import Outcome
from chatelaine.reconcile.adoption import adopted_versions
from chatelaine.reconcile.claim_snapshot import HsmView
from chatelaine.reconcile.plan import DestroyKey, EmitEvent, EnsureKey, EventType
from chatelaine.reconcile.work import Next, Work

REMOVED: Final = "removed from the manifest"
MOVED: Final = "the claim moved to another allocation"
DESTROYED: Final = "destroyed as asked for by annotation"
ADOPTED: Final = "taken over with a later version"
LIVE: Final = frozenset({KeyState.PRE_ACTIVE, KeyState.ACTIVE})


def keys(work: Work) -> Next:
    """Bring the versions to what spec and allocation say, in the order of this module's functions."""
    wanted = {key.name: key for key in work.snapshot.claim.spec.keys or ()}
    work.keys = [_retired(work, key, wanted.get(key.name)) for key in work.keys]
    work.keys = [_suspected(work, key) for key in work.keys]
    view, allocation = work.view, work.allocation
    if view is not None and allocation is not None and not work.paused:
        _adopt(work, wanted, view, allocation)
        _destroy(work)
        work.keys = [_activated(work, key) for key in work.keys]
        if work.standing is not None and work.standing.serves and work.standing.fresh:
            _intend(work, wanted, view, allocation)
            _ensure(work, view)
    _judge(work, wanted)
    return Next.GO_ON


def _retired(work: Work, key: KeyStatus, wanted: KeySpec | None) -> KeyStatus:
    """Removed from the manifest: Deactivated, and Active again when it comes back; of another allocation: for good."""
    sequence = work.allocation.sequence if work.allocation is not None else None
    versions = []
    for version in key.versions:
        if version.state in LIVE and version.sequence != sequence and sequence is not None:
            version = version.model_copy(update={"state": KeyState.DEACTIVATED, "reason": MOVED})
        elif version.state is KeyState.ACTIVE and wanted is None and not work.paused:
            version = version.model_copy(update={"state": KeyState.DEACTIVATED, "reason": REMOVED})
        elif _comes_back(version, sequence) and wanted is not None and not work.paused:
            version = version.model_copy(update={"state": KeyState.ACTIVE, "reason": None})
        versions.append(version)
    return key.model_copy(update={"versions": versions})


def _comes_back(version: KeyVersionStatus, sequence: int | None) -> bool:
    """A Git revert must not cost a key."""
    return version.state is KeyState.DEACTIVATED and version.reason == REMOVED and version.sequence == sequence


def _suspected(work: Work, key: KeyStatus) -> KeyStatus:
    """Keys that were in a token while its host was refuted carry the mark for ever."""
    versions = []
    for version in key.versions:
        since = _suspect_since(work, version)
        exists = version.state not in (KeyState.PRE_ACTIVE, KeyState.DESTROYED)
        if exists and since is not None and version.suspect_since is None and (version.created_at or "") <= since:
            version = version.model_copy(update={"suspect_since": since})
        versions.append(version)
    return key.model_copy(update={"versions": versions})


def _suspect_since(work: Work, version: KeyVersionStatus) -> str | None:
    view = work.find(version.hsm.uid)
    attestation = view.standing.attestation if view is not None else None
    return attestation.suspect_since if attestation is not None else None


def _destroy(work: Work) -> None:
    """`chatelaine.dev/destroy: <key>/<version>`: only Deactivated versions, only under reclaimPolicy Destroy."""
    claim = work.snapshot.claim
    name, _, number = claim.metadata.annotations.get(ANNOTATION_DESTROY, "").partition("/")
    if claim.spec.reclaim_policy is not ReclaimPolicy.DESTROY:
        return
    for index, key in enumerate(work.keys):
        for place, version in enumerate(key.versions):
            if (key.name, str(version.version)) != (name, number) or version.state is not KeyState.DEACTIVATED:
                continue
            view = work.find(version.hsm.uid)
            if view is None or not view.standing.serves or view.silent:
                continue
            work.actions.append(DestroyKey(view.name, view.uid, version.label(work.uid, key.name)))
            gone = version.model_copy(update={"state": KeyState.DESTROYED, "reason": DESTROYED})
            versions = [*key.versions[:place], gone, *key.versions[place + 1 :]]
            work.keys[index] = key.model_copy(update={"versions": versions})
            message = f"Version {number} of key {name} was destroyed."
            work.after.append(EmitEvent(work.ref, EventType.NORMAL, Reason.KEY_DESTROYED, message))


def _activated(work: Work, key: KeyStatus) -> KeyStatus:
    """An intent whose key the gateway says exists."""
    versions = []
    for version in key.versions:
        made = work.snapshot.made_keys.get(version.label(work.uid, key.name))
        if version.state is KeyState.PRE_ACTIVE and made is not None:
            shown = {"pkcs11_uri": made.pkcs11_uri, "public_key": made.spki_pem}
            if version.made_by is None:
                shown |= {"state": KeyState.ACTIVE, "created_at": timestamp(made.at)}
            elif version.version == max(one.version for one in key.versions):
                shown |= {"state": KeyState.ACTIVE}
            else:
                shown |= {"state": KeyState.DEACTIVATED, "reason": ADOPTED}
            version = version.model_copy(update=shown)
        versions.append(version)
    return key.model_copy(update={"versions": versions})


def _adopt(work: Work, wanted: dict[str, KeySpec], view: HsmView, allocation: ClaimAllocation) -> None:
    """Intents for the retained versions that this claim has taken over, of keys that it has no version of yet."""
    known = {key.name for key in work.keys}
    for name, spec in wanted.items():
        if name in known or len(work.keys) >= MAX_CLAIM_KEYS:
            continue
        versions = adopted_versions(work.uid, name, view, allocation)
        if versions:
            work.keys.append(KeyStatus(name=name, type=spec.type, versions=versions))
            numbers = ", ".join(str(version.version) for version in versions)
            message = f"Key {name}: version {numbers} of a former claim on Hsm {view.name} is taken over."
            work.after.append(EmitEvent(work.ref, EventType.NORMAL, Reason.KEYS_ADOPTED, message))


def _intend(work: Work, wanted: dict[str, KeySpec], view: HsmView, allocation: ClaimAllocation) -> None:
    """A PreActive version for every key that has none under this allocation."""
    known = {key.name: index for index, key in enumerate(work.keys)}
    for name, spec in wanted.items():
        if name not in known and len(work.keys) < MAX_CLAIM_KEYS:
            known[name] = len(work.keys)
            work.keys.append(KeyStatus(name=name, type=spec.type, versions=[]))
        key = work.keys[known[name]] if name in known else None
        if key is None or key.type is not spec.type or any(v.state in LIVE for v in key.versions):
            continue
        versions = _pruned([*key.versions, _intent(key, view, allocation)])
        work.keys[known[name]] = key.model_copy(update={"versions": versions})


def _intent(key: KeyStatus, view: HsmView, allocation: ClaimAllocation) -> KeyVersionStatus:
    return KeyVersionStatus(
        version=max((version.version for version in key.versions), default=0) + 1,
        state=KeyState.PRE_ACTIVE,
        sequence=allocation.sequence,
        hsm=HsmRefStatus(name=view.name, uid=view.uid),
    )


def _pruned(versions: list[KeyVersionStatus]) -> list[KeyVersionStatus]:
    """What the status has room for: the oldest destroyed go first, then the oldest on other HSMs (retained there)."""
    while len(versions) > MAX_KEY_VERSIONS:
        dead = (version for version in versions if version.state is KeyState.DESTROYED)
        away = (version for version in versions if version.hsm.uid != versions[-1].hsm.uid)
        versions.remove(next(dead, None) or next(away, None) or versions[0])
    return versions


def _ensure(work: Work, view: HsmView) -> None:
    """Ask for every intent that is not made yet. The status with the intent is written before these run."""
    if view.silent:
        return
    for key in work.keys:
        for version in key.versions:
            if version.state is KeyState.PRE_ACTIVE and version.hsm.uid == view.uid:
                label = version.label(work.uid, key.name)
                # A key that is taken over is there, or it is lost: another one under its name would hide that.
                work.after.append(EnsureKey(view.name, view.uid, label, key.type, may_generate=version.made_by is None))


def _judge(work: Work, wanted: dict[str, KeySpec]) -> None:
    outcome, reason, message = _verdict(work, wanted)
    work.conditions.put(ConditionType.KEYS_READY, outcome, reason, message)
    if reason is Reason.KEY_TYPE_CHANGED:
        work.problem = (reason, message)


def _verdict(work: Work, wanted: dict[str, KeySpec]) -> tuple[Outcome, Reason, str]:
    held = {key.name: key for key in work.keys}
    for name, spec in wanted.items():
        if name in held and held[name].type is not spec.type:
            return (
                Outcome.REFUTED,
                Reason.KEY_TYPE_CHANGED,
                f"Key {name} is of type {held[name].type}, not {spec.type}.",
            )
    if not wanted:
        return Outcome.HOLDS, Reason.NO_KEYS, ""
    if work.view is None:
        return Outcome.CANNOT_TELL, Reason.KEYS_PENDING, "The claim is not bound."
    if work.view.standing.sticky:
        message = f"Hsm {work.view.name} was refuted; its keys cannot be used until it is re-admitted."
        return Outcome.REFUTED, Reason.KEYS_SUSPECT, message
    return _made(work, held, wanted)


def _made(work: Work, held: dict[str, KeyStatus], wanted: dict[str, KeySpec]) -> tuple[Outcome, Reason, str]:
    pending = []
    for name in wanted:
        live = [version for version in held[name].versions if version.state in LIVE] if name in held else []
        for version in live:
            fault = work.snapshot.key_faults.get(version.label(work.uid, name))
            if fault is not None and fault.damaged:
                return Outcome.REFUTED, Reason.KEY_DAMAGED, f"Key {name}/{version.version}: {fault.message}"
            if fault is not None and version.state is KeyState.PRE_ACTIVE:
                pending.append(f"{name} ({fault.message})")
                break
        else:
            if not any(version.state is KeyState.ACTIVE for version in live):
                pending.append(name)
    if pending:
        return Outcome.CANNOT_TELL, Reason.KEYS_PENDING, f"Not made yet: {', '.join(pending)}"
    return Outcome.HOLDS, Reason.KEYS_ACTIVE, ""
