"""Declare metrics and remind: for monitoring, and for telling people in time."""

from pathlib import Path
from typing import Annotated, Final

import typer

from keyctl.cli.command import command
from keyctl.cli.listing import Page, check_whole, show_list, whole
from keyctl.cli.session import Session
from keyctl.cli.tables import Column, Layout
from keyctl.errors import UsageError

REMINDERS: Final = Layout(
    "reminders",
    (
        Column("event", rank=0),
        Column("object_type", "of", rank=2),
        Column("object_id", "id", "id", rank=0),
        Column("key_alias", "alias", rank=1),
    ),
)


def add_to(app: typer.Typer) -> None:
    """Declare the commands."""

    @command(app, "metrics", outputs=("auto", "json"), reads=True)
    def metrics(
        session: Session,
        out_file: Annotated[
            str | None,
            typer.Option("--out-file", help="Write them there, for node_exporter's textfiles."),
        ] = None,
    ) -> None:
        """Print numbers for a monitoring system, as OpenMetrics text."""
        from keyctl.db.urls import absolute
        from keyctl.services.metrics import MetricsService

        service = MetricsService(session.workspace)
        if session.wants_json:
            if out_file is not None:
                raise UsageError("--out-file takes OpenMetrics text", hint="leave -o json out")
            session.console.json({"metrics": service.samples()})
            return
        text = service.text()
        if out_file is None:
            session.console.write(text)
            return
        from keyctl.sinks.report import write_report

        write_report(Path(absolute(out_file)), text, begins="# HELP keyctl_")

    @command(app, "remind", reads=False, layout=REMINDERS, limit=10_000)
    def remind(
        session: Session,
        page: Page,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Show what would be told; write nothing.")
        ] = False,
    ) -> None:
        """Tell hooks what ends, is late or is spent, each once (for cron)."""
        from keyctl.services.remind import RemindService

        check_whole(REMINDERS, page)
        service = RemindService(session.workspace)
        told = service.due() if dry_run else service.remind()
        show_list(session, REMINDERS, page, whole(told))
