"""What keeps an agent from giving evidence.

AgentError
├── AttesterError
│   ├── AttesterUnavailable   no TPM at that TCTI, or it is busy with itself; ask again
│   ├── AttesterTimeout       the TPM did not answer in time
│   ├── AttesterBusy          too many calls wait for the TPM already
│   ├── AttesterRefused       the TPM said no; the message names its answer
│   ├── BankAbsent            this bank, or one of these PCRs, does not exist here
│   └── ActivationRefused     the credential is not for this TPM and attestation key
├── GatewayUnavailable        the gateway gave no statement
├── StatementUnfit            the gateway's statement is over other values than it was asked for
├── PcrsKeepMoving            PCRs changed during each attempt
├── EvidenceBusy              too many rounds wait already
├── LogError
│   ├── LogUnreadable         a log that is configured cannot be read
│   └── LogTooLong            a log, or an offset into one, is over the bound of what a verifier takes
├── TpmStackMissing           the libraries for talking to a TPM are not installed
└── StateDamaged              a file in the state folder is not what we wrote
"""

from __future__ import annotations


class AgentError(Exception):
    """The agent cannot do what it was asked."""


class AttesterError(AgentError):
    """The root of trust gave no answer that can be used."""


class AttesterUnavailable(AttesterError):
    """The TPM cannot be reached, or asks to be tried again."""


class AttesterTimeout(AttesterError):
    """The TPM did not answer in time."""


class AttesterBusy(AttesterError):
    """Too many calls wait for the TPM."""


class AttesterRefused(AttesterError):
    """The TPM refused; trying again will not help."""


class BankAbsent(AttesterError):
    """The PCR bank, or one of the indices, does not exist in this TPM."""


class ActivationRefused(AttesterError):
    """This TPM, with this attestation key, cannot open the credential."""


class GatewayUnavailable(AgentError):
    """The gateway beside us gave no statement."""


class StatementUnfit(AgentError):
    """The gateway answered another question than the one it was asked."""


class PcrsKeepMoving(AgentError):
    """PCRs changed between reading and quoting, in every attempt."""


class EvidenceBusy(AgentError):
    """Too many evidence rounds wait already."""


class LogError(AgentError):
    """A log of the kernel cannot be sent. A host without a log is no error: it answers without one."""


class LogUnreadable(LogError):
    """A log that is configured cannot be read."""


class LogTooLong(LogError):
    """A log, or an offset into one, is over the bound of what a verifier takes."""


class TpmStackMissing(AgentError):
    """The libraries for talking to a TPM are not installed."""


class StateDamaged(AgentError):
    """A file in the state folder is damaged."""
