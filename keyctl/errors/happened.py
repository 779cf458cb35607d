"""Declare what goes wrong with a right request: the database, another run, a delivery, a batch, what is stored."""

from collections.abc import Mapping, Sequence
from typing import Any

from keyctl.errors.refusal import ExitCode, KeyctlError

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
