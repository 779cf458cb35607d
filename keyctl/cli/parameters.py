"""Read options and arguments as Typer does, without its adapters of pydantic where they change nothing.

Typer imports and builds a part of pydantic for each value, which takes a tenth of a short run, also where
none was given, or where text is to be text.
"""

from collections.abc import Callable
from typing import Any

from typer.core import TyperArgument, TyperOption

from keyctl.cli import metavars

_TEXTS = list[str]


def processed(parameter: Any, ctx: Any, value: Any, by_typer: Callable[[Any, Any], Any]) -> Any:
    """Return *value* as the parameter's type, asking Typer only where that may be another value."""
    several = parameter.multiple or parameter.nargs == -1
    if value is None and several:
        value = ()
    is_missing = parameter.required and parameter.value_is_missing(value)
    if is_missing or not (_was_left_out(parameter, ctx) or _is_text(parameter, value)):
        return by_typer(ctx, value)
    if several and value:
        value = list(value)
    return value if parameter.callback is None else parameter.callback(ctx, parameter, value)


def _was_left_out(parameter: Any, ctx: Any) -> bool:
    """Tell whether a value is the default, which has its type."""
    return bool(ctx.get_parameter_source(parameter.name).name == "DEFAULT")


def _is_text(parameter: Any, value: Any) -> bool:
    """Tell whether a value is text, or several, and is to be that."""
    wanted = parameter.type_descriptor
    if wanted.parameter_info.parser is not None:
        return False
    if wanted.annotation is str:
        return type(value) is str
    return bool(wanted.annotation == _TEXTS) and all(type(item) is str for item in value)


class Option(TyperOption):
    """An option whose bounds are words."""

    def process_value(self, ctx: Any, value: Any) -> Any:
        """Return the value as the option's type."""
        return processed(self, ctx, value, super().process_value)

    def _get_number_range_help_str(self) -> str | None:
        """Return what a number may be, in words."""
        low, high = getattr(self, "min", None), getattr(self, "max", None)
        return None if low is None and high is None else metavars.bounds(low, high)


class Argument(TyperArgument):
    """An argument that help shows by its name alone: KEY, and [KEY] in the usage where it may be left out."""

    def process_value(self, ctx: Any, value: Any) -> Any:
        """Return the value as the argument's type."""
        return processed(self, ctx, value, super().process_value)

    def display_type_rich(self, ctx: Any) -> str | None:
        """Return nothing: the name says what to give, and Typer would add the type in Python's words."""
        return None

    def get_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the argument's name as the usage shows it."""
        return [str(self.metavar) if self.required else f"[{self.metavar}]"]


class Owner:
    """A command or group that has such options and arguments."""

    params: list[Any]

    def __init__(self, *args: Any, **values: Any) -> None:
        super().__init__(*args, **values)
        for parameter in self.params:
            adopt(parameter)

    def get_params(self, ctx: Any) -> list[Any]:
        """Return all parameters, those among them that Typer adds late: --help, --install-completion."""
        return [adopt(item) for item in super().get_params(ctx)]  # type: ignore[misc]  # a command's


def adopt(parameter: Any) -> Any:
    """Make a parameter one of ours, and return it.  Typer makes them itself, of its own classes."""
    if type(parameter) is TyperOption:
        parameter.__class__ = Option
        parameter.metavar = metavars.metavar(parameter)
    elif type(parameter) is TyperArgument:
        parameter.__class__ = Argument
    return parameter
