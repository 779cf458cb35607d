"""Write a key to AWS Secrets Manager."""

import json
from datetime import timedelta
from typing import Any, Final

from keyctl import jsontext
from keyctl.errors import DeliveryError
from keyctl.sinks.addresses import is_plain, is_private
from keyctl.sinks.base import Format, NotTakenError, Target, UnknownError, env_line
from keyctl.sinks.file import Replaceable
from keyctl.sinks.store import (
    Document,
    ForbiddenError,
    StoredKey,
    StoreSink,
    hush,
    missing,
)
from keyctl.sinks.templates import encoded, expand

# On every secret, whatever its form: a value may be the bare key, and may be closed to us.
_TAG: Final = "keyctl:key-id"
# The shortest there is.  Deleting at once would leave no way back, and AWS knows no condition:
# another key may be written under the name at the same moment.
_RECOVERY_DAYS: Final = 7
_ABSENT: Final = "ResourceNotFoundException"
_EXISTS: Final = "ResourceExistsException"
_DENIED: Final = "AccessDeniedException"


class AwsSink(StoreSink):
    """Writes each key as a new version of one secret; the tag ``keyctl:key-id`` tells whose it is.

    It needs DescribeSecret, which shows tags and versions, but no value.
    """

    def __init__(
        self,
        name: str,
        *,
        template: str,
        region: str | None,
        endpoint_url: str | None,
        form: Format,
        env_var: str,
        kms_key_id: str | None,
        timeout: timedelta,
        replaceable: Replaceable,
    ) -> None:
        super().__init__(name, timeout=timeout, replaceable=replaceable)
        self._template = template
        self._secret = template
        self._region = region
        self._endpoint_url = endpoint_url
        self._form = form
        self._env_var = env_var
        self._kms_key_id = kms_key_id
        self._url = ""
        self._session: Any = None

    def _load(self) -> None:
        try:
            import boto3.session  # noqa: F401, PLC0415  # only who uses it waits for it
        except ImportError:
            raise missing("aws") from None
        hush("boto3", "botocore", "urllib3")

    def _open(self, target: Target) -> None:
        from boto3.session import Session  # noqa: PLC0415

        self._secret = expand(self._template, target, encode=aws_encoded)
        self._session = Session(region_name=self._region)
        if self._session.region_name is None:
            raise DeliveryError(
                f"sink {self.name}: there is no region",
                hint="name one in the configuration, or set AWS_DEFAULT_REGION",
            )
        if self._session.get_credentials() is None:
            raise DeliveryError(
                f"sink {self.name}: there are no AWS credentials",
                hint="set AWS_PROFILE, or give this machine a role; keyctl's configuration holds none",
            )
        self._url = self._endpoint()

    def _endpoint(self) -> str:
        """Return the URL that is asked: the environment and profiles may name one too.

        Raises:
            DeliveryError: It would send the key in the clear.
        """
        client = self._session.client("secretsmanager", endpoint_url=self._endpoint_url)
        url = str(client.meta.endpoint_url)
        client.close()
        if not is_private(url):
            raise DeliveryError(
                f"sink {self.name}: {url} is no https address",
                hint="see AWS_ENDPOINT_URL and endpoint_url in the profile",
            )
        return url

    def _place_name(self) -> str:
        return self._secret

    def _read(self) -> StoredKey | None:
        described = self._describe()
        if described is None:
            return None
        key_id = _key_id_of(described)
        has_value = any(
            "AWSCURRENT" in each for each in described.get("VersionIdsToStages", {}).values()
        )
        text: str | None = None
        beside: dict[str, Any] = {}
        if not (has_value or _is_going(described)):
            pass  # nothing is lost: nothing is there yet
        elif key_id == self._target.key_id:
            beside = self._beside(described)
        elif _is_going(described):
            # Nobody can read it any more; but what is not keyctl's is not brought back for it.
            text = None if key_id else ""
        else:
            text = self._value()
        return StoredKey(key_id=key_id, text=text, place=described, beside=beside)

    def _beside(self, described: dict[str, Any]) -> dict[str, Any]:
        """Return what others keep beside this key; only JSON has room for it.

        Raises:
            TakenError: Somebody has changed the value, and it cannot be read.
        """
        if self._form != "json" or _is_going(described):
            return {}
        try:
            value = self._call("get_secret_value", SecretId=self._secret) or {}
        except ForbiddenError:
            if _is_keyctls(described):
                return {}
            raise self._unseen() from None
        try:
            document = json.loads(str(value.get("SecretString", "")))
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}

    def _value(self) -> str:
        """Return the key in the current value; an empty text, which stays, where it cannot be seen."""
        try:
            value = self._call("get_secret_value", SecretId=self._secret)
        except ForbiddenError:
            return ""
        text = str((value or {}).get("SecretString", ""))
        try:
            document = json.loads(text)
        except ValueError:
            return text
        return str(document.get("key", "")) if isinstance(document, dict) else ""

    def _write(self, document: Document, found: StoredKey | None) -> None:
        value = {
            "SecretString": self._rendered(document, found),
            "ClientRequestToken": _version_id(document),
        }
        tags = [{"Key": _TAG, "Value": document.key_id}]
        if found is None:
            own_key = {"KmsKeyId": self._kms_key_id} if self._kms_key_id else {}
            self._stored(
                self._call("create_secret", Name=self._secret, Tags=tags, **value, **own_key), value
            )
            return
        if _is_going(found.place):
            self._call("restore_secret", SecretId=self._secret)
        if found.key_id != document.key_id:
            # Before the value: under another key's tag, that key's late removal would take it.
            self._call("tag_resource", SecretId=self._secret, Tags=tags)
        # A version of this id with another content was written by an earlier run.
        self._stored(
            self._call("put_secret_value", none_if=_EXISTS, SecretId=self._secret, **value), value
        )

    def _stored(self, answer: dict[str, Any] | None, value: dict[str, str]) -> None:
        if (answer or {}).get("VersionId") != value["ClientRequestToken"]:
            raise UnknownError(
                f"sink {self.name}: {self._secret}: the new version is not confirmed"
            )

    def _is_current(self, document: Document) -> bool:
        value = self._call(
            "get_secret_value", SecretId=self._secret, VersionId=_version_id(document)
        )
        return (
            value is not None
            and self._holds(str(value.get("SecretString")), document)
            and "AWSCURRENT" in value["VersionStages"]
        )

    def _erase(self, key_id: str) -> bool:
        described = self._describe()
        if described is None or _is_going(described) or _key_id_of(described) != key_id:
            return False
        self._call("delete_secret", SecretId=self._secret, RecoveryWindowInDays=_RECOVERY_DAYS)
        after = self._describe()
        if after is not None and _key_id_of(after) != key_id:
            self._call("restore_secret", SecretId=self._secret)  # it became another's meanwhile
            return False
        if after is not None and not _is_going(after):
            raise UnknownError(f"sink {self.name}: {self._secret}: the removal is not confirmed")
        return True

    def _describe(self) -> dict[str, Any] | None:
        try:
            described = self._call("describe_secret", none_if=_ABSENT, SecretId=self._secret)
        except ForbiddenError as error:
            # Whose a secret is has to be known, or one key would overwrite another's.
            raise NotTakenError(f"{error} (secretsmanager:DescribeSecret is needed)") from None
        # botocore takes half an answer for an empty one; what is there always has a name.
        if described is not None and described.get("Name") is None:
            raise UnknownError(
                f"sink {self.name}: {self._secret}: the server's answer is not whole"
            )
        return described

    def _holds(self, text: str, document: Document) -> bool:
        """Tell whether a value is the document, whatever stands beside it."""
        if self._form != "json":
            return text == self._rendered(document, None)
        try:
            return bool(json.loads(text).items() >= document.fields().items())
        except (AttributeError, ValueError):
            return False

    def _rendered(self, document: Document, found: StoredKey | None) -> str:
        if self._form == "json":
            return jsontext.dumps(document.fields(found))
        if self._form == "env":
            return env_line(document.key, self._env_var)
        return document.key.reveal()

    def _call(
        self, operation: str, *, none_if: str = "", **parameters: Any
    ) -> dict[str, Any] | None:
        """Return the answer to one request, None to one refused with the code *none_if*."""
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import ClientError  # noqa: PLC0415

        connect, answer = self._time_left()
        config = Config(
            connect_timeout=connect,
            read_timeout=answer,
            retries={"total_max_attempts": 1},
            proxies={} if is_plain(self._url) else None,
        )
        client = self._session.client(
            "secretsmanager", endpoint_url=self._endpoint_url, config=config
        )
        try:
            result: dict[str, Any] = getattr(client, operation)(**parameters)
        except ClientError as error:
            code = str(error.response["Error"]["Code"])
            status = int(error.response["ResponseMetadata"]["HTTPStatusCode"])
        else:
            return result
        finally:
            client.close()
        if code == none_if:
            return None
        raise self._refusal(status, code, forbidden=code == _DENIED)


def aws_encoded(text: str) -> str:
    """Return *text* as percent-encoded, with ``=`` for ``%``, which AWS has no place for in names."""
    return encoded(text).replace("%", "=")


def _version_id(document: Document) -> str:
    """Return the id of the version: the same for each try to write the same secret."""
    return f"keyctl-{document.key_id}-{document.secret_id}"


def _key_id_of(described: dict[str, Any]) -> str | None:
    tags = {tag["Key"]: tag["Value"] for tag in described.get("Tags", ())}
    return tags.get(_TAG)


def _is_keyctls(described: dict[str, Any]) -> bool:
    """Tell whether the current version was written by keyctl, and not changed since."""
    stages = described.get("VersionIdsToStages", {})
    return any(name.startswith("keyctl-") and "AWSCURRENT" in each for name, each in stages.items())


def _is_going(described: dict[str, Any]) -> bool:
    """Tell whether a secret is scheduled for deletion."""
    return described.get("DeletedDate") is not None
