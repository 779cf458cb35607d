"""Fleet files in tests: written as text, applied in process, with sinks in a folder of the test's own."""

import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from keyctl.config.document import read
from keyctl.db.database import Database
from keyctl.errors import KeyctlError
from keyctl.fleetfile.described import FleetText, read_fleet
from keyctl.fleetfile.writing import entry_text, section_text, value_text
from keyctl.services.fleet.export import ExportService
from keyctl.services.fleet.model import Plan
from keyctl.services.fleet.planner import FleetOrder
from keyctl.services.fleet.service import FleetService
from keyctl.services.keys.read import KeyService
from keyctl.services.verify import verify
from keyctl.services.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Fleets:
    """Plans and applies fleet files; `folder` is where the sink `files` puts key strings."""

    workspace: Workspace
    folder: Path

    @classmethod
    def at(cls, workspace: Workspace, folder: Path, **settings: Any) -> "Fleets":
        """Return one whose configuration has the sinks `files` and, by key id, `still`."""
        folder.mkdir(mode=0o700, exist_ok=True)
        sinks = {
            "files": {"type": "file", "path": f"{folder}/{{alias}}"},
            "still": {"type": "file", "path": f"{folder}/{{key_id}}"},
        }
        document = {"bcrypt_cost": 4, "sinks": sinks, **settings}
        known = read(document)
        return cls(replace(workspace, settings=known), folder)

    def on(self, database: Database) -> "Fleets":
        """Return the same on another database."""
        return Fleets(replace(self.workspace, database=database), self.folder)

    def order(self, *texts: str, **options: Any) -> FleetOrder:
        """Return what is to be planned of some files."""
        sources = [
            FleetText(name=f"{number}.yaml", text=textwrap.dedent(text))
            for number, text in enumerate(texts, start=1)
        ]
        return FleetOrder(fleet=read_fleet(sources), **options)

    def plan(self, *texts: str, **options: Any) -> Plan:
        """Return what the files would change."""
        return FleetService(self.workspace).plan(self.order(*texts, **options))

    def lines(self, *texts: str, **options: Any) -> list[str]:
        """Return what the files would change, each as ``+ key checkout``."""
        plan = self.plan(*texts, **options)
        return [f"{item.action} {item.object_type} {item.object_id}" for item in plan.changes]

    def apply(self, *texts: str, **options: Any) -> list[str]:
        """Apply files whole, and return the names of the keys that were made and rotated."""
        wanted = {name: options.pop(name) for name in ("prune", "only", "keys") if name in options}
        applied = FleetService(self.workspace).apply(self.order(*texts, **wanted), **options)
        names = []
        for done in applied.keys:
            if done.error is not None:
                raise done.error
            names.append(done.job.alias or done.job.key_id)
        for name, answer in applied.rotated:
            if isinstance(answer, KeyctlError):
                raise answer
            names.append(name)
        return names

    def export(self, *team_ids: str, fleet: str | None = None) -> str:
        """Return the file that describes what is stored."""
        exported = ExportService(self.workspace).export(team_ids, fleet=fleet)
        text, last = value_text(exported.heading), None
        for section, name, body in exported.entries:
            text += (section_text(section) if section != last else "") + entry_text(name, body)
            last = section
        return text

    def key(self, name: str) -> dict[str, Any]:
        """Return what is stored of a key."""
        return KeyService(self.workspace).info(name)

    def held(self, name: str) -> str:
        """Return the key string that the sink holds under this name."""
        return (self.folder / name).read_text().strip()

    def is_valid(self, name: str) -> bool:
        """Tell whether what the sink holds under this name authenticates."""

        return verify(self.workspace.database, self.held(name)).valid
