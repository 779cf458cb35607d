"""Find out who acts: the local operator, or the owner of the key in KEYCTL_API_KEY."""

from dataclasses import replace

from keyctl import keystring
from keyctl.db.queries import directory
from keyctl.errors import CallerDeniedError, DeniedError
from keyctl.policy.facts import Caller
from keyctl.records import Organization, Team
from keyctl.services import denials
from keyctl.services.denials import Attempt
from keyctl.services.transaction import local_actor
from keyctl.services.verify import identify
from keyctl.services.workspace import Workspace


def stranger(*, changed_by: str | None) -> Caller:
    """Return who acts until a caller is known: whoever runs this, allowed nothing."""
    return Caller(actor=local_actor(), role=None, changed_by=changed_by)


def local(workspace: Workspace) -> Caller:
    """Return the local operator, who holds the database credentials and acts as admin.

    *workspace* is a stranger's.

    Raises:
        CallerDeniedError: The configuration asks for a caller key.
    """
    if workspace.settings.require_caller_key:
        error = CallerDeniedError(
            "the configuration requires a caller key",
            hint="set KEYCTL_API_KEY to your key, or name a file with --caller-key-file",
        )
        denials.record_stranger(workspace, error, key_id=None, secret_id=None)
        raise error
    return replace(workspace.caller, role="proxy_admin")


def authenticated(workspace: Workspace, text: str) -> Caller:
    """Return the caller whose key string is *text*, with the owner's role and memberships.

    *workspace* is a stranger's.  A key that does not authenticate goes on record.

    Raises:
        CallerDeniedError: It does not authenticate; why, only to who holds a real key.
    """
    database, changed_by = workspace.database, workspace.caller.changed_by
    verdict, found = identify(database, text)
    if found is None or not verdict.valid:
        why = f"is {verdict.reason}".replace("_", " ") if found else "does not authenticate"
        error = CallerDeniedError(
            f"the caller's key {why}", hint="check KEYCTL_API_KEY, or ask an admin for a new key"
        )
        parsed = keystring.parse(text)
        denials.record_stranger(
            workspace,
            error,
            key_id=verdict.key_id,
            secret_id=verdict.secret_id or (parsed.public_id if parsed else None),
        )
        raise error
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


def require_admin(
    workspace: Workspace, what: str, action: str, object_type: str, object_id: str = ""
) -> None:
    """Let only admins do *what* to this object; a refusal goes on record as *action*.

    Raises:
        DeniedError: The caller is none.
    """
    if workspace.caller.is_admin:
        return
    with denials.recorded(workspace, action, object_type, object_id):
        raise DeniedError(f"only an admin may {what}", hint="ask an admin, or use an admin's key")


def require_overseer(workspace: Workspace, what: str, object_type: str) -> None:
    """Let admins and admin viewers see *what*; a refusal goes on record where that is possible.

    Raises:
        DeniedError: The caller is neither.
    """
    if workspace.caller.role in ("proxy_admin", "proxy_admin_viewer"):
        return
    error = DeniedError(f"only an admin may see {what}", hint="use an admin's or a viewer's key")
    denials.record_reading(workspace, Attempt(f"{object_type}_read_denied", object_type), error)
    raise error
