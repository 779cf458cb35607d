"""Read from a request which models it may reach, and which of the provider's objects it names."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import Request
from litellm.proxy.auth.auth_utils import (
    fallback_target_model_name,
    get_model_from_request,
    iter_request_fallback_targets,
)
from litellm.proxy.common_utils.openai_endpoint_utils import (
    get_custom_llm_provider_from_request_headers,
    get_custom_llm_provider_from_request_query,
)
from litellm.proxy.hooks.responses_id_security import ResponsesIDSecurity
from litellm.proxy.openai_files_endpoints.common_utils import (
    decode_model_from_file_id,
    get_original_file_id,
)
from litellm.responses.utils import ResponsesAPIRequestUtils

from keyctl.db.queries import Address
from keyctl.gateway.litellm.refusals import malformed

# By which name a path holds the id of which kind of object.
_IN_PATH: Final = {"batch_id": "batch", "file_id": "file", "response_id": "response"}
# And a body the ids of files.
_FILES_IN_BODY: Final = ("input_file_id", "training_file", "validation_file")
# By these LiteLLM asks for another model than `model`.
_RENAMING: Final = ("deployment_id", "context_window_fallback_dict")
# What a request is judged by.  LiteLLM puts what `extra_body` holds in its place when all is judged.
_READ: Final = frozenset(
    {
        *("background", "best_of", "conversation", "input", "max_completion_tokens"),
        *("max_output_tokens", "max_tokens", "messages", "model", "models", "n"),
        *("previous_response_id", "prompt", "service_tier", "stream", *_FILES_IN_BODY),
    }
)
# What no fallback has of its own: LiteLLM does not look at it there.
_OF_ALL: Final = ("background", "conversation", "previous_response_id", "stream", *_FILES_IN_BODY)
_WITHOUT_COST: Final = ("GET", "HEAD", "OPTIONS", "DELETE")
# Answered over a WebSocket, which begins as a GET.
_WEBSOCKETS: Final = ("/realtime", "/realtime/translations", "/responses")


def models_of(request: Request, route: str, body: Mapping[str, Any]) -> Sequence[str | None]:
    """Return the models that a request may reach, as LiteLLM itself finds them; None for no model.

    Those too that it names in case the first one fails: the proxy holds them against the key's own
    list only, which may be empty where an owner's is not.  And those in the path and the query,
    which LiteLLM carries out before the one in the body, but does not look at here.

    Raises:
        ProxyException: 400 for a list of models, for a WebSocket that names its model later, and for
            what would reach the provider unseen.
    """
    _refuse_unseen(body)
    placed = [
        *(request.path_params.get(name) for name in ("model", "model_name")),
        *request.query_params.getlist("model"),
    ]
    if any("," in str(name or "") for name in (body.get("model"), *placed)):
        raise malformed(
            "a list of models is not served: LiteLLM tells the cost of one only", "model"
        )
    found = get_model_from_request(
        body, route, request.headers, request.query_params, request=request
    )
    models = [name.strip() for name in found.split(",")] if isinstance(found, str) else found or []
    others = (fallback_target_model_name(item) for item in iter_request_fallback_targets(body))
    # OpenRouter's own fallbacks.
    listed = body["models"] if isinstance(body.get("models"), list) else []
    named = [name for name in (*models, *others, *map(str, listed), *placed) if name]
    if not named and is_websocket(request) and route.endswith("/responses"):
        # LiteLLM would ask nobody about the model that its first message names.
        raise malformed("name the model of a WebSocket in its query: ?model=NAME", "model")
    return named or [None]


def _refuse_unseen(body: Mapping[str, Any]) -> None:
    """Refuse what makes LiteLLM ask the provider for something else than the request says."""
    main, *fallbacks = bodies_of(body)
    for item in fallbacks:
        if changed := [name for name in _OF_ALL if item.get(name) != main.get(name)]:
            raise malformed(f"{changed[0]} of a fallback is that of the request", changed[0])
    for part in (main, *fallbacks):
        for name in _RENAMING:
            if part.get(name) is not None:
                raise malformed(f"{name} is not served: name the model as model", name)
        added = part.get("extra_body")
        if added is None:
            continue
        unseen = _READ.intersection(added) if isinstance(added, Mapping) else {"no object"}
        if unseen:
            raise malformed(
                f"extra_body holds {min(unseen)}: name it beside extra_body", "extra_body"
            )


def bodies_of(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return *body*, and what it becomes with each of its fallbacks that is more than a name."""
    fallbacks = [item for item in iter_request_fallback_targets(body) if isinstance(item, Mapping)]
    return [body, *({**body, **item} for item in fallbacks)]


def groups_of(models: Sequence[str | None]) -> list[str]:
    """Return under which other names the proxy knows *models*: deployments have ids, and groups have aliases."""
    from litellm.proxy.proxy_server import llm_router  # noqa: PLC0415  # it is set when the proxy has started

    if llm_router is None:
        return []
    registry = llm_router.registry()
    found = {
        str(deployment["model_name"])
        for name in models
        if name is not None
        for deployment in registry.deployments(name, source="routable") or ()
    }
    return sorted(name for name in found.difference(models) if "*" not in name)


def is_websocket(request: Request) -> bool:
    """Tell whether a request begins a WebSocket: LiteLLM shows it as a GET, under its own address."""
    return request.url.scheme in ("ws", "wss")


def is_passed_through(request: Request, route: str) -> bool:
    """Tell whether LiteLLM passes a request on to OpenAI as it is.

    It does so with all paths below its prefix that are not its own, and with all methods of those
    that are.
    """
    if not route.startswith("/openai/"):
        return False
    if is_websocket(request):
        return route != "/openai/v1/realtime"
    return "endpoint" in request.path_params


def may_cost(request: Request, route: str) -> bool:
    """Tell whether a request can make the provider do what it charges for."""
    method = str(request.scope.get("method", "GET"))
    return method not in _WITHOUT_COST or route.rstrip("/").endswith(_WEBSOCKETS)


def provider_of(request: Request, body: Mapping[str, Any]) -> str:
    """Return the provider that LiteLLM asks when a request names no model, as LiteLLM finds it."""
    return str(
        request.path_params.get("provider")
        or body.get("custom_llm_provider")
        or get_custom_llm_provider_from_request_headers(request=request)
        or get_custom_llm_provider_from_request_query(request=request)
        or "openai"
    )


def addresses_of(request: Request, body: Mapping[str, Any], provider: str) -> list[Address]:
    """Return the batch, background answer and files that a request names by their ids."""
    named = [
        address_of(kind, str(request.path_params[name]), provider)
        for name, kind in _IN_PATH.items()
        if name in request.path_params
    ]
    files = [body[name] for name in _FILES_IN_BODY if isinstance(body.get(name), str)]
    return [*named, *(address_of("file", name, provider) for name in files)]


def address_of(kind: str, shown: str, provider: str) -> Address:
    """Return where the object is that clients know as *shown*.

    LiteLLM puts the model, or the deployment, into the ids that it gives out.
    """
    if kind == "response":
        plain, _, _ = ResponsesIDSecurity()._decrypt_response_id(shown)  # noqa: SLF001  # it has no other
        decoded = ResponsesAPIRequestUtils.decode_responses_api_response_id(plain)
        deployment = decoded.get("model_id") or decoded.get("custom_llm_provider") or ""
        return Address(str(deployment)[:255], kind, str(decoded.get("response_id") or plain)[:255])
    model = decode_model_from_file_id(shown)
    if model is None:
        return Address(f"provider:{provider}"[:255], kind, shown[:255])
    return Address(f"model:{model}"[:255], kind, str(get_original_file_id(shown))[:255])
