"""Read LiteLLM's tables: every column there is, in one snapshot, and never write.

Rows come out with LiteLLM's column names and, under the names of its own JSON, the rows they
refer to.  Documents and instants come as text: one that cannot be read then fails its own row
and not the query.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    JSON,
    Connection,
    DateTime,
    Engine,
    MetaData,
    NullPool,
    Select,
    Table,
    Text,
    and_,
    cast,
    create_engine,
    func,
    inspect,
    or_,
    select,
)

from keyctl import jsontext
from keyctl.db.engines import SNAPSHOT, engine_of
from keyctl.db.failures import translated
from keyctl.db.urls import DatabaseAddress, parse_url
from keyctl.db.watch import Watch
from keyctl.errors import DatabaseError, MalformedRequestError
from keyctl.portions import portions

_CHUNK: Final = 1000
_TABLES: Final = {
    "keys": "LiteLLM_VerificationToken",
    "grace": "LiteLLM_DeprecatedVerificationToken",
    "teams": "LiteLLM_TeamTable",
    "users": "LiteLLM_UserTable",
    "organizations": "LiteLLM_OrganizationTable",
    "members": "LiteLLM_OrganizationMembership",
    "team_members": "LiteLLM_TeamMembership",
    "budgets": "LiteLLM_BudgetTable",
    "permissions": "LiteLLM_ObjectPermissionTable",
    "groups": "LiteLLM_AccessGroupTable",
}
# Of the budget row of a member.
_AMOUNTS: Final = (
    "max_budget",
    "soft_budget",
    "tpm_limit",
    "rpm_limit",
    "tpd_limit",
    "max_parallel_requests",
)
# Nobody's business here, so it is not even read.
_UNREAD: Final = frozenset({"password"})
_VARIABLE: Final = "KEYCTL_SOURCE_URL"

Row = dict[str, Any]


class LitellmDatabase:
    """LiteLLM's database while it is open.  Every read is of the same snapshot."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        present = set(inspect(connection).get_table_names())
        self._tables = {
            short: Table(name, MetaData(), autoload_with=connection, resolve_fks=False)
            for short, name in _TABLES.items()
            if name in present
        }
        if "keys" not in self._tables:
            raise DatabaseError(
                f"the source has no table {_TABLES['keys']}",
                hint=f"check that {_VARIABLE} names LiteLLM's database, and its ?schema=",
            )

    def count_keys(self) -> int:
        """Return how many keys there are."""
        query = select(func.count()).select_from(self._tables["keys"])
        return int(self._connection.execute(query).scalar_one())

    def users(self) -> Iterator[Row]:
        """Yield the users; then those that only keys name, whom LiteLLM knows no limits of."""
        yield from self._stream("users", "user_id")
        keys = self._tables["keys"].c.user_id
        query = select(keys).where(keys.is_not(None), keys != "").distinct().order_by(keys)
        if (users := self._columns("users")) is not None:
            query = query.where(keys.not_in(select(users.user_id)))
        found = self._connection.execute(query.execution_options(yield_per=_CHUNK)).scalars()
        yield from ({"user_id": user_id} for user_id in found)

    def groups(self) -> Iterator[Row]:
        """Yield the groups of models."""
        yield from self._stream("groups", "access_group_id")

    def organizations(self) -> Iterator[Row]:
        """Yield the organizations, each with its budget row and its members."""
        for rows in portions(self._stream("organizations", "organization_id"), _CHUNK):
            self._attach(rows, "budgets", "budget_id", "litellm_budget_table")
            members = self._related(rows, "members", "organization_id")
            for row in rows:
                row["members"] = members.get(row["organization_id"], [])
                yield row

    def teams(self) -> Iterator[Row]:
        """Yield the teams, each with the members that a budget row says something of, and that row.

        With them comes the row for all members that have no amount of their own, if the team has one:
        then each member that has spent something is there too.
        """
        for rows in portions(self._stream("teams", "team_id"), _CHUNK):
            named = [{"budget_id": _default_budget_id(row.get("metadata"))} for row in rows]
            self._attach(named, "budgets", "budget_id", "row")
            for row, default in zip(rows, named, strict=True):
                row["default_member_budget"] = default["row"]
            limited = self._limited_members(
                [row["team_id"] for row in rows],
                [row["team_id"] for row in rows if row["default_member_budget"]],
            )
            for row in rows:
                row["limited_members"] = limited.get(row["team_id"], [])
                yield row

    def keys(self) -> Iterator[Row]:
        """Yield the keys, the oldest first, with budget row, object permission and grace rows."""
        for rows in portions(self._stream("keys", "created_at", "token"), _CHUNK):
            self._attach(rows, "budgets", "budget_id", "litellm_budget_table")
            self._attach(rows, "permissions", "object_permission_id", "object_permission")
            grace = self._related(rows, "grace", "active_token_id", key="token")
            for row in rows:
                row["grace"] = grace.get(row["token"], [])
                yield row

    def _columns(self, short: str) -> Any:
        table = self._tables.get(short)
        return None if table is None else table.c

    def _select(self, short: str) -> Select[Any]:
        return select(
            *(
                cast(column, Text).label(column.name) if _is_told(column.type) else column
                for column in self._tables[short].c
                if column.name not in _UNREAD
            )
        )

    def _stream(self, short: str, *order: str) -> Iterator[Row]:
        """Yield every row without holding more than a chunk of them."""
        if short not in self._tables:
            return
        columns = self._tables[short].c
        wanted = [columns[name].asc().nulls_last() for name in order if name in columns]
        query = self._select(short).order_by(*wanted)
        rows = self._connection.execute(query.execution_options(yield_per=_CHUNK))
        yield from (dict(row) for row in rows.mappings())

    def _attach(self, rows: Sequence[Row], short: str, column: str, name: str) -> None:
        """Put the row that *column* refers to into each of *rows* as *name*."""
        ids = {row[column] for row in rows if row.get(column)}
        found = {}
        if ids and short in self._tables:
            query = self._select(short).where(self._tables[short].c[column].in_(ids))
            found = {row[column]: dict(row) for row in self._connection.execute(query).mappings()}
        for row in rows:
            row[name] = found.get(row.get(column))

    def _related(
        self, rows: Sequence[Row], short: str, column: str, *, key: str | None = None
    ) -> dict[Any, list[Row]]:
        """Return the rows of a table that refer to *rows*, by what they refer to."""
        if short not in self._tables:
            return {}
        wanted = self._tables[short].c[column].in_([row[key or column] for row in rows])
        found: dict[Any, list[Row]] = {}
        for row in self._connection.execute(self._select(short).where(wanted)).mappings():
            found.setdefault(row[column], []).append(dict(row))
        return found

    def _limited_members(
        self, team_ids: Sequence[str], defaulting: Sequence[str]
    ) -> dict[Any, list[Row]]:
        """Return the members whose own budget row says something, and all of the teams *defaulting*.

        One that is missing may have said something.
        """
        members, budgets = self._columns("team_members"), self._columns("budgets")
        if members is None or "budget_id" not in members:
            return {}
        spend = [members.spend] if "spend" in members else []
        query = select(members.team_id, members.user_id, members.budget_id, *spend).where(
            members.team_id.in_(team_ids)
        )
        if budgets is None:
            query = query.where(members.budget_id.is_not(None))
        else:
            said = [budgets[name].is_not(None) for name in _AMOUNTS if name in budgets]
            documents = [
                cast(budgets[name], Text).not_in(["{}", "[]", "null"])
                for name in ("model_max_budget", "allowed_models")
                if name in budgets
            ]
            query = query.outerjoin_from(
                self._tables["team_members"],
                self._tables["budgets"],
                members.budget_id == budgets.budget_id,
            ).where(
                or_(
                    and_(
                        members.budget_id.is_not(None),
                        or_(budgets.budget_id.is_(None), *said, *documents),
                    ),
                    members.team_id.in_(defaulting),
                )
            )
        rows = [dict(row) for row in self._connection.execute(query).mappings()]
        self._attach(rows, "budgets", "budget_id", "litellm_budget_table")
        found: dict[Any, list[Row]] = {}
        for row in rows:
            found.setdefault(row["team_id"], []).append(row)
        return found


@contextmanager
def opened(text_url: str, *, variable: str = _VARIABLE) -> Iterator[LitellmDatabase]:
    """Open LiteLLM's database for one read-only transaction; its own `DATABASE_URL` will do.

    *variable* is the one that says which database it is.

    Raises:
        UsageError: It is no URL, or of another kind of database.
        DatabaseError: It cannot be reached or read, or is not LiteLLM's.
    """
    address = parse_url(text_url)
    engine = _engine(address)
    try:
        with (
            translated(address, variable=variable),
            engine.connect() as connection,
        ):
            if engine.name == "sqlite":
                connection.exec_driver_sql("BEGIN")  # which the driver leaves out before a SELECT
            else:
                connection.execution_options(**SNAPSHOT)
            yield LitellmDatabase(connection)
    finally:
        engine.dispose()


def _engine(address: DatabaseAddress) -> Engine:
    if (path := address.path) is not None:

        def connect() -> sqlite3.Connection:
            # Opened for reading only, and never created; the path's own ? and % are no options.
            escaped = str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
            return sqlite3.connect(f"file:{escaped}?mode=ro", uri=True)

        return create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)
    return engine_of(address, Watch())


def _is_told(kind: Any) -> bool:
    """Tell whether a column of this type is read as text."""
    return isinstance(kind, (JSON, DateTime)) and not isinstance(kind, ARRAY)


def _default_budget_id(metadata: Any) -> Any:
    """Return which budget row limits the members of a team that have none of their own, by its `metadata`."""
    try:
        document = jsontext.load_value(metadata or "null", what="metadata")
    except MalformedRequestError:
        return None  # the row will be refused for it
    return document.get("team_member_budget_id") if isinstance(document, dict) else None
