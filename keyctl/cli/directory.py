"""Declare the commands of keyctl team, user and org."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from keyctl.cli import inputs
from keyctl.cli.choices import require_one_of
from keyctl.cli.command import cleared, command, declare_group
from keyctl.cli.listing import Page, show_list
from keyctl.cli.many import ask, can_ask, some, warn_of_issued
from keyctl.cli.ownerfields import FIELDS, LISTS, MEMBER, ROLES, ROLES_MEAN
from keyctl.cli.record import show_record
from keyctl.cli.session import Session
from keyctl.errors import UsageError

WORDS: Final = {"team": "team", "user": "user", "org": "organization"}

Id = Annotated[str, typer.Argument(metavar="ID", help="The id you chose.")]
RequestOption = Annotated[
    str | None, typer.Option("--request", help="Fields as JSON: a file, or - for stdin.")
]
LeftKeys = Annotated[
    str | None,
    typer.Option(
        "--keys",
        metavar="block|delete|keep",
        help="What becomes of the live keys of a user who is deleted, leaves or gets a lower role.",
    ),
]
PolicyOption = Annotated[
    str | None,
    typer.Option("--policy", help="Its policy for keys, as JSON: a file, or - for stdin."),
]


def add_to(app: typer.Typer) -> None:
    """Declare the groups and their commands."""
    for noun, words in (
        ("team", "Teams: who shares models, budgets and a policy."),
        ("user", "Users: who owns keys, and with which role."),
        ("org", "Organizations: what teams belong to."),
    ):
        group = declare_group(app, noun, words)
        _declare(group, noun)
        if noun in ROLES:
            _declare_members(group, noun)


def _declare(group: typer.Typer, noun: str) -> None:
    fields, word = FIELDS[noun], WORDS[noun]
    one = f"{'an' if word[0] == 'o' else 'a'} {word}"
    members = " its members," if noun in ROLES else ""
    # Only a user leaves keys behind, and only a team or an organization has a policy.
    no_policy, no_keys = ("policy",) if noun == "user" else (), () if noun == "user" else ("keys",)

    @command(
        group,
        "create",
        fields=fields,
        outputs=("auto", "json", "jsonl", "table"),
        words=f"Create {one}, or with --from one for each row of a list.",
        without=no_policy,
    )
    def create(
        session: Session,
        document: dict[str, Any],
        id_: Annotated[str | None, typer.Argument(metavar="ID", help="The id you choose.")] = None,
        policy: PolicyOption = None,
        request: RequestOption = None,
        source: Annotated[
            str | None,
            typer.Option("--from", help="One for each row: FILE.csv, FILE.jsonl, or -."),
        ] = None,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Say whether it could be; write nothing.")
        ] = False,
    ) -> None:
        from keyctl.cli import ownerlists

        ownerlists.require_one(id_, source)
        body, kind = _body(document, policy, request), _kind(noun)
        if source is not None:
            ownerlists.create_rows(session, kind, noun, source, body, fields, dry_run=dry_run)
        else:
            _create(session, noun, str(id_), body, dry_run=dry_run)

    @command(
        group,
        "update",
        fields=fields,
        words=f"Change {one}. What is not named stays; --clear empties a field.",
        without=(*no_policy, *no_keys),
    )
    def update(
        session: Session,
        document: dict[str, Any],
        id_: Id,
        policy: PolicyOption = None,
        request: RequestOption = None,
        clear: Annotated[
            list[str] | None, typer.Option("--clear", help="Empty this field; repeatable.")
        ] = None,
        keys: LeftKeys = None,
    ) -> None:
        document |= cleared(fields, clear)
        _update(session, noun, id_, _body(document, policy, request), keys=keys)

    @command(
        group,
        "info",
        reads=True,
        words=f"Show {one}: its limits,{members} what is left, and its keys by spend.",
    )
    def info(session: Session, id_: Id) -> None:
        from keyctl.cli.ownerpage import show_owner

        service, kind = _service(session, noun)
        view = service.info(kind, id_)
        if session.wants_json:
            session.console.json(view)
        else:
            show_owner(session, view)

    @command(group, "list", layout=LISTS[noun], limit=1000, words=f"List {word}s by id.")
    def list_(session: Session, page: Page) -> None:
        service, kind = _service(session, noun)
        show_list(
            session,
            LISTS[noun],
            page,
            lambda after, limit: service.page(kind, after=after, limit=limit),
        )

    @command(
        group, "delete", words=f"Archive {one} that nothing alive depends on.", without=no_keys
    )
    def delete(
        session: Session,
        id_: Id,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Say whether it could be; write nothing.")
        ] = False,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
        keys: LeftKeys = None,
    ) -> None:
        service, kind = _service(session, noun)
        left = _left_keys(keys)
        asks = not (dry_run or yes) and can_ask()
        settled = service.check_delete(kind, id_, keys=left) if dry_run or asks else []
        what = f"delete {WORDS[noun]} {id_}{_and_keys(left, settled)}"
        if dry_run:
            if session.wants_json:
                view = {f"{WORDS[noun]}_id": id_, "would": "delete"}
                session.console.json({**view, **({"keys": settled} if settled else {})})
            else:
                session.console.write(f"would {what}\n")
            return
        if asks:
            ask(session, f"{what}?")
        _show_left(session, service.delete(kind, id_, keys=left), kept_too=True)


def _show_left(session: Session, view: dict[str, Any], *, kept_too: bool = False) -> None:
    """Show what became of an owner or a member, and the keys made with those that it left.

    Those that are kept go on by intent, unless with *kept_too* their user is gone.
    """
    ended = [key["key_id"] for key in view.get("keys", ()) if kept_too or key["result"] != "kept"]
    show_record(session, view)
    warn_of_issued(session, ended)


def _and_keys(verb: str | None, keys: Sequence[Mapping[str, Any]]) -> str:
    """Return what happens to the keys that a user leaves behind, naming the first ten."""
    if not keys:
        return ""
    names = [key["key_alias"] or key["key_id"] for key in keys]
    return f" and {verb} {some(names, len(names))}"


def _declare_members(group: typer.Typer, noun: str) -> None:
    roles = ROLES[noun]

    @command(group, "add-member")
    def add_member(
        session: Session,
        id_: Id,
        user: Annotated[str, typer.Argument(metavar="USER", help="The user's id.")],
        role: Annotated[str, typer.Option("--role", help=ROLES_MEAN[noun])] = roles[-1],
        keys: LeftKeys = None,
    ) -> None:
        """Make a user a member, or give a member another role."""
        require_one_of(role, roles, what=f"{WORDS[noun]} role")
        members, kind = _members(session, noun)
        _show_left(session, members.add(kind, id_, user, role, keys=_left_keys(keys)))

    if noun == "team":
        _declare_update_member(group)

    @command(group, "remove-member")
    def remove_member(
        session: Session,
        id_: Id,
        user: Annotated[str, typer.Argument(metavar="USER", help="The user's id.")],
        keys: LeftKeys = None,
    ) -> None:
        """End a membership."""
        members, kind = _members(session, noun)
        _show_left(session, members.remove(kind, id_, user, keys=_left_keys(keys)))


def _left_keys(given: str | None) -> Any:
    """Return what --keys says becomes of the keys that a user leaves behind.

    Raises:
        UsageError: It says nothing known.
    """
    from keyctl.services.leaving import CHOICES

    if given is None:
        return None
    require_one_of(given, CHOICES, what="--keys")
    return given


def _declare_update_member(group: typer.Typer) -> None:
    @command(group, "update-member", fields=MEMBER)
    def update_member(
        session: Session,
        document: dict[str, Any],
        team: Annotated[str, typer.Argument(metavar="TEAM", help="The team's id.")],
        user: Annotated[str, typer.Argument(metavar="USER", help="The user's id.")],
        clear: Annotated[
            list[str] | None, typer.Option("--clear", help="Empty this limit; repeatable.")
        ] = None,
        keys: LeftKeys = None,
    ) -> None:
        """Change a member's limits and role. The limits are for its keys in the team."""
        from keyctl.principals import member_values

        values = member_values(user, document | cleared(MEMBER, clear))
        if not values:
            raise UsageError("nothing is to change", hint="give a limit, --role or --clear")
        members, _ = _members(session, "team")
        role, left = values.pop("role", None), _left_keys(keys)
        _show_left(session, members.update(team, user, values, role=role, keys=left))


def _service(session: Session, noun: str) -> Any:
    from keyctl.services.directory import DirectoryService

    return DirectoryService(session.workspace), _kind(noun)


def _members(session: Session, noun: str) -> Any:
    from keyctl.services.members import MemberService

    return MemberService(session.workspace), _kind(noun)


def _kind(noun: str) -> Any:
    from keyctl.records import Organization, Team, User

    return {"team": Team, "user": User, "org": Organization}[noun]


def _body(document: dict[str, Any], policy: str | None, request: str | None) -> dict[str, Any]:
    """Return what the options say, over the request's document, with the policy's."""
    body = dict(document)
    for name in ("model_tpm_limit", "model_rpm_limit"):
        if isinstance(limits := body.get(name), dict):
            body[name] = {model: int(n) if n.isdigit() else n for model, n in limits.items()}
    if request is not None:
        body = {**inputs.read_document(request, what="the request"), **body}
    if policy is not None:
        body["policy"] = inputs.read_document(policy, what="the policy")
    return body


def _create(session: Session, noun: str, id_: str, body: dict[str, Any], *, dry_run: bool) -> None:
    from keyctl.cli import ownerlists
    from keyctl.principals import principal_values

    service, kind = _service(session, noun)
    values = principal_values(kind, id_, body)
    if dry_run:
        ownerlists.judge_one(session, kind, id_, values)
        return
    view = service.create(kind, id_, values)
    if session.output == "jsonl":
        session.console.lines([view])
    else:
        show_record(session, view)


def _update(
    session: Session, noun: str, id_: str, body: dict[str, Any], *, keys: str | None
) -> None:
    from keyctl.principals import principal_values

    service, kind = _service(session, noun)
    values = principal_values(kind, id_, body, new=False)
    left = _left_keys(keys)
    _show_left(session, service.update(kind, id_, values, keys=left))
