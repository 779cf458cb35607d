"""Import users, organizations and teams, and who belongs to them: one transaction per batch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from keyctl import durations
from keyctl.db import queries
from keyctl.db.queries import audit, directory, tiers
from keyctl.errors import KeyctlError, OrganizationNotFoundError
from keyctl.litellm import inventory
from keyctl.litellm.groups import map_group
from keyctl.litellm.members import MappedMember
from keyctl.litellm.owners import MappedOwner, map_organization, map_team, map_user
from keyctl.litellm.values import Row, decoded
from keyctl.portions import portions
from keyctl.purses import Terms, member_purse
from keyctl.records import Organization, Principal, Team, User
from keyctl.services import access_groups
from keyctl.services.import_litellm.report import (
    Begin,
    ImportLine,
    ImportOrder,
    Kind,
    LitellmRows,
    committed,
    failed,
    on_record,
    owner_name,
)
from keyctl.services.owners import WORD
from keyctl.services.tiers import make_tier
from keyctl.services.transaction import Unit, row_of, told_columns

_BATCH: Final = 500
_KINDS: Final[dict[type[Principal], Kind]] = {
    User: "user",
    Organization: "organization",
    Team: "team",
}
_Map = Callable[..., MappedOwner]


@dataclass(slots=True)
class OwnerImport:
    """One import of owners.  Those of the same id are left alone, archived ones too.

    Whoever has joined a team or an organization there since the last run becomes a member here, if
    either of both was imported, and unless the membership was ended here: then it stays ended.
    `fresh` are those that this run has imported; what earlier ones have is on record.
    """

    begin: Begin
    order: ImportOrder
    fresh: set[tuple[str, str]] = field(default_factory=set)

    def run(self, source: LitellmRows) -> Iterator[ImportLine]:
        """Import everybody that *source* knows and yield a line for each: what keys refer to comes first."""
        yield from committed(partial(self._groups, list(source.groups())), self.order)
        yield from self._all(User, source.users(), map_user)
        yield from self._all(Organization, source.organizations(), map_organization)
        yield from self._all(Team, source.teams(), map_team)

    def _groups(self, rows: Sequence[Row]) -> list[ImportLine]:
        """Write the groups of models that are not here yet; those that are keep what they have."""
        if not rows:
            return []
        with self.begin() as unit:
            known = queries.find_groups(unit.connection)
            lines = [self._group(unit, row, known) for row in rows]
        return on_record(lines, unit)

    def _group(self, unit: Unit, row: Row, known: dict[str, list[str]]) -> ImportLine:
        source = owner_name(row.get("access_group_id"))
        try:
            mapped = map_group(row)
        except KeyctlError as error:
            return failed("access_group", source, error)
        name, models = mapped.access_group_id, mapped.access_model_names or []
        if name in known:
            return ImportLine(object_type="access_group", source=source, result="present")
        access_groups.write_group(unit, name, models, known=known)
        return ImportLine(object_type="access_group", source=source, result="imported")

    def _all(
        self, kind: type[Principal], rows: Iterator[Row], map_row: _Map
    ) -> Iterator[ImportLine]:
        for batch in portions(rows, _BATCH):
            yield from committed(partial(self._batch, kind, batch, map_row), self.order)

    def _batch(self, kind: type[Principal], rows: Sequence[Row], map_row: _Map) -> list[ImportLine]:
        with self.begin() as unit:
            known = directory.known(unit.connection, kind, _ids(kind, rows))
            around = self._organizations(unit, rows) if kind is Team else set()
            lines: list[ImportLine] = []
            imported: list[Principal] = []
            members: list[tuple[str, MappedMember]] = []
            for row in rows:
                object_id = row.get(f"{WORD[kind]}_id")
                line, mapped = self._mapped(kind, row, map_row, around, is_known=object_id in known)
                lines.append(line)
                if mapped is None:
                    continue
                if line.result == "imported":
                    _keep_tier(unit, mapped.tier_id, mapped.tier)
                    imported.append(self._record(unit, kind, mapped, line))
                members += [(mapped.columns["id"], member) for member in mapped.members]
            if imported:
                directory.insert_all(unit.connection, *imported)
                self.fresh.update((WORD[kind], record.id) for record in imported)
            lines += self._members(unit, kind, members)
        return on_record(lines, unit)

    def _mapped(
        self,
        kind: type[Principal],
        row: Row,
        map_row: _Map,
        organizations: set[str],
        *,
        is_known: bool,
    ) -> tuple[ImportLine, MappedOwner | None]:
        word = _KINDS[kind]
        source = owner_name(row.get(f"{word}_id"))
        lost: list[str] = []
        try:
            whole = decoded(row)
            lost = inventory.lost(word, whole, self.order.dropped)
            mapped = map_row(whole, dropped=self.order.dropped)
            organization_id = mapped.columns.get("organization_id")
            if organization_id is not None and organization_id not in organizations:
                raise OrganizationNotFoundError(f"there is no organization {organization_id!r}")
        except KeyctlError as error:
            if is_known:
                return ImportLine(object_type=word, source=source, result="present"), None
            return failed(word, source, error, lost=lost), None
        if is_known:
            return ImportLine(object_type=word, source=source, result="present"), mapped
        line = ImportLine(
            object_type=word, source=source, result="imported", changes=mapped.changes, lost=lost
        )
        return line, mapped

    def _record(
        self, unit: Unit, kind: type[Principal], mapped: MappedOwner, line: ImportLine
    ) -> Principal:
        """Return what is to be written, and note its event."""
        actor = unit.caller.actor
        stamps = {"created_at": unit.now, "created_by": actor}
        columns: dict[str, Any] = {**stamps, **mapped.columns}
        if (period := columns.get("budget_duration")) and "budget_reset_at" not in columns:
            columns["budget_anchor_at"] = unit.now
            columns["budget_reset_at"] = durations.next_reset(period, anchor=unit.now, now=unit.now)
        record = kind(updated_at=unit.now, updated_by=actor, **columns)
        dropped = self._dropped(line.lost)
        unit.record(
            f"{WORD[kind]}_imported",
            WORD[kind],
            record.id,
            after={**row_of(record), **dropped},
            reason=self.order.reason if dropped else None,
        )
        return record

    def _organizations(self, unit: Unit, rows: Sequence[Row]) -> set[str]:
        ids = {row["organization_id"] for row in rows if row.get("organization_id")}
        return set(directory.find_all(unit.connection, Organization, ids, lock=True))

    def _members(
        self, unit: Unit, kind: type[Principal], members: Sequence[tuple[str, MappedMember]]
    ) -> list[ImportLine]:
        if not members:
            return []
        user_ids = {member.user_id for _, member in members}
        users = directory.find_all(unit.connection, User, user_ids)
        roles = directory.member_roles(
            unit.connection, kind, {object_id for object_id, _ in members}, user_ids
        )
        object_ids = {object_id for object_id, _ in members}
        ended = audit.removed_members(unit.connection, WORD[kind], object_ids)
        theirs = self._imported(unit, WORD[kind], object_ids)
        people = self._imported(unit, WORD[User], user_ids)
        return [
            self._member(unit, kind, object_id, member, users, is_known=place in roles)
            for object_id, member in members
            if (place := (object_id, member.user_id)) in roles
            or (place not in ended and (object_id in theirs or member.user_id in people))
        ]

    def _imported(self, unit: Unit, word: str, ids: set[str]) -> set[str]:
        on_record_before = audit.imported_objects(unit.connection, word, ids)
        return on_record_before | {name for name in ids if (word, name) in self.fresh}

    def _member(
        self,
        unit: Unit,
        kind: type[Principal],
        object_id: str,
        member: MappedMember,
        users: dict[str, User],
        *,
        is_known: bool,
    ) -> ImportLine:
        word, user_id = WORD[kind], member.user_id
        source = f"{word} {object_id}: {owner_name(user_id)}"
        if is_known:
            return ImportLine(object_type="member", source=source, result="present")
        if member.refusal is not None:
            return failed("member", source, member.refusal, lost=member.lost)
        if member.role is None or user_id not in users:
            reason = member.skipped or "user_not_found"
            return ImportLine(object_type="member", source=source, result="skipped", reason=reason)
        _keep_tier(unit, member.tier_id, member.tier)
        limits = _limits_of(unit, object_id, member)
        values = {"role": member.role, "created_at": unit.now, **limits}
        directory.add_member(unit.connection, kind, object_id, user_id, values)
        dropped = self._dropped(member.lost)
        unit.record(
            f"{word}_member_imported",
            word,
            object_id,
            after={"user_id": user_id, **told_columns(values), **dropped},
            reason=self.order.reason if dropped else None,
        )
        return ImportLine(object_type="member", source=source, result="imported", lost=member.lost)

    def _dropped(self, lost: Sequence[str]) -> dict[str, list[str]]:
        """Return what of a row is given up by name, for its event."""
        dropped = [name for name in lost if name in self.order.dropped]
        return {"dropped": dropped} if dropped else {}


def _keep_tier(unit: Unit, tier_id: str | None, columns: dict[str, Any]) -> None:
    """Make the tier that holds what a user or a member has here by a tier only; one that is here is left alone."""
    if not columns or tier_id is None or tiers.find_tier(unit.connection, tier_id) is not None:
        return
    make_tier(unit, tier_id, columns)


def _limits_of(unit: Unit, team_id: str, member: MappedMember) -> dict[str, Any]:
    """Return a member's columns, and write down what of their budget is spent already."""
    limits = member.limits
    amount, period = limits.get("max_budget"), limits.get("budget_duration")
    if amount is None:
        return limits
    # Later periods are counted from the end of the one that is going on there, as for keys.
    anchor = member.reset_at or unit.now
    end = durations.next_reset(period, anchor=anchor, now=unit.now) if period else None
    queries.begin_meter(
        unit.connection,
        member_purse(team_id, member.user_id),
        Terms(limit=amount, period=period, anchor=anchor),
        spend=member.spend,
        end=end,
    )
    return {**limits, "budget_anchor_at": anchor}


def _ids(kind: type[Principal], rows: Sequence[Row]) -> list[str]:
    return [str(row.get(f"{WORD[kind]}_id")) for row in rows]
