"""Charge keys with what their requests cost: LiteLLM's callback."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from litellm.exceptions import MidStreamFallbackError
from litellm.integrations.custom_logger import CustomLogger
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.shutdown.graceful_shutdown_manager import GracefulShutdownManager
from litellm.types.utils import Usage

from keyctl import money
from keyctl.errors import UnavailableError
from keyctl.gateway.accounts import Amount
from keyctl.gateway.litellm import refusals, requests
from keyctl.gateway.litellm.auth import under_way, verifier
from keyctl.gateway.litellm.handed_on import CHARGED, left_header, name_of
from keyctl.gateway.litellm.prices import Estimate
from keyctl.gateway.litellm.under_way import Request
from keyctl.gateway.objects import NOTHING

log = logging.getLogger("keyctl.gateway")

# Seconds between two looks whether the proxy is about to end.
_LOOK_EVERY: Final = 0.1
# Calls that only ask for what was made before: it is charged to who made it.
_POLLS: Final = frozenset({"aretrieve_batch", "aget_responses", "aresponses"})
# Calls that cost nothing themselves.
_FREE: Final = frozenset(
    {
        "acreate_batch",
        "acancel_batch",
        "alist_batches",
        "acancel_responses",
        "adelete_responses",
        "alist_input_items",
        "acreate_file",
        "afile_retrieve",
        "afile_content",
        "afile_list",
        "afile_delete",
    }
)
_OVER: Final = frozenset({"completed", "complete", "failed", "cancelled", "expired", "incomplete"})


class _PROXY_KeyctlLogger(CustomLogger):  # type: ignore[misc]  # noqa: N801  # LiteLLM's classes are not there to be checked
    """Charges keys with what their requests cost.

    By its name LiteLLM takes it for one of the proxy's own: any other is left out of a request whose
    body says `"no-log": true`, and that request would be free.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_holding = False

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: UserAPIKeyAuth, response: Any
    ) -> Any:
        """Write down who made what the answer gives an id of, before the answer leaves the proxy."""
        asked = under_way.find(name_of(user_api_key_dict))
        if asked is not None:
            under_way.leave(asked)
            kind = type(response).__name__
            if kind == "LiteLLMBatch":
                await _batch_answered(asked, response)
            elif kind == "ResponsesAPIResponse":
                await _response_answered(asked, response)
            elif kind == "OpenAIFileObject" and asked.object_id is None:
                await _keep(asked, "file", response.id, estimate=asked.estimate)
            elif isinstance(getattr(response, "data", None), list):
                await _filter(asked, response)
        return response

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: UserAPIKeyAuth,
        traceback_str: str | None = None,
    ) -> None:
        """Give back what a request reserved that has failed; a stream is charged for what came before."""
        asked = under_way.end(name_of(user_api_key_dict))
        if asked is None:
            return
        came = request_data.get("combined_usage_object")
        is_stream = request_data.get("stream") is True or _broke_off(original_exception)
        if is_stream and isinstance(came, Usage) and came.completion_tokens:
            asked.settle(_cost(request_data.get("response_cost"), _tokens_of(came)))
        else:
            asked.verdict.release()

    async def async_post_call_response_headers_hook(
        self,
        data: dict[str, Any],
        user_api_key_dict: UserAPIKeyAuth,
        response: Any,
        **_: Any,
    ) -> dict[str, str] | None:
        """Tell with each answer what is left of the key's budgets."""
        asked = under_way.find(name_of(user_api_key_dict))
        return None if asked is None else left_header(asked.verdict)

    async def async_log_success_event(
        self, kwargs: Mapping[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Charge the key of a request that succeeded; a stream is one request, told of at its end."""
        logged = kwargs.get("standard_logging_object") or {}
        told = logged.get("metadata") or {}
        charged = (told.get("user_api_key_auth_metadata") or {}).get(CHARGED)
        if charged is None:
            return  # a request that LiteLLM made for itself
        call = str(kwargs.get("call_type"))
        # The answer of a stream of /v1/responses is its last event, which has no usage of its own.
        used = _tokens(response_obj) or (logged.get("total_tokens") or 0)
        cost = _cost(kwargs.get("response_cost"), used)
        name = charged.get("request")
        asked = under_way.find(name)
        status = getattr(response_obj, "status", None)
        if call in _FREE or (call in _POLLS and status is not None and status not in _OVER):
            return  # nothing is to be charged, or not yet
        object_id = charged.get("object") or (asked.object_id if asked else None)
        if call in _POLLS and (object_id is not None or call != "aresponses"):
            await _charge_object(object_id, response_obj, cost)
            return
        self._charge(name, cost, charged)

    def _charge(self, name: str | None, cost: Estimate, charged: Mapping[str, Any]) -> None:
        asked = under_way.end(name)
        if asked is not None:
            asked.settle(cost)
        else:
            owners: dict[str, Any] = {field: charged.get(field) for field in _OWNERS}
            try:
                verifier().record(cost.cost, **owners)
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
        if GracefulShutdownManager.is_shutting_down():
            self._is_holding = False  # what is charged from now on is written by another one
            try:
                await verifier().flush()
            except UnavailableError as error:
                log.error("%s; it is lost", error)  # noqa: TRY400  # no bug, so no traceback
        elif verifier().is_written:
            self._is_holding = False
        else:
            await asyncio.sleep(_LOOK_EVERY)
            GLOBAL_LOGGING_WORKER.ensure_initialized_and_enqueue(self._hold_shutdown())


logger = _PROXY_KeyctlLogger()

_OWNERS: Final = ("key_id", "team_id", "user_id", "organization_id")


async def _batch_answered(asked: Request, batch: Any) -> None:
    """Keep a new batch, or the files in which a finished one has left its results."""
    if asked.object_id is None:
        asked.object_id = await _keep(asked, "batch", batch.id)
    for name in ("output_file_id", "error_file_id"):
        if shown := getattr(batch, name, None):
            await _keep(asked, "file", shown)


async def _response_answered(asked: Request, response: Any) -> None:
    """Keep a background answer that has only begun, and charge one that is over."""
    is_over = response.status in _OVER
    if asked.object_id is not None:
        if is_over:
            hidden = getattr(response, "_hidden_params", None) or {}
            cost = _cost(hidden.get("response_cost"), _tokens(response))
            await _charge_object(asked.object_id, response, cost)
    elif response.status is not None and not is_over:  # a compaction has none: it is never kept
        asked.object_id = await _keep(asked, "response", response.id)


async def _keep(
    asked: Request, kind: str, shown: str, *, estimate: int | None = None
) -> str | None:
    """Write down that the key made this object, and let what it reserved be the object's.

    Raises:
        ProxyException: 503: nobody would know whose it is, so the answer is not given.
    """
    verdict = asked.verdict
    address = requests.address_of(kind, shown, asked.provider)
    try:
        kept = await asyncio.to_thread(
            lambda: verifier().objects.keep(
                address,
                key_id=asked.maker or str(verdict.key_id),
                budgets=verdict.budgets,
                reserved=NOTHING if kind == "file" else _amount(asked.reserved),
                cost=estimate,
            )
        )
    except UnavailableError as error:
        log.error("key %s: its %s is not kept: %s", verdict.key_id, kind, error)  # noqa: TRY400  # no bug, so no traceback
        if kind != "file":
            asked.settle(asked.reserved)
        raise refusals.unavailable(f"the {kind} cannot be kept now") from None
    if kind != "file":
        verdict.hand_over()
    return kept


async def _charge_object(object_id: str | None, answer: Any, cost: Estimate) -> None:
    """Charge what an object has cost, unless it is charged, or its cost cannot be told yet."""
    is_told = bool(cost.cost) or getattr(answer, "status", None) == "failed"
    if object_id is None or not is_told:
        return  # at the end of its time it is charged as it was reserved
    try:
        await asyncio.to_thread(lambda: verifier().objects.charge(object_id, _amount(cost)))
    except UnavailableError as error:
        log.warning("a finished answer is charged when it is asked for again: %s", error)


async def _filter(asked: Request, response: Any) -> None:
    """Leave in a list of batches or files only those that the key made."""
    kinds: Sequence[str] = [
        kind
        for kind in ("batch", "file")
        if any(getattr(item, "object", None) == kind for item in response.data)
    ]
    user = asked.verdict.found.user if asked.verdict.found else None
    if not kinds or (user is not None and user.role == "proxy_admin"):
        return
    addresses = {
        item.id: requests.address_of(kinds[0], item.id, asked.provider) for item in response.data
    }
    try:
        found = await asyncio.to_thread(lambda: verifier().objects.find(list(addresses.values())))
    except UnavailableError:
        raise refusals.unavailable() from None
    mine = {address for address, record in found.items() if record.key_id == asked.verdict.key_id}
    response.data = [item for item in response.data if addresses[item.id] in mine]


def _cost(told: float | None, tokens: int) -> Estimate:
    """Return what LiteLLM reckoned, without the noise of its floating point: 0.1 + 0.2 is 0.3.

    What is left is rounded up to a nano-dollar; the noise alone would be one with each request.
    """
    return Estimate(Decimal(f"{told or 0.0:.12f}"), tokens)


def _broke_off(error: BaseException) -> bool:
    """Tell whether a stream failed after some of it had come; LiteLLM tells of its success nowhere."""
    return isinstance(error, MidStreamFallbackError) or isinstance(
        error.__cause__ or error.__context__, MidStreamFallbackError
    )


def _tokens(answer: Any) -> int:
    """Return how many tokens went in and came out."""
    return _tokens_of(getattr(answer, "usage", None))


def _tokens_of(usage: Any) -> int:
    total = getattr(usage, "total_tokens", None)
    return total if isinstance(total, int) else 0


def _amount(cost: Estimate) -> Amount:
    return Amount(money.round_up(cost.cost), cost.tokens)
