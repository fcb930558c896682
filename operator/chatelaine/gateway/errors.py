"""What goes wrong in a gateway.

GatewayError
├── SettingsRefused      the settings contradict themselves
├── ServiceKeyChanged    the token holds another service key than the pinned one
├── PeerUnknown          a certificate of no CA that is trusted now
├── PeerGone             nobody is there any more to be answered
├── AuditUnavailable     what cannot be recorded is not done
├── ChainBroken          the audit log was changed
├── ViewOutdated         the operator's update does not follow from what is held
└── ViewRefused          the operator's update contradicts itself
Refusal                  (`problems`) what a caller is told: every one of its codes stands there
"""

from __future__ import annotations


class GatewayError(Exception):
    """Something is wrong in this gateway, or with whom it talks to."""


class SettingsRefused(GatewayError):
    """The settings contradict themselves; the message says which and what to do."""


class ServiceKeyChanged(GatewayError):
    """The token holds another service key than the one that was pinned at the first start."""


class PeerUnknown(GatewayError):
    """The certificate is of no CA that is trusted now, or cannot be read."""


class PeerGone(GatewayError):
    """The peer closed before its request was whole. There is nobody to answer."""


class AuditUnavailable(GatewayError):
    """The record cannot be written; the operation must not be answered."""


class ChainBroken(GatewayError):
    """A line does not follow from the one before, or was changed."""


class ViewOutdated(GatewayError):
    """The update does not follow from what is held: the operator must look at `GatewayHello` and send a whole view."""


class ViewRefused(GatewayError):
    """The update contradicts itself or breaks a bound. Nothing of it is in force."""
