"""Declare keyctl apply."""

import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyctl import jsontext
from keyctl.cli import fleets, inputs, screen
from keyctl.cli.command import command
from keyctl.cli.console import error_document
from keyctl.cli.many import ask, can_ask, warn_of_issued
from keyctl.cli.progress import counted
from keyctl.cli.session import Session
from keyctl.errors import BatchError, DeliveryError, KeyctlError, UsageError
from keyctl.packed import Packed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyctl.db.queries.audit import Head
    from keyctl.services.fleet.model import Plan
    from keyctl.services.fleet.planner import FleetOrder
    from keyctl.services.fleet.service import Applied
    from keyctl.sinks.base import Sink, Target

_LARGEST_PLAN = 256 * 1024 * 1024


def add_to(app: typer.Typer) -> None:
    """Declare the command."""

    @command(app, "apply")
    def apply(
        session: Session,
        files: fleets.Files = None,
        plan: Annotated[
            str | None, typer.Option("--plan", help="A plan saved with plan -o json, or -.")
        ] = None,
        prune: fleets.Prune = False,
        expect_count: Annotated[
            int | None,
            typer.Option(
                "--expect-count", min=0, help="Refuse unless exactly this many objects end."
            ),
        ] = None,
        out_dir: Annotated[
            str | None,
            typer.Option(
                "--out-dir", help="A folder (made 0700) for a file of each new key without deliver."
            ),
        ] = None,
        keys: fleets.LeftKeys = None,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    ) -> None:
        """Make the database match files: owners and changes at once, then new keys in batches.

        If it is killed, run it again: it goes on where it was. When all is done, it does nothing.
        """
        from keyctl.services.fleet.service import FleetService

        head = None
        if session.wants_json:
            session.console.require_stdout()
        if plan is not None:
            if files or prune or keys is not None:
                raise UsageError(
                    "--plan says it all: give neither files nor --prune nor --keys",
                    hint="keyctl apply --plan FILE",
                )
            order, head, saved = _saved(plan)
        else:
            order, saved = fleets.order_of(files or (), prune=prune, keys=keys), None

        def agreed(found: "Plan") -> None:
            if saved is not None:
                _compare(saved, found, order)
            elif not session.wants_json:
                fleets.show_diff(found, order, session.console.note)
            if saved is None and found.does_something:
                _ask(session, found, yes=yes)

        with folder_sink(session, out_dir) as sink_of:
            applied = FleetService(session.workspace).apply(
                order, head=head, ends=expect_count, sink_of=sink_of, agreed=agreed
            )
            stopped = applied.plan.stopped(order.keys)
            try:
                _show(session, applied, order)  # the keys are made while they are shown
            finally:
                warn_of_issued(session, stopped)


def _saved(path: str) -> "tuple[FleetOrder, Head, list[Any]]":
    """Return the order, the audit head and the changes of a saved plan.

    Raises:
        UsageError: It is none.
    """
    from keyctl.db.queries.audit import Head
    from keyctl.fleetfile.described import FleetText, read_fleet
    from keyctl.services.fleet.planner import FleetOrder

    document = inputs.read_document(path, what="the plan", most=_LARGEST_PLAN)
    try:
        sources = [FleetText(name=item["name"], text=item["text"]) for item in document["files"]]
        only = [tuple(text.split("/", 1)) for text in document["only"]]
        head = Head(document["head"]["seq"], document["head"]["head"])
        prune, changes = document["prune"], document["changes"]
        left = fleets.left_keys(document.get("left_keys"))
    except (KeyError, TypeError, AttributeError):
        raise UsageError(
            f"{path} is no plan of this version", hint="make it with keyctl plan … -o json"
        ) from None
    order = FleetOrder(
        fleet=read_fleet(sources),
        prune=prune is True,
        only=tuple((word, name) for word, name in only),
        keys=left,
    )
    return order, head, list(changes)


def _compare(saved: "list[Any]", found: "Plan", order: "FleetOrder") -> None:
    """Refuse a saved plan that is not what would be done.

    Raises:
        PlanOutdatedError: It is not.
    """
    from keyctl.errors import PlanOutdatedError

    now = jsontext.load_value(
        jsontext.dumps(fleets.plan_document(found, order)["changes"]), what="the plan"
    )
    if [_but_time(change) for change in saved] != [_but_time(change) for change in now]:
        raise PlanOutdatedError(
            "the saved plan is not what would be done now; nothing was written",
            hint="make a new plan, review it, and apply that one",
        )


def _but_time(change: Any) -> Any:
    """Return a change without what counts from now."""
    if not isinstance(change, dict) or not isinstance(change.get("fields"), dict):
        return change
    fields = {name: value for name, value in change["fields"].items() if name != "expires"}
    return {**change, "fields": fields}


def _ask(session: Session, found: "Plan", *, yes: bool) -> None:
    if yes:
        return
    if can_ask():
        ask(session, "apply this?")
        return
    ends = found.summary()["delete"]
    if ends:
        raise UsageError(
            f"{ends} objects would end: not without --yes",
            hint="look with keyctl plan, then give --yes",
        )


@contextmanager
def folder_sink(
    session: Session, out_dir: str | None
) -> "Iterator[Callable[[Target], Sink] | None]":
    """Give what makes a file of 0600 for each key in a folder, named by its alias; None without a folder.

    A folder that was made for it and stays empty is removed again.

    Raises:
        DeliveryError: The folder cannot be made, or others may read it.
    """
    if out_dir is None:
        yield None
        return
    made = _make_folder(Path(out_dir))
    try:
        yield _in_folder(session, Path(out_dir))
    finally:
        with suppress(OSError):  # it has a file, or somebody else removed it
            for folder in made:
                folder.rmdir()


def _in_folder(session: Session, folder: Path) -> "Callable[[Target], Sink]":
    from keyctl.services.delivery.overwrite import replaceable
    from keyctl.services.delivery.sinks import ENV_VAR
    from keyctl.sinks.file import FileSink
    from keyctl.sinks.templates import encoded

    may_go = replaceable(session.workspace)

    def sink_of(target: "Target") -> "Sink":
        path = folder / encoded(target.alias or target.key_id or "")
        return FileSink(
            path,
            form="key",
            force=False,
            replaceable=may_go,
            env_var=ENV_VAR,
            warn=session.workspace.warnings.append,
        )

    return sink_of


def _make_folder(folder: Path) -> list[Path]:
    """Make the folder, and those that it is in; return those that were not there, it first."""
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError as error:
        raise DeliveryError(
            f"{folder} cannot be made: {os.strerror(error.errno or 0)}", hint="check the path"
        ) from error
    if mode & 0o077:
        raise DeliveryError(
            f"others may look into {folder}, where keys would be", hint=f"chmod 700 {folder}"
        )
    return missing


def _show(session: Session, applied: "Applied", order: "FleetOrder") -> None:
    """Make the keys, and say of each what became of it."""
    made: Packed[dict[str, Any]] = Packed()
    failed: list[dict[str, Any]] = []
    new = sum(
        change.object_type == "key" and change.action == "create" for change in applied.plan.changes
    )
    again = "owners and changes are written; run it again for the rest"
    with counted(session.console, "making keys", new, go_on=again, lines=True) as step:
        for done in applied.keys:
            name = done.job.alias or done.job.key_id
            if done.error is not None:
                failed.append(_failure(session, name, done.error))
            elif done.answer is not None:
                if session.wants_json:
                    made.append(done.answer)
                place = done.job.sink.name.removeprefix("file:")
                _say(session, f"key {name} made ({done.job.key_id}), delivered to {place}")
            step(1)
    unmade = len(failed)
    for name, answer in applied.rotated:
        if isinstance(answer, KeyctlError):
            failed.append(_failure(session, name, answer))
        else:
            _say(session, f"key {name} rotated")
    if session.wants_json:
        document = fleets.plan_in_pieces(applied.plan, order)
        del document["files"]
        session.console.json_in_pieces({**document, "keys": iter(made), "failed": failed})
    elif not applied.plan.changes:
        _say(session, "nothing to do")
    else:
        _say(session, f"applied: {fleets.applied_line(applied.plan, failed=unmade)}")
    if failed:
        raise BatchError(
            f"{screen.count(len(failed), 'key')} failed",
            hint="mend the cause, and run the same command again",
        )


def _failure(session: Session, name: str, error: KeyctlError) -> dict[str, Any]:
    session.console.note(f"failed: {name}: {error.message}")
    return {"key_alias": name, **error_document(error)}


def _say(session: Session, text: str) -> None:
    if not session.wants_json:
        session.console.write(f"{text}\n")
