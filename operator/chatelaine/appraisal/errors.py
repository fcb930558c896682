"""What can be wrong with a set of policies, before any evidence is judged.

AppraisalError
└── NoPolicy   nothing to judge by: nothing would hold
"""

from __future__ import annotations


class AppraisalError(ValueError):
    """These policies cannot judge anything."""


class NoPolicy(AppraisalError):
    """No policy was given. An empty set of rules never holds."""
