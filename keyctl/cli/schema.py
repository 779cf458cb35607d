"""Declare keyctl schema."""

from typing import Annotated, Any

import typer

from keyctl.cli.command import command
from keyctl.cli.session import Session
from keyctl.cli.tables import show_table
from keyctl.errors import UsageError


def add_to(app: typer.Typer) -> None:
    """Declare the command."""

    @command(app, "schema")
    def schema(
        session: Session,
        name: Annotated[str, typer.Argument(metavar="NAME", help="What to print.")],
    ) -> None:
        """Print the JSON Schema of a request, an answer or the policy; or `rules`, or `fields`."""
        from keyctl import schemas

        if name == "rules":
            rows = schemas.rule_table()
            if session.wants_json:
                session.console.json({"rules": rows})
            else:
                show_table(session.console, ("rule", "binds", "overridable", "demands"), rows)
            return
        if name == "fields":
            _show_fields(session, schemas.field_table())
            return
        found = schemas.SCHEMAS.get(name)
        if found is None:
            raise UsageError(
                f"there is no schema {name!r}",
                hint=f"give rules, fields, {', '.join(schemas.SCHEMAS)}",
            )
        session.console.json(found())


def _show_fields(session: Session, rows: list[dict[str, Any]]) -> None:
    if session.wants_json:
        session.console.json(rows)
        return
    shown = [{**row, "of": ", ".join(row["of"])} for row in rows]
    show_table(session.console, ("field", "of", "enforced_by", "order", "note"), shown)
