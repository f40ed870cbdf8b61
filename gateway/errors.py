"""Every error that leaves a part of the gateway, each with a stable `code`.

    GatewayError
    ├── RequestError                the caller's mistake: the request is *refused*
    │   ├── UnknownModel            unknown_model
    │   ├── UnknownVersion          unknown_version
    │   ├── VersionNotAllowed       version_not_allowed
    │   ├── MalformedBody           malformed_body
    │   ├── InvalidInput            invalid_input
    │   ├── BodyTooLarge            body_too_large
    │   ├── UnsupportedEncoding     unsupported_encoding
    │   ├── MethodNotAllowed        method_not_allowed
    │   ├── UnknownPath             unknown_path
    │   ├── MalformedRequest        malformed_request
    │   ├── HeadTooLarge            head_too_large
    │   ├── UnmetExpectation        unmet_expectation
    │   ├── InvalidHeader           invalid_header
    │   ├── RequestTimeout          request_timeout
    │   └── ClientClosed            client_closed
    ├── ServingError                ours or the version's: the request has *failed*
    │   ├── NotReady                not_ready
    │   ├── VersionNotReady         version_not_ready
    │   ├── ModelFailed             model_failed
    │   ├── BackendUnreachable      backend_unreachable
    │   ├── BackendProtocolError    backend_protocol_error
    │   ├── BackendStatus           backend_status
    │   ├── DeadlineExceeded        deadline_exceeded
    │   ├── Overloaded              overloaded
    │   ├── AuditUnavailable        audit_unavailable
    │   ├── Stopping                stopping
    │   └── InternalError           internal_error
    ├── ChangeError                 a change of the rules that is not made, or a look-up that finds nothing
    │   ├── InvalidDocument         invalid_document
    │   ├── IncompleteManifest      incomplete_manifest
    │   ├── DocumentNotFound        not_found
    │   ├── RevisionConflict        revision_conflict
    │   ├── RevisionRequired        revision_required
    │   ├── VersionExists           version_exists
    │   ├── CohortInUse             cohort_in_use
    │   ├── UnconfirmedChange       unconfirmed_change
    │   ├── TooManyMoves            too_many_moves
    │   ├── CannotReplay            cannot_replay
    │   └── RulesUnavailable        rules_unavailable
    │       └── RulesInDoubt        rules_in_doubt
    ├── ArtifactError               a version's artifact cannot be used
    │   ├── ArtifactMissing         artifact_missing
    │   ├── DigestMismatch          digest_mismatch
    │   └── ArtifactInvalid         artifact_invalid
    ├── EvidenceError               what a record is proven by cannot be made, or does not hold
    │   ├── KeyUnusable             key_unusable
    │   ├── NotCovered              not_covered
    │   └── NotProven               not_proven
    └── SettingsError               settings

Belongs here: what went wrong, in words that say what to do. Never here: status numbers of a protocol; each
protocol maps codes to its own statuses in one table.
"""

from typing import ClassVar, Literal

Progress = Literal["nothing", "request", "answer"]
"""How far a request to a backend had come."""


class GatewayError(Exception):
    """Base of every error of the gateway. `message` is for records, logs and operators, and never holds a secret."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)

    @property
    def public(self) -> str:
        """What a client may read: the message without addresses and paths of ours."""
        return self.message


class RequestError(GatewayError):
    """The caller's mistake: the request is refused, and sending it again unchanged cannot help."""


class UnknownModel(RequestError):
    """No route for this model."""

    code = "unknown_model"


class UnknownVersion(RequestError):
    """The model has no such version, or no route names it."""

    code = "unknown_version"


class VersionNotAllowed(RequestError):
    """The route refuses versions named by the caller (`client_versions: deny`)."""

    code = "version_not_allowed"


class MalformedBody(RequestError):
    """The body is not the JSON object that the protocol asks for."""

    code = "malformed_body"


class InvalidInput(RequestError):
    """A tensor does not fit the signature of the version. The message begins with the path of the field."""

    code = "invalid_input"


class BodyTooLarge(RequestError):
    """The body is larger than `limits.max_body_bytes`."""

    code = "body_too_large"


class UnsupportedEncoding(RequestError):
    """A Content-Encoding or a binary extension that the gateway does not speak."""

    code = "unsupported_encoding"


class MethodNotAllowed(RequestError):
    """The path exists, but not with this method. `allowed` are the methods it has."""

    code = "method_not_allowed"

    def __init__(self, message: str, allowed: tuple[str, ...]) -> None:
        super().__init__(message)
        self.allowed = allowed


class UnknownPath(RequestError):
    """No such path on this port."""

    code = "unknown_path"


class MalformedRequest(RequestError):
    """The message is not well-formed HTTP/1.1, or it can be read in two ways. The connection is closed."""

    code = "malformed_request"


class HeadTooLarge(RequestError):
    """The request has more headers than `limits.max_headers`, or larger ones than `limits.max_head_bytes`."""

    code = "head_too_large"


class UnmetExpectation(RequestError):
    """An `Expect` header that asks for anything but `100-continue`."""

    code = "unmet_expectation"


class InvalidHeader(RequestError):
    """A header that the gateway goes by has a value that says nothing to it. The message names the header."""

    code = "invalid_header"


class RequestTimeout(RequestError):
    """The request came too slowly: see `limits.head_seconds`, `limits.body_seconds`, `limits.min_body_rate`."""

    code = "request_timeout"


class ClientClosed(RequestError):
    """The caller hung up before it had its answer."""

    code = "client_closed"


class ServingError(GatewayError):
    """The gateway or a version failed: the request may well succeed when it is sent again.

    `backend` is the backend that was tried (`onnx` or a URL), empty when it did not come to that.
    """

    def __init__(self, message: str, backend: str = "") -> None:
        super().__init__(message)
        self.backend = backend

    @property
    def public(self) -> str:
        """The message with "the backend" in place of its address."""
        origin = "/".join(self.backend.split("/")[:3])
        if "://" not in origin:
            return self.message
        return self.message.replace(self.backend, "the backend").replace(origin, "the backend")


class NotReady(ServingError):
    """No rules are in force yet in this worker."""

    code = "not_ready"


class VersionNotReady(ServingError):
    """The version is named by the route but could not be prepared here."""

    code = "version_not_ready"

    @property
    def public(self) -> str:
        """Why a version cannot be prepared names files and addresses of ours, so that is for the record alone."""
        return "this version cannot serve now; the record of the request says why"


class ModelFailed(ServingError):
    """The version's own code failed on input that fits its signature."""

    code = "model_failed"


class BackendUnreachable(ServingError):
    """No connection to the backend, or it was cut before an answer.

    `progress` says how far it had come: `nothing` of the request had left, the `request` had (all or in part), or the
    `answer` had begun to come.
    """

    code = "backend_unreachable"
    progress: Progress = "answer"


class BackendProtocolError(ServingError):
    """The backend does not answer in HTTP."""

    code = "backend_protocol_error"


class BackendStatus(ServingError):
    """The backend answered with a status of 400 or above. Never raised: its answer is passed on as it is."""

    code = "backend_status"


class DeadlineExceeded(ServingError):
    """The time-out of the route or of the version has passed."""

    code = "deadline_exceeded"


class Overloaded(ServingError):
    """More is asked than can be done in time: of a version, a worker, or a queue. Come back a little later.

    `retry_after_s` is when to come again, in seconds.
    """

    code = "overloaded"
    retry_after_s: int = 1


class AuditUnavailable(ServingError):
    """The record cannot be written, so the answer is withheld."""

    code = "audit_unavailable"


class Stopping(ServingError):
    """The gateway is stopping and the request did not end within the time it had for that."""

    code = "stopping"


class InternalError(ServingError):
    """A defect of the gateway; the log has the details under the record id."""

    code = "internal_error"


class ChangeError(GatewayError):
    """A change that is not made; nothing of it is applied.

    `current` is the revision that its document has now, where that is known; 0 if it does not exist.
    """

    current: int | None = None


class InvalidDocument(ChangeError):
    """A document that does not fit. `path` names the field; empty for the document itself."""

    code = "invalid_document"

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path


class IncompleteManifest(InvalidDocument):
    """A manifest without its metadata contract, registered without `allow_incomplete`."""

    code = "incomplete_manifest"


class DocumentNotFound(ChangeError):
    """No such route, cohort, version, revision or record."""

    code = "not_found"


class RevisionConflict(ChangeError):
    """Somebody else changed the document first. `current` is the revision it has now; 0 if it does not exist."""

    code = "revision_conflict"

    def __init__(self, message: str, current: int) -> None:
        super().__init__(message)
        self.current = current


class RevisionRequired(ChangeError):
    """A write to an existing document that does not say which revision it changes."""

    code = "revision_required"

    def __init__(self, message: str, current: int) -> None:
        super().__init__(message)
        self.current = current


class VersionExists(ChangeError):
    """The version is registered with other content; versions are immutable."""

    code = "version_exists"


class CohortInUse(ChangeError):
    """A route pins the cohort that is to be deleted."""

    code = "cohort_in_use"


class UnconfirmedChange(ChangeError):
    """The document was changed on condition that somebody confirms it; first confirm that change, or roll it back."""

    code = "unconfirmed_change"


class TooManyMoves(ChangeError):
    """The change would move more callers to another version than it was allowed to."""

    code = "too_many_moves"


class CannotReplay(ChangeError):
    """A record cannot be run again: its input was not kept whole, or its version is gone or changed."""

    code = "cannot_replay"


class RulesUnavailable(ChangeError):
    """Redis does not answer; rules in force stay in force, changes are refused."""

    code = "rules_unavailable"


class RulesInDoubt(RulesUnavailable):
    """The rules store lost changes that were in force; an operator decides which rules are right."""

    code = "rules_in_doubt"


class ArtifactError(GatewayError):
    """A version cannot be prepared from its artifact.

    Where that refuses a change, `current` is the revision that the document has now; 0 if it does not exist.
    """

    code = "artifact_invalid"
    current: int | None = None


class ArtifactMissing(ArtifactError):
    """The artifact is not where the manifest says, or cannot be read."""

    code = "artifact_missing"


class DigestMismatch(ArtifactError):
    """The artifact is not the one that was registered. The message names both digests."""

    code = "digest_mismatch"


class ArtifactInvalid(ArtifactError):
    """The artifact has the right digest but is no model that can be run."""

    code = "artifact_invalid"


class EvidenceError(GatewayError):
    """What a record is proven by cannot be made, or does not hold."""

    code = "not_proven"


class KeyUnusable(EvidenceError):
    """A key cannot be read, or is none that signs checkpoints. The message never holds any of it."""

    code = "key_unusable"


class NotCovered(EvidenceError):
    """No checkpoint covers the record yet, or the contents that would have to be proven are no longer kept."""

    code = "not_covered"


class NotProven(EvidenceError):
    """A receipt does not prove what it says. The message is the first reason why not."""

    code = "not_proven"


class SettingsError(GatewayError):
    """A setting is unknown, missing or wrong; the gateway does not start.

    `exit_code` (EX_CONFIG of sysexits.h) tells the supervisor that starting the process again cannot help.
    """

    code = "settings"
    exit_code: ClassVar[int] = 78
