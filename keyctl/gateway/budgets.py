"""Tell what a key's requests are charged to, and which budgets that leaves to keep within."""

from keyctl.db.queries import Presented, PurseName
from keyctl.gateway.accounts import Budget
from keyctl.gateway.books import Charged


def charged_of(found: Presented) -> tuple[Charged, ...]:
    """Return every object whose spend a request with this key adds to, the key first."""
    owners = (
        ("keys", found.key),
        ("teams", found.team),
        ("users", found.user),
        ("organizations", found.organization),
    )
    return tuple(
        Charged(PurseName(table, record.id)) for table, record in owners if record is not None
    )


def budgets_of(found: Presented) -> list[Budget]:
    """Return the budgets of a key and its owners, as they were read."""
    owners = (
        ("keys", found.key),
        ("teams", found.team),
        ("users", found.user),
        ("organizations", found.organization),
    )
    return [
        Budget(
            name=PurseName(table, record.id),
            limit=record.max_budget,
            spend=record.spend,
            period=record.budget_duration,
            anchor=record.budget_anchor_at or record.created_at,
            end=record.budget_reset_at,
        )
        for table, record in owners
        if record is not None and record.max_budget is not None
    ]
