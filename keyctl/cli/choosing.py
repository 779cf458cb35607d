"""Declare the options that choose keys for a command that does one thing to many, as `keyctl list` chooses them."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from keyctl.cli.session import Session

if TYPE_CHECKING:
    from keyctl.db.queries import KeyFilter

_OPTIONS: Final[tuple[tuple[str, str, str], ...]] = (
    ("alias", "alias", "All keys whose alias is this, or like '*part*'."),
    ("tag", "tag", "All keys with this tag."),
    ("model", "model", "All keys that name this model."),
    ("search", "search", "All keys with this text in an id, alias, owner or tag."),
    ("expires_before", "expires-before", "All keys that end within 7d, or by a date."),
    ("created_after", "created-after", "All keys made in the last 7d, or since a date."),
    (
        "unused_for",
        "unused-for",
        "All keys unused for 90d, or since a date; 3m is minutes, 3mo months.",
    ),
)
OVER_BUDGET: Final = (
    "keys with a spent budget of their own: also a window, a model's or a tier's; not an owner's."
)
# `update` sets these: there the options that choose by them are called --with-….
_SET: Final = frozenset({"alias", "tag", "model"})


def options(*, sets: bool) -> list[inspect.Parameter]:
    """Return the options; with *sets* the command has options of its own that set some of these fields."""
    found = [
        _parameter(name, f"--with-{flag}" if sets and name in _SET else f"--{flag}", words)
        for name, flag, words in _OPTIONS
    ]
    spent = typer.Option("--over-budget", help=f"All {OVER_BUDGET}")
    return [
        *found,
        inspect.Parameter(
            "over_budget",
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[bool, spent],
        ),
    ]


def filter_of(session: Session, values: Mapping[str, Any]) -> "KeyFilter":
    """Return the filter that the options in *values* ask for."""
    from keyctl.db.queries import KeyFilter

    return KeyFilter(
        key_alias=values["alias"],
        tag=values["tag"],
        model=values["model"],
        search=values["search"],
        over_budget=values["over_budget"],
        expires_before=session.moment(values["expires_before"], "ahead"),
        created_after=session.past(values["created_after"], "--created-after"),
        unused_since=session.past(values["unused_for"], "--unused-for"),
    )


def limited(
    wanted: "KeyFilter", owners: Sequence[str | None], state: str | None
) -> "KeyFilter | None":
    """Return *wanted* of a team, a user and an organization and in a state; None if nothing is asked for.

    Raises:
        UsageError: There is no such state.
    """
    from keyctl.cli.choices import require_one_of
    from keyctl.db.queries import KeyFilter
    from keyctl.lifecycle import KEY_STATES

    require_one_of(state, KEY_STATES, what="state")
    team, user, org = owners
    found = replace(wanted, team_id=team, user_id=user, organization_id=org, state=state)
    return None if found == KeyFilter() else found


def _parameter(name: str, flag: str, words: str) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[str | None, typer.Option(flag, help=words, show_default=False)],
    )
