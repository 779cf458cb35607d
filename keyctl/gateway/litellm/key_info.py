"""Tell the owner of a key what it may do and what is left: `/key/info`, which LiteLLM answers from its own database only."""

from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Request
from fastapi.routing import APIRoute
from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.auth.user_api_key_auth import user_api_key_auth

from keyctl import keystring
from keyctl.gateway.litellm import refusals
from keyctl.gateway.litellm.auth import under_way
from keyctl.gateway.litellm.handed_on import left_view, name_of
from keyctl.views import key_view

_PATH: Final = "/key/info"
# What the key's row holds of others, or of how it is kept.
_HIDDEN: Final = ("created_by", "updated_by", "sink", "sink_suspect_at", "managed_by", "overrides")


def serve_on(app: FastAPI) -> None:
    """Let *app* answer `/key/info` from here, before its own route for it."""
    route = APIRoute(_PATH, _key_info, methods=["GET"], tags=["key management"])
    app.router.routes.insert(0, route)


async def _key_info(
    request: Request,
    token: Annotated[UserAPIKeyAuth, Depends(user_api_key_auth)],
) -> dict[str, Any]:
    """Answer about the key that asks; about another one it is 403."""
    asked = under_way.end(name_of(token))
    if asked is None or asked.verdict.found is None:
        raise refusals.unavailable()
    verdict, found = asked.verdict, asked.verdict.found
    wanted = request.query_params.get("key")
    its_own = (None, "", found.key.id, found.key.key_alias, f"sk-{found.secret_id}")
    if wanted not in its_own and not _is_presented(wanted, found.secret_id):
        raise refusals.not_its_own("key", verdict)
    view = key_view(found.key, now=verdict.now(), public_id=found.secret_id)
    info = {name: value for name, value in view.items() if name not in _HIDDEN}
    left = [left_view(item) for item in verdict.left()]
    return {"key": found.key.id, "info": {**info, "left": left}}


def _is_presented(text: str | None, lookup: str) -> bool:
    """Tell whether *text* is a key string that is found by *lookup*: clients of LiteLLM name their key by it."""
    key = keystring.parse(text or "")
    return key is not None and key.lookup == lookup
