"""Declare keyctl schema."""

from typing import Annotated, Any, Final

import typer

from keyctl.cli.choices import require_one_of
from keyctl.cli.command import command
from keyctl.cli.listing import OUTPUTS, Page, show_list
from keyctl.cli.session import Session
from keyctl.cli.tables import Column, Layout, cell
from keyctl.errors import UsageError

RULES: Final = Layout(
    "rules",
    (
        Column("rule", kind="id", rank=0),
        Column("binds", rank=1),
        Column("overridable", rank=2),
        Column("closes", rank=3),
        Column("demands", rank=0, enough=30, wraps=True),
        Column("guards", rank=4, wraps=True),
    ),
)

FIELDS: Final = Layout(
    "",
    (
        Column("field", kind="id", rank=0),
        Column("of", rank=2),
        Column("enforced_by", "by", rank=1),
        Column("order", rank=3),
        Column("note", rank=4),
    ),
)

AUTHORITY: Final = Layout(
    "authority",
    (
        Column("operation", kind="id", rank=0),
        Column("role", kind="id", rank=0),
        Column("whose", rank=0),
        Column("allowed", rank=0),
        Column("litellm", rank=1),
        Column("route", rank=3),
        Column("reason", rank=2),
    ),
)


def add_to(app: typer.Typer) -> None:
    """Declare the command."""

    @command(app, "schema", outputs=OUTPUTS, reads=True)
    def schema(
        session: Session,
        name: Annotated[str, typer.Argument(metavar="NAME", help="What to print.")],
        rule: Annotated[
            str | None, typer.Argument(metavar="RULE", help="With rules: only this one, whole.")
        ] = None,
    ) -> None:
        """Print the JSON Schema of a request, an answer or the policy; or `rules`, `fields`, `routes`, `authority`."""
        from keyctl import routes, schemas

        if rule is not None and name != "rules":
            raise UsageError(f"schema {name} takes no RULE", hint="keyctl schema rules RULE")
        if name == "rules":
            _show_rules(session, schemas.rule_table(), rule)
            return
        if name == "fields":
            fields = [{**row, "of": list(row["of"])} for row in schemas.field_table()]
            show_list(session, FIELDS, Page(), lambda _after, _limit: (fields, None))
            return
        if name == "authority":
            cells = schemas.authority_table()
            show_list(session, AUTHORITY, Page(), lambda _after, _limit: (cells, None))
            return
        if name == "routes":
            session.console.json({"groups": routes.groups()})
            return
        known = ("rules", "fields", "authority", "routes", *schemas.SCHEMAS)
        require_one_of(name, known, what="schema")
        session.console.json(schemas.SCHEMAS[name]())


def _show_rules(session: Session, rows: list[dict[str, Any]], rule: str | None) -> None:
    """Show the table of rules, or one of them with a line for each thing that is said of it."""
    require_one_of(rule, [row["rule"] for row in rows], what="rule")
    shown = [row for row in rows if rule in (None, row["rule"])]
    if rule is not None and session.output in ("auto", "table"):
        lines = [f"{name}: {cell(value)}\n" for name, value in shown[0].items() if value != ""]
        session.console.write("".join(lines))
        return
    show_list(session, RULES, Page(), lambda _after, _limit: (shown, None))
