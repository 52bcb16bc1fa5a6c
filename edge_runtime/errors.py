"""Errors of the runtime.

EdgeshipError
├── BundleError …                 see `edge_runtime.bundle.errors`
├── ConfigurationError            an option that cannot work; nothing was started
├── EngineError                   the inference engine
│   ├── EngineMissing             its package is not installed here
│   ├── ModelRejected             it cannot load this model
│   └── EngineFailed              it failed, or answered with values that are not finite, while running
├── InputError                    what the caller passed to `predict`
│   ├── WrongInputs               an input is missing, or not one of the model's
│   ├── WrongShape
│   ├── WrongDtype
│   ├── NonFiniteInput            NaN or infinity
│   └── InputOutOfRange           outside what training saw
├── StoreError                    the state folder
│   ├── StoreLocked               another process uses it
│   ├── StoreFull                 no space left; nothing was half-written
│   └── SlotDamaged               a slot's files do not have their recorded digests
├── UpdateError                   `outcome` is the enumerated value to act on and to report
├── CloudError                    the cloud endpoint
│   ├── CloudUnreachable          no connection, a time-out, or a broken answer
│   ├── CloudRefused              it answered with an error status
│   └── BreakerOpen               not asked: it failed too often lately
├── ReportError                   a telemetry report that breaks its format, or cannot be made
├── NoAnswer                      every link of the fallback chain failed
├── NoModel                       no release of this model is installed and no factory bundle was given
└── RuntimeClosed                 `close` was called
"""

from __future__ import annotations

from enum import StrEnum

from edge_runtime.bundle.errors import (
    ArchiveError,
    BundleError,
    BundleTooLarge,
    DigestMismatch,
    EdgeshipError,
    InvalidName,
    ManifestError,
    UnsupportedFormat,
)

__all__ = [
    "ArchiveError",
    "BreakerOpen",
    "BundleError",
    "BundleTooLarge",
    "CloudError",
    "CloudRefused",
    "CloudUnreachable",
    "ConfigurationError",
    "DigestMismatch",
    "EdgeshipError",
    "EngineError",
    "EngineFailed",
    "EngineMissing",
    "InputError",
    "InputOutOfRange",
    "InvalidName",
    "ManifestError",
    "ModelRejected",
    "NoAnswer",
    "NoModel",
    "NonFiniteInput",
    "Outcome",
    "ReportError",
    "RuntimeClosed",
    "SlotDamaged",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "UnsupportedFormat",
    "UpdateError",
    "WrongDtype",
    "WrongInputs",
    "WrongShape",
]


class ConfigurationError(EdgeshipError):
    """An option that cannot work; nothing was started."""


class EngineError(EdgeshipError):
    """The inference engine."""


class EngineMissing(EngineError):
    """The engine's package is not installed here; the text names the extra that installs it."""


class ModelRejected(EngineError):
    """The engine cannot load this model."""


class EngineFailed(EngineError):
    """The engine failed, or answered with values that are not finite, while running."""


class InputError(EdgeshipError):
    """What the caller passed to `predict`."""


class WrongInputs(InputError):
    """An input is missing, or not one of the model's."""


class WrongShape(InputError):
    """A tensor's shape is not the one in the manifest."""


class WrongDtype(InputError):
    """A tensor's dtype is not the one in the manifest."""


class NonFiniteInput(InputError):
    """A tensor holds NaN or infinity."""


class InputOutOfRange(InputError):
    """A tensor holds values outside what training saw."""


class StoreError(EdgeshipError):
    """The state folder."""


class StoreLocked(StoreError):
    """Another process uses this state folder."""


class StoreFull(StoreError):
    """No space left on the device; nothing was half-written."""


class SlotDamaged(StoreError):
    """A slot's files do not have the digests that were recorded when it was verified."""


class Outcome(StrEnum):
    """How one update check ended. The values travel in ``POST /v1/outcomes``; text never drives a decision."""

    UNCHANGED = "Unchanged"  # nothing to do: the plan asks for what is active
    INSTALLED = "Installed"  # verified, passed the canary, now trying
    COMMITTED = "Committed"  # enough good predictions; it is the new last-good release
    RETURNED = "Returned"  # back to the baseline because the plan says rolled_back
    ROLLED_BACK = "RolledBack"  # this device went back by itself (crash loop, or it would not load)
    DISABLED = "Disabled"  # the plan switched local inference off
    INCOMPATIBLE = "Incompatible"  # no artifact fits this device
    DENIED_AFTER_ROLLBACK = "DeniedAfterRollback"  # this device went back from it before; waiting for a new attempt
    REVOKED = "Revoked"  # the release is revoked or below the floor
    NO_PLAN = "NoPlan"  # the server has no rollout for this model and channel yet
    UNKNOWN_MODEL = "UnknownModel"  # the server has no model of this name
    SERVER_UNREACHABLE = "ServerUnreachable"
    METADATA_EXPIRED = "MetadataExpired"
    METADATA_REJECTED = "MetadataRejected"
    PLAN_INVALID = "PlanInvalid"
    DOWNLOAD_FAILED = "DownloadFailed"
    DOWNLOAD_NO_SPACE = "DownloadNoSpace"
    VERIFICATION_FAILED = "VerificationFailed"
    DELTA_MISMATCH = "DeltaMismatch"  # a delta did not make the file that is signed; the whole file is downloaded
    CANARY_FAILED = "CanaryFailed"
    STORE_FAILED = "StoreFailed"
    DEFERRED_METERED = "DeferredMetered"  # the download waits for a network that is not metered
    DEFERRED_WINDOW = "DeferredWindow"  # it waits for the maintenance window
    DEFERRED_BATTERY = "DeferredBattery"  # it waits for a fuller battery, or for power
    DEFERRED_BANDWIDTH = "DeferredBandwidth"  # it takes longer than one check may; the next goes on with it
    DEFERRED_SERVER = "DeferredServer"  # the server asked to come back later
    ENROLMENT_REFUSED = "EnrolmentRefused"  # the server does not let this device in
    CLOCK_WRONG = "ClockWrong"  # this device's clock is far off, or so far that metadata looks expired


class UpdateError(EdgeshipError):
    """An update check that did not succeed; the running release is untouched."""

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(f"{outcome.value}: {message}")
        self.outcome = outcome
        self.detail = message


class CloudError(EdgeshipError):
    """The cloud endpoint."""


class CloudUnreachable(CloudError):
    """No connection, a time-out, or an answer that breaks the protocol."""


class CloudRefused(CloudError):
    """The endpoint answered with an error status, kept in ``status``."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BreakerOpen(CloudError):
    """The endpoint was not asked, because it failed too often lately."""


class ReportError(EdgeshipError):
    """A telemetry report that breaks its format, or cannot be made."""


class NoAnswer(EdgeshipError):
    """Every link of the fallback chain failed; the text lists each reason."""


class NoModel(EdgeshipError):
    """No release of this model is installed and no factory bundle was given."""


class RuntimeClosed(EdgeshipError):
    """`close` was called on this runtime."""
