"""Judge a list of new teams, users or organizations whole, and make them, many in a transaction."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError as ConstraintError

from keyctl import views
from keyctl.db.queries import directory
from keyctl.db.queries.tiers import find_tier
from keyctl.errors import (
    BatchError,
    BudgetNotFoundError,
    BusyError,
    DatabaseError,
    DeniedError,
    KeyctlError,
    MalformedRequestError,
    ObjectTakenError,
    Violation,
)
from keyctl.fleetfile.document import SYNONYMS
from keyctl.portions import portions
from keyctl.principals import owner_fields, principal_values
from keyctl.records import Organization, Principal, Team, User
from keyctl.requests import GenerateRequest
from keyctl.services import members
from keyctl.services.callers import administering, require_admin
from keyctl.services.columns import malformed, unknown_columns
from keyctl.services.directory import new_owner, taken
from keyctl.services.leaving import refuse_revival
from keyctl.services.owners import WORD, missing
from keyctl.services.placed import Placed, refuse_placed
from keyctl.services.transaction import Unit, anchor, row_of
from keyctl.services.workspace import Workspace

_BATCH: Final = 500
# The roles of members; the first one is of who is named without.
ROLES: Final[dict[type[Principal], tuple[str, ...]]] = {
    Team: ("user", "admin"),
    Organization: ("internal_user", "org_admin"),
}
_OF_KEYS: Final = frozenset((*GenerateRequest.model_fields, "service_account", "deliver"))


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerRow:
    """A new owner: where it stands in the list, its column values, and the roles of its members."""

    place: str
    object_id: str
    values: Mapping[str, Any]
    members: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerDone:
    """What became of a row: the owner as it is now, or why there is none."""

    row: OwnerRow
    answer: dict[str, Any] | None = None
    error: KeyctlError | None = None


def key_fields(kind: type[Principal], bodies: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Return the columns of a list that say something of keys only: one list may serve both."""
    of_keys = _OF_KEYS - _own_columns(kind)
    return sorted({name for _, body in bodies for name in body if name in of_keys})


def _own_columns(kind: type[Principal]) -> set[str]:
    return {*owner_fields(kind), *SYNONYMS[kind], f"{WORD[kind]}_id", "members"}


def read_rows(
    kind: type[Principal], bodies: Sequence[tuple[str, Mapping[str, Any]]]
) -> list[OwnerRow]:
    """Return the owners that these bodies, each with its place, describe; what is of keys is left out.

    Raises:
        MalformedRequestError: With every fault of every row.
    """
    rows: list[OwnerRow] = []
    faults: list[Violation] = []
    columns = unknown_columns(bodies, {*_own_columns(kind), *_OF_KEYS})
    left_out = {*key_fields(kind, bodies), *(item.field for item in columns)}
    for place, body in bodies:
        own = {name: value for name, value in body.items() if name not in left_out}
        try:
            rows.append(_row(kind, place, own))
        except MalformedRequestError as error:
            faults += [
                replace(item, field="", message=f"{place}: {item.field}: {item.message}")
                for item in error.violations
            ]
    twice = Counter(row.object_id for row in rows)
    faults += [
        _fault("", f"{row.place}: {row.object_id!r} is named {twice[row.object_id]} times")
        for row in rows
        if twice[row.object_id] > 1
    ]
    if columns or faults:
        word = WORD[kind]
        also = " and members" if kind in ROLES else ""
        hint = f"the columns are {word}_id, the fields of keyctl schema {word}{also}"
        raise malformed(bodies, columns, faults, hint=hint)
    return rows


@dataclass(frozen=True, slots=True)
class OwnerListService:
    """Makes many owners, for admins.  One that fails stops none of the others."""

    workspace: Workspace

    def judge(self, kind: type[Principal], rows: Sequence[OwnerRow]) -> list[Placed]:
        """Return what speaks against each row, on the database as it is.

        Raises:
            DeniedError: The caller is no admin.
        """
        word = WORD[kind]
        require_admin(self.workspace, f"create {word}s", f"{word}_create_denied", word)
        database = self.workspace.database
        if database.path is not None and not database.path.exists():
            database.upgrade()
        with database.read() as connection:
            return list(_against(connection, kind, rows))

    def create(self, kind: type[Principal], rows: Sequence[OwnerRow]) -> Iterator[OwnerDone]:
        """Make the owners, and yield what became of each as soon as its batch is written.

        Raises:
            KeyctlError: Rows name what does not exist: none is made.
            DeniedError: The caller is no admin.
            BatchError: The caller was one until some were made.
        """
        refuse_placed(
            item for item in self.judge(kind, rows) if not isinstance(item.error, ObjectTakenError)
        )
        made = 0
        for part in portions(rows, _BATCH):
            try:
                done = self._batch(kind, part)
            except DeniedError as error:
                if made == 0:
                    raise
                raise BatchError(
                    f"{made} were made, then no more: {error.message}", hint=error.hint
                ) from error
            made += sum(item.error is None for item in done)
            yield from done

    def _batch(self, kind: type[Principal], rows: Sequence[OwnerRow]) -> list[OwnerDone]:
        """Make these owners in one transaction."""
        word = WORD[kind]
        try:
            with administering(
                self.workspace, f"create {word}s", f"{word}_create_denied", word
            ) as unit:
                written = _write(unit, kind, rows)
        except ConstraintError:
            # Somebody else was faster with one of the ids; which one it was says the row alone.
            if len(rows) == 1:
                return [OwnerDone(row=rows[0], error=taken(kind, rows[0].object_id))]
            return [done for row in rows for done in self._batch(kind, [row])]
        return [
            OwnerDone(row=row, error=found)
            if isinstance(found, KeyctlError)
            else OwnerDone(
                row=row,
                answer={**views.principal_view(found[0]), "audit": anchor(unit.heads[found[1]])},
            )
            for row, found in ((row, written[row.object_id]) for row in rows)
        ]


def _row(kind: type[Principal], place: str, body: dict[str, Any]) -> OwnerRow:
    """Return the owner that a row describes.

    Raises:
        MalformedRequestError: It is malformed.
    """
    faults: list[Violation] = []
    column = f"{WORD[kind]}_id"
    object_id = body.pop(column, None)
    if not isinstance(object_id, str) or not object_id:
        faults.append(_fault(column, "is missing; each row has one, as text"))
    roles = dict(_roles(kind, body.pop("members", None), faults)) if kind in ROLES else {}
    for theirs, own in SYNONYMS[kind].items():
        if theirs in body:
            if own in body:
                faults.append(_fault(theirs, f"and {own} are the same field; give one of them"))
            body[own] = body.pop(theirs)
    values: dict[str, Any] = {}
    try:
        values = principal_values(kind, object_id if isinstance(object_id, str) else "x", body)
    except MalformedRequestError as error:
        # The id is called otherwise in a list.
        faults += [
            replace(item, field=column if item.field == "id" else item.field)
            for item in error.violations
        ]
    if faults:
        raise MalformedRequestError("malformed", violations=faults)
    return OwnerRow(place=place, object_id=str(object_id), values=values, members=roles)


def _roles(kind: type[Principal], given: Any, faults: list[Violation]) -> Iterator[tuple[str, str]]:
    """Yield the members that a cell such as ``ann:admin;bob`` names, or a list of such texts."""
    parts = given.split(";") if isinstance(given, str) else [] if given is None else given
    if not isinstance(parts, list):
        faults.append(_fault("members", "is a list such as ann:admin;bob"))
        return
    seen: set[str] = set()
    for part in parts:
        if isinstance(part, dict) and part.keys() <= {"user_id", "role"}:
            user, role = part.get("user_id"), part.get("role", ROLES[kind][0])
        elif isinstance(part, str):
            user, colon, role = part.strip().rpartition(":")
            user, role = (user, role) if colon else (role, ROLES[kind][0])
        else:
            user = role = None
        if not isinstance(user, str) or not user or role not in ROLES[kind]:
            said = " or ".join(sorted(ROLES[kind]))
            faults.append(_fault("members", f"{part!r} is not USER or USER:ROLE; a role is {said}"))
        elif user in seen:
            faults.append(_fault("members", f"{user!r} is named twice"))
        else:
            seen.add(user)
            yield user, role


def _against(
    connection: Connection, kind: type[Principal], rows: Sequence[OwnerRow]
) -> Iterator[Placed]:
    """Yield everything that is missing or taken."""
    live = directory.find_all(connection, kind, [row.object_id for row in rows])
    named = _Named.of(connection, rows, lock=False)
    for row in rows:
        for column, error in named.missing(row):
            yield Placed(place=row.place, field=column, error=error)
        if row.object_id in live:
            error = taken(kind, row.object_id)
            yield Placed(place=row.place, field=f"{WORD[kind]}_id", error=error)


@dataclass(frozen=True, slots=True)
class _Named:
    """What rows name and what of it exists: organizations, budget tiers, and users as members."""

    organizations: Mapping[str, Organization]
    tiers: frozenset[str]
    users: Mapping[str, User]

    @classmethod
    def of(cls, connection: Connection, rows: Sequence[OwnerRow], *, lock: bool) -> "_Named":
        """Look everything up, locked in the order in which every command takes its locks."""
        wanted = {
            column: {row.values[column] for row in rows if row.values.get(column) is not None}
            for column in ("organization_id", "budget_id")
        }
        users = {user for row in rows for user in row.members}
        return cls(
            organizations=directory.find_all(
                connection, Organization, wanted["organization_id"], lock=lock
            ),
            tiers=frozenset(
                name
                for name in sorted(wanted["budget_id"])
                if find_tier(connection, name, lock=lock) is not None
            ),
            users=directory.find_all(connection, User, users, lock=lock),
        )

    def missing(self, row: OwnerRow) -> Iterator[tuple[str, KeyctlError]]:
        """Yield each name of a row that nothing has, with its field."""
        organization_id = row.values.get("organization_id")
        if organization_id is not None and organization_id not in self.organizations:
            yield "organization_id", missing(Organization, organization_id)
        budget_id = row.values.get("budget_id")
        if budget_id is not None and budget_id not in self.tiers:
            yield (
                "budget_id",
                BudgetNotFoundError(
                    f"there is no budget {budget_id!r}", hint="keyctl budget list shows them"
                ),
            )
        for user in row.members:
            if user not in self.users:
                yield "members", missing(User, user)


def _write(
    unit: Unit, kind: type[Principal], rows: Sequence[OwnerRow]
) -> dict[str, KeyctlError | tuple[Principal, int]]:
    """Write the rows that can be, and return for each the record and the number of its event, or why not."""
    written: dict[str, KeyctlError | tuple[Principal, int]] = {}
    named = _Named.of(unit.connection, rows, lock=True)
    ids = [row.object_id for row in rows]
    live = directory.find_all(unit.connection, kind, ids)
    archived = directory.known(unit.connection, kind, ids) - live.keys()
    # By id: two lists that overlap wait for each other, and neither for both.
    for row in sorted(rows, key=lambda item: item.object_id):
        try:
            for _, error in named.missing(row):
                raise error
            if row.object_id in live:
                raise taken(kind, row.object_id)
            if kind is User and row.object_id in archived:
                refuse_revival(unit.connection, row.object_id)
            record = new_owner(unit, kind, row.object_id, row.values)
            if not directory.create(unit.connection, record):
                raise taken(kind, row.object_id)
        except (DatabaseError, BusyError):
            raise
        except KeyctlError as error:
            written[row.object_id] = error
            continue
        written[row.object_id] = (record, len(unit.events))
        unit.record(f"{WORD[kind]}_created", WORD[kind], record.id, after=row_of(record))
        for user, role in row.members.items():
            members.write_role(unit, kind, record.id, user, role, before=None)
    return written


def _fault(column: str, message: str) -> Violation:
    return Violation(rule="request.value", field=column, message=message)
