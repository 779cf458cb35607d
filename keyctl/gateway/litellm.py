"""Adapt keyctl to LiteLLM's proxy: its keys as `custom_auth`, their spend as a callback.

```yaml
general_settings:
  custom_auth: keyctl.gateway.litellm.user_api_key_auth
  custom_auth_run_common_checks: true
litellm_settings:
  enable_post_custom_auth_checks: true
  callbacks: keyctl.gateway.litellm.logger
```

The proxy enforces from what `user_api_key_auth` returns: requests and tokens a minute, parallel requests,
routes and models.  It enforces neither blocks nor ends nor budgets of keys that are not in its own
database, so this module does.  Tried with LiteLLM 1.109.
"""

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final

from fastapi import Request
from litellm.integrations.custom_logger import CustomLogger
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
from litellm.proxy._types import ProxyErrorTypes, ProxyException, UserAPIKeyAuth
from litellm.proxy.auth.auth_utils import (
    fallback_target_model_name,
    get_model_from_request,
    get_request_route,
    iter_request_fallback_targets,
)
from litellm.proxy.common_utils.http_parsing_utils import _read_request_body
from litellm.proxy.shutdown.graceful_shutdown_manager import GracefulShutdownManager

from keyctl import routes
from keyctl.errors import UnavailableError
from keyctl.gateway.verdict import AsyncVerdict
from keyctl.gateway.verifier import AsyncVerifier
from keyctl.policy.models import INHERIT, NO_PERSONAL
from keyctl.records import Key, Organization, Presented, Team, User

log = logging.getLogger("keyctl.gateway")

# What a key from before there was a default reaches: otherwise it would reach settings pages.
_EARLIER_ROUTES: Final = ("llm_api_routes",)
_OPTIONS: Final = {
    "KEYCTL_GATEWAY_CACHE_TTL": "cache_ttl",
    "KEYCTL_GATEWAY_OUTAGE_GRACE": "outage_grace",
    "KEYCTL_GATEWAY_FLUSH_INTERVAL": "flush_interval",
}
# Seconds between two looks whether the proxy is about to end.
_LOOK_EVERY: Final = 0.1
# Under which name the key and its owners come back with the cost.
_CHARGED: Final = "keyctl"
# openai's clients try again what is answered with 429, unless they are told not to.
_FINAL: Final = {"x-should-retry": "false"}
_UNKNOWN: Final = ProxyErrorTypes.token_not_found_in_db
_NOT_VALID: Final = ProxyErrorTypes.auth_error
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
        "key not allowed to access model.{key} Tried to access {model}",
    ),
    "budget_exceeded": (
        429,
        ProxyErrorTypes.budget_exceeded,
        None,
        "Budget has been exceeded!{key}",
    ),
}


async def user_api_key_auth(request: Request, api_key: str | None) -> UserAPIKeyAuth:
    """Return what the key that a request presents may do; LiteLLM's `custom_auth`.

    Raises:
        ProxyException: 401 for a key that is not valid, 403 for a route or a model that is not its
            own, 429 when a budget is spent, 503 when nobody can tell, 400 for a list of models.
    """
    route = get_request_route(request)
    key = (api_key or "").removeprefix("Bearer ")
    found = await _verified(key, await _models(request, route), route)
    return _allowed(found, route)


class _PROXY_KeyctlLogger(CustomLogger):  # type: ignore[misc]  # noqa: N801  # LiteLLM's classes are not there to be checked
    """Charges keys with what their requests cost.

    By its name LiteLLM takes it for one of the proxy's own: any other is left out of a request whose
    body says `"no-log": true`, and that request would be free.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_holding = False

    async def async_log_success_event(
        self, kwargs: Mapping[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Charge the key of a request that succeeded; a stream is one request, told of at its end."""
        told = (kwargs.get("standard_logging_object") or {}).get("metadata") or {}
        charged = (told.get("user_api_key_auth_metadata") or {}).get(_CHARGED)
        if charged is None:
            return  # a request that LiteLLM made for itself
        try:
            _verifier().record(_cost(kwargs.get("response_cost")), **charged)
        except (ValueError, UnavailableError) as error:
            log.error("key %s was not charged: %s", charged["key_id"], error)  # noqa: TRY400  # no bug, so no traceback
            return
        if not self._is_holding:
            self._is_holding = True
            GLOBAL_LOGGING_WORKER.ensure_initialized_and_enqueue(self._hold_shutdown())

    async def _hold_shutdown(self) -> None:
        """Let the proxy's shutdown, which waits for its callbacks, wait until usage is written.

        Not left to `atexit`: at the end of its shutdown uvicorn raises the signal again that it was
        stopped by, and SIGTERM ends a process without its exit handlers.  A callback of its own, not a
        wait in the charging one: the callbacks of other loggers come after that.
        """
        verifier = _verifier()
        if GracefulShutdownManager.is_shutting_down():
            self._is_holding = False  # what is charged from now on is written by another one
            try:
                await verifier.flush()
            except UnavailableError as error:
                log.error("%s; it is lost", error)  # noqa: TRY400  # no bug, so no traceback
        elif verifier.is_written:
            self._is_holding = False
        else:
            await asyncio.sleep(_LOOK_EVERY)
            GLOBAL_LOGGING_WORKER.ensure_initialized_and_enqueue(self._hold_shutdown())


logger = _PROXY_KeyctlLogger()


async def _verified(key: str, models: Sequence[str | None], route: str) -> Presented:
    """Return the key and its owners, if it is valid for every one of *models*."""
    found: Presented | None = None
    for model in models:
        try:
            verdict = await _verifier().verify(key, model=model, route=route)
        except UnavailableError as error:
            log.warning("a key cannot be verified: %s", error)
            raise _unavailable() from None
        except Exception:
            # LiteLLM would answer 401 with its text, such as for a wrong database URL.
            log.exception("a key cannot be verified")
            raise _unavailable() from None
        found = verdict.found
        if not verdict.valid or found is None:
            raise _refusal(verdict, model=model, route=route)
    if found is None:
        raise ValueError("a request is for one model or for none, which is asked about too")
    return found


def _unavailable() -> ProxyException:
    """Return the answer when nobody can tell; why is for the log, not for whoever asks."""
    return ProxyException(
        message="Authentication Error, the key cannot be verified now.",
        type=ProxyErrorTypes.no_db_connection,
        param=None,
        code=503,
        headers={"retry-after": "1"},
    )


def _refusal(verdict: AsyncVerdict, *, model: str | None, route: str) -> ProxyException:
    """Return the error in LiteLLM's shape; it names the key by its id only."""
    status, kind, parameter, said = _REFUSALS[str(verdict.reason)]
    named = "" if verdict.key_id is None else f" Key: {verdict.key_id}."
    return ProxyException(
        message=said.format(key=named, model=model, route=route),
        type=kind,
        param=parameter,
        code=status,
        headers=dict(_FINAL) if status == 429 else None,
    )


def _allowed(found: Presented, route: str) -> UserAPIKeyAuth:
    """Return what the proxy enforces on a request to *route*, which the key may call.

    Under the key's id, not under the hash of the string that was presented: old and new secret of
    a rotation share one limit.  Neither budgets nor ends: those are judged here, by the database's
    clock and by what is spent, and the proxy would judge them by its own.
    """
    key, team, user, organization = found.key, found.team, found.user, found.organization
    return UserAPIKeyAuth(
        api_key=key.id,
        token=key.id,
        key_name=f"sk-{found.secret.id}…",
        key_alias=key.key_alias,
        user_id=key.user_id,
        user_email=user.email if user else None,
        team_id=key.team_id,
        team_alias=team.name if team else None,
        org_id=key.organization_id,
        models=_models_of(key, team, organization, user),
        aliases=key.gateway.get("aliases") or {},
        allowed_routes=_routes_of(key, route),
        permissions=key.permissions,
        rpm_limit=key.rpm_limit,
        tpm_limit=key.tpm_limit,
        max_parallel_requests=key.max_parallel_requests,
        team_rpm_limit=team.rpm_limit if team else None,
        team_tpm_limit=team.tpm_limit if team else None,
        user_rpm_limit=user.rpm_limit if user else None,
        user_tpm_limit=user.tpm_limit if user else None,
        organization_rpm_limit=organization.rpm_limit if organization else None,
        organization_tpm_limit=organization.tpm_limit if organization else None,
        team_metadata=_model_limits(team),
        organization_metadata=_model_limits(organization),
        metadata={
            **_model_limits(key),
            "tags": key.tags,
            "guardrails": key.guardrails,
            _CHARGED: {
                "key_id": key.id,
                "team_id": key.team_id,
                "user_id": key.user_id,
                "organization_id": key.organization_id,
            },
        },
    )


def _routes_of(key: Key, route: str) -> list[str]:
    """Return what the proxy holds the route against, once more.

    It does not know our group, and lets a route through to its own settings pages only if the key's
    list names it by more than a group.  So a route to models is named, and no other.
    """
    named = [route] if routes.is_allowed(route, [routes.DEFAULT]) else []
    reached = key.reachable_routes() or _EARLIER_ROUTES
    return [*(entry for entry in reached if entry != routes.DEFAULT), *named]


def _cost(told: float | None) -> Decimal:
    """Return what LiteLLM reckoned, without the noise of its floating point: 0.1 + 0.2 is 0.3.

    What is left is rounded up to a nano-dollar; the noise alone would be one with each request.
    """
    return Decimal(f"{told or 0.0:.12f}")


def _models_of(
    key: Key, team: Team | None, organization: Organization | None, user: User | None
) -> list[str]:
    """Return the first list that limits: by it the proxy tells models, and chooses fallbacks.

    Names that inherit, or that send a user to a team, mean something else to LiteLLM.
    """
    if user is not None and NO_PERSONAL in user.models:
        user = None  # it is a key of a team, or it was refused
    lists = [owner.models for owner in (key, team, organization, user) if owner is not None]
    return next((models for models in lists if models and INHERIT not in models), [])


def _model_limits(owner: Any) -> dict[str, Any]:
    limits = {
        name: getattr(owner, name, None) or {} for name in ("model_rpm_limit", "model_tpm_limit")
    }
    return {name: value for name, value in limits.items() if value}


async def _models(request: Request, route: str) -> Sequence[str | None]:
    """Return the models that a request may reach, as LiteLLM itself finds them; None for no model.

    Those too that it names in case the first one fails: the proxy holds them against the key's own
    list only, which may be empty where an owner's is not.  And those in the path and the query,
    which LiteLLM carries out before the one in the body, but does not look at here.
    """
    body = await _read_request_body(request=request)
    if "," in str(body.get("model") or ""):
        raise ProxyException(
            message="a list of models is not served: LiteLLM tells the cost of one only",
            type="invalid_request_error",
            param="model",
            code=400,
        )
    found = get_model_from_request(
        body, route, request.headers, request.query_params, request=request
    )
    models = [name.strip() for name in found.split(",")] if isinstance(found, str) else found or []
    others = (fallback_target_model_name(item) for item in iter_request_fallback_targets(body))
    placed = [request.path_params.get(name) for name in ("model", "model_name")]
    named = [*models, *others, *request.query_params.getlist("model"), *placed]
    return [name for name in named if name] or [None]


@cache
def _verifier() -> AsyncVerifier:
    """Return the process's verifier, made from the environment at the first request.

    One for all, in forked workers too: it begins anew in a child by itself.
    """
    options: dict[str, Any] = {
        option: float(os.environ[name]) for name, option in _OPTIONS.items() if name in os.environ
    }
    return AsyncVerifier(_database_url(), **options)


def _database_url() -> str:
    """Return the URL in KEYCTL_DATABASE_URL, or in the file that KEYCTL_DATABASE_URL_FILE names."""
    url = os.environ.get("KEYCTL_DATABASE_URL")
    if not url and (path := os.environ.get("KEYCTL_DATABASE_URL_FILE")):
        url = Path(path).read_text(encoding="utf-8").strip()
    if not url:
        raise RuntimeError("set KEYCTL_DATABASE_URL or KEYCTL_DATABASE_URL_FILE")
    return url
