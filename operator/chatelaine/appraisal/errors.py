"""What can be wrong with a set of policies, before any evidence is judged.

AppraisalError
├── NoPolicy          nothing to judge by: nothing would hold
├── DuplicateEntry    a policy names the same thing twice
└── NothingToCapture  these hosts show nothing that a policy could name
"""

from __future__ import annotations


class AppraisalError(ValueError):
    """These policies cannot judge anything."""


class NoPolicy(AppraisalError):
    """No policy was given. An empty set of rules never holds."""


class DuplicateEntry(AppraisalError):
    """Two entries of one list have the same key, so that it cannot be said which one counts."""


class NothingToCapture(AppraisalError):
    """No host, hosts that cannot stand in one policy, or nothing that a policy could name."""
