"""Answer whether a request may run: LiteLLM's `custom_auth`."""

import asyncio
import logging
import os
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Any, Final, cast

from fastapi import Request
from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.auth.auth_utils import get_request_route
from litellm.proxy.common_utils.http_parsing_utils import _read_request_body

from keyctl import money, routes
from keyctl.errors import UnavailableError
from keyctl.gateway import environment
from keyctl.gateway.litellm import prices, refusals, requests
from keyctl.gateway.litellm.handed_on import handed_on, is_left_to_us, parallel_left_to_us
from keyctl.gateway.litellm.prices import Estimate, UnknownPriceError
from keyctl.gateway.litellm.under_way import Request as Asked
from keyctl.gateway.litellm.under_way import UnderWay
from keyctl.gateway.verdict import AsyncVerdict
from keyctl.gateway.verifier import AsyncVerifier
from keyctl.purses import is_of_model
from keyctl.records import Key, ProviderObject

log = logging.getLogger("keyctl.gateway")

under_way = UnderWay()

_OF_MODELS: Final = ("model_max_budget", "model_rpm_limit", "model_tpm_limit")


async def user_api_key_auth(request: Request, api_key: str | None) -> UserAPIKeyAuth:
    """Return what the key that a request presents may do; LiteLLM's `custom_auth`.

    Raises:
        ProxyException: 401 for a key that is not valid, 403 for a route, a model or an object that
            is not its own, 429 when a budget is spent, 503 when nobody can tell, 400 for a list
            of models.
    """
    route = get_request_route(request)
    key = (api_key or "").removeprefix("Bearer ")
    body = await _read_request_body(request=request)
    models = requests.models_of(request, route, body)
    verdict = await _verified(key, models, route)
    if requests.is_passed_through(request, route) and not _says(_key_of(verdict), route):
        raise refusals.refusal(verdict, "route_denied", model=None, route=route)
    provider = requests.provider_of(request, body)
    asked = Asked(verdict=verdict, model=models[0], provider=provider, began_at=time.monotonic())
    if body.get("background") and body.get("stream"):
        raise refusals.malformed("a background answer is not served as a stream", "stream")
    named = await _its_own(request, body, asked)
    if routes.is_discovery(route):
        name = under_way.begin(asked) if route == "/key/info" else None
        return handed_on(verdict, route, name, None)
    if requests.may_cost(request, route):
        _refuse_missing(body, _key_of(verdict))
        _admit(asked)
        try:
            if route.endswith("/files"):
                asked.estimate = await _estimate_of_upload(body, key, asked, route)
            else:
                await _reserve(asked, models, route, body, request, named)
            _enter(asked)
        except BaseException:
            verdict.release()
            raise
    name = under_way.begin(asked)
    _end_if_it_fails(request, name)
    return handed_on(verdict, route, name, asked.object_id)


async def _verified(key: str, models: Sequence[str | None], route: str) -> AsyncVerdict:
    """Return the verdict on a request that any of *models* may answer, if the key is valid for every one of them."""
    first, *others = [await _verified_for(key, model, models, route) for model in models]
    if _limits_models(first):
        # Whatever it asks for them by: the name that a limit is for says what is charged.
        for name in requests.groups_of(models):
            verdict = await _verdict_on(key, name, route)
            if verdict.reason == "budget_exceeded" and not prices.is_free(models):
                raise refusals.refusal(verdict, verdict.reason, model=name, route=route)
            if verdict.reason in (None, "budget_exceeded"):
                others.append(verdict)
    return first.joined(others) if others else first


async def _verified_for(
    key: str, model: str | None, models: Sequence[str | None], route: str
) -> AsyncVerdict:
    """Return the verdict on one of *models*, if the key is valid for it."""
    verdict = await _verdict_on(key, model, route)
    spent = verdict.reason == "budget_exceeded"
    if not verdict.valid and not (spent and prices.is_free(models)):
        raise refusals.refusal(verdict, str(verdict.reason), model=model, route=route)
    return verdict


async def _verdict_on(key: str, model: str | None, route: str) -> AsyncVerdict:
    try:
        return await verifier().verify(key, model=model, route=route)
    except UnavailableError as error:
        log.warning("a key cannot be verified: %s", error)
        raise refusals.unavailable() from None
    except Exception:
        # LiteLLM would answer 401 with its text, such as for a wrong database URL.
        log.exception("a key cannot be verified")
        raise refusals.unavailable() from None


def _limits_models(verdict: AsyncVerdict) -> bool:
    """Tell whether the key, its team or its organization has limits for single models."""
    found = verdict.found
    owners = (found.key, found.team, found.organization) if found else ()
    return any(getattr(owner, name, None) for owner in owners for name in _OF_MODELS)


def _says(key: Key, route: str) -> bool:
    """Tell whether a key reaches *route* by more than the default, which is for what LiteLLM itself serves."""
    reached = key.gateway_routes()
    return not reached or any(
        routes.is_allowed(route, [entry]) for entry in reached if entry != routes.DEFAULT
    )


async def _its_own(
    request: Request, body: Mapping[str, Any], asked: Asked
) -> Sequence[ProviderObject]:
    """Return the provider's objects that a request names, if its key made them all; admins need not have."""
    addresses = requests.addresses_of(request, body, asked.provider)
    if not addresses:
        return ()
    found = await _in_thread(lambda: verifier().objects.find(addresses))
    user = asked.verdict.found.user if asked.verdict.found else None
    is_admin = user is not None and user.role == "proxy_admin"
    for address in addresses:
        record = found.get(address)
        if not is_admin and (record is None or record.key_id != asked.verdict.key_id):
            raise refusals.not_its_own(address.kind, asked.verdict)
    in_path = found.get(addresses[0])
    if in_path is not None:
        asked.maker = in_path.key_id
        asked.object_id = in_path.id if in_path.kind != "file" else None
    return list(found.values())


def _end_if_it_fails(request: Request, name: str) -> None:
    """Give back what the request of this *name* holds if nobody serves it.

    LiteLLM tells its callbacks of what its own routes fail with.  It does not tell them that FastAPI
    has refused the request, such as for a missing field, or that a pass-through could not begin.
    """

    def end(_: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Exception) and (asked := under_way.end(name)) is not None:
            asked.verdict.release()

    # Closed when the route's function has returned or raised; a WebSocket shows none.
    stack = request.scope.get("fastapi_function_astack")
    if stack is not None:
        stack.push(end)


def _admit(asked: Asked) -> None:
    """Count the request under the rates that LiteLLM does not count.

    Those of a model too that it asks for by another name than the first one: LiteLLM counts that.
    """
    verdict, key = asked.verdict, _key_of(asked.verdict)
    exceeded = verdict.admit(
        only=lambda rate: (
            is_left_to_us(rate, key)
            or (rate.kind != "parallel" and not is_of_model(rate.model, asked.model))
        )
    )
    if exceeded is not None:
        raise refusals.too_fast(verdict, exceeded)


def _enter(asked: Asked) -> None:
    """Count the request among those that run at once."""
    if not under_way.enter(asked, parallel_left_to_us(asked.verdict.rates)):
        raise refusals.too_many(asked.verdict)


def _refuse_missing(body: Mapping[str, Any], key: Key) -> None:
    """Refuse a request without what the key demands of it; LiteLLM does so only with a licence."""
    for path in key.gateway.get("enforced_params") or ():
        value: Any = body
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is None:
            raise refusals.malformed(f"the key demands {path} in each request", path)


async def _reserve(
    asked: Asked,
    models: Sequence[str | None],
    route: str,
    body: Mapping[str, Any],
    request: Request,
    named: Sequence[ProviderObject],
) -> None:
    """Hold what the request may cost, and note it."""
    verdict, key = asked.verdict, _key_of(asked.verdict)
    try:
        if route.endswith("/batches"):
            estimate = Estimate(_of_batch(named))
        elif asked.model is None or asked.object_id is not None:
            return
        else:
            length = int(request.headers.get("content-length") or len(str(body)))
            estimate = prices.most(models, requests.bodies_of(body), key, length)
    except UnknownPriceError:
        configured = environment.unknown_cost(os.environ)
        if configured is None and verdict.left():
            raise refusals.unpriced(asked.model or "of this batch", verdict) from None
        estimate = Estimate(configured or Decimal())
    try:
        is_granted = await verdict.reserve(estimate.cost, tokens=estimate.tokens)
    except UnavailableError as error:
        log.warning("nothing can be reserved: %s", error)
        raise refusals.unavailable("nothing can be reserved now") from None
    if not is_granted:
        raise refusals.refusal(verdict, "budget_exceeded", model=asked.model, route=route)
    asked.reserved = estimate


def _of_batch(named: Sequence[ProviderObject]) -> Decimal:
    """Return what a batch of this file may cost.

    Raises:
        UnknownPriceError: Nobody could tell when it was uploaded.
    """
    for record in named:
        if record.kind == "file" and record.cost is not None:
            return Decimal(money.dollars(record.cost))
    raise UnknownPriceError


async def _estimate_of_upload(
    body: Mapping[str, Any], presented: str, asked: Asked, route: str
) -> int | None:
    """Return what a batch of the file may cost that is uploaded, in nano-dollars; None when nobody can tell.

    Raises:
        ProxyException: 403 when the key may not use a model that a line is for, 400 when a line of
            a batch does not tell its model.
    """
    file: Any = body.get("file")
    if body.get("purpose") != "batch" or not hasattr(file, "read") or not hasattr(file, "seek"):
        return None
    content = cast("bytes", await file.read())
    await file.seek(0)
    models = await asyncio.to_thread(prices.models_of_batch, content)
    if models is None:
        raise refusals.malformed("each line of a batch is JSON with the model in its body", "file")
    for model in models:
        await _verified_for(presented, model, (model,), route)
    most = await asyncio.to_thread(prices.most_of_batch, content, _key_of(asked.verdict))
    return None if most is None else money.round_up(most)


def _key_of(verdict: AsyncVerdict) -> Key:
    if verdict.found is None:
        raise ValueError("a key that is valid was found")
    return verdict.found.key


async def _in_thread(work: Any) -> Any:
    """Ask the database without blocking the loop."""
    try:
        return await asyncio.to_thread(work)
    except UnavailableError as error:
        log.warning("it cannot be told who made what: %s", error)
        raise refusals.unavailable() from None


@cache
def verifier() -> AsyncVerifier:
    """Return the process's verifier, made from the environment at the first request.

    One for all, in forked workers too: it begins anew in a child by itself.
    """
    url = environment.database_url(os.environ)
    return AsyncVerifier(url, **environment.verifier_options(os.environ))
