"""Find out who acts: the local operator, or the owner of the key in KEYCTL_API_KEY.

The local operator brings no key, and pays for the import of nothing that reads or refuses one.
"""

import os
import socket
from dataclasses import replace

from keyctl import keystring
from keyctl.errors import CallerDeniedError
from keyctl.policy.facts import Caller
from keyctl.services.workspace import Workspace

OVERSEERS = ("proxy_admin", "proxy_admin_viewer")


def stranger(*, changed_by: str | None) -> Caller:
    """Return who acts until a caller is known: whoever runs this, allowed nothing."""
    return Caller(actor=local_actor(), role=None, changed_by=changed_by)


def local(workspace: Workspace) -> Caller:
    """Return the local operator, who holds the database credentials and acts as admin.

    *workspace* is a stranger's.

    Raises:
        CallerDeniedError: The configuration asks for a caller key.
    """
    if workspace.settings.require_caller_key or workspace.settings.restricted:
        from keyctl.services import denials  # noqa: PLC0415

        error = CallerDeniedError(
            "the configuration requires a caller key",
            hint="set KEYCTL_API_KEY to your key, or name a file with --caller-key-file",
        )
        denials.record_stranger(workspace, error, key_id=None, secret_id=None)
        raise error
    return replace(workspace.caller, role="proxy_admin")


def authenticated(workspace: Workspace, text: str) -> Caller:
    """Return the caller whose key string is *text*, with the owner's role and memberships.

    *workspace* is a stranger's.  A key that does not authenticate, or administers nothing, goes
    on record.

    Raises:
        CallerDeniedError: It does not; why, only to who holds a real key.
    """
    from keyctl.services import acting, denials  # noqa: PLC0415
    from keyctl.services.verify import identify  # noqa: PLC0415

    database = workspace.database
    verdict, found = identify(database, text)
    try:
        with database.read() as connection:
            now = database.now(connection)
            changed_by = workspace.caller.changed_by
            return acting.caller_of(
                connection, found, workspace.settings, changed_by=changed_by, now=now
            )
    except CallerDeniedError as error:
        parsed = keystring.parse(text)
        denials.record_stranger(
            workspace,
            error,
            key_id=verdict.key_id,
            secret_id=verdict.secret_id or (parsed.public_id if parsed else None),
        )
        raise


def local_actor() -> str:
    """Return ``local:USER@HOST`` for the person or job that runs this."""
    import pwd  # noqa: PLC0415

    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's arbitrary uid has no name
        user = str(os.geteuid())
    return f"local:{user}@{socket.gethostname()}"[:300]
