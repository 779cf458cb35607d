"""Declare keyctl plan."""

from typing import TYPE_CHECKING, Annotated

import typer

from keyctl.cli import fleets
from keyctl.cli.command import command
from keyctl.cli.session import Session
from keyctl.errors import ExitCode

if TYPE_CHECKING:
    from keyctl.services.fleet.model import Plan


def add_to(app: typer.Typer) -> None:
    """Declare the command."""

    @command(app, "plan", outputs=("auto", "json", "markdown", "table"))
    def plan(
        session: Session,
        files: fleets.Files = None,
        prune: fleets.Prune = False,
        keys: fleets.LeftKeys = None,
        only: Annotated[
            list[str] | None,
            typer.Option(
                "--only", help="This object and what belongs to it: team/web; repeatable."
            ),
        ] = None,
        emit: Annotated[
            bool, typer.Option("--emit", help="Record a drift, so that hooks hear of it (admins).")
        ] = False,
    ) -> None:
        """Show what apply would change; exit 10 if anything, 4 if a rule is against it.

        keyctl plan fleet/ -o json > plan.json; keyctl apply --plan plan.json applies what was reviewed.
        """
        from keyctl.services.fleet.service import FleetService

        order = fleets.order_of(files or (), prune=prune, only=only or (), keys=keys)
        service = FleetService(session.workspace)
        found = service.plan(order)
        if emit and found.does_something:
            service.record_drift(order, found)
        if session.wants_json:
            session.console.json_in_pieces(fleets.plan_in_pieces(found, order))
        elif session.output == "markdown":
            session.console.write(fleets.markdown(found, order))
        else:
            fleets.show_diff(found, order, lambda text: session.console.write(f"{text}\n"))
        raise typer.Exit(int(status_of(found)))


def status_of(plan: "Plan") -> ExitCode:
    """Return the exit status that says what a plan is."""
    if plan.is_denied:
        return ExitCode.DENIED
    return ExitCode.ASKED_FOR if plan.does_something else ExitCode.OK
