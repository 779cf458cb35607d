"""Let callers do what they may, and put on record what they may not."""

from collections.abc import Iterator
from contextlib import contextmanager

from keyctl.errors import DeniedError
from keyctl.policy import engine, operations
from keyctl.policy.facts import Caller
from keyctl.services import denials
from keyctl.services.denials import Attempt
from keyctl.services.identity import OVERSEERS
from keyctl.services.transaction import Unit, writing
from keyctl.services.workspace import Workspace


@contextmanager
def administering(
    workspace: Workspace,
    what: str,
    action: str,
    object_type: str,
    object_id: str = "",
) -> Iterator[Unit]:
    """Run the block in one transaction, for admins only; a refusal goes on record as *action*.

    Raises:
        DeniedError: The caller is no admin, or their key may not call the route of *action*.
    """
    with (
        denials.recorded(workspace, action, object_type, object_id),
        writing(workspace) as unit,
    ):
        check_admin(unit.caller, what, action)
        yield unit


def require_admin(
    workspace: Workspace,
    what: str,
    action: str,
    object_type: str,
    object_id: str = "",
) -> None:
    """Let only admins do *what* to this object; a refusal goes on record as *action*.

    Raises:
        DeniedError: The caller is none, or their key may not call the route of *action*.
    """
    try:
        check_admin(workspace.caller, what, action)
    except DeniedError as error:
        denials.record(workspace, Attempt(action, object_type, object_id), error)
        raise


def check_admin(caller: Caller, what: str, action: str) -> None:
    """Let only admins do *what*, with a key that may call the route of *action*.

    Raises:
        DeniedError: The caller is none, or the key may not.
    """
    check_route(caller, action)
    if not caller.is_admin:
        raise DeniedError(f"only an admin may {what}", hint="ask an admin, or use an admin's key")


def check_route(caller: Caller, action: str) -> None:
    """Refuse a caller whose key may not call the route of *action*.

    Raises:
        PolicyDeniedError: It may not.
    """
    if violations := list(operations.missing_route(caller.key, action)):
        raise engine.refuse(violations)


def require_route(workspace: Workspace, action: str, object_type: str) -> None:
    """Let callers read whose key may call the route of *action*.

    Raises:
        PolicyDeniedError: It may not; that goes on record where that is possible.
    """
    try:
        check_route(workspace.caller, action)
    except DeniedError as error:
        denials.record_reading(workspace, Attempt(f"{object_type}_read_denied", object_type), error)
        raise


def require_overseer(workspace: Workspace, what: str, object_type: str) -> None:
    """Let admins and admin viewers see *what*; a refusal goes on record where that is possible.

    Raises:
        DeniedError: The caller is neither, or their key may not call management routes.
    """
    action = f"{object_type}_read_denied"
    try:
        _check_overseer(workspace.caller, what, action)
    except DeniedError as error:
        denials.record_reading(workspace, Attempt(action, object_type), error)
        raise


def _check_overseer(caller: Caller, what: str, action: str) -> None:
    check_route(caller, action)
    if caller.role not in OVERSEERS:
        raise DeniedError(f"only an admin may see {what}", hint="use an admin's or a viewer's key")
