"""The three secret managers as tests see them: how to configure one, look into it, and upset it."""

import base64
import http.client
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boto3.session import Session
from fake_kubernetes import FakeKubernetes
from fake_vault import FakeVault
from moto.server import ThreadedMotoServer
from unruly import PATIENCE, Answer, How, Request, Unruly

FOREIGN = "something of mine"


class Place(ABC):
    """A secret manager that runs here, with a sink ``store`` that names it after ``{alias}``.

    `reads` and `writes` find the requests that look at a value, and those that change one.
    """

    server: Unruly
    reads: str
    writes: str
    # What a server says to credentials that may not look.
    forbidden: How = 403

    @abstractmethod
    def sink(self, *lines: str) -> str:
        """Return the configuration, *lines* added to the sink's."""

    @abstractmethod
    def environment(self, home: Path) -> dict[str, str]:
        """Return what the program needs in its environment."""

    @abstractmethod
    def held(self, alias: str) -> list[str]:
        """Return the key strings under a name that can be read, the newest first."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return all names under which something lies."""

    @abstractmethod
    def plant(self, alias: str) -> None:
        """Store something there that is not keyctl's."""


class Vault(Place):
    """The fake Vault."""

    reads = "^GET /v1/secret/data/"
    writes = "^POST /v1/secret/data/"

    def __init__(self, server: FakeVault) -> None:
        self.server = self.vault = server

    def sink(self, *lines: str) -> str:
        """Return the configuration of a sink that writes to ``secret/keyctl/ALIAS``."""
        return configuration(
            "vault", f'url = "{self.server.url}"', 'path = "keyctl/{alias}"', *lines
        )

    def environment(self, home: Path) -> dict[str, str]:
        """Return a good token."""
        return {"VAULT_TOKEN": "good-token"}

    def held(self, alias: str) -> list[str]:
        """Return the keys of all versions that are not deleted."""
        versions = self.vault.versions.get(f"keyctl/{alias}", {})
        return [
            document["key"] for _, document in sorted(versions.items(), reverse=True) if document
        ]

    def names(self) -> list[str]:
        """Return the paths."""
        return list(self.vault.versions)

    def plant(self, alias: str) -> None:
        """Store a document without a key of keyctl's."""
        self.vault.versions[f"keyctl/{alias}"] = {1: {"key": FOREIGN}}


class Kubernetes(Place):
    """The fake Kubernetes."""

    reads = "^GET "
    writes = "^(POST|PUT|PATCH) "

    def __init__(self, server: FakeKubernetes) -> None:
        self.server = self.cluster = server

    def sink(self, *lines: str) -> str:
        """Return the configuration of a sink that writes to the Secret ``apps/keyctl-ALIAS``."""
        return configuration("kubernetes", 'namespace = "apps"', 'name = "keyctl-{alias}"', *lines)

    def environment(self, home: Path) -> dict[str, str]:
        """Return where the kubeconfig is."""
        path = home / "kubeconfig"
        path.write_text(json.dumps(kubeconfig(self.server.url)))
        return {"KUBECONFIG": str(path)}

    def held(self, alias: str) -> list[str]:
        """Return the key of the one Secret."""
        secret = self.cluster.secrets.get(("apps", f"keyctl-{alias}"))
        entry = secret["data"].get("api-key") if secret else None
        return [base64.b64decode(entry).decode()] if entry else []

    def names(self) -> list[str]:
        """Return the names in the one namespace."""
        return [name for _, name in self.cluster.secrets]

    def plant(self, alias: str) -> None:
        """Store a Secret with an entry of the same name."""
        entry = base64.b64encode(FOREIGN.encode()).decode()
        self.cluster.put("apps", f"keyctl-{alias}", {"api-key": entry}, {})


class Moto(Unruly):
    """A door to a moto server that may stay shut; moto itself always answers."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._address = host, port

    def described(self, request: Request) -> str:
        """Return which operation is asked for."""
        return request.headers.get("x-amz-target", request.path).removeprefix("secretsmanager.")

    def answer(self, request: Request) -> Answer:
        """Return what moto says."""
        connection = http.client.HTTPConnection(*self._address, timeout=PATIENCE)
        connection.request(request.method, request.path, request.body, request.headers)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return Answer(response.status, body, (("Content-Type", "application/x-amz-json-1.1"),))


class Aws(Place):
    """AWS Secrets Manager as moto serves it over HTTP."""

    reads = "^GetSecretValue"
    writes = "^(CreateSecret|PutSecretValue)"
    forbidden = Answer(400, b'{"__type": "AccessDeniedException"}')

    def __init__(self, server: Moto) -> None:
        self.server = server
        self.client: Any = Session("key", "secret", region_name="eu-central-1").client(
            "secretsmanager", endpoint_url=server.url
        )

    def sink(self, *lines: str) -> str:
        """Return the configuration of a sink that writes to the secret ``keyctl/ALIAS``."""
        return configuration(
            "aws", 'region = "eu-central-1"', f'endpoint_url = "{self.server.url}"',
            'name = "keyctl/{alias}"', *lines,
        )  # fmt: skip

    def environment(self, home: Path) -> dict[str, str]:
        """Return credentials; moto takes any."""
        return {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}

    def held(self, alias: str) -> list[str]:
        """Return the keys of the current and the previous version."""
        name = f"keyctl/{alias}"
        keys = []
        for stage in ("AWSCURRENT", "AWSPREVIOUS"):
            try:
                value = self.client.get_secret_value(SecretId=name, VersionStage=stage)
            except self.client.exceptions.ClientError:
                continue
            keys.append(json.loads(value["SecretString"])["key"])
        return keys

    def names(self) -> list[str]:
        """Return the names."""
        return [item["Name"] for item in self.client.list_secrets(MaxResults=100)["SecretList"]]

    def plant(self, alias: str) -> None:
        """Store a secret without keyctl's tag."""
        self.client.create_secret(Name=f"keyctl/{alias}", SecretString=json.dumps({"key": FOREIGN}))


@contextmanager
def place(kind: str) -> Iterator[Place]:
    """Run a secret manager of this kind."""
    if kind == "vault":
        with FakeVault() as vault:
            yield Vault(vault)
    elif kind == "kubernetes":
        with FakeKubernetes() as cluster:
            yield Kubernetes(cluster)
    else:
        moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        moto.start()
        host, port = moto.get_host_and_port()
        try:
            with Moto(host, port) as door:
                door.answer(Request("POST", "/moto-api/reset", {}, b""))
                yield Aws(door)
        finally:
            moto.stop()


def configuration(kind: str, *lines: str) -> str:
    """Return a configuration with one sink."""
    return "\n".join(["bcrypt_cost = 4", "[sinks.store]", f'type = "{kind}"', *lines, ""])


def kubeconfig(server: str) -> dict[str, Any]:
    """Return a kubeconfig for *server*, which is JSON and therefore YAML."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": {"token": "good-token"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    }
