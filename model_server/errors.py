"""Errors of the server and of its command line. `app` maps them to HTTP statuses.

EdgeshipError
├── BundleError …                 see `edge_runtime.bundle.errors`
└── ServerError                   every error below
    ├── SettingsError             settings.toml, or an option, that cannot work; nothing was started
    ├── AuditBroken               an entry of the audit log is not the one that was written
    ├── StorageFull               the disk of the server is full; nothing was changed
    ├── StorageUnavailable        the database or the storage does not answer now; nothing was changed
    │   └── LeaseLost             another server may be publishing; what is not published yet will be
    ├── NotStored                 the storage has no such object
    ├── RequestError              what a caller sent
    │   ├── MalformedRequest      a body or parameter that breaks the protocol
    │   ├── BodyTooLarge          a cap on the body was passed
    │   ├── MethodRefused         not the HTTP method of this address
    │   ├── Unauthorized          no credential, or one that is not known
    │   │   └── DeviceNotEnrolled what signed is no device of ours: it must enrol first
    │   ├── Forbidden             a credential that does not allow this
    │   │   └── DeviceRevoked     a person has revoked this device
    │   ├── TooManyTries          wrong passwords, or too many people who log in at once; try again later
    │   └── PasswordRefused       too short or too long to be one
    ├── NotFound
    │   ├── UnknownModel          no such model is delegated
    │   ├── UnknownRelease
    │   ├── UnknownJob            no such job, or it ended long ago
    │   ├── UnknownPolicy         no change of the model's policy waits
    │   ├── UnknownLayout         no artifact of the release has these histograms
    │   ├── UnknownRollout
    │   ├── UnknownPerson
    │   ├── UnknownKey            the person has no such key
    │   ├── UnknownDevice         no device of this id has enrolled
    │   └── UnknownEnrolmentToken
    ├── PersonConflict            the person is in a state that does not allow this, or the last admin
    ├── EnrolmentError            a device that is not let in
    │   ├── TokenRefused          an enrolment token that is unknown, revoked, expired or used up
    │   ├── EnrolmentBusy         the token lets no more devices in within this hour
    │   ├── ProofRejected         no signature by the key that is to be enrolled
    │   └── DeviceTaken           the id is enrolled with another key
    ├── SigningError
    │   ├── KeyRejected           a key that cannot be opened, or that must not be used in this role
    │   │   └── KeyWithoutRole    a key that may sign nothing of what is asked
    │   ├── SignerFailed          a token or key service that does not sign now
    │   ├── SignatureRejected     a signature that does not verify, or by a key without this role
    │   ├── ThresholdNotMet       too few people have signed
    │   ├── ReviewFailed          what is staged is not exactly what the signer holds; nothing was signed
    │   └── RepositoryDamaged     metadata or a stored file is not what was published or staged
    ├── ReleaseError
    │   ├── ReleaseNotNewer       release numbers only grow
    │   ├── ReleaseConflict       the release is in a state that does not allow this
    │   ├── ReadinessRefused      the bundle is not ready for a fleet: a check, or the operator's command, says so
    │   └── ReadinessBroken       the operator's command cannot be started
    ├── JobError
    │   ├── JobQueueFull          more uploads wait to be staged than are taken
    │   ├── JobConflict           the job has ended
    │   └── JobLost               the work or the upload of a job went away with its server: stage it again
    ├── RolloutError
    │   ├── InvalidRollout        stages, holdback, predicate or limits that cannot work
    │   │   └── StageTooSmall     a stage that selects fewer devices than can be judged
    │   └── RolloutConflict       the rollout is in a state that does not allow this
    ├── InferenceError
    │   ├── QueueFull             more requests of a model wait than are taken
    │   └── ModelUnavailable      a model of the repository that cannot be served
    ├── TelemetryError
    │   ├── ReportRefused         a report of a day that is not open, or under another privacy mode
    │   ├── DuplicateReport       this device-day has been counted
    │   ├── IngestBusy            more reports wait than are taken; send it again later
    │   └── BaselineRefused       days that cannot make a baseline
    └── RemoteError               the server, asked from the command line
        ├── ServerUnreachable     no connection, or a broken answer
        └── ServerRefused         it answered with a problem; `status` holds the code
"""

from __future__ import annotations

from edge_runtime.bundle.errors import EdgeshipError

__all__ = [
    "AuditBroken",
    "BaselineRefused",
    "BodyTooLarge",
    "DeviceNotEnrolled",
    "DeviceRevoked",
    "DeviceTaken",
    "DuplicateReport",
    "EnrolmentBusy",
    "EnrolmentError",
    "Forbidden",
    "InferenceError",
    "IngestBusy",
    "InvalidRollout",
    "JobConflict",
    "JobError",
    "JobLost",
    "JobQueueFull",
    "KeyRejected",
    "KeyWithoutRole",
    "LeaseLost",
    "MalformedRequest",
    "MethodRefused",
    "ModelUnavailable",
    "NotFound",
    "NotStored",
    "PasswordRefused",
    "PersonConflict",
    "ProofRejected",
    "QueueFull",
    "ReadinessBroken",
    "ReadinessRefused",
    "ReleaseConflict",
    "ReleaseError",
    "ReleaseNotNewer",
    "RemoteError",
    "ReportRefused",
    "RepositoryDamaged",
    "RequestError",
    "ReviewFailed",
    "RolloutConflict",
    "RolloutError",
    "ServerError",
    "ServerRefused",
    "ServerUnreachable",
    "SettingsError",
    "SignatureRejected",
    "SignerFailed",
    "SigningError",
    "StageTooSmall",
    "StorageFull",
    "StorageUnavailable",
    "TelemetryError",
    "ThresholdNotMet",
    "TokenRefused",
    "TooManyTries",
    "Unauthorized",
    "UnknownDevice",
    "UnknownEnrolmentToken",
    "UnknownJob",
    "UnknownKey",
    "UnknownLayout",
    "UnknownModel",
    "UnknownPerson",
    "UnknownPolicy",
    "UnknownRelease",
    "UnknownRollout",
]


class ServerError(EdgeshipError):
    """Root of the errors of the server and its command line."""


class SettingsError(ServerError):
    """settings.toml, or an option, that cannot work; nothing was started."""


class AuditBroken(ServerError):
    """An entry of the audit log is not the one that was written."""


class StorageFull(ServerError):
    """The disk of the server is full; nothing was changed."""


class StorageUnavailable(ServerError):
    """The database or the storage does not answer now; nothing was changed. Ask again later."""


class LeaseLost(StorageUnavailable):
    """Another server may be publishing. What was decided and is not published yet will be, by whoever comes next."""


class NotStored(ServerError):
    """The storage has no such object."""


class RequestError(ServerError):
    """What a caller sent."""


class MalformedRequest(RequestError):
    """A body or parameter that breaks the protocol."""


class BodyTooLarge(RequestError):
    """A cap on the body was passed."""


class MethodRefused(RequestError):
    """Not the HTTP method of this address; ``allowed`` is."""

    def __init__(self, message: str, *, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class Unauthorized(RequestError):
    """No credential, or one that is not known."""


class Forbidden(RequestError):
    """A credential that does not allow this."""


class DeviceNotEnrolled(Unauthorized):
    """What signed is no device of ours: it must enrol first."""


class DeviceRevoked(Forbidden):
    """A person has revoked this device."""


class TooManyTries(RequestError):
    """Wrong passwords, or too many people who log in at once; try again after ``retry_after_s`` seconds."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PasswordRefused(RequestError):
    """Too short or too long to be a password."""


class NotFound(ServerError):
    """What was asked for does not exist."""


class UnknownModel(NotFound):
    """No such model is delegated; `edgeship-server keys delegate` adds one."""


class UnknownRelease(NotFound):
    """The model has no such release, or none that is published."""


class UnknownJob(NotFound):
    """No such job, or one that ended long ago."""


class UnknownPolicy(NotFound):
    """No change of the model's policy waits for signatures."""


class UnknownLayout(NotFound):
    """No artifact of the release has these telemetry histograms."""


class UnknownRollout(NotFound):
    """The channel has no rollout of this model."""


class UnknownDevice(NotFound):
    """No device of this id has enrolled."""


class UnknownEnrolmentToken(NotFound):
    """There is no such token."""


class EnrolmentError(ServerError):
    """A device that is not let in."""


class TokenRefused(EnrolmentError):
    """An enrolment token that is unknown, revoked, expired or used up."""


class EnrolmentBusy(EnrolmentError):
    """The token lets no more devices in within this hour; come back after ``retry_after_s`` seconds."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ProofRejected(EnrolmentError):
    """No signature by the key that is to be enrolled."""


class DeviceTaken(EnrolmentError):
    """The id is enrolled with another key; a person can reset it."""


class UnknownPerson(NotFound):
    """Nobody has this name."""


class UnknownKey(NotFound):
    """The person has no key with this id."""


class PersonConflict(ServerError):
    """The person is in a state that does not allow this, or is the last admin."""


class SigningError(ServerError):
    """Keys, signatures and the TUF repository."""


class KeyRejected(SigningError):
    """A key that cannot be opened, or that must not be used in this role."""


class KeyWithoutRole(KeyRejected):
    """A key that may sign nothing of what is asked."""


class SignerFailed(SigningError):
    """A token or key service that does not sign now."""


class SignatureRejected(SigningError):
    """A signature that does not verify, or that was made by a key without this role."""


class ThresholdNotMet(SigningError):
    """Too few people have signed."""


class ReviewFailed(SigningError):
    """What is staged is not exactly what the signer holds; nothing was signed."""


class RepositoryDamaged(SigningError):
    """Metadata or a stored file is not what was published or staged."""


class ReleaseError(ServerError):
    """A release cannot be staged, signed or published."""


class ReleaseNotNewer(ReleaseError):
    """Release numbers only grow."""


class ReleaseConflict(ReleaseError):
    """The release, or another one of its model, is in a state that does not allow this."""


class ReadinessRefused(ReleaseError):
    """The bundle is not ready for a fleet: a built-in check, or the operator's command, says so."""


class ReadinessBroken(ReleaseError):
    """The operator's command cannot be started; nothing was judged."""


class JobError(ServerError):
    """Work that goes on after its request was answered."""


class JobQueueFull(JobError):
    """More uploads wait to be staged than are taken; send it again later."""


class JobConflict(JobError):
    """The job has ended, so that it cannot be changed."""


class JobLost(JobError):
    """The work or the upload of a job went away with its server: stage the bundle again."""


class RolloutError(ServerError):
    """A rollout cannot be started or changed."""


class InvalidRollout(RolloutError):
    """Stages, holdback, predicate or limits that cannot work."""


class StageTooSmall(InvalidRollout):
    """A stage that selects fewer devices than can be judged."""


class RolloutConflict(RolloutError):
    """The rollout is in a state that does not allow this."""


class InferenceError(ServerError):
    """A request to the cloud endpoint that cannot be answered now."""


class QueueFull(InferenceError):
    """More requests of a model wait than are taken; ask again after ``retry_after_s`` seconds."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ModelUnavailable(InferenceError):
    """A model of the repository that cannot be served; the text says why."""


class TelemetryError(ServerError):
    """A telemetry report, or a request about drift, that cannot be served."""


class ReportRefused(TelemetryError):
    """A report of a day that is not open, or under a privacy mode that this server does not run."""


class DuplicateReport(TelemetryError):
    """This device-day has been counted; nothing needs to be sent again."""


class IngestBusy(TelemetryError):
    """More reports wait than are taken; send it again later."""


class BaselineRefused(TelemetryError):
    """The named days cannot make a baseline."""


class RemoteError(ServerError):
    """The server, asked from the command line."""


class ServerUnreachable(RemoteError):
    """No connection, or an answer that breaks the protocol."""


class ServerRefused(RemoteError):
    """The server answered with a problem."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
