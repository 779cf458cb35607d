"""Declare keyctl export."""

from typing import Annotated, Any

import typer

from keyctl.cli.command import command
from keyctl.cli.session import Session


def add_to(app: typer.Typer) -> None:
    """Declare the command."""

    @command(app, "export", outputs=("auto", "json", "yaml"), reads=True)
    def export(
        session: Session,
        team: Annotated[
            list[str] | None,
            typer.Option("--team", help="Only this team, its people and its keys; repeatable."),
        ] = None,
        fleet: Annotated[
            str | None, typer.Option("--fleet", help="Only what this fleet has.")
        ] = None,
    ) -> None:
        """Write what is stored as a fleet file: what apply would take.

        keyctl export > fleet.yaml, and from then on that file says what exists.
        """
        session.console.require_stdout()
        from keyctl.fleetfile.writing import entry_text, section_text, value_text
        from keyctl.services.fleet.export import ExportService

        exported = ExportService(session.workspace).export(tuple(team or ()), fleet=fleet)
        if session.wants_json:
            document: dict[str, Any] = dict(exported.heading)
            for section, name, body in exported.entries:
                document.setdefault(section, {})[name] = body
            session.console.json(document)
            return
        session.console.write(value_text(exported.heading))
        last = None
        for section, name, body in exported.entries:
            begins = section_text(section) if section != last else ""
            session.console.write(begins + entry_text(name, body))
            last = section
