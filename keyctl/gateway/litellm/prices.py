"""Tell what a request may cost at most, by LiteLLM's price table and the tokens that the request allows."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import litellm
from litellm.proxy.auth.auth_checks import is_model_cost_zero

from keyctl.records import Key

# Tokens that an answer is taken to have when neither the request nor the key says.
_OUTPUT: Final = 4096
# Bytes of text that are at least one token; counted exactly only where that is quick.
_BYTES_PER_TOKEN: Final = 3
_COUNTED_UP_TO: Final = 20_000
# What a model reads besides the messages.
_BESIDE_MESSAGES: Final = ("contents", "input", "instructions", "prompt", "system")
# Bytes of a second of sound, at the least: what a recording may last.
_BYTES_PER_SECOND: Final = 2_000
_BOUNDS: Final = (
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "max_tokens_to_sample",
)
_MOST_OUTPUT: Final = 10_000_000
_MOST_ANSWERS: Final = 10_000
_DIGITS: Final = 20  # no number of tokens has so many
_PRICED_BY: Final = ("input_cost_per", "output_cost_per", "ocr_cost_per")


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request may cost at most: dollars, and tokens that go in and come out."""

    cost: Decimal
    tokens: int = 0


class UnknownPriceError(Exception):
    """Nobody knows what a model costs."""


def is_free(models: Iterable[str | None]) -> bool:
    """Tell whether each of these models costs nothing, by a price that somebody gave it."""
    from litellm.proxy.proxy_server import llm_router  # noqa: PLC0415  # it is set when the proxy has started

    return all(name is not None and is_model_cost_zero(name, llm_router) for name in models)


def most(
    models: Sequence[str | None], bodies: Sequence[Mapping[str, Any]], key: Key, length: int
) -> Estimate:
    """Return what a request with one of these *bodies*, of *length* bytes, may cost.

    Of several models and bodies it is the dearest one.

    Raises:
        UnknownPriceError: One of them has no price.
    """
    named = [name for name in models if name is not None]
    estimates = [_of_model(name, body, key, length) for name in named for body in bodies]
    return max(estimates, key=lambda estimate: estimate.cost)


def models_of_batch(content: bytes) -> set[str] | None:
    """Return which models the lines of a batch are for; None where a line does not tell."""
    try:
        return {str(body["model"]) for body, _ in _lines_of(content)}
    except (ValueError, KeyError, TypeError):
        return None


def most_of_batch(content: bytes, key: Key) -> Decimal | None:
    """Return what a batch with these lines may cost in dollars; None when nobody can tell."""
    total = Decimal(0)
    try:
        for body, length in _lines_of(content):
            total += _of_model(str(body["model"]), body, key, length).cost
    except (ValueError, KeyError, TypeError, UnknownPriceError):
        return None
    return total


def _lines_of(content: bytes) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Yield the request that each line of a batch makes, and how long the line is."""
    for line in content.splitlines():
        if line.strip():
            yield json.loads(line)["body"], len(line)


def _of_model(model: str, body: Mapping[str, Any], key: Key, length: int) -> Estimate:
    prices = _prices(key.gateway.get("aliases", {}).get(model, model), body.get("service_tier"))
    estimates = [_by(price, model, body, key, length) for price in prices]
    return max(estimates, key=lambda estimate: estimate.cost, default=Estimate(Decimal(0)))


def _by(
    price: Mapping[str, Any], model: str, body: Mapping[str, Any], key: Key, length: int
) -> Estimate:
    """Return the most that one deployment charges, whatever it charges by."""
    answers = _answers(body)
    given = _input_tokens(model, body, length)
    output = _output_tokens(price, model, body, key) * answers
    amounts = {
        "input_cost_per_token": given,
        "output_cost_per_token": output,
        "input_cost_per_character": length,
        "input_cost_per_second": length / _BYTES_PER_SECOND,
        "output_cost_per_second": _whole(body.get("seconds")) or 60,
        "input_cost_per_query": 1,
        "output_cost_per_image": answers,
        "input_cost_per_image": answers,
        "ocr_cost_per_page": 1 + length // 10_000,
    }
    if "output_cost_per_token" not in price:
        # Images may be charged by the token, and speech by the token of sound.
        amounts["output_cost_per_image_token"] = output
        amounts["output_cost_per_audio_token"] = output
    total = Decimal(0)
    for name, amount in amounts.items():
        if rate := price.get(f"{name}_{body.get('service_tier')}") or price.get(name):
            total += Decimal(repr(float(rate))) * Decimal(repr(float(amount)))
    return Estimate(total, given + output)


def _prices(model: str, tier: Any) -> list[Mapping[str, Any]]:
    """Return the price of each deployment that may serve *model*, in the *tier* that a request names.

    Raises:
        UnknownPriceError: One has none.
    """
    from litellm.proxy.proxy_server import llm_router  # noqa: PLC0415  # it is set when the proxy has started

    registry = None if llm_router is None else llm_router.registry()
    deployments = [] if registry is None else list(registry.deployments(model) or ())
    if registry is not None and not deployments:
        deployments = list(registry.patterns().get_deployments_by_pattern(model=model) or ())
    if registry is not None and not deployments:
        # Asked for by a deployment's id, or by the name of the provider.
        deployments = list(registry.deployments(model, source="routable") or ())
    if not deployments:
        # The proxy answers that there is no such model, or passes the name on to a provider.
        return [price] if (price := _known(model)) else []
    return [_price(deployment, tier) for deployment in deployments]


def _price(deployment: Mapping[str, Any], tier: Any) -> Mapping[str, Any]:
    info = deployment.get("model_info") or {}
    asked = str(deployment["litellm_params"]["model"])
    found = _known(str(info.get("id"))) or _known(str(info.get("base_model") or asked))
    if found is None:
        raise UnknownPriceError
    rated = [name for name, rate in found.items() if rate and name.endswith(f"token_{tier}")]
    if info.get("input_cost_per_token") is not None and any(name not in info for name in rated):
        # LiteLLM would charge its table's price of the tier, not the one that the proxy gives.
        raise UnknownPriceError
    return found


def _known(name: str) -> Mapping[str, Any] | None:
    """Return the entry of LiteLLM's table under *name*, or under it without its provider, if it has a price."""
    for candidate in (name, name.partition("/")[2]):
        entry: Mapping[str, Any] = litellm.model_cost.get(candidate) or {}
        if any(field.startswith(_PRICED_BY) and entry[field] is not None for field in entry):
            return entry
    return None


def _input_tokens(model: str, body: Mapping[str, Any], length: int) -> int:
    messages = body.get("messages")
    is_all = not any(name in body for name in _BESIDE_MESSAGES)
    if isinstance(messages, list) and is_all and length <= _COUNTED_UP_TO:
        try:
            return int(
                litellm.token_counter(model=model, messages=messages, tools=body.get("tools"))
            )
        except Exception:  # noqa: BLE001, S110  # whatever it stumbles over, bytes can be counted
            pass
    return length // _BYTES_PER_TOKEN + 1


def _output_tokens(price: Mapping[str, Any], model: str, body: Mapping[str, Any], key: Key) -> int:
    config = body.get("generationConfig")
    bounds = [_whole(body.get(name)) for name in _BOUNDS]
    if isinstance(config, Mapping):
        bounds.append(_whole(config.get("maxOutputTokens")))
    per_model = key.gateway.get("default_estimated_output_tokens_per_model") or {}
    given = (
        max((bound for bound in bounds if bound is not None), default=None)
        or per_model.get(model)
        or key.gateway.get("default_estimated_output_tokens")
    )
    # No model gives more than it can: a number that is too large would hold a whole team's budget.
    most = _whole(price.get("max_output_tokens")) or _MOST_OUTPUT
    return min(int(given) if given else _OUTPUT, most)


def _answers(body: Mapping[str, Any]) -> int:
    """Return how many answers a request asks for: so many of each of its prompts."""
    config, prompts = body.get("generationConfig"), body.get("prompt")
    asked = [_whole(body.get(name)) for name in ("n", "best_of")]
    if isinstance(config, Mapping):
        asked.append(_whole(config.get("candidateCount")))
    answers = max(1, *(count or 1 for count in asked))
    # A list of numbers is one prompt, in tokens.
    if isinstance(prompts, list) and not any(isinstance(item, int) for item in prompts):
        answers *= len(prompts) or 1
    return min(answers, _MOST_ANSWERS)


def _whole(value: Any) -> int | None:
    """Return a number of the request; written as a text or with a point too, as some providers take it."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) < _DIGITS else None
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
