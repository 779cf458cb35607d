"""keyctl's adapter, which enforces nothing of some keys: a proxy loads it as its `custom_auth`.

It shows that each limit is held by its enforcement, and by nothing else.  Nothing is enforced of a key whose
alias begins with `without-`, no period of one with `forever-`, and of one with `lacking-FIELD.` the
proxy is not told that field.
"""

from dataclasses import replace
from typing import Any

from fastapi import Request
from litellm.proxy._types import UserAPIKeyAuth

from keyctl import lifecycle, purses
from keyctl.gateway import source
from keyctl.gateway.litellm import auth, prices
from keyctl.gateway.litellm import user_api_key_auth as adapter
from keyctl.policy import models
from keyctl.records import Key, Presented


def _begins(key: Key, prefix: str) -> bool:
    return (key.key_alias or "").startswith(prefix)


def _lifted(real: Any, instead: Any, key_of: Any) -> Any:
    """Return what does as *real*, or gives *instead* for a key of which nothing is enforced."""

    def called(*arguments: Any, **named: Any) -> Any:
        if _begins(key_of(*arguments), "without-"):
            return instead
        return real(*arguments, **named)

    return called


def _without_periods(real: Any) -> Any:
    def budgets(found: Presented, meters: Any = None) -> list[purses.Budget]:
        read: list[purses.Budget] = real(found, meters)
        if not _begins(found.key, "forever-"):
            return read
        return [replace(item, period=None, spend=item.limit) for item in read]

    return budgets


def _output_tokens(real: Any) -> Any:
    def output_tokens(price: Any, model: str, body: Any, key: Key) -> int:
        tokens: int = real(
            price, model, body, replace(key, gateway={}) if _begins(key, "lacking-") else key
        )
        return tokens

    return output_tokens


_OUTPUT, _MISSING, _RATES = "_output_tokens", "_refuse_missing", "rates_of"
purses.budgets = _lifted(_without_periods(purses.budgets), [], lambda found, *_: found.key)
lifecycle.suspension = _lifted(lifecycle.suspension, None, lambda _, key: key)
models.may_use = _lifted(models.may_use, True, lambda _, key: key)  # it is the answer
setattr(source, _RATES, _lifted(getattr(source, _RATES), (), lambda found: found.key))
setattr(Key, "gateway_routes", _lifted(Key.gateway_routes, [], lambda key: key))  # noqa: B010
setattr(auth, _MISSING, _lifted(getattr(auth, _MISSING), None, lambda _, key: key))
setattr(prices, _OUTPUT, _output_tokens(getattr(prices, _OUTPUT)))


async def user_api_key_auth(request: Request, api_key: str | None) -> UserAPIKeyAuth:
    """Return what the adapter does, without what is not to be enforced."""
    token = await adapter(request, api_key)
    kind, _, rest = (token.key_alias or "").partition("-")
    if kind == "lacking":
        token.metadata.pop(rest.partition(".")[0], None)
    if kind != "without":
        return token
    return UserAPIKeyAuth(
        api_key=token.api_key,
        token=token.token,
        key_alias=token.key_alias,
        metadata={"keyctl": token.metadata["keyctl"]},
        allowed_routes=[*token.allowed_routes, "llm_api_routes", request.url.path],
    )
