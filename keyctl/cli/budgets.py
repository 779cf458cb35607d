"""Declare the commands of keyctl budget: tiers, and the periods of all budgets."""

from dataclasses import asdict
from typing import Annotated, Any, Final

import typer

from keyctl.cli import inputs
from keyctl.cli.command import FieldOption as F
from keyctl.cli.command import cleared, command, declare_group
from keyctl.cli.listing import Page, show_list
from keyctl.cli.record import show_record
from keyctl.cli.session import Session
from keyctl.cli.tables import Column, Layout, cell
from keyctl.errors import UsageError

FIELDS: Final = (
    F("max_budget", "--max-budget", "money", "The most each may spend, in dollars."),
    F("soft_budget", "--soft-budget", "money", "Spending at which to warn, in dollars."),
    F(
        "budget_duration",
        "--budget-duration",
        "text",
        "Spend starts again after this: 30d, monthly, …",
    ),
    F("tpm_limit", "--tpm-limit", "number", "Tokens per minute."),
    F("rpm_limit", "--rpm-limit", "number", "Requests per minute."),
    F("tpd_limit", "--tpd-limit", "number", "Tokens per day."),
    F("max_parallel_requests", "--max-parallel-requests", "number", "Requests at the same time."),
)
TIERS: Final = Layout(
    "budgets",
    (
        Column("budget_id", "budget", "id", rank=0),
        Column("max_budget", "most", "money", rank=1),
        Column("budget_duration", "period", rank=2),
        Column("rpm_limit", "requests/min", "number", rank=3),
        Column("tpm_limit", "tokens/min", "number", rank=4),
    ),
    (
        Column("soft_budget", "warns at", "money"),
        Column("tpd_limit", "tokens/day", "number"),
        Column("max_parallel_requests", "at once", "number"),
        Column("created_at", "made", "instant"),
        Column("created_by", "made by"),
    ),
)
Id = Annotated[str, typer.Argument(metavar="ID", help="The id you chose; budget_id names it.")]
RequestOption = Annotated[
    str | None, typer.Option("--request", help="Fields as JSON: a file, or - for stdin.")
]


def add_to(app: typer.Typer) -> None:
    """Declare the group and its commands."""
    group = declare_group(app, "budget", "Budget tiers, and budget periods.")
    _declare_tiers(group)

    @command(group, "reset", outputs=("auto", "json", "jsonl", "table"))
    def reset(
        session: Session,
        due: Annotated[
            bool, typer.Option("--due", help="Every budget whose period is over; it must be given.")
        ] = False,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Count what is due; write nothing.")
        ] = False,
    ) -> None:
        """Start new budget periods: spend begins at zero (for cron)."""
        if not due:
            raise UsageError(
                "budget reset needs --due", hint="keyctl spend KEY --reset is for one key"
            )
        _reset_budgets(session, dry_run=dry_run)


def _declare_tiers(group: typer.Typer) -> None:
    @command(group, "create", fields=FIELDS)
    def create(
        session: Session, document: dict[str, Any], id_: Id, request: RequestOption = None
    ) -> None:
        """Create a tier of limits. Keys, users and members name it by budget_id."""
        from keyctl.principals import tier_values
        from keyctl.services.tiers import TierService

        values = tier_values(id_, _body(document, request))
        show_record(session, TierService(session.workspace).create(id_, values))

    @command(group, "update", fields=FIELDS)
    def update(
        session: Session,
        document: dict[str, Any],
        id_: Id,
        request: RequestOption = None,
        clear: Annotated[
            list[str] | None, typer.Option("--clear", help="Empty this field; repeatable.")
        ] = None,
    ) -> None:
        """Change a tier, for everybody who names it."""
        from keyctl.principals import tier_values
        from keyctl.services.tiers import TierService

        values = tier_values(id_, _body(document | cleared(FIELDS, clear), request), new=False)
        show_record(session, TierService(session.workspace).update(id_, values))

    @command(group, "info", reads=True)
    def info(session: Session, id_: Id) -> None:
        """Show a tier."""
        from keyctl.services.tiers import TierService

        show_record(session, TierService(session.workspace).info(id_))

    @command(group, "list", layout=TIERS, limit=1000)
    def list_(session: Session, page: Page) -> None:
        """List tiers by id."""
        from keyctl.services.tiers import TierService

        service = TierService(session.workspace)
        show_list(session, TIERS, page, lambda after, limit: service.page(after=after, limit=limit))

    @command(group, "delete")
    def delete(session: Session, id_: Id) -> None:
        """Archive a tier that nobody names."""
        from keyctl.services.tiers import TierService

        show_record(session, TierService(session.workspace).delete(id_))


def _body(document: dict[str, Any], request: str | None) -> dict[str, Any]:
    """Return the fields of a tier: those of the document given, and the options over them."""
    if request is None:
        return document
    return {**inputs.read_document(request, what="the request"), **document}


def _reset_budgets(session: Session, *, dry_run: bool) -> None:
    from keyctl import money
    from keyctl.purses import OWN
    from keyctl.services.budgets import BudgetService

    service = BudgetService(session.workspace)
    if dry_run:
        due = service.due()
        if session.wants_json:
            session.console.json({"due": due})
        else:
            session.console.write(f"{due} due\n")
        return
    collected: list[dict[str, Any]] = []
    for item in service.reset_due():
        view = asdict(item)
        view["previous_spend"] = money.dollars(item.previous_spend)
        view["spend"] = money.dollars(item.spend)
        if session.output == "jsonl":
            session.console.lines([view])
        elif session.wants_json:
            collected.append(view)
        else:
            of = "" if item.budget == OWN else f" ({cell(item.budget)})"
            session.console.write(
                f"{item.object_type} {item.object_id}{of}: ${cell(view['previous_spend'])} -> ${cell(view['spend'])}\n"
            )
    if session.wants_json:
        anchor = next((view["audit"] for view in reversed(collected) if view["audit"]), None)
        session.console.json({"results": collected, "audit": anchor})
