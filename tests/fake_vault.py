"""A fake of Vault's HTTP API: no registry here has the server itself.

After https://developer.hashicorp.com/vault/api-docs: the KV version 2 engine (read, write with
check-and-set, delete versions), the AppRole and Kubernetes logins, and token lookup.
"""

import json
import ssl
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from unruly import Answer, Request, Unruly

KEPT = 10


class FakeVault(Unruly):
    """One KV engine at ``secret``; `versions` are the documents of each path, None for a deleted one."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.tokens = {"good-token"}
        self.namespaces: list[str | None] = []
        self.versions: dict[str, dict[int, dict[str, Any] | None]] = {}

    def answer(self, request: Request) -> Answer:
        """Return what Vault says."""
        self.namespaces.append(request.headers.get("x-vault-namespace"))
        parts = urlsplit(request.path)
        path = unquote(parts.path)
        body = json.loads(request.body) if request.body else {}
        if path == "/v1/auth/approle/login":
            return self._login(body == {"role_id": "the-role", "secret_id": "the-secret"})
        if path == "/v1/auth/prod/login":
            return self._login(body == {"role": "keyctl", "jwt": "the-jwt"})
        if request.headers.get("x-vault-token") not in self.tokens:
            return said(403, {"errors": ["permission denied"]})
        if path == "/v1/auth/token/lookup-self":
            return said(200, {"data": {"id": "…"}})
        for prefix, step in (("data", self._data), ("delete", self._delete)):
            if path.startswith(f"/v1/secret/{prefix}/"):
                name = path.removeprefix(f"/v1/secret/{prefix}/")
                return step(request.method, name, body, parse_qs(parts.query))
        return said(404, {"errors": [f'no handler for route "{path[4:]}"']})

    def _login(self, is_known: bool) -> Answer:
        if not is_known:
            return said(400, {"errors": ["invalid role or secret ID"]})
        return said(200, {"auth": {"client_token": "good-token"}})

    def _data(self, method: str, name: str, body: Any, query: dict[str, list[str]]) -> Answer:
        versions = self.versions.get(name, {})
        newest = max(versions, default=0)
        if method == "GET":
            number = int(query.get("version", ["0"])[0]) or newest
            if number not in versions:
                return said(404, {"errors": []})
            document = versions[number]
            gone = "" if document is not None else "2030-01-01T00:00:00Z"
            metadata = {"version": number, "deletion_time": gone, "destroyed": False}
            status = 404 if document is None else 200
            return said(status, {"data": {"data": document, "metadata": metadata}})
        if "cas" in body["options"] and body["options"]["cas"] != newest:
            message = "check-and-set parameter did not match the current version"
            return said(400, {"errors": [message]})
        kept = {**versions, newest + 1: body["data"]}
        self.versions[name] = dict(list(kept.items())[-KEPT:])
        return said(200, {"data": {"version": newest + 1, "deletion_time": "", "destroyed": False}})

    def _delete(self, method: str, name: str, body: Any, query: dict[str, list[str]]) -> Answer:
        for number in body["versions"]:
            if number in self.versions.get(name, {}):
                self.versions[name][number] = None
        return Answer(204)


def said(status: int, document: Any) -> Answer:
    """Return an answer in JSON."""
    return Answer(status, json.dumps(document).encode())
