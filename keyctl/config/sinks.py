"""Declare what the configuration file says of a sink.  No secret stands there: files and the environment hold them."""

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from keyctl import durations
from keyctl.errors import ConfigurationError
from keyctl.fields import DurationText, Name, Strict, Text, refusal
from keyctl.sinks.addresses import (
    ENTRY,
    LABEL,
    SERVICE_ACCOUNT,
    SUBDOMAIN,
    is_host,
    is_private,
    is_whole,
)
from keyctl.sinks.templates import check_template, fill

_VAULT_PATH = re.compile(r"[^/\s]+(/[^/\s]+)*")
_FILE_MODE = re.compile(r"0?[46][0-7]0")
_AWS_NAME = re.compile(r"[A-Za-z0-9/_+=.@-]+")


def _function(text: str) -> str:
    module, _, function = text.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), function]):
        raise refusal('must be "module:function"')
    return text


def _timeout(text: str) -> str:
    if not 1 <= durations.parse_duration(text).seconds <= 3600:
        raise refusal("must be from 1s to 1h")
    return text


def _template(text: str) -> str:
    try:
        check_template(text)
    except ConfigurationError as error:
        raise refusal(f"{error.message}; {error.hint}") from None
    return text


def _vault_path(text: str) -> str:
    filled = fill(text, "a")
    if _VAULT_PATH.fullmatch(filled) is None or {".", ".."} & set(filled.split("/")):
        raise refusal("must be a path such as keyctl/{team}/{alias}")
    return text


def _aws_name(text: str) -> str:
    if _AWS_NAME.fullmatch(fill(text, "a")) is None:
        raise refusal("must be a name of letters, digits and /_+=.@-, such as keyctl/{alias}")
    return text


def _subdomain(text: str) -> str:
    if SUBDOMAIN.fullmatch(fill(text, "a")) is None:
        raise refusal("must be a DNS name in lower case, such as keyctl-{alias}")
    return text


def _label(text: str) -> str:
    if LABEL.fullmatch(fill(text, "a")) is None:
        raise refusal("must be the name of a namespace, such as team-{team}")
    return text


def _entry(text: str) -> str:
    if ENTRY.fullmatch(text) is None:
        raise refusal("must be up to 53 letters, digits and -._, a letter or a digit last")
    return text


def _mode(text: str) -> str:
    if _FILE_MODE.fullmatch(text) is None:
        raise refusal('must be such as "0640": its owner reads, and others have no bits')
    return text


def _server(text: str) -> str:
    if not is_private(text) or "@" in urlsplit(text).netloc:
        raise refusal("must be https://HOST without a password, or http:// on this machine")
    if not is_whole(text):
        raise refusal(
            "must have the name of a host, a port from 1 to 65535 or none, and no blanks;"
            " behind the host other characters than ASCII are written as %XX"
        )
    return text


def _host(text: str) -> str:
    if not is_host(text):
        raise refusal("must be the name of a host or its address, and nothing else")
    return text


Function = Annotated[str, AfterValidator(_function)]
Timeout = Annotated[DurationText, AfterValidator(_timeout)]
Template = Annotated[Text, AfterValidator(_template)]
Server = Annotated[Name, AfterValidator(_server)]
Host = Annotated[Name, AfterValidator(_host)]


class FileSinkSettings(Strict):
    """A sink that writes each key to a file of its own.

    Without `mode` and `group` a file keeps those of what it replaces; a new one has mode 0600.
    """

    type: Literal["file"]
    path: Template
    format: Literal["key", "json", "env"] = "key"
    mode: Annotated[str, AfterValidator(_mode)] | None = None
    group: Name | None = None


class CommandSinkSettings(Strict):
    """A sink that hands each key to a command on its standard input."""

    type: Literal["command"]
    argv: Annotated[list[Template], Field(min_length=1, max_length=100)]
    timeout: Timeout = "10s"
    format: Literal["key", "json", "env"] = "key"


class PythonSinkSettings(Strict):
    """A sink that calls a Python function with each key string and its answer."""

    type: Literal["python"]
    function: Function
    timeout: Timeout = "10s"


class VaultSinkSettings(Strict):
    """A sink that writes each key to a KV version 2 engine of HashiCorp Vault or OpenBao.

    Without `token_file`, `role_id` and `kubernetes_role` the token is in ``VAULT_TOKEN``.
    """

    type: Literal["vault"]
    url: Server
    mount: Annotated[Name, AfterValidator(_vault_path)] = "secret"
    path: Annotated[Template, AfterValidator(_vault_path)]
    namespace: Name | None = None
    ca_file: Name | None = None
    token_file: Name | None = None
    role_id: Name | None = None
    secret_id_file: Name | None = None
    kubernetes_role: Name | None = None
    kubernetes_token_file: Name = SERVICE_ACCOUNT
    auth_mount: Name | None = None
    timeout: Timeout = "10s"

    @model_validator(mode="after")
    def _one_login(self) -> Self:
        ways = (self.token_file, self.role_id, self.kubernetes_role)
        if sum(way is not None for way in ways) > 1:
            raise refusal("give only one of token_file, role_id and kubernetes_role")
        if self.secret_id_file is not None and self.role_id is None:
            raise refusal("secret_id_file goes with role_id")
        return self


class AwsSinkSettings(Strict):
    """A sink that writes each key to AWS Secrets Manager, with the credentials that boto3 finds."""

    type: Literal["aws"]
    name: Annotated[Template, AfterValidator(_aws_name)]
    region: Name | None = None
    endpoint_url: Server | None = None
    format: Literal["key", "json", "env"] = "json"
    kms_key_id: Name | None = None
    timeout: Timeout = "10s"


class KubernetesSinkSettings(Strict):
    """A sink that writes each key to an entry of a Kubernetes Secret.

    Without `kubeconfig` and `context` as the pod's service account, outside of a pod by the
    user's own kubeconfig.
    """

    type: Literal["kubernetes"]
    namespace: Annotated[Template, AfterValidator(_label)]
    name: Annotated[Template, AfterValidator(_subdomain)]
    entry: Annotated[Name, AfterValidator(_entry)] = "api-key"
    kubeconfig: Name | None = None
    context: Name | None = None
    timeout: Timeout = "10s"


# The sinks that can also remove what they hold.
STORES = (VaultSinkSettings, AwsSinkSettings, KubernetesSinkSettings)
AnySink = Annotated[
    FileSinkSettings
    | CommandSinkSettings
    | PythonSinkSettings
    | VaultSinkSettings
    | AwsSinkSettings
    | KubernetesSinkSettings,
    Field(discriminator="type"),
]
