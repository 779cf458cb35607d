"""Ask for claims and request ids: who may change a key, and which request made it."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    Connection,
    delete,
    insert,
    select,
    update,
)

from keyctl.db.tables import claims, request_ids
from keyctl.portions import portions
from keyctl.records import Claim


def find_claim(connection: Connection, key_id: str) -> Claim | None:
    """Return the claim on a key."""
    row = connection.execute(select(claims).where(claims.c.key_id == key_id)).mappings().first()
    return Claim(**row) if row else None


def runs_with_claims(connection: Connection, run_ids: Collection[str]) -> set[str]:
    """Return which of these runs have a claim on a key."""
    query = select(claims.c.run_id).where(claims.c.run_id.in_(run_ids)).distinct()
    return set(connection.execute(query).scalars())


def keys_claimed_by(connection: Connection, run_id: str) -> set[str]:
    """Return the ids of the keys that this run has a claim on."""
    return set(
        connection.execute(select(claims.c.key_id).where(claims.c.run_id == run_id)).scalars()
    )


def insert_claim(connection: Connection, *records: Claim) -> None:
    """Write new claims."""
    connection.execute(
        insert(claims),
        [
            {
                "key_id": record.key_id,
                "run_id": record.run_id,
                "fingerprint": record.fingerprint,
                "staged_at": record.staged_at,
                "deadline_at": record.deadline_at,
            }
            for record in records
        ],
    )


def take_over(connection: Connection, claim: Claim, *, dead_run: str) -> bool:
    """Put *claim* in the place of the dead run's; False when somebody was faster."""
    done = connection.execute(
        update(claims)
        .where(claims.c.key_id == claim.key_id, claims.c.run_id == dead_run)
        .values(
            run_id=claim.run_id,
            fingerprint=claim.fingerprint,
            staged_at=claim.staged_at,
            deadline_at=claim.deadline_at,
        )
    )
    return done.rowcount == 1


def renew_claim(connection: Connection, claim: Claim) -> bool:
    """Give the run's own claim a new deadline; False when it is not there any more."""
    return take_over(connection, claim, dead_run=claim.run_id)


def release_claim(connection: Connection, key_id: str, run_id: str) -> bool:
    """Remove the run's own claim; False when it is not there any more."""
    done = connection.execute(
        delete(claims).where(claims.c.key_id == key_id, claims.c.run_id == run_id)
    )
    return done.rowcount == 1


def release_claims(
    connection: Connection, run_id: str, key_ids: Collection[str], *, batch: int = 500
) -> None:
    """Remove the run's own claims on these keys, in batches."""
    for some in portions(sorted(key_ids), batch):
        connection.execute(
            delete(claims).where(claims.c.run_id == run_id, claims.c.key_id.in_(some))
        )


def delete_claim(connection: Connection, *key_ids: str) -> None:
    """Remove whatever claims there are on these keys."""
    connection.execute(delete(claims).where(claims.c.key_id.in_(key_ids)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestId:
    """Which key a request id made, and from which request."""

    request_id: str
    fingerprint: str
    key_id: str
    created_at: datetime


def find_request_id(connection: Connection, request_id: str) -> RequestId | None:
    """Return what this request id made."""
    query = select(request_ids).where(request_ids.c.request_id == request_id)
    row = connection.execute(query).mappings().first()
    return RequestId(**row) if row else None


def insert_request_id(connection: Connection, record: RequestId) -> None:
    """Remember a request id."""
    connection.execute(
        insert(request_ids),
        {
            "request_id": record.request_id,
            "fingerprint": record.fingerprint,
            "key_id": record.key_id,
            "created_at": record.created_at,
        },
    )


def forget_request_ids(connection: Connection, key_id: str) -> None:
    """Free the request ids of a key that came to nothing."""
    connection.execute(delete(request_ids).where(request_ids.c.key_id == key_id))
