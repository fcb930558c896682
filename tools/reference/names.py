"""Annotations, labels and the finalizer, from `model/identifiers.py`; what they mean stands here."""

from __future__ import annotations

from chatelaine.model import identifiers
from chatelaine.reconcile.network import ANNOTATION_DIGEST, EGRESS_MANAGED
from tools.reference.markdown import page, table

BY_PEOPLE = {
    identifiers.ANNOTATION_READMIT: (
        "`Hsm`",
        "the `status.attestation.evidenceDigest` that was refuted",
        "Lets a refuted host in again, once, if what it shows from then on holds. Needs the verb `readmit` on `hsms`.",
    ),
    identifiers.ANNOTATION_PAUSED: (
        "`Hsm`, `HsmClaim`",
        "`true`",
        "Holds changes back, while somebody looks. Revocation and deletion still act.",
    ),
    identifiers.ANNOTATION_DESTROY: (
        "`HsmClaim`",
        "`KEY/VERSION`",
        "Destroys one deactivated version of a key, where `spec.reclaimPolicy` is `Destroy`.",
    ),
    identifiers.ANNOTATION_ROTATE_CA: (
        "ConfigMap `chatelaine-ca`",
        "any text that was not there before",
        "Begins a rotation of the CA, once the one before is over. `chatelaine pki rotate` sets it.",
    ),
    identifiers.ANNOTATION_ROTATE_CA_GRACE: (
        "ConfigMap `chatelaine-ca`",
        "seconds, at most a day",
        "How long each step of that rotation waits for clients, which are never asked, after everybody else has it.",
    ),
}

LABELS_BY_PEOPLE = {
    identifiers.LABEL_EGRESS: (
        "`Namespace`",
        f"`{EGRESS_MANAGED}`",
        "Client pods of this namespace reach the gateways of their claims and DNS, and nothing else.",
    ),
}

BY_US = {
    identifiers.LABEL_CLAIM_UID: ("NetworkPolicies, Secrets", "uid of the claim they belong to"),
    identifiers.LABEL_CLAIM_NAME: ("NetworkPolicies, Secrets", "name of that claim"),
    identifiers.LABEL_CLAIM_NAMESPACE: ("NetworkPolicies, Secrets", "namespace of that claim"),
    identifiers.LABEL_HSM: ("NetworkPolicies", "`Hsm` whose gateway they guard"),
    identifiers.LABEL_MANAGED_BY: ("everything that we create", f"`{identifiers.MANAGED_BY}`"),
    ANNOTATION_DIGEST: ("NetworkPolicies, Secrets", "digest of the content that was asked for, to notice drift"),
    identifiers.FINALIZER: ("`Hsm`, `HsmClaim`", "finalizer: held while keys or seats must still be seen to"),
}

# Kubernetes' own; it is read where policies name namespaces.
_FOREIGN = {identifiers.LABEL_NAMESPACE_NAME}


def text() -> str:
    """The page.

    Raises:
        LookupError: a name of the model is not explained here.
    """
    known = {
        value
        for name, value in vars(identifiers).items()
        if name.startswith(("ANNOTATION_", "LABEL_")) or name == "FINALIZER"
    }
    if missing := known - {*BY_PEOPLE, *LABELS_BY_PEOPLE, *BY_US, *_FOREIGN}:
        raise LookupError(f"tools/reference/names.py does not explain {', '.join(sorted(missing))}")
    return page(
        "operator/chatelaine/model/identifiers.py",
        "# Annotations and labels",
        "## Annotations that people set",
        table(("annotation", "on", "value", "does"), ((f"`{name}`", *row) for name, row in BY_PEOPLE.items())),
        "## Labels that people set",
        table(("label", "on", "value", "does"), ((f"`{name}`", *row) for name, row in LABELS_BY_PEOPLE.items())),
        "## What the operator sets",
        table(("name", "on", "says"), ((f"`{name}`", *row) for name, row in BY_US.items())),
    )
