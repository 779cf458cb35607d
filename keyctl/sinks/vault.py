"""Write a key to a KV version 2 engine of HashiCorp Vault or OpenBao."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from keyctl.errors import DeliveryError, KeyctlError
from keyctl.sinks.addresses import SERVICE_ACCOUNT, is_plain
from keyctl.sinks.base import NotTakenError, Target, UnknownError
from keyctl.sinks.file import Replaceable
from keyctl.sinks.logins import Token, Tokens
from keyctl.sinks.store import (
    UNREADABLE,
    Document,
    ForbiddenError,
    StoredKey,
    StoreSink,
    hush,
    missing,
)
from keyctl.sinks.templates import expand

if TYPE_CHECKING:
    from hvac import Client
    from hvac.adapters import RawAdapter

# What the server says when there is a version already where none was expected.
_NOT_FIRST: Final = "did not match"
_LARGEST: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How to get a token: from a file, by an AppRole, by a Kubernetes role, else from ``VAULT_TOKEN``."""

    token_file: str | None = None
    role_id: str | None = None
    secret_id_file: str | None = None
    kubernetes_role: str | None = None
    kubernetes_token_file: str = SERVICE_ACCOUNT
    mount: str | None = None


class VaultSink(StoreSink):
    """Writes each key as a new version of one path, if that is still what was read before."""

    def __init__(
        self,
        name: str,
        *,
        url: str,
        mount: str,
        path: str,
        namespace: str | None,
        ca_file: str | None,
        login: Login,
        tokens: Tokens,
        timeout: timedelta,
        replaceable: Replaceable,
    ) -> None:
        super().__init__(name, timeout=timeout, replaceable=replaceable)
        self._url = url
        self._mount = mount
        self._template = path
        self._path = path
        self._namespace = namespace
        self._ca_file = ca_file
        self._login = login
        self._tokens = tokens
        self._client: Client

    def _load(self) -> None:
        try:
            import hvac  # noqa: F401, PLC0415  # only who uses it waits for it
        except ImportError:
            raise missing("vault") from None
        hush("hvac", "urllib3")

    def _open(self, target: Target) -> None:
        from hvac import Client  # noqa: PLC0415
        from requests import Session  # noqa: PLC0415

        self._path = expand(self._template, target)
        session = Session()
        if is_plain(self._url):
            session.trust_env = False
        session.verify = self._ca_file or True
        self._client = Client(
            url=self._url,
            token="",  # hvac would look for one in places that the configuration does not name
            session=session,
            namespace=self._namespace,
            # A session of `requests` tries nothing twice, and redirected is not answered.
            allow_redirects=False,
            adapter=_adapter(self._time_left),
        )
        self._client.token = self._tokens.of(self.name, self._token)
        self._tokens.check_once(self.name, self._check_engine)

    def _check_engine(self) -> None:
        """Refuse a mount that is no KV engine of version 2, where the server tells.

        Raises:
            DeliveryError: It is none.
        """
        answer = self._client.adapter.get(f"/v1/sys/internal/ui/mounts/{self._mount}")
        if answer.status_code != 200:
            return  # an older server, or a token that may not ask: the first read tells
        told = answer.json().get("data") or {}
        if told.get("type") != "kv" or (told.get("options") or {}).get("version") != "2":
            raise DeliveryError(
                f"sink {self.name}: {self._mount} is no KV engine of version 2",
                hint="name another mount, or enable one: bao secrets enable -version=2 kv",
            )

    def _place_name(self) -> str:
        return f"{self._mount}/{self._path}"

    def _read(self) -> StoredKey | None:
        found = self._read_version(None)
        if found is UNREADABLE:
            # Vault says 403 for a token that is not good, too; a good one may look itself up.
            answer = self._client.auth.token.lookup_self()
            if answer.status_code != 200:
                raise self._refusal(answer.status_code, forbidden=False)
            raise ForbiddenError(f"sink {self.name}: {self._place_name()} may not be read")
        return found

    def _write(self, document: Document, found: StoredKey | None) -> None:
        version = 0 if found is None or found is UNREADABLE else int(found.place)
        answer = self._client.secrets.kv.v2.create_or_update_secret(
            self._path,
            secret=document.fields(found),
            # Check and set: what somebody else wrote since it was read is not overwritten, and what
            # cannot be read is written only where nothing ever was.
            cas=version,
            mount_point=self._mount,
        )
        if found is UNREADABLE and answer.status_code == 400 and _NOT_FIRST in answer.text:
            raise self._unseen()
        self._checked(answer)
        if answer.status_code != 200 or answer.json()["data"]["version"] <= version:
            raise UnknownError(
                f"sink {self.name}: no new version; is {self._mount} a KV engine of version 2?"
            )

    def _is_current(self, document: Document) -> bool:
        found = self._read()
        return (
            found is not None
            and found.text == document.key.reveal()
            and found.key_id == document.key_id
        )

    def _erase(self, key_id: str) -> bool:
        """Delete, by their numbers, the versions that are this key's.

        Deleting the path with its metadata would take what another key has written meanwhile
        along.  Destroying the versions would be as exact, and final; it would gain nothing, because
        their secrets are revoked, and a person could not undelete what a wrong template hit.
        """
        found = self._read()
        versions = []
        for number in range(found.place if found else 0, 0, -1):
            older = self._read_version(number)
            if older is None:
                break  # it and all before it were pruned
            if older.key_id == key_id:
                versions.append(number)
        if not versions:
            return False
        self._checked(
            self._client.secrets.kv.v2.delete_secret_versions(
                self._path, versions=versions, mount_point=self._mount
            )
        )
        return True

    def _read_version(self, version: int | None) -> StoredKey | None:
        """Return a version, the newest without a number; without text if it was deleted."""
        answer = self._client.secrets.kv.v2.read_secret_version(
            self._path, version=version, mount_point=self._mount, raise_on_deleted_version=False
        )
        if answer.status_code == 403:
            return UNREADABLE
        if answer.status_code != 404:
            self._checked(answer)
        body = answer.json()
        if body.get("errors"):  # no such mount, for one; a path where nothing lies has no errors
            raise self._refusal(answer.status_code)
        if body.get("data") is None:
            return None
        data = body["data"]
        fields: dict[str, Any] | None = data["data"]
        place = data["metadata"]["version"]
        if fields is None:
            return StoredKey(key_id=None, text=None, place=place)
        return StoredKey(
            key_id=fields.get("key_id"),
            text=str(fields.get("key", "")),
            place=place,
            beside=fields,
        )

    def _checked(self, answer: Any) -> Any:
        """Return an answer that is a success; a redirection is none."""
        if not 200 <= answer.status_code < 300:
            raise self._refusal(answer.status_code)
        return answer

    def _token(self) -> Token:
        """Return a token, logging in for it where that is the way.

        Raises:
            DeliveryError: There are no credentials.
            NotTakenError, UnknownError: The login failed.
        """
        login = self._login
        if login.token_file is not None:
            return Token(self._content(login.token_file))
        if login.role_id is not None:
            answer = self._client.auth.approle.login(
                login.role_id,
                self._content(login.secret_id_file) if login.secret_id_file else None,
                use_token=False,
                mount_point=login.mount or "approle",
            )
        elif login.kubernetes_role is not None:
            answer = self._client.auth.kubernetes.login(
                login.kubernetes_role,
                self._content(login.kubernetes_token_file),
                use_token=False,
                mount_point=login.mount or "kubernetes",
            )
        elif token := os.environ.get("VAULT_TOKEN"):
            return Token(token)
        else:
            raise DeliveryError(
                f"sink {self.name}: there is no VAULT_TOKEN",
                hint="set it, or name token_file, role_id or kubernetes_role in the configuration",
            )
        auth = self._checked(answer).json()["auth"]
        return Token(
            str(auth["client_token"]),
            # A token for so many uses is not kept: nobody knows how many a run needs.
            seconds=0 if auth.get("num_uses") else float(auth.get("lease_duration") or 0),
            revoke=self._revoke,
        )

    def _revoke(self, token: str) -> None:
        """End a login.  Where that cannot be, it ends by itself at its time."""
        from hvac import Client  # noqa: PLC0415

        client = Client(
            url=self._url,
            token=token,
            session=self._client.session,
            namespace=self._namespace,
            allow_redirects=False,
            adapter=_adapter(self._time_left),
        )
        self._begin(self._target)
        with suppress(KeyctlError, NotTakenError, UnknownError):
            self._ask(client.auth.token.revoke_self)

    def _content(self, path: str) -> str:
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read(_LARGEST).strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            # Its name is not repeated: it may be the token itself, put in the wrong place.
            raise DeliveryError(
                f"sink {self.name}: the file with its credentials cannot be read: {why}",
                hint="check the path in the configuration, and who may read it",
            ) from error
        if not text:
            raise DeliveryError(
                f"sink {self.name}: the file with its credentials is empty",
                hint="check how it is written",
            )
        return text


def _adapter(time_left: Callable[[], tuple[float, float]]) -> type["RawAdapter"]:
    """Return an adapter whose requests end in time, and whose answers are what the server said."""
    from hvac.adapters import RawAdapter  # noqa: PLC0415

    class Punctual(RawAdapter):
        def request(self, method: str, url: str, *args: Any, **options: Any) -> Any:
            options["raise_exception"] = False
            return super().request(method, url, *args, **{**options, "timeout": time_left()})

    return Punctual
