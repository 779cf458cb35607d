"""Declare every refusal: its machine code and its exit status."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar


class ExitCode(IntEnum):
    """Process exit statuses.  Public: never renumber."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    NOT_FOUND = 3
    DENIED = 4
    CONFLICT = 5
    DATABASE = 6
    BUSY = 7
    DELIVERY = 8
    BATCH = 9
    ASKED_FOR = 10
    INTEGRITY = 11
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One rule that a request breaks: which field, what is allowed, what was asked for."""

    rule: str
    field: str
    message: str
    bound: Any = None
    value: Any = None


class KeyctlError(Exception):
    """Base of every error a user can cause.  Anything else is a bug."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL

    def __init__(
        self, message: str, *, hint: str | None = None, violations: Sequence[Violation] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.violations = tuple(violations)


# --- 2: usage


class UsageError(KeyctlError):
    """The command line does not say something that can be done."""

    code = "usage"
    exit_code = ExitCode.USAGE


class SecretInArgumentError(UsageError):
    """An argument looks like a key string or carries a password; it is never repeated."""

    code = "secret_in_argument"


class MalformedRequestError(UsageError):
    """A request or a policy document is not well formed; `violations` says where."""

    code = "malformed_request"


class ConfigurationError(UsageError):
    """The configuration file cannot be used as it is."""

    code = "configuration"


class InvalidDurationError(UsageError):
    """A text is not a duration of the one grammar."""

    code = "invalid_duration"


class AmbiguousKeyError(UsageError):
    """Several keys answer to the beginning of an id."""

    code = "ambiguous_key"


class InvalidMoneyError(UsageError):
    """A text or number is not an amount of US dollars that keyctl accepts."""

    code = "invalid_money"


class InvalidKeyStringError(UsageError):
    """A caller-supplied key has a shape that no key string may have."""

    code = "invalid_key"


class UnmappableRowError(UsageError):
    """A row of another gateway's database cannot become an object of this one with equal meaning."""

    code = "unmappable_row"


# --- 3: not found


class NotFoundError(KeyctlError):
    """A named object does not exist.  `given` is the name, where names like it may help."""

    code = "not_found"
    exit_code = ExitCode.NOT_FOUND

    def __init__(self, message: str, *, hint: str | None = None, given: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.given = given


class KeyNotFoundError(NotFoundError):
    """No key answers to what was given."""

    code = "key_not_found"


class AccessGroupNotFoundError(NotFoundError):
    """No group of models has this name."""

    code = "access_group_not_found"


class TeamNotFoundError(NotFoundError):
    """No team has this id."""

    code = "team_not_found"


class UserNotFoundError(NotFoundError):
    """No user has this id."""

    code = "user_not_found"


class OrganizationNotFoundError(NotFoundError):
    """No organization has this id."""

    code = "organization_not_found"


class BudgetNotFoundError(NotFoundError):
    """No budget tier has this id."""

    code = "budget_not_found"


class ModelNotFoundError(NotFoundError):
    """Nothing names this model."""

    code = "model_not_found"


class TagNotFoundError(NotFoundError):
    """No key has this tag."""

    code = "tag_not_found"


class SecretNotFoundError(NotFoundError):
    """The key has no secret of this id."""

    code = "secret_not_found"


class EventNotFoundError(NotFoundError):
    """The outbox holds no event of this id."""

    code = "event_not_found"


class MemberNotFoundError(NotFoundError):
    """The user is not a member of that team or organization."""

    code = "member_not_found"


# --- 4: denied


class DeniedError(KeyctlError):
    """The caller may not do this."""

    code = "denied"
    exit_code = ExitCode.DENIED


class PolicyDeniedError(DeniedError):
    """The request breaks rules; `violations` holds all of them."""

    code = "policy_denied"


class CallerDeniedError(DeniedError):
    """The caller's own key does not authenticate."""

    code = "caller_denied"


class RestrictedError(DeniedError):
    """The configuration leaves this to nobody who acts through another account."""

    code = "restricted"


# --- 5: conflict


class ConflictError(KeyctlError):
    """Something with this name is there already."""

    code = "conflict"
    exit_code = ExitCode.CONFLICT


class AliasTakenError(ConflictError):
    """Another live key has this alias."""

    code = "alias_taken"


class KeyTakenError(ConflictError):
    """This key string is or was a secret of this database."""

    code = "key_taken"


class RequestIdTakenError(ConflictError):
    """Another request used this request id."""

    code = "request_id_taken"


class RequestReplayedError(ConflictError):
    """This request succeeded before, and a key string is shown only once."""

    code = "request_replayed"


class ObjectTakenError(ConflictError):
    """A team, user, organization or membership of this name exists."""

    code = "already_exists"


class ObjectInUseError(ConflictError):
    """A team, user or organization still has live keys, teams or members."""

    code = "in_use"


class KeysLeftError(ConflictError):
    """Somebody who leaves, or gets a lower role, has live keys there; nothing says what becomes of them."""

    code = "keys_left"


class SecretActiveError(ConflictError):
    """The secret is the active one, which only a rotation or a deletion ends."""

    code = "secret_active"


class FileTakenError(ConflictError):
    """The output file exists and may not be replaced."""

    code = "file_exists"


class NotManagedError(ConflictError):
    """A fleet file describes an object that its fleet does not have."""

    code = "not_managed"


class PlanOutdatedError(ConflictError):
    """The world moved on since a plan was saved."""

    code = "plan_outdated"


# --- 6: database


class DatabaseError(KeyctlError):
    """The database cannot be reached, read or written."""

    code = "database"
    exit_code = ExitCode.DATABASE


class DatabaseLostError(DatabaseError):
    """The connection broke; what was asked for may or may not have happened."""

    code = "database_lost"


class SchemaError(DatabaseError):
    """The schema is not the one this version works with."""

    code = "schema"


class BeingMovedError(SchemaError):
    """The database is closed to writers, because it is or was moved to another one."""

    code = "being_moved"

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint=hint)


class UnconfirmedError(DatabaseError):
    """The key was delivered, but the database was lost before it could be confirmed."""

    code = "unconfirmed"


class UnavailableError(DatabaseError):
    """A key cannot be verified now, or usage not be written; a gateway answers 503."""

    code = "unavailable"


# --- 7: busy


class BusyError(KeyctlError):
    """Another run holds what this one needs."""

    code = "busy"
    exit_code = ExitCode.BUSY


# --- 8: delivery


class DeliveryError(KeyctlError):
    """The key string did not arrive, or nobody knows; there is no new active secret."""

    code = "delivery_failed"
    exit_code = ExitCode.DELIVERY


class FencedError(DeliveryError):
    """Another run took this one's claim over before it could confirm."""

    code = "fenced"


# --- 9: batch


class BatchError(KeyctlError):
    """Some items of a batch failed; the payload says which."""

    code = "batch"
    exit_code = ExitCode.BATCH


# --- 11: integrity


class CorruptedError(KeyctlError):
    """What is stored is not what was written."""

    code = "integrity"
    exit_code = ExitCode.INTEGRITY


class BrokenChainError(CorruptedError):
    """The audit trail is not what keyctl wrote."""

    code = "audit_broken"


class UnreadableRowError(CorruptedError):
    """A row of the database is not what keyctl wrote, and cannot be read.

    `known` are the columns that can be.
    """

    code = "unreadable_row"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        object_type: str,
        object_id: str,
        columns: Sequence[str],
        known: Mapping[str, Any],
    ) -> None:
        super().__init__(message, hint=hint)
        self.object_type = object_type
        self.object_id = object_id
        self.columns = tuple(columns)
        self.known = known


class StateDiffersError(CorruptedError):
    """Rows are stored otherwise than the audit chain says; `violations` names each field."""

    code = "state_differs"
