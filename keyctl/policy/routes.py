"""Match the paths of a gateway against a key's `allowed_routes`.  Pure.

An entry is a path and what lies under it, a beginning that ends in `*`, or one of the three groups
that `key_type` stands for; their members are LiteLLM's, with or without a version in front.
"""

import re
from collections.abc import Sequence
from typing import Final

_VERSION: Final = re.compile(r"/v[0-9]+(?:beta)?(?=/)")

_LLM_API: Final = (
    "/assistants",
    "/audio",
    "/batches",
    "/chat/completions",
    "/completions",
    "/containers",
    "/embeddings",
    "/engines",
    "/evals",
    "/files",
    "/fine_tuning",
    "/images",
    "/interactions",
    "/messages",
    "/models",
    "/moderations",
    "/ocr",
    "/rag",
    "/realtime",
    "/rerank",
    "/responses",
    "/search",
    "/threads",
    "/vector_stores",
    "/videos",
    # what LiteLLM passes through to a provider
    "/anthropic",
    "/assemblyai",
    "/azure",
    "/bedrock",
    "/cohere",
    "/eu.assemblyai",
    "/gemini",
    "/langfuse",
    "/mcp",
    "/mistral",
    "/openai",
    "/vertex-ai",
    "/vertex_ai",
    "/vllm",
)
_MANAGEMENT: Final = ("/budget", "/customer", "/key", "/organization", "/tag", "/team", "/user")
# Exactly these: under /key lies also what changes keys.
_INFO: Final = frozenset(
    {
        "/health",
        "/health/services",
        "/key/health",
        "/key/info",
        "/key/list",
        "/model/info",
        "/model_group/info",
        "/models",
        "/organization/info",
        "/organization/list",
        "/team/available",
        "/team/info",
        "/team/list",
        "/user/info",
    }
)


def is_allowed(route: str, allowed: Sequence[str]) -> bool:
    """Tell whether the path *route* is covered by *allowed*; an empty list allows all.

    A path with dot segments, empty ones or escapes is covered by nothing: what it leads to is only
    known to who resolves it.
    """
    if not allowed:
        return True
    if not route.startswith("/") or "%" in route or {".", "..", ""} & set(route[1:].split("/")):
        return False
    return any(_covers(entry, route) for entry in allowed)


def _covers(entry: str, route: str) -> bool:
    if entry.endswith("*"):
        return route.startswith(entry[:-1])
    bare = _VERSION.sub("", route, count=1) if _VERSION.match(route) else route
    if entry == "llm_api_routes":
        return any(_lies_under(bare, path) for path in _LLM_API)
    if entry == "management_routes":
        return any(_lies_under(bare, path) for path in _MANAGEMENT)
    if entry == "info_routes":
        return bare in _INFO
    return _lies_under(route, entry)


def _lies_under(route: str, path: str) -> bool:
    return route == path or route.startswith(path.rstrip("/") + "/")
