"""The sinks that the configuration names, ready for one key."""

from datetime import timedelta
from pathlib import Path

from keyctl import durations
from keyctl.errors import UsageError
from keyctl.records import Key
from keyctl.services.replacing import replaceable
from keyctl.services.workspace import Workspace
from keyctl.settings import FileSink as FileSettings
from keyctl.settings import PythonSink as PythonSettings
from keyctl.sinks.base import Parcel, Sink, Target
from keyctl.sinks.command import CommandSink
from keyctl.sinks.file import FileSink
from keyctl.sinks.python import PythonSink
from keyctl.sinks.templates import expand

ENV_VAR = "OPENAI_API_KEY"


class NamedFileSink:
    """A file sink whose path is known once the key is."""

    timeout = timedelta(0)
    shows_answer = False

    def __init__(self, name: str, settings: FileSettings, workspace: Workspace) -> None:
        self.name = name
        self._settings = settings
        self._workspace = workspace
        self._file: FileSink | None = None

    def check(self, target: Target) -> None:
        """Fill in the path and check the file."""
        self._file = FileSink(
            Path(expand(self._settings.path, target)),
            form=self._settings.format,
            force=False,
            replaceable=replaceable(self._workspace),
            env_var=ENV_VAR,
        )
        self._file.check(target)

    def deliver(self, parcel: Parcel) -> None:
        """Put the key into the file."""
        if self._file is not None:
            self._file.deliver(parcel)


def named_sink(workspace: Workspace, name: str) -> Sink:
    """Return the sink that the configuration calls *name*.

    Raises:
        UsageError: It calls none so.
    """
    settings = workspace.settings.sinks.get(name)
    if settings is None:
        known = ", ".join(workspace.settings.sinks) or "none"
        raise UsageError(f"there is no sink {name!r}", hint=f"the configuration names: {known}")
    if isinstance(settings, FileSettings):
        return NamedFileSink(name, settings, workspace)
    timeout = timedelta(seconds=durations.parse_duration(settings.timeout).seconds)
    if isinstance(settings, PythonSettings):
        return PythonSink(name, settings.function, timeout=timeout)
    return CommandSink(name, settings.argv, timeout=timeout, form=settings.format, env_var=ENV_VAR)


def target_of(key: Key, *, key_id: str | None = None) -> Target:
    """Return what templates may say about *key*."""
    return Target(
        key_id=key_id or key.id or None,
        alias=key.key_alias,
        team=key.team_id,
        user=key.user_id,
        org=key.organization_id,
    )
