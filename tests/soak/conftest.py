"""Kills, races, large tables and the real proxy: `pytest tests/soak` runs them."""

from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# They import what LiteLLM's environment has and this one need not: `.ci/litellm` runs them there, by name.
collect_ignore = (
    []
    if find_spec("openai") and find_spec("litellm")
    else [
        f"test_{name}.py"
        for name in ("charged_once", "proxy_limits", "proxy_rows", "proxy_workers")
    ]
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder as slow."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)
