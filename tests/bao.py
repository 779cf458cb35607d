"""Run a real OpenBao server that keeps what it is told on disk."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from servers import answers, free_port, until, wanted

_CONFIGURED = """
storage "raft" {{
  path = "{folder}/data"
  node_id = "one"
  performance_multiplier = 1
}}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster}"
  {tls}
}}
api_addr = "{scheme}://127.0.0.1:{port}"
cluster_addr = "http://127.0.0.1:{cluster}"
"""


_CERTIFIED = (
    *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    *("-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
)


class Bao:
    """One OpenBao server that keeps what it is told on disk, so that it can be killed."""

    def __init__(self, folder: Path, *, tls: bool = False) -> None:
        self.program = wanted("bao", str(Path(sys.executable).parent))
        self.folder = folder
        self.port = free_port()
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.certificate = folder / "tls.crt"
        listener = "tls_disable = true"
        if tls:
            made = [*_CERTIFIED, "-keyout", "tls.key", "-out", "tls.crt"]
            subprocess.run(made, cwd=folder, check=True, capture_output=True)
            listener = f'tls_cert_file = "{self.certificate}"\n  tls_key_file = "{folder}/tls.key"'
        (folder / "data").mkdir()
        (folder / "bao.hcl").write_text(
            _CONFIGURED.format(
                folder=folder, port=self.port, cluster=free_port(), scheme=scheme, tls=listener
            )
        )
        self.token = ""
        self.key = ""
        self.start()
        started = json.loads(
            self.run("operator", "init", "-key-shares=1", "-key-threshold=1", "-format=json")
        )
        self.token, self.key = started["root_token"], started["unseal_keys_b64"][0]
        self.unseal()
        self.run("secrets", "enable", "-path=secret", "-version=2", "kv")
        self.run("secrets", "enable", "-path=old", "-version=1", "kv")

    def start(self) -> None:
        """Start it, sealed."""
        self.process = subprocess.Popen(
            [self.program, "server", f"-config={self.folder}/bao.hcl"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(lambda: answers(self.port))

    def kill(self) -> None:
        """Kill it with what it started."""
        self.process.kill()
        self.process.wait()

    def unseal(self) -> None:
        """Unseal it, and wait until it serves."""
        self.run("operator", "unseal", self.key)
        until(lambda: '"sealed": false' in self.run("status", "-format=json", check=False))
        until(lambda: bool(self.run("token", "lookup", check=False)))

    def seal(self) -> None:
        """Seal it: it answers, and serves nothing."""
        self.run("operator", "seal")

    def run(self, *arguments: str, check: bool = True, token: str | None = None) -> str:
        """Run a command of OpenBao's own program."""
        done = subprocess.run(
            [self.program, *arguments],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "BAO_ADDR": self.url,
                "BAO_CACERT": str(self.certificate) if self.certificate.exists() else "",
                "BAO_TOKEN": token or self.token,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert not check or done.returncode == 0, (arguments, done)
        return done.stdout if done.returncode == 0 or check else ""

    def policy(self, name: str, *rules: str) -> None:
        """Write a policy: each rule is ``path: capability, capability``."""
        text = "\n".join(
            'path "{}" {{ capabilities = {} }}'.format(
                rule.partition(": ")[0], json.dumps(rule.partition(": ")[2].split(", "))
            )
            for rule in rules
        )
        (self.folder / "policy.hcl").write_text(text)
        self.run("policy", "write", name, str(self.folder / "policy.hcl"))

    def token_of(self, policy: str) -> str:
        """Return a token that may what the policy says."""
        return self.run("token", "create", f"-policy={policy}", "-field=token").strip()

    def fields(self, path: str) -> dict[str, Any]:
        """Return what lies at a path of the KV engine of version 2."""
        return dict(
            json.loads(self.run("kv", "get", "-format=json", "-mount=secret", path))["data"]["data"]
        )

    def accessors(self) -> int:
        """Return how many tokens there are."""
        return len(json.loads(self.run("list", "-format=json", "auth/token/accessors")))


@contextmanager
def openbao(folder: Path, *, tls: bool = False) -> Iterator[Bao]:
    """Run one server."""
    server = Bao(folder, tls=tls)
    try:
        yield server
    finally:
        server.kill()
