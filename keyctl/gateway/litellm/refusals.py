"""Refuse requests in LiteLLM's shape; a key is named by its id only."""

from math import ceil
from typing import Final

from litellm.proxy._types import ProxyErrorTypes, ProxyException

from keyctl.gateway.rates import Exceeded
from keyctl.gateway.verdict import Verdict
from keyctl.policy import models

# openai's clients try again what is answered with 429, unless they are told not to.
_FINAL: Final = {"x-should-retry": "false"}
_UNKNOWN: Final = ProxyErrorTypes.token_not_found_in_db
_NOT_VALID: Final = ProxyErrorTypes.auth_error
_LONGEST_LIKENED: Final = 255  # no model's name is longer
# What each reason is to a client: the status, LiteLLM's type, which parameter, and what is said.
_REFUSALS: Final[dict[str, tuple[int, ProxyErrorTypes, str | None, str]]] = {
    "malformed": (401, _UNKNOWN, "key", "Authentication Error, it is no key."),
    "unknown": (401, _UNKNOWN, "key", "Authentication Error, there is no such key."),
    "revoked": (401, _NOT_VALID, "key", "Authentication Error, the key is revoked.{key}"),
    "blocked": (401, _NOT_VALID, "key", "Authentication Error, the key is blocked.{key}"),
    "expired": (
        401,
        ProxyErrorTypes.expired_key,
        None,
        "Authentication Error - Expired Key.{key}",
    ),
    "team_blocked": (
        401,
        _NOT_VALID,
        "key",
        "Authentication Error, the key's team is blocked.{key}",
    ),
    "org_blocked": (
        401,
        _NOT_VALID,
        "key",
        "Authentication Error, the key's organization is blocked.{key}",
    ),
    "user_blocked": (
        401,
        _NOT_VALID,
        "key",
        "Authentication Error, the key's owner is blocked.{key}",
    ),
    "route_denied": (
        403,
        _NOT_VALID,
        None,
        "key not allowed to call this route.{key} Tried to call {route}",
    ),
    "model_denied": (
        403,
        ProxyErrorTypes.key_model_access_denied,
        "model",
        "key not allowed to access model.{key} Tried to access {model}{meant}",
    ),
    "budget_exceeded": (
        429,
        ProxyErrorTypes.budget_exceeded,
        None,
        "Budget has been exceeded!{key}{spent}",
    ),
}


def refusal(verdict: Verdict, reason: str, *, model: str | None, route: str) -> ProxyException:
    """Return the error that tells a client the *reason* of a verdict."""
    status, kind, parameter, said = _REFUSALS[reason]
    named = "" if verdict.key_id is None else f" Key: {verdict.key_id}."
    meant = _meant(verdict, model) if reason == "model_denied" else ""
    told = verdict.used_up() if reason == "budget_exceeded" else ()
    spent = "".join(f" Spent: {item}." for item in told)
    return ProxyException(
        message=said.format(key=named, model=model, route=route, meant=meant, spent=spent),
        type=kind,
        param=parameter,
        code=status,
        headers=dict(_FINAL) if status == 429 else None,
    )


def _meant(verdict: Verdict, model: str | None) -> str:
    """Return which models that the key may use have a name like this one."""
    found = verdict.found
    if model is None or found is None or len(model) > _LONGEST_LIKENED:
        return ""
    names = models.nearest_usable(
        model, found.key, team=found.team, organization=found.organization, user=found.user
    )
    return f"; did you mean {' or '.join(names)}?" if names else ""


def too_many(verdict: Verdict) -> ProxyException:
    """Return the error when as many requests run at once as may of the key's owners; a client tries again."""
    return ProxyException(
        message=f"Too many parallel requests. Key: {verdict.key_id}.",
        type="throttling_error",
        param=None,
        code=429,
        headers={"retry-after": "1"},
    )


def too_fast(verdict: Verdict, exceeded: Exceeded) -> ProxyException:
    """Return the error when a rate is exceeded; a client tries again when its minute is over."""
    rate = exceeded.rate
    of_model = "" if rate.model is None else f" for {rate.model}"
    return ProxyException(
        message=f"Rate limit exceeded: {rate.field} of {rate.limit}{of_model}. Key: {verdict.key_id}.",
        type="throttling_error",
        param=None,
        code=429,
        headers={"retry-after": str(ceil(exceeded.retry_after))},
    )


def unavailable(what: str = "the key cannot be verified now") -> ProxyException:
    """Return the answer when nobody can tell; why is for the log, not for whoever asks."""
    return ProxyException(
        message=f"Authentication Error, {what}.",
        type=ProxyErrorTypes.no_db_connection,
        param=None,
        code=503,
        headers={"retry-after": "1"},
    )


def unpriced(model: str | None, verdict: Verdict) -> ProxyException:
    """Return the error for a key with a budget and a model whose price nobody knows."""
    return ProxyException(
        message=(
            f"the price of model {model} is not known, so a key with a budget cannot use it."
            f" Key: {verdict.key_id}. Give it a price in the proxy's model_info,"
            " or set KEYCTL_GATEWAY_UNKNOWN_COST"
        ),
        type=ProxyErrorTypes.key_model_access_denied,
        param="model",
        code=403,
    )


def not_its_own(kind: str, verdict: Verdict) -> ProxyException:
    """Return the error for an object that another key made, or that nobody is known to have made."""
    return ProxyException(
        message=f"key not allowed to access this {kind}: it did not make it. Key: {verdict.key_id}.",
        type=_NOT_VALID,
        param=f"{kind}_id",
        code=403,
    )


def malformed(message: str, parameter: str) -> ProxyException:
    """Return the error for a request that cannot be served as it is."""
    return ProxyException(message=message, type="invalid_request_error", param=parameter, code=400)
