"""Write a fleet file as YAML that readers of YAML 1.1 and 1.2 understand alike.  Pure."""

from decimal import Decimal
from typing import Any

import yaml


class _Writer(yaml.SafeDumper):
    """Quotes what any reader could take for something else, and writes amounts as numbers."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _number(writer: yaml.SafeDumper, value: Decimal) -> yaml.ScalarNode:
    text = format(value, "f")
    kind = "float" if "." in text else "int"
    return writer.represent_scalar(f"tag:yaml.org,2002:{kind}", text)


_Writer.add_representer(Decimal, _number)


def section_text(name: str) -> str:
    """Return the line that begins a section."""
    return f"{name}:\n"


def value_text(value: dict[str, Any]) -> str:
    """Return *value* as a block."""
    return yaml.dump(
        value,
        Dumper=_Writer,
        default_flow_style=False,
        sort_keys=False,
        allow_unicode=True,
        width=100,
    )


def entry_text(name: str, body: dict[str, Any]) -> str:
    """Return one object of a section, indented below it."""
    text = value_text({name: body})
    return "".join(f"  {line}" for line in text.splitlines(keepends=True))
