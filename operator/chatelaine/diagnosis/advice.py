"""What to do about each reason of a condition, with the very commands. A test holds this table against all reasons.

Templates name fields of `names.Names`; a command of which one is not known is left out.
"""

from __future__ import annotations

from typing import Final

from chatelaine.diagnosis.check import Advice
from chatelaine.diagnosis.names import Names
from chatelaine.model.reasons import Reason

Template = tuple[str, tuple[str, ...]]

_LOGS: Final = "kubectl -n {system} logs deploy/chatelaine-operator --since=15m"
_HSM: Final = "kubectl describe hsm {hsm}"
_EXPLAIN_HSM: Final = "{chatelaine} explain hsm {hsm}"
_EXPLAIN_POLICY: Final = "{chatelaine} explain policy {policy}"
_READMIT: Final = "kubectl annotate hsm {hsm} chatelaine.dev/readmit={evidence} --overwrite"
_IN_POD: Final = "kubectl -n {system} exec deploy/chatelaine-operator -- chatelaine"
_CAPTURE: Final = f"{_IN_POD} policy capture {{hsm}}"
_STORED: Final = f"{_IN_POD} evidence --hsm {{hsm}}"
_PODS: Final = "kubectl get pods --all-namespaces --selector app.kubernetes.io/name=chatelaine --output wide"
_CLAIM: Final = "kubectl -n {namespace} edit hsmclaim {claim}"

_WAIT: Final[Template] = ("Wait: work goes on. If it stays so, look at the installation.", ("{chatelaine} doctor",))

TABLE: Final[dict[Reason, tuple[Template, ...]]] = {
    Reason.PENDING: (("Wait a moment; if it stays so, see whether an operator runs.", ("{chatelaine} doctor",)),),
    Reason.PROGRESSING: (_WAIT,),
    # --- enrolment
    Reason.AWAITING_APPROVAL: (
        (
            (
                "Compare the two digests with those of the machine that you mean, as whoever installed it wrote"
                " them down. If they are the same, approve it, best in the manifest that lies in Git."
            ),
            (
                (
                    'kubectl patch hsm {hsm} --type merge --patch \'{{"spec":{{"identity":{{"ekDigest":"\'{ek}\'",'
                    '"attestationKeyThumbprint":"\'{thumbprint}\'"}}}}}}\''
                ),
            ),
        ),
    ),
    Reason.AWAITING_READMISSION: (
        ("Look at the host. If it is sound, somebody with the verb `readmit` lets it in again.", (_HSM, _READMIT)),
    ),
    Reason.IDENTITY_CONFLICT: (
        (
            (
                "Find out who answers at the host's addresses. If TPM or token were exchanged on purpose, commit the"
                " new digests to spec.identity, then re-admit the host."
            ),
            (_HSM, "kubectl edit hsm {hsm}", _READMIT),
        ),
        ("If nobody changed anything: treat the machine as stolen or impersonated, and leave it out.", ()),
    ),
    Reason.ENDORSEMENT_REFUSED: (
        (
            "If this TPM is to be admitted, list its EK or its maker's root under tpm.endorsement of the policy.",
            ("kubectl edit attestationpolicy {policy}",),
        ),
    ),
    Reason.ACTIVATION_FAILED: (
        ("Restart the host's agent; if it stays so, its TPM does not hold the key that it shows.", (_PODS, _LOGS)),
    ),
    # --- reachability
    Reason.UNREACHABLE: (
        (
            (
                "See whether agent and gateway of the host run, and whether the operator can reach spec.agent and"
                " spec.gateway (addresses, ports, firewalls, NetworkPolicies)."
            ),
            (_PODS, "kubectl get hsm {hsm} --output jsonpath='{{.spec.agent}} {{.spec.gateway}}'", _LOGS),
        ),
    ),
    Reason.NOT_AUTHENTICATED: (
        (
            (
                "Somebody else answers at this address, or the host's certificates ran out or are of another CA."
                " Nothing of the answer was believed. See who listens there; if it is the host, let it join again."
            ),
            (_LOGS, "{chatelaine} host invite --help"),
        ),
    ),
    Reason.EVIDENCE_MALFORMED: (
        ("See whether agent and operator are of the same version, and what the agent logs.", (_PODS, _LOGS)),
    ),
    # --- attestation
    Reason.EVIDENCE_REFUTED: (
        (
            "See what changed on the host, in its evidence. If nobody changed it: keep the host out, and look into it.",
            (_HSM, _STORED),
        ),
        (
            (
                "If the change is meant (new firmware, new kernel): admit the new values by policy first, then let the"
                " host in again. Somebody with the verb `readmit` must do that."
            ),
            (_CAPTURE, "kubectl edit attestationpolicy {policy}", _READMIT),
        ),
        ("If the change is not meant: put the host back as it was, then let it in again.", (_READMIT,)),
    ),
    Reason.EVIDENCE_UNDECIDED: (
        (
            (
                "See which rule is left undecided: what it asks for is missing from the evidence (an event log, an IMA"
                " list, a certificate), or its reference values are."
            ),
            (_HSM, _EXPLAIN_POLICY),
        ),
    ),
    Reason.EVIDENCE_EXPIRED: (("See whether the host answers: its last proof ran out.", (_EXPLAIN_HSM, _PODS)),),
    Reason.POLICY_CHANGED: (
        (
            "The host is as it was, the policy is another. Mend the policy, and access comes back by itself.",
            ("kubectl edit attestationpolicy {policy}", _CAPTURE),
        ),
    ),
    Reason.POLICY_NOT_FOUND: (
        (
            "Create the AttestationPolicy, or name another one.",
            ("kubectl get attestationpolicies", f"{_IN_POD} policy capture {{hsm}}"),
        ),
    ),
    Reason.POLICY_INVALID: (("Mend the AttestationPolicy.", (_EXPLAIN_POLICY,)),),
    Reason.NOT_ENROLLED: (("The host must be enrolled first.", (_EXPLAIN_HSM,)),),
    Reason.AUDIT_ONLY: (
        (
            "Nothing is cut, because the policy says Audit. Look at what fails before you set Enforce.",
            (_HSM, _EXPLAIN_POLICY),
        ),
    ),
    # --- binding
    Reason.NO_SUITABLE_HSM: (
        ("Change what the claim asks for, or give the pool an Hsm that offers it.", (_CLAIM, "kubectl get hsms")),
    ),
    Reason.WAITING_FOR_ATTESTATION: (
        ("Wait: a suitable Hsm is asked to prove itself. If it stays so, look at that Hsm.", (_EXPLAIN_HSM,)),
    ),
    Reason.RELEASE_REFUSED: (
        (
            (
                "Somebody responsible for the policy has to let this namespace, these keys or this use in, under"
                " spec.release.anyOf; or the claim asks for less."
            ),
            ("kubectl edit attestationpolicy {policy}", _CLAIM),
        ),
    ),
    Reason.HSM_GONE: (
        (
            (
                "The claim holds on to an Hsm that was deleted. If it will not come back, make the claim anew, or let"
                " it move (its keys are new ones then)."
            ),
            (
                (
                    "kubectl -n {namespace} patch hsmclaim {claim} --type merge"
                    ' --patch \'{{"spec":{{"failover":"Rebind"}}}}\''
                ),
            ),
        ),
    ),
    Reason.REBINDING: (("The claim moves. If no Hsm can take it, see why.", ("kubectl get hsms",)),),
    # --- keys
    Reason.ADOPTION_PENDING: (
        (
            "The keys stand in the retained list of the Hsm that holds them; it must be Ready, and the claim must fit.",
            ("kubectl get hsms --output jsonpath='{{.items[*].status.retained}}'", "kubectl get hsms"),
        ),
    ),
    Reason.KEYS_PENDING: (
        ("Wait a moment. If it stays so, the gateway cannot make the key: see what it logs.", (_PODS, _LOGS)),
    ),
    Reason.KEY_DAMAGED: (
        (
            (
                "The token lost a key or half of it. Restore the token from its vendor's backup; if there is none, take"
                " the key out of the claim and add one of another name."
            ),
            (_CLAIM,),
        ),
    ),
    Reason.KEYS_SUSPECT: (("The host was refuted: that comes first.", (_EXPLAIN_HSM,)),),
    Reason.KEY_TYPE_CHANGED: (("Give the key of the new type another name.", (_CLAIM,)),),
    # --- network
    Reason.POLICIES_REMOVED: (("The path opens by itself once the HSM is trusted.", (_EXPLAIN_HSM,)),),
    Reason.NOT_ENFORCEABLE: (
        ("A firewall of your own must guard that gateway; the cluster's NetworkPolicies cannot.", ()),
    ),
    Reason.FOREIGN_ALLOW: (
        (
            "Take away the NetworkPolicies named, or narrow them so that they do not select the gateway's pods.",
            ("kubectl get networkpolicies --all-namespaces",),
        ),
    ),
    Reason.SECRET_NAME_TAKEN: (
        ("Choose another spec.binding.secretName, or delete the Secret that stands there.", (_CLAIM,)),
    ),
    # --- policies
    Reason.RULES_INVALID: (("Mend what is named.", ("kubectl edit attestationpolicy {policy}",)),),
    Reason.MATERIAL_UNUSABLE: (
        (
            "Bring what is named: ConfigMaps lie in the operator's namespace, files in its volume of reference values.",
            ("kubectl -n {system} get configmaps", "{chatelaine} policy inspect --help"),
        ),
    ),
    # --- whole objects
    Reason.NOT_READY: (_WAIT,),
    Reason.DEADLINES_CONTRADICT: (
        (
            "Set intervalSeconds of the Hsm below maxAgeSeconds of its policy.",
            ("kubectl edit hsm {hsm}", "kubectl edit attestationpolicy {policy}"),
        ),
    ),
    Reason.DELETING: (("Wait until it is gone; the operator takes its finalizer off.", ("{chatelaine} doctor",)),),
    Reason.ALLOCATIONS_REMAIN: (
        ("Delete the claims that are bound there, or let them move away.", ("kubectl get hsmclaims --all-namespaces",)),
    ),
    Reason.PAUSED: (("Go on with changes.", ("kubectl{in_namespace} annotate {kind} {name} chatelaine.dev/paused-",)),),
}
NOTHING_TO_DO: Final = frozenset(
    {
        Reason.IDENTITY_APPROVED,
        Reason.READMITTED,
        Reason.ANSWERS,
        Reason.EVIDENCE_HOLDS,
        Reason.BOUND,
        Reason.KEYS_ACTIVE,
        Reason.NO_KEYS,
        Reason.KEYS_RETAINED,
        Reason.KEYS_ADOPTED,
        Reason.KEY_DESTROYED,
        Reason.POLICIES_APPLIED,
        Reason.EGRESS_MANAGED,
        Reason.RULES_VALID,
        Reason.REFERENCE_VALUES_CHANGED,
        Reason.ALL_READY,
        Reason.RUNNING,
    }
)
"""Reasons that say that all is well, or tell of something that was done."""


def advice_on(reason: str, names: Names) -> tuple[Advice, ...]:
    """What to do about `reason`; for one that this version does not know, to ask one that does."""
    try:
        known = Reason(reason)
    except ValueError:
        text = f"{reason} is not known to this version of the command; use one as new as the operator."
        return (Advice(text, filled(("{chatelaine} version",), names)),)
    return tuple(Advice(text, filled(commands, names)) for text, commands in TABLE.get(known, ()))


def filled(commands: tuple[str, ...], names: Names) -> tuple[str, ...]:
    """Those of `commands` of which every name is known."""
    return tuple(text for text in (names.fill(command) for command in commands) if text is not None)
