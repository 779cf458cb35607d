"""Make the sinks that the configuration names, ready for one key.

A kind of sink is imported when one is made: most commands make none.
"""

from datetime import timedelta
from pathlib import Path

from keyctl import durations, nearest
from keyctl.config import sinks
from keyctl.config.settings import Settings
from keyctl.errors import DeliveryError, FileTakenError, KeyctlError, UsageError
from keyctl.records import Key
from keyctl.services.delivery.overwrite import replaceable
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import Parcel, Sink, TakenError, Target
from keyctl.sinks.file import FileSink
from keyctl.sinks.templates import FIELDS, expand

ENV_VAR = "OPENAI_API_KEY"


class NamedFileSink:
    """A file sink whose path is known once the key is."""

    timeout = timedelta(0)
    shows_answer = False

    def __init__(self, name: str, settings: sinks.FileSinkSettings, workspace: Workspace) -> None:
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
            mode=None if self._settings.mode is None else int(self._settings.mode, 8),
            group=self._settings.group,
            warn=self._workspace.warnings.append,
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
        known = list(workspace.settings.sinks)
        names = (
            f"the configuration names {', '.join(known)}"
            if known
            else "the configuration names none"
        )
        raise UsageError(
            f"there is no sink {name!r}", hint=nearest.meant(name, known, otherwise=names)
        )
    if isinstance(settings, sinks.FileSinkSettings):
        return NamedFileSink(name, settings, workspace)
    timeout = timedelta(seconds=durations.parse_duration(settings.timeout).seconds)
    if isinstance(settings, sinks.PythonSinkSettings):
        from keyctl.sinks.python import PythonSink  # noqa: PLC0415

        return PythonSink(name, settings.function, timeout=timeout)
    if isinstance(settings, sinks.CommandSinkSettings):
        from keyctl.sinks.command import CommandSink  # noqa: PLC0415

        return CommandSink(
            name, settings.argv, timeout=timeout, form=settings.format, env_var=ENV_VAR
        )
    return _store(workspace, name, settings, timeout)


def _store(
    workspace: Workspace,
    name: str,
    settings: sinks.VaultSinkSettings | sinks.AwsSinkSettings | sinks.KubernetesSinkSettings,
    timeout: timedelta,
) -> Sink:
    if isinstance(settings, sinks.VaultSinkSettings):
        from keyctl.sinks.vault import Login, VaultSink  # noqa: PLC0415

        return VaultSink(
            name,
            url=settings.url,
            mount=settings.mount,
            path=settings.path,
            namespace=settings.namespace,
            ca_file=settings.ca_file,
            login=Login(
                token_file=settings.token_file,
                role_id=settings.role_id,
                secret_id_file=settings.secret_id_file,
                kubernetes_role=settings.kubernetes_role,
                kubernetes_token_file=settings.kubernetes_token_file,
                mount=settings.auth_mount,
            ),
            tokens=workspace.tokens,
            timeout=timeout,
            replaceable=replaceable(workspace),
        )
    if isinstance(settings, sinks.AwsSinkSettings):
        from keyctl.sinks.aws import AwsSink  # noqa: PLC0415

        return AwsSink(
            name,
            template=settings.name,
            region=settings.region,
            endpoint_url=settings.endpoint_url,
            form=settings.format,
            env_var=ENV_VAR,
            kms_key_id=settings.kms_key_id,
            timeout=timeout,
            replaceable=replaceable(workspace),
        )
    from keyctl.sinks.kubernetes import KubernetesSink  # noqa: PLC0415

    return KubernetesSink(
        name,
        namespace=settings.namespace,
        template=settings.name,
        entry=settings.entry,
        kubeconfig=settings.kubeconfig,
        context=settings.context,
        timeout=timeout,
        replaceable=replaceable(workspace),
    )


def not_delivered(error: Exception, message: str, *, hint: str) -> KeyctlError:
    """Return what is raised for a sink's *error*: a conflict where something lies in the way."""
    kind = FileTakenError if isinstance(error, TakenError) else DeliveryError
    return kind(message, hint=hint)


def target_of(key: Key, *, key_id: str | None = None) -> Target:
    """Return what templates may say about *key*."""
    return Target(
        key_id=key_id or key.id or None,
        alias=key.key_alias,
        team=key.team_id,
        user=key.user_id,
        org=key.organization_id,
    )


def own_sink(settings: Settings, key: Key) -> str | None:
    """Return the name of the sink where the key's new strings always go, None if there is none.

    `default_sink` is that of keys which cron rotates: no other key's string would come there.
    """
    return key.sink or (settings.default_sink if key.auto_rotate else None)


def leads_elsewhere(settings: Settings, before: Key, after: Key) -> bool:
    """Tell whether a change moves the place where the key's next string is delivered."""
    name = own_sink(settings, after)
    sink = settings.sinks.get(name or "")
    if sink is None:
        return False
    if name != own_sink(settings, before):
        return True
    old, new = target_of(before), target_of(after)
    moved = [field for field in FIELDS if getattr(old, field) != getattr(new, field)]
    if isinstance(sink, sinks.CommandSinkSettings | sinks.PythonSinkSettings):
        return bool(moved)  # they are told whose key it is, and choose a place themselves
    texts = [value for value in sink.model_dump().values() if isinstance(value, str)]
    return any(f"{{{field}}}" in text for field in moved for text in texts)
