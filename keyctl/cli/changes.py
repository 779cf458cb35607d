"""Declare update, block, unblock, delete, revoke and spend."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyctl.cli import fields, inputs
from keyctl.cli.command import command
from keyctl.cli.keys import named
from keyctl.cli.panel import show_verdict
from keyctl.cli.session import Session
from keyctl.cli.tables import cell
from keyctl.errors import BatchError, UsageError

if TYPE_CHECKING:
    from keyctl.db.queries import KeyFilter
    from keyctl.services.keys.end import Ended

Keys = Annotated[
    list[str] | None, typer.Argument(metavar="KEY…", help="Ids, aliases, sk-<id>, or - for stdin.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Expect = Annotated[
    int | None, typer.Option("--expect-count", min=0, help="Refuse if it is not so many keys.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done; write nothing.")]
Team = Annotated[str | None, typer.Option("--team", help="All keys of this team.")]
User = Annotated[str | None, typer.Option("--user", help="All keys of this user.")]
Org = Annotated[str | None, typer.Option("--org", help="All keys of this organization.")]
State = Annotated[str | None, typer.Option("--state", help="All keys in this state.")]


def add_to(app: typer.Typer) -> None:
    """Declare the commands."""

    @command(app, "update", fields=(*fields.IDENTITY, *fields.SETTINGS, fields.SPEND))
    def update(
        session: Session,
        document: dict[str, Any],
        key: Annotated[str, typer.Argument(metavar="KEY", help="An id, an alias, sk-<id>, or -.")],
        request: Annotated[
            str | None, typer.Option("--request", help="A JSON body; null clears a field.")
        ] = None,
        clear: Annotated[
            list[str] | None, typer.Option("--clear", help="Empty this field; repeatable.")
        ] = None,
        dry_run: DryRun = False,
        override: Annotated[
            list[str] | None, typer.Option("--override", help="Step over this rule; repeatable.")
        ] = None,
        reason: Annotated[str | None, typer.Option("--reason", help="Why, for --override.")] = None,
    ) -> None:
        """Change limits and settings; what is not named stays."""
        from keyctl.services.keys.update import ChangeService

        if override and not reason:
            raise UsageError("--override needs --reason", hint="say why, for the audit trail")
        if key == "-" and request == "-":
            raise UsageError("KEY - and --request - both read stdin", hint="name the key by its id")
        body = inputs.read_document(request, what="the request") if request else {}
        patch = {**body, **document, **dict.fromkeys(clear or ())}
        if not patch:
            raise UsageError("there is nothing to change", hint="give an option, or --request")
        service, overrides = ChangeService(session.workspace), tuple(override or ())
        if dry_run:
            show_verdict(session, service.dry_run(named(key), patch, overrides=overrides))
            return
        view = service.update(named(key), patch, overrides=overrides, reason=reason)
        for item in view["filled"]:
            session.console.note(
                f"filled in: {item['field']} = {cell(item['value'])} ({item['source']})"
            )
        if session.wants_json:
            session.console.json(view)
        else:
            session.console.write(f"{view['key_id']}: updated\n")

    for verb, blocked, words in (
        ("block", True, "Suspend keys; unblock lets them in again."),
        ("unblock", False, "Let blocked keys in again."),
    ):
        _declare_block(app, verb, words, blocked=blocked)

    @command(app, "delete")
    def delete(
        session: Session,
        keys: Keys = None,
        team: Team = None,
        user: User = None,
        org: Org = None,
        state: State = None,
        expect_count: Expect = None,
        dry_run: DryRun = False,
        yes: Yes = False,
    ) -> None:
        """Revoke keys for good; their records are archived, their aliases free again."""
        from keyctl.services.keys.end import EndingService

        given = _chosen(session, keys, _filter(team, user, org, state), expect_count)
        if dry_run:
            _show_plan(session, given, "delete")
            return
        if len(given) > 1 or not keys:
            _confirm(f"delete {len(given)} keys", yes=yes)
        _report(session, EndingService(session.workspace).delete(given))

    @command(app, "revoke")
    def revoke(
        session: Session,
        key: Annotated[str, typer.Argument(metavar="KEY", help="An id, an alias, sk-<id>, or -.")],
        secrets: Annotated[
            list[str] | None, typer.Argument(metavar="[SECRET_ID…]", help="Default: all retiring.")
        ] = None,
    ) -> None:
        """End retiring or abandoned secrets of a key now."""
        from keyctl.services.keys.end import EndingService

        _report(session, [EndingService(session.workspace).revoke(named(key), secrets or ())])

    @command(app, "spend")
    def spend(
        session: Session,
        key: Annotated[str, typer.Argument(metavar="KEY", help="An id, an alias, sk-<id>, or -.")],
        reset: Annotated[bool, typer.Option("--reset", help="Set it to zero.")] = False,
        add: Annotated[str | None, typer.Option("--add", help="Add dollars, exactly.")] = None,
    ) -> None:
        """Correct what a key has spent."""
        from keyctl import money
        from keyctl.services.budgets import BudgetService

        service = BudgetService(session.workspace)
        if reset == (add is not None):
            raise UsageError("give either --reset or --add AMOUNT", hint="such as --add 0.25")
        if reset:
            view = service.reset(named(key))
        else:
            view = service.add(named(key), money.parse_money(str(add)))
        if session.wants_json:
            session.console.json(view)
        else:
            session.console.write(
                f"{view['key_id']}: ${cell(view['previous_spend'])} -> ${cell(view['spend'])}\n"
            )


def _declare_block(app: typer.Typer, verb: str, words: str, *, blocked: bool) -> None:
    def block(
        session: Session,
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

        given = _chosen(session, keys, _filter(team, user, org, state), expect_count)
        if dry_run:
            _show_plan(session, given, verb)
            return
        if len(given) > 1 or not keys:
            _confirm(f"{verb} {len(given)} keys", yes=yes)
        _report(session, EndingService(session.workspace).block(given, blocked=blocked))

    block.__doc__ = words
    command(app, verb)(block)


def _filter(
    team: str | None, user: str | None, org: str | None, state: str | None
) -> "KeyFilter | None":
    """Return what the options ask for, None if they ask for nothing."""
    from keyctl.db.queries import KeyFilter
    from keyctl.lifecycle import KEY_STATES

    if state is not None and state not in KEY_STATES:
        raise UsageError(f"there is no state {state!r}", hint=f"give {', '.join(KEY_STATES)}")
    wanted = KeyFilter(team_id=team, user_id=user, organization_id=org, state=state)
    return None if wanted == KeyFilter() else wanted


def _chosen(
    session: Session,
    keys: Sequence[str] | None,
    wanted: "KeyFilter | None",
    expected: int | None,
) -> list[str]:
    """Return the keys named one by one, or all that match the filter."""
    from keyctl.services.keys.read import KeyService

    if bool(keys) == (wanted is not None):
        raise UsageError("give either keys or a filter", hint="such as --team web")
    if wanted is not None:
        chosen = [view["key_id"] for view in KeyService(session.workspace).every(wanted)]
    else:
        given = keys or ()
        if given.count("-") > 1:
            raise UsageError("- can be given once: stdin holds one key", hint="use ids")
        chosen = [named(key) for key in given]
    if expected is not None and len(chosen) != expected:
        raise UsageError(
            f"--expect-count {expected}, but it is {len(chosen)} keys; nothing was changed",
            hint="look with --dry-run",
        )
    return chosen


def _confirm(what: str, *, yes: bool) -> None:
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{what}: not without --yes", hint="look with --dry-run first")
    if not typer.confirm(f"{what}?", err=True):
        raise typer.Exit(130)


def _show_plan(session: Session, given: Sequence[str], verb: str) -> None:
    keys = [_public(key) for key in given]
    if session.wants_json:
        session.console.json({"would": verb, "keys": keys})
    else:
        session.console.write("".join(f"would {verb} {key}\n" for key in keys))


def _report(session: Session, ended: "Sequence[Ended]") -> None:
    """Show what became of each key; one that fails alone is the command's own failure."""
    failed = [item for item in ended if item.error is not None]
    if len(ended) == 1 and failed and failed[0].error is not None:
        raise failed[0].error
    results = [
        {
            "given": _public(item.given),
            "key_id": item.key_id,
            "result": item.result,
            "reason": None if item.error is None else item.error.code,
        }
        for item in ended
    ]
    anchor = next((item.audit for item in reversed(ended) if item.audit), None)
    if session.wants_json:
        session.console.json({"results": results, "audit": anchor})
    else:
        for line in results:
            why = f" ({line['reason']})" if line["reason"] else ""
            session.console.write(f"{line['key_id'] or line['given']}: {line['result']}{why}\n")
    if failed:
        raise BatchError(
            f"{len(failed)} of {len(ended)} keys failed", hint="the results say which and why"
        )


def _public(given: str) -> str:
    # A key string that came by stdin is not printed again.
    from keyctl import keystring

    return "-" if keystring.looks_secret(given) else given
