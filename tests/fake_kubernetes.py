"""A fake of the Kubernetes API server's Secrets: no registry here has the server itself.

After https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/secret-v1/
and .../using-api/api-concepts: create, read, replace and patch with optimistic locking by
resourceVersion, delete with preconditions, and Status objects for what is refused.
"""

import json
import re
from itertools import count
from typing import Any

from unruly import Answer, Request, Unruly

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_PATH = re.compile(r"/api/v1/namespaces/([^/?]+)/secrets(?:/([^/?]+))?")


class FakeKubernetes(Unruly):
    """Secrets by namespace and name, in the namespaces that exist; the token is ``good-token``."""

    def __init__(self) -> None:
        super().__init__()
        self.namespaces = {"apps", "team-web"}
        self.secrets: dict[tuple[str, str], dict[str, Any]] = {}
        self._numbers = count(1)

    def answer(self, request: Request) -> Answer:
        """Return what the API server says."""
        if request.headers.get("authorization") != "Bearer good-token":
            return status(401, "Unauthorized")
        found = _PATH.fullmatch(request.path)
        if found is None:
            return status(404, "NotFound")
        namespace, name = found[1], found[2]
        body = json.loads(request.body) if request.body else {}
        if request.method == "POST":
            return self._create(namespace, body)
        secret = self.secrets.get((namespace, name))
        if secret is None:
            return status(404, "NotFound")
        if request.method == "GET":
            return Answer(200, json.dumps(secret).encode())
        if request.method == "DELETE":
            return self._delete(namespace, name, secret, body.get("preconditions", {}))
        return self._change(request, namespace, name, secret, body)

    def put(
        self, namespace: str, name: str, data: dict[str, str], annotations: dict[str, str]
    ) -> Answer:
        """Store a Secret as somebody else would."""
        metadata = {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{next(self._numbers)}",
            "annotations": annotations,
        }
        return self._store({"metadata": metadata, "data": data, "type": "Opaque"}, 201)

    def _create(self, namespace: str, body: dict[str, Any]) -> Answer:
        name = body["metadata"]["name"]
        if namespace not in self.namespaces:
            return status(404, "NotFound")
        if _NAME.fullmatch(name) is None:
            return status(422, "Invalid")
        if (namespace, name) in self.secrets:
            return status(409, "AlreadyExists")
        return self.put(namespace, name, body["data"], body["metadata"]["annotations"])

    def _change(
        self, request: Request, namespace: str, name: str, secret: dict[str, Any], body: Any
    ) -> Answer:
        version = body["metadata"].get("resourceVersion")
        if version is not None and version != secret["metadata"]["resourceVersion"]:
            return status(409, "Conflict")
        if request.method == "PATCH":
            merged = {
                **secret["metadata"],
                "annotations": {
                    **secret["metadata"]["annotations"],
                    **body["metadata"]["annotations"],
                },
            }
            changed = {**secret, "metadata": merged, "data": {**secret["data"], **body["data"]}}
        else:
            changed = body
        return self._store(changed, 200)

    def _delete(
        self, namespace: str, name: str, secret: dict[str, Any], conditions: dict[str, str]
    ) -> Answer:
        metadata = secret["metadata"]
        if any(metadata[field] != value for field, value in conditions.items()):
            return status(409, "Conflict")
        del self.secrets[namespace, name]
        return status(200, "Success")

    def _store(self, secret: dict[str, Any], code: int) -> Answer:
        metadata = {**secret["metadata"], "resourceVersion": str(next(self._numbers))}
        stored = {"apiVersion": "v1", "kind": "Secret", **secret, "metadata": metadata}
        self.secrets[metadata["namespace"], metadata["name"]] = stored
        return Answer(code, json.dumps(stored).encode())


def status(code: int, reason: str) -> Answer:
    """Return a Status object, as every refusal is one."""
    document = {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Success" if code < 300 else "Failure",
        "reason": reason,
        "code": code,
    }
    return Answer(code, json.dumps(document).encode())
