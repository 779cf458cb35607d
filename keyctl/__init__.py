"""Issue, limit, rotate and revoke the API keys of an LLM gateway, offline."""

__version__ = "0.1.0"
