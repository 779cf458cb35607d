"""Write a key to an entry of a Kubernetes Secret."""

import base64
import os
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from keyctl.causes import cause
from keyctl.errors import DeliveryError, UsageError
from keyctl.sinks.addresses import LABEL, SUBDOMAIN, is_plain, is_private
from keyctl.sinks.base import Target, UnknownError
from keyctl.sinks.file import Replaceable
from keyctl.sinks.store import (
    UNREADABLE,
    Document,
    StoredKey,
    StoreSink,
    hush,
    missing,
)
from keyctl.sinks.templates import dns_encoded, expand

# Each with the entry's name behind it: the entries of one Secret may be different keys'.
_KEY_ID: Final = "keyctl/key-id."
_WHICH: Final = "keyctl/secret-id."
_LONGEST: Final = 253
_CONFLICT: Final = 409
_NOT_FOUND: Final = 404


class KubernetesSink(StoreSink):
    """Writes each key into one entry of a Secret; an annotation for the entry tells whose it is.

    A Secret has no versions: its uid and resourceVersion are the condition of each change.
    """

    def __init__(
        self,
        name: str,
        *,
        namespace: str,
        template: str,
        entry: str,
        kubeconfig: str | None,
        context: str | None,
        timeout: timedelta,
        replaceable: Replaceable,
    ) -> None:
        super().__init__(name, timeout=timeout, replaceable=replaceable)
        self._namespace_template = namespace
        self._namespace = namespace
        self._template = template
        self._secret = template
        self._entry = entry
        self._kubeconfig = kubeconfig
        self._context = context
        self._api: Any = None

    def _load(self) -> None:
        try:
            import kubernetes.client  # noqa: F401, PLC0415  # only who uses it waits for it
        except ImportError:
            raise missing("kubernetes") from None
        hush("kubernetes", "urllib3")

    def _open(self, target: Target) -> None:
        from kubernetes.client import ApiClient, CoreV1Api  # noqa: PLC0415

        self._namespace = self._named(self._namespace_template, target, _as_it_is, LABEL)
        self._secret = self._named(self._template, target, dns_encoded, SUBDOMAIN)
        self._api = CoreV1Api(ApiClient(self._configuration()))

    def _place_name(self) -> str:
        return f"{self._namespace}/{self._secret}"

    def _read(self) -> StoredKey | None:
        secret = self._call("read_namespaced_secret", none_if=_NOT_FOUND)
        if secret is None:
            return None
        annotations = secret.metadata.annotations or {}
        key_id = annotations.get(_KEY_ID + self._entry)
        entry = (secret.data or {}).get(self._entry)
        if entry is None:
            # Other entries are kept, so nothing would be lost; but only in a Secret of keyctl's.
            is_ours = any(name.startswith(_KEY_ID) for name in annotations)
            return StoredKey(key_id=key_id, text=None if is_ours else "", place=secret)
        text = base64.b64decode(entry).decode(errors="replace")
        return StoredKey(key_id=key_id, text=text, place=secret)

    def _write(self, document: Document, found: StoredKey | None) -> None:
        which = _WHICH + self._entry
        annotations = {_KEY_ID + self._entry: document.key_id, which: document.secret_id}
        data = {self._entry: base64.b64encode(document.key.reveal().encode()).decode()}
        metadata = {"name": self._secret, "annotations": annotations}
        body = {"metadata": metadata, "data": data}
        if found is None:
            written = self._call("create_namespaced_secret", body=body)
        elif found is UNREADABLE:
            written = self._call("create_namespaced_secret", none_if=_CONFLICT, body=body)
            if written is None:
                raise self._unseen()
        else:
            # With the resourceVersion that was read: what changed since then is a conflict.
            secret = found.place
            secret.metadata.annotations = {**(secret.metadata.annotations or {}), **annotations}
            secret.data = {**(secret.data or {}), **data}
            written = self._call("replace_namespaced_secret", body=secret)
        if written.metadata.annotations[which] != document.secret_id:
            raise UnknownError(f"sink {self.name}: {self._place_name()}: it was not confirmed")

    def _is_current(self, document: Document) -> bool:
        found = self._read()
        return (
            found is not None
            and found.text == document.key.reveal()
            and found.key_id == document.key_id
        )

    def _erase(self, key_id: str) -> bool:
        """Delete the Secret that was read, as it was read; entries that others added are left."""
        found = self._read()
        if found is None or found.key_id != key_id or found.text is None:
            return False
        secret = found.place
        if len(secret.data) > 1:
            secret.data = {name: text for name, text in secret.data.items() if name != self._entry}
            return self._call("replace_namespaced_secret", body=secret) is not None
        conditions = {
            "uid": secret.metadata.uid,
            "resourceVersion": secret.metadata.resource_version,
        }
        deleted = self._call(
            "delete_namespaced_secret", none_if=_NOT_FOUND, body={"preconditions": conditions}
        )
        return deleted is not None

    def _call(self, operation: str, *, none_if: int | None = None, **parameters: Any) -> Any:
        """Return the answer to one request, None to one refused with the status *none_if*."""
        from kubernetes.client import ApiException  # noqa: PLC0415

        if not operation.startswith("create"):
            parameters["name"] = self._secret
        try:
            return getattr(self._api, operation)(
                namespace=self._namespace, _request_timeout=self._time_left(), **parameters
            )
        except ApiException as error:
            status = error.status
        if status == none_if:
            return None
        if not status:
            raise UnknownError(
                f"sink {self.name}: {self._place_name()}: no connection that is safe"
            )
        raise self._refusal(status)

    def _configuration(self) -> Any:
        """Return how to reach the cluster: as the kubeconfig says, or as a pod does.

        Raises:
            DeliveryError: Neither says it, or it would send the key in the clear.
        """
        from kubernetes import client, config  # noqa: PLC0415

        configuration = client.Configuration()
        # Nothing is tried twice, and a redirection is not followed.
        configuration.retries = False
        file = self._kubeconfig or os.environ.get("KUBECONFIG")
        try:
            if file or self._context or "KUBERNETES_SERVICE_HOST" not in os.environ:
                config.load_kube_config(file, self._context, configuration, persist_config=False)
            else:
                config.load_incluster_config(configuration)
        except (config.ConfigException, OSError) as error:
            raise DeliveryError(
                f"sink {self.name}: no cluster is configured: {cause(error)}",
                hint="name a kubeconfig in the configuration, or run in a pod with a service account",
            ) from None
        plain = is_plain(configuration.host)
        if not is_private(configuration.host) or not (plain or configuration.verify_ssl):
            raise DeliveryError(
                f"sink {self.name}: the cluster has no https address, or its certificate is not checked",
                hint="give its kubeconfig an https server and its certificate authority",
            )
        if plain:
            configuration.proxy = None
        return configuration

    def _named(
        self,
        template: str,
        target: Target,
        encode: Callable[[str], str],
        form: re.Pattern[str],
    ) -> str:
        name = expand(template, target, encode=encode)
        if len(name) > _LONGEST or form.fullmatch(name) is None:
            raise UsageError(
                f"sink {self.name}: {name!r} is no name that Kubernetes takes",
                hint="see its naming rules for Secrets (DNS subdomain) and namespaces (DNS label)",
            )
        return name


def _as_it_is(text: str) -> str:
    """Return a part of a namespace's name, which others made and which encoded would be another."""
    return text
