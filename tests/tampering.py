"""Edits past keyctl, and what `audit verify --state` names of them."""

from datetime import timedelta
from typing import Any

from clock import Clock

from keyctl.errors import StateDiffersError
from keyctl.services.audit import AuditService
from keyctl.services.workspace import Workspace


def differing(workspace: Workspace) -> list[str]:
    """Return ``object: field`` for everything that is not as the chain says."""
    try:
        AuditService(workspace).verify(state=True, step=lambda: None)
    except StateDiffersError as error:
        return [item.field for item in error.violations]
    return []


def another(column: Any, value: Any) -> Any:
    """Return a possible value of *column* that is not *value*."""
    kind = column.type.python_type if column.type.__class__.__name__ != "JsonText" else dict
    if isinstance(value, list):
        return [*value, {"x": 1}] if value and isinstance(value[0], dict) else [*value, "x"]
    if isinstance(value, dict) or kind is dict:
        return {**(value or {}), "x": 1}
    if kind is bool:
        return not value
    if kind is int:
        return (value or 0) + 1
    if kind is str:
        return "1h" if value is None or value != "1h" else "2h"
    return (value or Clock().now) + timedelta(days=1)
