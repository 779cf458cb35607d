"""Declare what is wrong with what was asked for: it is malformed, names nothing, is denied, or is in the way."""

from keyctl.errors.refusal import ExitCode, KeyctlError

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


class IssuerNotFoundError(KeyNotFoundError):
    """Neither a key nor a user answers to what was given."""


class SpenderNotFoundError(KeyNotFoundError):
    """Neither a key nor an owner of keys answers to what was given."""


class ActorNotFoundError(NotFoundError):
    """Nobody of this name did anything that is on record."""

    code = "actor_not_found"


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


class FleetNotFoundError(NotFoundError):
    """No object belongs to a fleet of this name."""

    code = "fleet_not_found"


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
