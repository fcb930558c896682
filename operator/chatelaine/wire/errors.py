"""What can be wrong with the bytes of a message.

MessageError
├── MessageMalformed      no message of that kind
└── VersionNotSupported   a message of a version that is not understood here; its shape was not looked at
"""

from __future__ import annotations


class MessageError(ValueError):
    """Bytes that are no message which can be used."""


class MessageMalformed(MessageError):
    """No JSON, or not of the form of that kind."""


class VersionNotSupported(MessageError):
    """Of another version; the sender may try again in one of `wire.messages.SUPPORTED_VERSIONS`."""
