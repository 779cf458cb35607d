"""Declare update, block, unblock, delete, revoke and spend."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from keyctl.cli import fields, inputs
from keyctl.cli.choices import require_one_of
from keyctl.cli.command import cleared, command
from keyctl.cli.differences import difference
from keyctl.cli.keys import named
from keyctl.cli.many import confirm, each
from keyctl.cli.panel import show_verdict
from keyctl.cli.session import Session
from keyctl.cli.tables import cell
from keyctl.errors import BatchError, UsageError

if TYPE_CHECKING:
    from keyctl.db.queries import KeyFilter
    from keyctl.services.keys.end import Ended
    from keyctl.services.keys.lists import ListEdit

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

_UPDATABLE: Final = (*fields.IDENTITY, *fields.SETTINGS, fields.SPEND)


def add_to(app: typer.Typer) -> None:
    """Declare the commands."""

    _declare_update(app)
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

        given = _chosen(session, keys, _filter(team, user, org, state), expect_count, yes=yes)
        if dry_run:
            _show_plan(session, given, "delete")
            return
        confirm(session, "delete", given, yes=yes, filtered=not keys, asks_for_one=True)
        service = EndingService(session.workspace)
        _report(session, each(session, "delete", given, lambda key: service.delete([key])[0]))

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

        ended = EndingService(session.workspace).revoke(named(key), secrets or ())
        _report(session, [ended])
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
            raise UsageError("give either --reset or --add AMOUNT", hint="such as --add 0.25")
        (kind, name), *_ = whose
        if reset:
            view = service.reset(name, kind=kind)
        else:
            view = service.add(name, money.parse_money(str(add)), kind=kind)
        if session.wants_json:
            session.console.json(view)
        else:
            object_id = next(iter(view.values()))
            session.console.write(
                f"{object_id}: ${cell(view['previous_spend'])} -> ${cell(view['spend'])}\n"
            )


def _declare_update(app: typer.Typer) -> None:
    @command(app, "update", fields=_UPDATABLE)
    def update(
        session: Session,
        document: dict[str, Any],
        key: Annotated[str, typer.Argument(metavar="KEY", help="An id, an alias, sk-<id>, or -.")],
        request: Annotated[
            str | None, typer.Option("--request", help="A JSON body; null clears a field.")
        ] = None,
        clear: Annotated[
            list[str] | None,
            typer.Option("--clear", help="Empty this field, such as max-budget; repeatable."),
        ] = None,
        add_model: Annotated[
            list[str] | None, typer.Option("--add-model", help="Put it on the list; repeatable.")
        ] = None,
        remove_model: Annotated[
            list[str] | None,
            typer.Option("--remove-model", help="Take it off the list; repeatable."),
        ] = None,
        add_tag: Annotated[
            list[str] | None, typer.Option("--add-tag", help="Add a tag; repeatable.")
        ] = None,
        remove_tag: Annotated[
            list[str] | None, typer.Option("--remove-tag", help="Remove a tag; repeatable.")
        ] = None,
        administers: Annotated[
            str | None,
            typer.Option(
                "--administers",
                metavar="SECRET_ID",
                help="Let this secret of it act as a caller (admins).",
            ),
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
        patch = {**body, **document, **cleared(_UPDATABLE, clear)}
        edits = {"models": (add_model, remove_model), "tags": (add_tag, remove_tag)}
        patch |= _edits(patch, edits)
        if administers is not None:
            if patch or dry_run:
                raise UsageError(
                    "--administers goes alone", hint="change other things in a command of its own"
                )
            _show_changed(
                session, ChangeService(session.workspace).let_administer(named(key), administers)
            )
            return
        if not patch:
            raise UsageError("there is nothing to change", hint="give an option, or --request")
        service, overrides = ChangeService(session.workspace), tuple(override or ())
        if dry_run:
            show_verdict(session, service.dry_run(named(key), patch, overrides=overrides))
            return
        _show_changed(
            session, service.update(named(key), patch, overrides=overrides, reason=reason)
        )


def _show_changed(session: Session, view: dict[str, Any]) -> None:
    for item in view["filled"]:
        session.console.note(
            f"filled in: {item['field']} = {cell(item['value'])} ({item['source']})"
        )
    if session.wants_json:
        session.console.json(view)
    else:
        session.console.say(_changed(view))


def _edits(
    patch: Mapping[str, Any], wanted: Mapping[str, tuple[list[str] | None, list[str] | None]]
) -> "dict[str, ListEdit]":
    """Return the lists that are added to or taken from.

    Raises:
        UsageError: One is also set whole.
    """
    from keyctl.services.keys.lists import ListEdit

    edits = {
        name: ListEdit(tuple(added or ()), tuple(removed or ()))
        for name, (added, removed) in wanted.items()
        if added or removed
    }
    if both := sorted(edits.keys() & patch.keys()):
        raise UsageError(
            f"{both[0]} is set whole and edited at once", hint="give either the list or the edits"
        )
    return edits


def _changed(view: dict[str, Any]) -> str:
    """Return what an update did, a line for each field."""
    named_as = f" ({view['key_alias']})" if view["key_alias"] else ""
    lines = [
        f"  {difference(name, item['before'], item['after'])}"
        for name, item in view["changes"].items()
    ]
    return "\n".join([f"{view['key_id']}{named_as}: updated", *(lines or ["  as it was"])]) + "\n"


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

        given = _chosen(session, keys, _filter(team, user, org, state), expect_count, yes=yes)
        if dry_run:
            _show_plan(session, given, verb)
            return
        confirm(session, verb, given, yes=yes, filtered=not keys)
        service = EndingService(session.workspace)
        _report(
            session,
            each(session, verb, given, lambda key: service.block([key], blocked=blocked)[0]),
        )

    block.__doc__ = words
    command(app, verb)(block)


def _filter(
    team: str | None, user: str | None, org: str | None, state: str | None
) -> "KeyFilter | None":
    """Return what the options ask for, None if they ask for nothing."""
    from keyctl.db.queries import KeyFilter
    from keyctl.lifecycle import KEY_STATES

    require_one_of(state, KEY_STATES, what="state")
    wanted = KeyFilter(team_id=team, user_id=user, organization_id=org, state=state)
    return None if wanted == KeyFilter() else wanted


def _chosen(
    session: Session,
    keys: Sequence[str] | None,
    wanted: "KeyFilter | None",
    expected: int | None,
    *,
    yes: bool,
) -> list[str]:
    """Return the keys named one by one, or all that match the filter.

    Raises:
        UsageError: Neither or both were given, it is another number than *expected*, or a key is
            named by the beginning of its id and nobody is asked.
        NotFoundError: The filter names what does not exist.
    """
    from keyctl.services.keys.filters import checked
    from keyctl.services.keys.read import KeyService

    if bool(keys) == (wanted is not None):
        raise UsageError("give either keys or a filter", hint="such as --team web")
    if wanted is not None:
        wanted = checked(session.workspace, wanted)
        chosen = [view["key_id"] for view in KeyService(session.workspace).every(wanted)]
    else:
        given = keys or ()
        if given.count("-") > 1:
            raise UsageError("- can be given once: stdin holds one key", hint="use ids")
        chosen = [_whole(named(key), yes=yes) for key in given]
    if expected is not None and len(chosen) != expected:
        raise UsageError(
            f"--expect-count {expected}, but it is {len(chosen)} keys; nothing was changed",
            hint="look with --dry-run",
        )
    return chosen


def _whole(given: str, *, yes: bool) -> str:
    """Refuse the beginning of an id where nobody is asked: another key may fit it tomorrow."""
    from keyctl.services.keys.read import LENGTH_OF_ID

    if yes and given.startswith("key_") and len(given) < LENGTH_OF_ID:
        raise UsageError(
            f"with --yes a key is named by its whole id, and {given!r} is none",
            hint="keyctl info shows the id",
        )
    return given


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
            text = f"{line['key_id'] or line['given']}: {line['result']}{why}"
            session.console.outcome(text, failed=line["result"] == "failed")
    if failed:
        raise BatchError(
            f"{len(failed)} of {len(ended)} keys failed", hint="the results say which and why"
        )


def _public(given: str) -> str:
    # A key string that came by stdin is not printed again.
    from keyctl import keystring

    return "-" if keystring.looks_secret(given) else given
