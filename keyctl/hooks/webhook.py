"""Send webhooks, signed as the Standard Webhooks specification says (https://www.standardwebhooks.com)."""

import binascii
import http.client
import ssl
import urllib.error
import urllib.request
from datetime import datetime
from email.message import Message as Headers
from typing import IO, Any, Final, NoReturn

from standardwebhooks import Webhook as Signer

from keyctl.causes import cause
from keyctl.hooks.base import HookFailedError, Message, secret_in
from keyctl.sinks.addresses import is_plain

_AGENT: Final = "keyctl"


class Webhook:
    """Posts events as JSON; any answer but a 2xx is a failure, a redirect too."""

    def __init__(self, url: str, *, secret_file: str) -> None:
        self._url = url
        self._secret_file = secret_file

    def send(self, message: Message, *, sent_at: datetime, timeout: float) -> None:
        """Post *message*, signed as of *sent_at*: receivers refuse signatures older than minutes."""
        headers = {
            "content-type": "application/json",
            "user-agent": _AGENT,
            "webhook-id": message.id,
            "webhook-timestamp": str(int(sent_at.timestamp())),
            "webhook-signature": self._signature(message, sent_at),
        }
        request = urllib.request.Request(  # noqa: S310  # the configuration allows http and https only
            self._url, message.body.encode(), headers, method="POST"
        )
        try:
            with _opener(self._url).open(request, timeout=timeout):
                return
        except urllib.error.HTTPError as error:
            error.close()
            raise HookFailedError(f"HTTP {error.code}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise HookFailedError(cause(error)) from error

    def _signature(self, message: Message, sent_at: datetime) -> str:
        try:
            signer = Signer(secret_in(self._secret_file, what="secret_file"))
        except (binascii.Error, RuntimeError, ValueError) as error:
            raise HookFailedError(
                "secret_file: the file that it names holds no webhook secret"
            ) from error
        return signer.sign(message.id, sent_at, message.body)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follow nothing: whoever can redirect could send the event to a place that nobody configured."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Headers,
        newurl: str,
    ) -> NoReturn:
        """Refuse."""
        raise urllib.error.HTTPError(req.full_url, code, "redirect", headers, fp)


def _opener(url: str) -> urllib.request.OpenerDirector:
    handlers: list[Any] = [
        _NoRedirect,
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
    ]
    if is_plain(url):
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)
