"""Declare the commands of keyctl config."""

import typer

from keyctl.cli.command import command, declare_group
from keyctl.cli.session import Session
from keyctl.cli.tables import cell


def add_to(app: typer.Typer) -> None:
    """Declare the group and its commands."""
    group = declare_group(app, "config", "The configuration.")

    @command(group, "show")
    def show(session: Session) -> None:
        """Show the configuration in force, and the database it works on."""
        from keyctl.config.document import written
        from keyctl.services.callers import require_overseer
        from keyctl.sinks.addresses import without_path

        require_overseer(session.workspace, "the configuration", "configuration")
        settings = written(session.settings)
        for hook in settings.get("hooks", {}).values():
            if "url" in hook:
                hook["url"] = without_path(hook["url"])
        view = {
            "file": str(session.config_path) if session.config_path else None,
            "database": session.database.shown,
            "settings": settings,
        }
        if session.wants_json:
            session.console.json(view)
            return
        session.console.write(f"file: {view['file'] or 'none'}\ndatabase: {view['database']}\n")
        session.console.write(
            "".join(f"{name}: {cell(value)}\n" for name, value in settings.items())
        )

    @command(group, "path")
    def path(session: Session) -> None:
        """Print the configuration file in use, or where one is looked for."""
        from keyctl.config.file import SYSTEM_FILE, user_file

        found = session.config_path
        if session.wants_json:
            session.console.json(
                {"path": str(found or user_file() or SYSTEM_FILE), "exists": found is not None}
            )
        else:
            session.console.write(f"{found or user_file() or SYSTEM_FILE}\n")
