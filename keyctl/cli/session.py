"""Put the services together from the environment; no other module knows how."""

import gc
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import typer

from keyctl.cli.console import JSON_MODES, Console
from keyctl.cli.given import Given, naming, output_of, text_of, url_of
from keyctl.errors import (
    BatchError,
    BeingMovedError,
    CorruptedError,
    KeyctlError,
    NotFoundError,
    PolicyDeniedError,
    RestrictedError,
    UsageError,
)
from keyctl.named_files import read_line
from keyctl.names import is_name

if TYPE_CHECKING:
    from keyctl.ahead import Ahead
    from keyctl.config.settings import Settings
    from keyctl.db.database import Database
    from keyctl.moments import Sense
    from keyctl.policy.facts import Caller
    from keyctl.services.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Common:
    """What every command can be told."""

    output: str | None
    database_url: str | None
    config: str | None
    caller_key_file: str | None
    changed_by: str | None
    quiet: bool = False


class Session:
    """One command's run: its output, its settings, its database and its caller, made when asked for."""

    def __init__(
        self,
        common: Common,
        console: Console,
        outputs: Sequence[str],
        *,
        can_override: bool = False,
    ) -> None:
        self.common = common
        self._can_override = can_override
        self.console = console
        self.output = output_of(common.output, outputs)
        self.tells_move = True  # cleared by the command that moves the database itself
        self._ahead: Ahead | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, NotFoundError) and error.given is not None:
            self._add_nearest(error)
        if isinstance(error, PolicyDeniedError) and self._can_override:
            self._add_override(error)
        if "database" in self.__dict__ and self.database.upgraded_from is not None:
            self._record_upgraded()
        if "workspace" in self.__dict__:
            waiting = self._send_events() if self.workspace.outgoing else {}
            # A script that reads the error as JSON gets nothing but that; the outbox has the rest.
            if not (self.console.speaks_json and isinstance(error, KeyctlError)):
                self._warn(waiting)
                for warning in dict.fromkeys(self.workspace.warnings):
                    self.console.warn(warning)
            self.workspace.close()
        if "database" in self.__dict__:
            self._warn_of_move(error)
            self.database.engine.dispose()
        if error is None or isinstance(error, (BatchError, typer.Exit)):
            self._name_unreadable()

    def _record_upgraded(self) -> None:
        """Let the audit chain tell all rows of a database that was upgraded from before it did."""
        from keyctl.services.audit import AuditService
        from keyctl.services.state import TOLD_SINCE

        before, self.database.upgraded_from = self.database.upgraded_from, None
        if before is not None and before < TOLD_SINCE:
            AuditService(self.workspace).record_upgraded()

    def _name_unreadable(self) -> None:
        """End with exit 11 if rows were passed over that cannot be read: the others were served.

        Raises:
            CorruptedError: It names them.
        """
        spoiled = self.workspace.unreadable if "workspace" in self.__dict__ else []
        if len(spoiled) == 1:
            raise spoiled[0]
        if spoiled:
            names = ", ".join(f"{item.object_type} {item.object_id}" for item in spoiled)
            raise CorruptedError(f"rows cannot be read: {names}", hint=spoiled[0].hint)

    def _add_nearest(self, error: NotFoundError) -> None:
        """Say which name was meant.  The error stands, whatever comes of this."""
        from keyctl.services.suggestions import add_nearest

        with suppress(KeyctlError):
            add_nearest(self.workspace, error)

    def _add_override(self, error: PolicyDeniedError) -> None:
        """Tell who may step over every rule that was broken how that is done."""
        from keyctl.policy.engine import RULES

        overridable = {rule.id for rule in RULES if rule.overridable}
        broken = list(dict.fromkeys(item.rule for item in error.violations))
        if broken and self.workspace.caller.is_admin and overridable.issuperset(broken):
            options = " ".join(f"--override {rule}" for rule in broken)
            overrides = f"an admin overrides it, on record, with {options} --reason TEXT"
            error.hint = "; ".join(filter(None, (error.hint, overrides)))

    def _send_events(self) -> dict[str, str]:
        """Send what the command put into the outbox; return what was not sent and why.

        The change is made, whatever comes of this.
        """
        from keyctl.cli.signals import interruptible
        from keyctl.services.events.service import EventService

        try:
            with interruptible():
                sent = EventService(self.workspace).deliver_own()
            return {item.hook: item.reason for item in sent if item.reason}
        except KeyctlError as error:
            return {"events": error.message}
        except KeyboardInterrupt:
            return {"events": "interrupted"}
        except Exception:  # noqa: BLE001  # a fault in what comes after undoes no change
            return {"events": "not sent, because of a fault"}

    def _warn(self, waiting: dict[str, str]) -> None:
        for hook, reason in waiting.items():
            self.console.warn(f"{hook}: {reason}; tried again by keyctl events deliver")

    def _warn_of_move(self, error: BaseException | None) -> None:
        """Say that what was read is the old one of two databases; an error that is JSON stays alone."""
        alone = isinstance(error, BeingMovedError) or (
            self.console.speaks_json and isinstance(error, KeyctlError)
        )
        if self.tells_move and self.database.move is not None and not alone:
            self.console.warn(self.database.move.told)

    @property
    def wants_json(self) -> bool:
        """Tell whether one JSON document was asked for."""
        return self.output == "json"

    @property
    def speaks_json(self) -> bool:
        """Tell whether JSON was asked for, as one document or line by line."""
        return self.output in JSON_MODES

    def show_json(self, view: Any) -> None:
        """Print *view* as the document, or as the one line, that was asked for."""
        if self.wants_json:
            self.console.json(view)
        else:
            self.console.lines([view])

    def require_output(self, outputs: Sequence[str], *, what: str) -> None:
        """Hold the output to those that the command has *what* it was asked to do.

        Raises:
            UsageError: The option names another one.  What KEYCTL_OUTPUT prefers gives way instead.
        """
        if self.output in outputs:
            return
        if self.common.output is not None:
            raise UsageError(
                f"{what} has no output {self.output!r}", hint=f"give -o {', '.join(outputs)}"
            )
        self.output = "auto"

    def restrict(self, parameters: Sequence[Any], values: Mapping[str, Any]) -> None:
        """Hold the caller to the account's configuration where it says so: places, environment, key.

        Raises:
            RestrictedError: The command line or the environment names a file or a database.
            CallerDeniedError: There is no caller's key, or it does not authenticate.
        """
        if self._restricted_by is None:
            return
        from keyctl.cli import restricted
        from keyctl.services import denials

        try:
            restricted.refuse_places(self._restricted_by, parameters, values, os.environ)
        except RestrictedError as error:
            restricted.cut(os.environ)
            self.common = replace(self.common, config=None, database_url=None, caller_key_file=None)
            denials.record_restriction(self._workspace_of(self._stranger()), error)
            raise
        restricted.cut(os.environ)
        _ = self.caller

    @cached_property
    def _restricted_by(self) -> Path | None:
        from keyctl.config import file

        return file.restricting_file()

    @cached_property
    def config_path(self) -> Path | None:
        """Return the configuration file in use."""
        from keyctl.config import file

        if self._restricted_by is not None:
            return self._restricted_by
        return file.find_file(text_of(self.common.config, "--config", "KEYCTL_CONFIG"))

    @cached_property
    def settings(self) -> "Settings":
        """Return the configuration."""
        from keyctl.config import file

        return file.load(self.config_path)

    @cached_property
    def database(self) -> "Database":
        """Return the database, which is not opened yet."""
        from keyctl.db.database import Database

        gc.freeze()
        gc.enable()
        url = self._database_url()
        with naming(url.name):
            return Database(url.text, variable=url.name)

    @cached_property
    def caller(self) -> "Caller":
        """Return who acts."""
        from keyctl.services import identity

        text, workspace = self._caller_key(), self._workspace_of(self._stranger())
        if text is None:
            return identity.local(workspace)
        return identity.authenticated(workspace, text)

    def _stranger(self) -> "Caller":
        from keyctl.services import identity

        return identity.stranger(changed_by=self._changed_by())

    @property
    def acts_by_key(self) -> bool:
        """Tell whether a caller key was given."""
        return self._caller_key() is not None

    @cached_property
    def workspace(self) -> "Workspace":
        """Return what the services work with."""
        return self._workspace_of(self.caller)

    def mint_ahead(self) -> None:
        """Begin to make a key string and its hash, for a command that will need one."""
        from keyctl.ahead import Ahead

        self._ahead = Ahead(self.settings.bcrypt_cost)

    def moment(self, text: str | None, sense: "Sense") -> datetime | None:
        """Return the instant that an option says, counted from the database's time; None for none.

        Raises:
            UsageError: It says none.
        """
        from keyctl.moments import parse_moment

        return None if text is None else parse_moment(text, sense=sense, now=self.database.time)

    def past(self, text: str | None, option: str) -> datetime | None:
        """Return the instant that an *option* about what has been says; None for none.

        Raises:
            UsageError: It says none, or one that is still to come.
        """
        from keyctl.moments import parse_past

        return None if text is None else parse_past(text, option=option, now=self.database.time)

    def source_url(self, given: str | None) -> Given | None:
        """Return the URL of the database to import from: *given* by the option, or the environment's."""
        return url_of(given, "--source-url", "KEYCTL_SOURCE_URL")

    def _workspace_of(self, caller: "Caller") -> "Workspace":
        from keyctl.services.workspace import Workspace

        workspace = Workspace(
            database=self.database,
            settings=self.settings,
            caller=caller,
            runs_folder=self._runs_folder(),
        )
        if self._ahead is None:
            return workspace
        return replace(workspace, mint=self._ahead.mint, hash=self._ahead.hash)

    def target_url(self, given: str | None) -> Given | None:
        """Return the URL of the database to copy to: *given* by the option, or the environment's."""
        return url_of(given, "--target-url", "KEYCTL_TARGET_URL")

    def _database_url(self) -> Given:
        given = url_of(self.common.database_url, "--database-url", "KEYCTL_DATABASE_URL")
        if given is not None:
            return given
        name = "database_url_file"
        if self.config_path is not None and (path := self.settings.database_url_file) is not None:
            return Given(read_line(Path(path), what=name), name)
        from keyctl.config.folders import data_folder

        return Given(f"sqlite:///{data_folder() / 'keyctl.db'}", "KEYCTL_DATABASE_URL")

    def _runs_folder(self) -> Path:
        if (path := self.database.path) is not None:
            return path.with_name(f"{path.name}.runs")
        from keyctl.config.folders import state_folder

        # Nothing can be written below the null device: the run goes on without a lock file.
        return (state_folder() or Path(os.devnull)) / "runs"

    def _caller_key(self) -> str | None:
        if path := text_of(self.common.caller_key_file, "--caller-key-file"):
            return read_line(Path(path), what="--caller-key-file")
        return text_of(None, "", "KEYCTL_API_KEY")

    def _changed_by(self) -> str | None:
        given = self.common.changed_by
        if given is not None and not is_name(given):
            raise UsageError(
                "--changed-by takes 1 to 255 printable characters, not only blanks",
                hint="name a person",
            )
        return given
