"""Make the destinations of events, as the configuration describes them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from keyctl import durations
from keyctl.config.hooks import AnyHook, CommandHookSettings, PythonHookSettings, Smtp, WebhookHook
from keyctl.config.sinks import STORES
from keyctl.errors import UsageError
from keyctl.hooks.base import Hook, HookFailedError, Message
from keyctl.hooks.mail import Mail, Server
from keyctl.services.delivery.sinks import named_sink
from keyctl.services.outbox import INVITATION
from keyctl.services.workspace import Workspace
from keyctl.sinks.base import NotTakenError, Store, Target, UnknownError
from keyctl.sinks.templates import expand


@dataclass(frozen=True, slots=True)
class Place:
    """One place: what takes a message there, and how many seconds that may take."""

    hook_for: Callable[[Message], Hook]
    seconds: float

    def send(self, message: Message, *, sent_at: datetime, timeout: float) -> None:
        """Send *message*; as `Hook.send`."""
        self.hook_for(message).send(message, sent_at=sent_at, timeout=timeout)


def places(workspace: Workspace) -> dict[str, Place]:
    """Return every place by what a row of the outbox calls it."""
    settings = workspace.settings
    found = {
        f"hooks.{name}": Place(_hook_for(name, hook, settings.smtp), _seconds(hook.timeout))
        for name, hook in settings.hooks.items()
    }
    if (smtp := settings.smtp) is not None:
        found[INVITATION] = Place(
            lambda message: _mail(smtp, str(message.data["to"]), message), _seconds(smtp.timeout)
        )
    for name, sink in settings.sinks.items():
        if isinstance(sink, STORES):
            found[f"sinks.{name}"] = Place(_removal_from(workspace, name), _seconds(sink.timeout))
    return found


class _Removal:
    """Removes what a secret manager holds of a key that has ended."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        self._workspace = workspace
        self._name = name

    def send(self, message: Message, *, sent_at: datetime, timeout: float) -> None:
        """Remove it; what is gone already, or another key's by now, is done too."""
        sink = named_sink(self._workspace, self._name)
        if not isinstance(sink, Store):
            raise HookFailedError(f"sink {self._name} removes nothing")
        try:
            sink.remove(_target(message.data["key"]))
        except (NotTakenError, UnknownError) as error:
            raise HookFailedError(str(error)) from error


def _removal_from(workspace: Workspace, name: str) -> Callable[[Message], Hook]:
    return lambda _: _Removal(workspace, name)


def _hook_for(name: str, hook: AnyHook, smtp: Smtp | None) -> Callable[[Message], Hook]:
    def build(message: Message) -> Hook:
        if isinstance(hook, WebhookHook):
            from keyctl.hooks.webhook import Webhook  # noqa: PLC0415  # urllib and its kin are slow

            return Webhook(hook.url, secret_file=hook.secret_file)
        if isinstance(hook, PythonHookSettings):
            from keyctl.hooks.python import PythonHook  # noqa: PLC0415

            return PythonHook(f"hook {name}", hook.function)
        if isinstance(hook, CommandHookSettings):
            from keyctl.hooks.command import CommandHook  # noqa: PLC0415

            return CommandHook(f"hook {name}", hook.argv)
        if smtp is None:
            raise ValueError("the settings refuse mail without a server")
        return _mail(smtp, hook.to, message)

    return build


def _mail(smtp: Smtp, to: str, message: Message) -> Mail:
    server = Server(
        host=smtp.host,
        port=smtp.port,
        security=smtp.tls,
        sender=smtp.sender_email,
        username=smtp.username,
        password_file=smtp.password_file,
    )
    return Mail(server, to=to, fetch=_fetch(smtp, message))


def _fetch(smtp: Smtp, message: Message) -> str | None:
    """Return how this key is fetched; None if the template names what the key does not have."""
    key = message.data.get("key")
    if smtp.fetch is None or key is None:
        return None
    try:
        return expand(smtp.fetch, _target(key))
    except UsageError:
        return None


def _target(key: dict[str, Any]) -> Target:
    return Target(
        key_id=key["key_id"],
        alias=key["key_alias"],
        team=key["team_id"],
        user=key["user_id"],
        org=key["organization_id"],
    )


def _seconds(text: str) -> float:
    return float(durations.parse_duration(text).seconds)
