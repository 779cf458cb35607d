"""Declare update: one key, several, or all that a filter chooses."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from keyctl.cli import fields, inputs
from keyctl.cli.changes import DryRun, Expect, Keys, State, Yes
from keyctl.cli.choices import require_reason
from keyctl.cli.choosing import limited
from keyctl.cli.command import cleared, command
from keyctl.cli.differences import difference
from keyctl.cli.keys import named
from keyctl.cli.many import chosen, confirm, each, public, report
from keyctl.cli.panel import show_verdict
from keyctl.cli.session import Session
from keyctl.cli.tables import cell
from keyctl.errors import ExitCode, KeyctlError, UsageError

if TYPE_CHECKING:
    from keyctl.services.keys.lists import ListEdit

_UPDATABLE: Final = (*fields.IDENTITY, *fields.SETTINGS, fields.SPEND)


def add_to(app: typer.Typer) -> None:
    """Declare the command."""

    @command(app, "update", fields=_UPDATABLE, chooses=True)
    def update(
        session: Session,
        document: dict[str, Any],
        wanted: Any,
        keys: Keys = None,
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
                help="Let this secret of the key act as a caller. Only admins may.",
            ),
        ] = None,
        state: State = None,
        set_user: Annotated[
            str | None, typer.Option("--set-user", help="Give the keys to this user.")
        ] = None,
        expect_count: Expect = None,
        dry_run: DryRun = False,
        yes: Yes = False,
        override: Annotated[
            list[str] | None,
            typer.Option(
                "--override", help="Step over this rule (see keyctl schema rules); repeatable."
            ),
        ] = None,
        reason: Annotated[str | None, typer.Option("--reason", help="Why, for --override.")] = None,
    ) -> None:
        """Change limits and settings; what is not named stays.

        Without a KEY, --team, --user, --org and --with-… choose the keys. With a KEY, --team, --user and --org set its owners.
        """
        from keyctl.services.keys.update import ChangeService

        require_reason(reason)
        if override and not reason:
            raise UsageError("--override needs --reason", hint="say why, for the audit trail")
        # With a KEY the owners are what it is given.
        owners = (None, None, None) if keys else _owners(document)
        wanted = limited(wanted, owners, state)
        if wanted is None and not keys:
            raise UsageError("name a key, or a filter", hint="such as --team web")
        if keys and wanted is not None:
            raise UsageError("give either keys or a filter", hint="such as --team web")
        if keys and "-" in keys and request == "-":
            raise UsageError("KEY - and --request - both read stdin", hint="name the key by its id")
        body = inputs.read_document(request, what="the request") if request else {}
        patch = {**body, **document, **cleared(_UPDATABLE, clear)}
        if set_user is not None:
            patch["user_id"] = set_user
        edits = {"models": (add_model, remove_model), "tags": (add_tag, remove_tag)}
        patch |= _edits(patch, edits)
        key = keys[0] if keys and len(keys) == 1 else None
        if administers is not None:
            if key is None or patch or dry_run:
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
        if key is None or expect_count is not None:
            given = chosen(session, keys, wanted, expect_count, yes=yes)
            _update_many(
                session,
                given,
                patch,
                overrides,
                reason,
                dry_run=dry_run,
                yes=yes,
                filtered=not keys,
            )
            return
        if dry_run:
            show_verdict(session, service.dry_run(named(key), patch, overrides=overrides))
            return
        _show_changed(
            session, service.update(named(key), patch, overrides=overrides, reason=reason)
        )


def _owners(document: dict[str, Any]) -> tuple[str | None, str | None, str | None]:
    """Take the owners that choose keys out of *document*."""
    team, user, org = (
        document.pop(name, None) for name in ("team_id", "user_id", "organization_id")
    )
    return team, user, org


def _update_many(
    session: Session,
    given: Sequence[str],
    patch: Mapping[str, Any],
    overrides: tuple[str, ...],
    reason: str | None,
    *,
    dry_run: bool,
    yes: bool,
    filtered: bool,
) -> None:
    """Change many keys alike; all are judged before the first is written."""
    from keyctl.services.keys.update_many import ManyChangesService

    service = ManyChangesService(session.workspace, overrides, reason)
    if dry_run:
        with closing(service.judge(given, patch)) as judged:
            _show_judged(session, judged)
        return
    confirm(session, "update", given, yes=yes, filtered=filtered)
    report(
        session,
        each(session, "update", given, lambda step: service.update(given, patch, told=step)),
    )


def _show_judged(session: Session, judged: "Iterable[tuple[str, Any]]") -> None:
    """Show the verdict on each key; exit 4 if one is a denial."""
    from dataclasses import asdict

    from keyctl.cli.console import told

    rows = []
    for given, verdict in judged:
        error = verdict if isinstance(verdict, KeyctlError) else None
        broken = [] if error is not None else list(verdict.violations)
        rows.append(
            {
                "given": public(given),
                "allowed": error is None and not broken,
                "violations": [asdict(item) for item in broken],
                "reason": None if error is None else error.code,
            }
        )
        if not session.wants_json:
            word = "would update" if rows[-1]["allowed"] else "denied"
            session.console.write(f"{word} {public(given)}\n")
            for item in broken:
                session.console.write(f"  {item.rule}: {told(item)}\n")
            if error is not None:
                session.console.write(f"  {error.message}\n")
    allowed = all(row["allowed"] for row in rows)
    if session.wants_json:
        session.console.json({"allowed": allowed, "keys": rows})
    if not allowed:
        raise typer.Exit(int(ExitCode.DENIED))


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
