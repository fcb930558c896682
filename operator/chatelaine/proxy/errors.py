"""What goes wrong in the sidecar.

ProxyError
├── SettingsRefused               the settings contradict themselves; the message says which and what to do
├── PlaceTaken                    the socket cannot be had: somebody serves there, or what lies there is not ours
└── Refused                       a request is answered with a problem document of our own; `code` is in `problems`
    ├── BindingUnusable           the folder of the binding is missing, incomplete or malformed
    ├── AccountTokenUnusable      the pod's projected service-account token is missing, or is not one for gateways
    ├── GatewayUnreachable        nobody answers in time at the binding's address
    ├── GatewayNotAuthenticated   somebody answers there who is not the gateway of the binding
    ├── GatewayMalformed          the gateway's answer is over its bound, or is none of ours
    └── ExchangeRefused           the gateway gives this pod no trust token
"""

from __future__ import annotations

from typing import ClassVar

from chatelaine.proxy import problems


class ProxyError(Exception):
    """Something is wrong in this sidecar, or with whom it talks to."""


class SettingsRefused(ProxyError):
    """The settings contradict themselves."""


class PlaceTaken(ProxyError):
    """The socket's place is not free."""


class Refused(ProxyError):
    """A request ends with a problem document; `detail` says what was expected, what was found and what to do."""

    code: ClassVar[str] = problems.BAD_REQUEST

    def __init__(self, detail: str, code: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.problem_code = code or self.code


class BindingUnusable(Refused):
    """The binding cannot be used as it lies there."""

    code = problems.BINDING_UNUSABLE


class AccountTokenUnusable(Refused):
    """The service-account token cannot be used as it lies there."""

    code = problems.ACCOUNT_TOKEN_UNUSABLE


class GatewayUnreachable(Refused):
    """Nobody answers in time."""

    code = problems.GATEWAY_UNREACHABLE


class GatewayNotAuthenticated(Refused):
    """Whoever answers is not the gateway that was attested."""

    code = problems.GATEWAY_NOT_AUTHENTICATED


class GatewayMalformed(Refused):
    """An answer that cannot be used."""

    code = problems.GATEWAY_MALFORMED


class ExchangeRefused(Refused):
    """The gateway said no. `gateway_code` is its own word for it."""

    code = problems.EXCHANGE_REFUSED

    def __init__(self, detail: str, gateway_code: str) -> None:
        super().__init__(detail)
        self.gateway_code = gateway_code
