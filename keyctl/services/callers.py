"""Find out who acts: the local operator, or the owner of the key in KEYCTL_API_KEY."""

from typing import Final

from keyctl import keystring
from keyctl.config.settings import Settings
from keyctl.db.database import Database
from keyctl.db.queries import directory
from keyctl.errors import CallerDeniedError, DeniedError
from keyctl.policy.facts import Caller
from keyctl.records import Organization, Team
from keyctl.services.transaction import local_actor, writing
from keyctl.services.verify import identify
from keyctl.services.workspace import Workspace

_LONGEST_ID: Final = 600  # what the column holds


def local(settings: Settings, *, changed_by: str | None) -> Caller:
    """Return the local operator, who holds the database credentials and acts as admin.

    Raises:
        CallerDeniedError: The configuration asks for a caller key.
    """
    if settings.require_caller_key:
        raise CallerDeniedError(
            "the configuration requires a caller key",
            hint="set KEYCTL_API_KEY to your key, or name a file with --caller-key-file",
        )
    return Caller(actor=local_actor(), role="proxy_admin", changed_by=changed_by)


def authenticated(database: Database, text: str, *, changed_by: str | None) -> Caller:
    """Return the caller whose key string is *text*, with the owner's role and memberships.

    Raises:
        CallerDeniedError: It does not authenticate; why, only to who holds a real key.
    """
    verdict, found = identify(database, text)
    if found is None or not verdict.valid:
        why = f"is {verdict.reason}".replace("_", " ") if found else "does not authenticate"
        raise CallerDeniedError(
            f"the caller's key {why}", hint="check KEYCTL_API_KEY, or ask an admin for a new key"
        )
    key, user = found.key, found.user
    if user is None:
        return Caller(
            actor=f"key:{key.id}",
            role=None,
            key=key,
            service_team=key.team_id if key.service_account else None,
            changed_by=changed_by,
        )
    with database.read() as connection:
        teams = directory.memberships(connection, Team, user.id)
        organizations = directory.memberships(connection, Organization, user.id)
    return Caller(
        actor=f"key:{key.id}",
        role=user.role,
        user_id=user.id,
        key=key,
        team_roles=teams,
        organization_roles=organizations,
        changed_by=changed_by,
    )


def require_admin(workspace: Workspace, what: str, object_type: str, object_id: str = "") -> None:
    """Let only admins do *what* to this object; a refusal goes on record.

    Raises:
        DeniedError: The caller is none.
    """
    if not workspace.caller.is_admin:
        error = DeniedError(f"only an admin may {what}", hint="ask an admin, or use an admin's key")
        record_refusal(workspace, error, object_type, object_id)
        raise error


def record_refusal(
    workspace: Workspace, error: DeniedError, object_type: str, object_id: str
) -> None:
    """Put on record that the caller was refused something.

    *object_id* may be whatever the caller gave, a key string from stdin included.
    """
    shown = keystring.redact(object_id)[:_LONGEST_ID]
    with writing(workspace) as unit:
        unit.record("denied", object_type, shown, reason=error.message)


def require_overseer(caller: Caller, what: str) -> None:
    """Let admins and admin viewers see *what*.

    Raises:
        DeniedError: The caller is neither.
    """
    if caller.role not in ("proxy_admin", "proxy_admin_viewer"):
        raise DeniedError(f"only an admin may see {what}", hint="use an admin's or a viewer's key")
