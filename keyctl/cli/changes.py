"""Declare block, unblock, delete, revoke and spend."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyctl.cli import screen
from keyctl.cli.choosing import limited
from keyctl.cli.command import command
from keyctl.cli.keys import named
from keyctl.cli.many import chosen, confirm, each, public, report, warn_of_issued
from keyctl.cli.session import Session
from keyctl.errors import BatchError, NotFoundError, UsageError

if TYPE_CHECKING:
    from keyctl.policy.facts import Operation
    from keyctl.services.keys.end import Ended

Keys = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY…", help="Ids, aliases, sk-<id>, or - for one key string on stdin."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Expect = Annotated[
    int | None,
    typer.Option("--expect-count", min=0, help="Refuse unless it is exactly this many keys."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done; write nothing.")]
Team = Annotated[str | None, typer.Option("--team", help="All keys of this team.")]
User = Annotated[str | None, typer.Option("--user", help="All keys of this user.")]
Org = Annotated[str | None, typer.Option("--org", help="All keys of this organization.")]
State = Annotated[str | None, typer.Option("--state", help="All keys in this state.")]


def add_to(app: typer.Typer) -> None:
    """Declare the commands."""

    for verb, blocked, words in (
        ("block", True, "Suspend keys; unblock lets them in again."),
        ("unblock", False, "Let blocked keys in again."),
    ):
        _declare_block(app, verb, words, blocked=blocked)

    @command(app, "delete", chooses=True)
    def delete(
        session: Session,
        wanted: Any,
        keys: Keys = None,
        team: Team = None,
        user: User = None,
        org: Org = None,
        state: State = None,
        expect_count: Expect = None,
        dry_run: DryRun = False,
        yes: Yes = False,
    ) -> None:
        """Delete keys for good; their records are archived, their aliases free again."""
        from keyctl.services.keys.end import EndingService

        given = chosen(
            session, keys, limited(wanted, (team, user, org), state), expect_count, yes=yes
        )
        if dry_run:
            _show_plan(session, given, "delete")
            return
        confirm(session, "delete", given, yes=yes, filtered=not keys, asks_for_one=True)
        service = EndingService(session.workspace)
        _report(
            session,
            each(session, "delete", given, lambda step: service.delete(given, told=step)),
            stops=True,
        )

    @command(app, "revoke")
    def revoke(
        session: Session,
        key: Annotated[str, typer.Argument(metavar="KEY", help="An id, an alias, sk-<id>, or -.")],
        secrets: Annotated[
            list[str] | None,
            typer.Argument(
                metavar="SECRET_ID…",
                help="Ids of secrets to end. Default: all that are retiring.",
            ),
        ] = None,
    ) -> None:
        """End the old secrets of a key now; its active secret goes on."""
        from keyctl.services.keys.end import EndingService

        ended = EndingService(session.workspace).revoke(named(key), secrets or ())
        _report(session, [ended], stops=ended.result == "revoked")
        if ended.still_active is not None:
            session.console.warn(
                f"nothing was revoked, and key {ended.key_id} goes on working with"
                f" sk-{ended.still_active}…; keyctl rotate {ended.key_id} --grace none replaces"
                f" that secret, keyctl block stops the key, keyctl delete ends it"
            )

    @command(app, "spend")
    def spend(
        session: Session,
        given: Annotated[
            str | None,
            typer.Argument(
                metavar="KEY|TEAM|USER|ORG", help="A key's id, alias, sk-<id>, or -; or an owner."
            ),
        ] = None,
        team: Annotated[str | None, typer.Option("--team", help="A team.")] = None,
        user: Annotated[str | None, typer.Option("--user", help="A user.")] = None,
        org: Annotated[str | None, typer.Option("--org", help="An organization.")] = None,
        reset: Annotated[bool, typer.Option("--reset", help="Set it to zero.")] = False,
        add: Annotated[str | None, typer.Option("--add", help="Add dollars, exactly.")] = None,
    ) -> None:
        """Correct what a key, a team, a user or an organization has spent."""
        from keyctl import money
        from keyctl.records import Organization, Principal, Team, User
        from keyctl.services.budgets import BudgetService

        service = BudgetService(session.workspace)
        owners = ((Team, team), (User, user), (Organization, org))
        whose: list[tuple[type[Principal] | None, str]] = [
            (kind, name) for kind, name in owners if name is not None
        ]
        if given is not None:
            whose.append((None, named(given)))
        if len(whose) != 1:
            raise UsageError(
                "say whose spend, once", hint="a key, or one of --team, --user and --org"
            )
        if reset == (add is not None):
            raise UsageError(
                "give either --reset or --add AMOUNT",
                hint="such as --add 0.25; keyctl info KEY and keyctl team list --sort -spend show what is spent",
            )
        (kind, name), *_ = whose
        if reset:
            view = service.reset(name, kind=kind)
        else:
            view = service.add(name, money.parse_money(str(add)), kind=kind)
        if session.wants_json:
            session.console.json(view)
        else:
            object_id = next(iter(view.values()))
            was, now = (screen.money(view[name]) for name in ("previous_spend", "spend"))
            session.console.say(f"{object_id}: {was} → {now}\n")


def _declare_block(app: typer.Typer, verb: str, words: str, *, blocked: bool) -> None:
    def block(
        session: Session,
        wanted: Any,
        keys: Keys = None,
        team: Team = None,
        user: User = None,
        org: Org = None,
        state: State = None,
        expect_count: Expect = None,
        dry_run: DryRun = False,
        yes: Yes = False,
    ) -> None:
        from keyctl.services.keys.end import EndingService

        given = chosen(
            session, keys, limited(wanted, (team, user, org), state), expect_count, yes=yes
        )
        if dry_run:
            _show_plan(session, given, "block" if blocked else "unblock")
            return
        confirm(session, verb, given, yes=yes, filtered=not keys)
        service = EndingService(session.workspace)
        _report(
            session,
            each(
                session,
                verb,
                given,
                lambda step: service.block(given, blocked=blocked, told=step),
            ),
            stops=blocked,
        )

    block.__doc__ = words
    command(app, verb, chooses=True)(block)


def _report(session: Session, ended: "Sequence[Ended]", *, stops: bool) -> None:
    """Show what became of each key; where that *stops* a key, also what it leaves at work."""
    try:
        report(session, ended)
    finally:
        if stops:
            done = [item.key_id for item in ended if item.error is None and item.key_id]
            warn_of_issued(session, done)


def _show_plan(session: Session, given: Sequence[str], verb: "Operation") -> None:
    """Show what would be done; one that is not there, or that would fail alone, is the command's own failure."""
    from keyctl.services.keys.end import EndingService

    found = EndingService(session.workspace).would(given, verb)
    for item in found:
        if item.error is not None and (len(found) == 1 or isinstance(item.error, NotFoundError)):
            raise item.error
    keys = [public(item.given) for item in found if item.error is None]
    failed = [
        {"given": public(item.given), "key_id": item.key_id, "reason": item.error.code}
        for item in found
        if item.error is not None
    ]
    if session.wants_json:
        session.console.json({"would": verb, "keys": keys, "failed": failed})
    else:
        session.console.write("".join(f"would {verb} {key}\n" for key in keys))
        for line in failed:
            session.console.outcome(
                f"{line['key_id'] or line['given']}: would fail ({line['reason']})", failed=True
            )
    if failed:
        raise BatchError(
            f"{len(failed)} of {len(found)} keys would fail", hint="the results say which and why"
        )
