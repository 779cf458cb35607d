"""Declare what the configuration file says of hooks and of the mail server.  No secret stands there."""

import os
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from keyctl import actions
from keyctl.config.sinks import Function, Host, Server, Template, Timeout
from keyctl.fields import DurationText, Email, Name, Strict, Text, refusal


def _path(text: str) -> str:
    if not os.path.isabs(text):
        raise refusal("must be an absolute path")
    return text


def _pattern(text: str) -> str:
    if not actions.matching(text):
        raise refusal("is no event, and begins none; keyctl schema event lists them")
    return text


AbsolutePath = Annotated[str, AfterValidator(_path)]
EventPatterns = Annotated[
    list[Annotated[str, AfterValidator(_pattern)]], Field(min_length=1, max_length=100)
]
HookName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class HookSettings(Strict):
    """What all hooks share: which events, and how long sending one may take."""

    events: EventPatterns = Field(default_factory=lambda: list(actions.USUAL))
    timeout: Timeout = "10s"


class WebhookHook(HookSettings):
    """A hook that posts each event to a web server, signed."""

    type: Literal["webhook"]
    url: Server
    secret_file: AbsolutePath


class MailHook(HookSettings):
    """A hook that mails each event to one address, by the server in `smtp`."""

    type: Literal["mail"]
    to: Email


class PythonHookSettings(HookSettings):
    """A hook that calls a Python function with each event."""

    type: Literal["python"]
    function: Function


class CommandHookSettings(HookSettings):
    """A hook that runs a command with each event as JSON on its standard input."""

    type: Literal["command"]
    argv: Annotated[list[Text], Field(min_length=1, max_length=100)]


AnyHook = Annotated[
    WebhookHook | MailHook | PythonHookSettings | CommandHookSettings, Field(discriminator="type")
]


class Reminders(Strict):
    """When `keyctl remind` tells: so long before a key ends, and at these percentages of a budget."""

    key_expiring: DurationText = "7d"
    budget_at_percent: Annotated[list[Annotated[int, Field(ge=1, le=99)]], Field(max_length=20)] = (
        Field(default_factory=lambda: [80])
    )


class Smtp(Strict):
    """The server that mail goes to, under LiteLLM's names without their `SMTP_`."""

    host: Host
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    tls: Literal["starttls", "tls", "none"] = "starttls"
    sender_email: Email
    username: Name | None = None
    password_file: AbsolutePath | None = None
    timeout: Timeout = "10s"
    fetch: Template | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.username is None) != (self.password_file is None):
            raise refusal("username and password_file are only given together")
        if self.tls == "none" and self.host not in ("localhost", "127.0.0.1", "::1"):
            raise refusal('tls = "none" is for a server on this host only')
        return self
