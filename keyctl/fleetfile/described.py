"""Read fleet files and put them together: every object once, with everything that is wrong at once."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Final

from keyctl import jsontext
from keyctl.errors import MalformedRequestError, Violation
from keyctl.fields import validate
from keyctl.fleetfile import yamltext
from keyctl.fleetfile.document import (
    BUDGETS,
    COUNTER,
    INSTRUCTIONS,
    MEMBERS,
    OWNERS,
    SECTIONS,
    SYNONYMS,
    Heading,
    KeyEntry,
)
from keyctl.fleetfile.entries import Entry, Instructions, KeyTemplate, OwnerEntry, TierEntry
from keyctl.fleetfile.faults import FaultPlace, FleetFault, Path, dotted, malformed
from keyctl.policy import resolve
from keyctl.principals import principal_values, tier_values
from keyctl.records import Principal

LARGEST_FILE: Final = 64 * 1024 * 1024
_HEADING: Final = frozenset(Heading.model_fields)
_INSTRUCTED: Final = set(INSTRUCTIONS)
_NO_FIELDS: Final[frozenset[str]] = frozenset()
# Where a request holds money inside a document, and column values hold it otherwise.
_WITH_MONEY: Final = frozenset({"budget_limits", "model_max_budget", "may_issue"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetText:
    """One file's name and text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Everything that some files describe."""

    sources: Sequence[FleetText]
    names: frozenset[str]
    tiers: Sequence[TierEntry]
    owners: Sequence[OwnerEntry]
    keys: Sequence[KeyTemplate]

    def named_tiers(self) -> set[str]:
        """Return the budget tiers that owners, members and keys name."""
        holders = [item.values for item in self.owners]
        holders += [item.values for item in self.keys]
        holders += [said for owner in self.owners for said in owner.members.values()]
        return {said["budget_id"] for said in holders if said.get("budget_id") is not None}

    def places(self, wanted: Sequence[tuple[Entry, str]]) -> Iterator[FaultPlace]:
        """Yield where each field of an entry stands, the entry itself where the field is not written."""
        by_source: dict[int, list[Path]] = defaultdict(list)
        paths = [_path_of(entry, name) for entry, name in wanted]
        for (entry, _), path in zip(wanted, paths, strict=True):
            by_source[entry.source].append(path)
        lines = {
            source: yamltext.find_lines(self.sources[source].text, found)
            for source, found in by_source.items()
        }
        for (entry, _), path in zip(wanted, paths, strict=True):
            yield FaultPlace(file=self.sources[entry.source].name, line=lines[entry.source][path])


def read_fleet(sources: Sequence[FleetText]) -> Fleet:
    """Return what *sources* describe together.

    Raises:
        MalformedRequestError: With every fault of every file: file, line, path and rule.
    """
    reading = _Reading(sources)
    for index, source in enumerate(sources):
        reading.add(index, source)
    faults = reading.placed_faults()
    if faults:
        raise malformed(faults)
    return Fleet(
        sources=sources,
        names=frozenset(reading.fleets),
        tiers=sorted(reading.tiers, key=lambda item: item.name),
        owners=sorted(
            reading.owners, key=lambda item: (list(OWNERS).index(item.section), item.name)
        ),
        keys=sorted(reading.keys, key=lambda item: item.name),
    )


@dataclass(slots=True)
class _Reading:
    """What was read until now, and what was wrong in it."""

    sources: Sequence[FleetText]
    fleets: set[str] = field(default_factory=set)
    tiers: list[TierEntry] = field(default_factory=list)
    owners: list[OwnerEntry] = field(default_factory=list)
    keys: list[KeyTemplate] = field(default_factory=list)
    faults: list[FleetFault] = field(default_factory=list)
    unplaced: list[tuple[int, str, Path, str]] = field(default_factory=list)
    seen: dict[str, dict[str, tuple[int, str]]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, index: int, source: FleetText) -> None:
        """Read one file."""
        document = self._loaded(source)
        if document is None:
            return
        if not isinstance(document, dict):
            self._fault(index, "fleet.file", (), "a fleet file is a mapping of sections")
            return
        heading = self._heading(index, document)
        if heading is None:
            return
        self.fleets.add(heading.fleet)
        for section in SECTIONS:
            entries = document.pop(section, None)
            if entries is None:
                continue
            if not isinstance(entries, dict):
                self._fault(
                    index, "fleet.section", (section,), "is a mapping from names to objects"
                )
                continue
            # A copy, since an alias may name it again; each body is let go when it has been read.
            entries = dict(entries)
            for name in list(entries):
                self._entry(index, heading.fleet, section, name, entries.pop(name))

    def placed_faults(self) -> list[FleetFault]:
        """Return every fault with its line."""
        by_source: dict[int, list[Path]] = defaultdict(list)
        for index, _, path, _ in self.unplaced:
            by_source[index].append(path)
        lines = {
            index: yamltext.find_lines(self.sources[index].text, paths)
            for index, paths in by_source.items()
        }
        placed = [
            FleetFault(
                rule=rule,
                place=FaultPlace(file=self.sources[index].name, line=lines[index][path]),
                path=dotted(path),
                message=message,
            )
            for index, rule, path, message in self.unplaced
        ]
        return [*self.faults, *placed]

    def _loaded(self, source: FleetText) -> Any:
        if source.text.lstrip().startswith("{"):
            try:
                return jsontext.load_document(source.text, what="it", most=LARGEST_FILE)
            except MalformedRequestError as error:
                if source.name.endswith(".json"):
                    self._file_fault(source, "json.syntax", None, (), error.message)
                    return None
        value, traps = yamltext.load(source.text)
        for trap in traps:
            self._file_fault(source, trap.rule, trap.line, trap.path, trap.message)
        return None if traps else value if value is not None else {}

    def _heading(self, index: int, document: dict[str, Any]) -> Heading | None:
        for name in sorted(document.keys() - _HEADING - set(SECTIONS)):
            near = get_close_matches(name, [*SECTIONS, *_HEADING], n=1)
            message = "is not a section" + (f"; did you mean {near[0]}?" if near else "")
            self._fault(index, "fleet.section", (name,), message)
        own = {name: document[name] for name in _HEADING if name in document}
        try:
            return validate(Heading, own, what="the file", schema="fleet")
        except MalformedRequestError as error:
            self._violations(index, (), error.violations)
            return None

    def _entry(self, index: int, fleet: str, section: str, name: str, body: Any) -> None:
        path = (section, name)
        body = {} if body is None else body
        if not isinstance(body, dict):
            self._fault(index, "fleet.object", path, "is a mapping from fields to values")
            return
        try:
            if section == BUDGETS:
                tier = _tier(index, fleet, name, body)
                self._once(index, section, name, path)
                self.tiers.append(tier)
            elif section in OWNERS:
                owner = self._owner(index, fleet, section, name, body)
                self._once(index, section, name, path)
                self.owners.append(owner)
            else:
                template = _key(index, fleet, name, body)
                for one in template.names():
                    self._once(index, section, one, path)
                self.keys.append(template)
        except MalformedRequestError as error:
            self._violations(index, path, error.violations)

    def _once(self, index: int, section: str, name: str, path: Path) -> None:
        first_index, first_name = self.seen[section].setdefault(name, (index, str(path[-1])))
        if (first_index, first_name) == (index, path[-1]):
            return
        first_path = (section, first_name)
        text = self.sources[first_index].text
        line = yamltext.find_lines(text, [first_path])[first_path]
        where = FaultPlace(file=self.sources[first_index].name, line=line)
        what = "" if path[-1] == name == first_path[-1] else f" ({name})"
        self._fault(index, "fleet.twice", path, f"is described twice{what}, first in {where}")

    def _owner(
        self, index: int, fleet: str, section: str, name: str, body: dict[str, Any]
    ) -> OwnerEntry:
        kind = OWNERS[section]
        document = dict(body)
        faults: list[Violation] = []
        adopt = document.pop("adopt", None)
        if adopt not in (None, True, False):
            faults.append(_wrong("adopt", "is true where an object that is there is taken over"))
        members = document.pop("members", None) if kind in MEMBERS else None
        named = dict(_members(kind, members, faults))
        for theirs, own in SYNONYMS[kind].items():
            if theirs in document and own in document:
                faults.append(_wrong(theirs, f"and {own} are the same field; give one of them"))
            elif theirs in document:
                document[own] = document.pop(theirs)
        if document.pop("id", None) is not None:
            faults.append(_wrong("id", "is the name in front; leave it out"))
        try:
            values = principal_values(kind, name, document)
        except MalformedRequestError as error:
            faults += error.violations
            values = {}
        if faults:
            raise MalformedRequestError("malformed", violations=faults)
        return OwnerEntry(
            kind=kind,
            section=section,
            name=name,
            fleet=fleet,
            source=index,
            values=values,
            members=named,
            adopt=bool(adopt),
        )

    def _violations(self, index: int, path: Path, violations: Sequence[Violation]) -> None:
        for item in violations:
            own = tuple(item.field.split(".")) if item.field else ()
            self._fault(index, item.rule, (*path, *own), item.message)

    def _fault(self, index: int, rule: str, path: Path, message: str) -> None:
        self.unplaced.append((index, rule, path, message))

    def _file_fault(
        self, source: FleetText, rule: str, line: int | None, path: Path, message: str
    ) -> None:
        place = FaultPlace(file=source.name, line=line)
        self.faults.append(FleetFault(rule=rule, place=place, path=dotted(path), message=message))


def _members(
    kind: type[Principal], members: Any, faults: list[Violation]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each member with its role, and with the limits that are said: None for one to be taken away."""
    if members is None:
        return
    if not isinstance(members, dict):
        faults.append(_wrong("members", "is a mapping from users to what they are"))
        return
    for user, body in members.items():
        try:
            found = validate(
                MEMBERS[kind], body if body is not None else {}, what="a member", schema="fleet"
            )
        except MalformedRequestError as error:
            faults += [
                _wrong(f"members.{user}.{item.field}", item.message) for item in error.violations
            ]
        except AttributeError:
            faults.append(_wrong(f"members.{user}", "is a mapping such as {role: admin}"))
        else:
            said = {name: getattr(found, name) for name in body or ()}
            yield user, {**said, "role": found.role}


def _tier(index: int, fleet: str, name: str, body: dict[str, Any]) -> TierEntry:
    """Return the tier that an entry describes.

    Raises:
        MalformedRequestError: It is malformed.
    """
    document = dict(body)
    adopt = document.pop("adopt", None)
    if adopt not in (None, True, False) or "id" in document:
        raise MalformedRequestError(
            "malformed", violations=[_wrong("adopt", "is true or false, and the id is the name")]
        )
    values = tier_values(name, document)
    return TierEntry(name=name, fleet=fleet, source=index, values=values, adopt=bool(adopt))


def _key(index: int, fleet: str, name: str, body: dict[str, Any]) -> KeyTemplate:
    """Return the keys that an entry describes.

    Raises:
        MalformedRequestError: It is malformed.
    """
    faults: list[Violation] = []
    if "key_alias" in body:
        faults.append(_wrong("key_alias", "is the name in front; leave it out"))
    if "key" in body:
        faults.append(_wrong("key", "no key string ever stands in a file; let keyctl make it"))
    document = {field: value for field, value in body.items() if field not in ("key", "key_alias")}
    nameless = name == body.get("adopt")
    if not nameless:
        document["key_alias"] = name
    if not name:
        faults.append(_wrong("", "a key needs a name"))
    for text, field_name in ((name, "count"), (body.get("was"), "was")):
        if isinstance(text, str) and (COUNTER in text) != (body.get("count") is not None):
            faults.append(_wrong(field_name, f"{COUNTER} in a name and count are given together"))
    try:
        entry = validate(KeyEntry, document, what="the key", schema="fleet")
    except MalformedRequestError as error:
        found = [
            Violation(
                rule=item.rule,
                field="" if item.field == "key_alias" else item.field,
                message=item.message,
            )
            for item in error.violations
        ]
        raise MalformedRequestError("malformed", violations=[*faults, *found]) from None
    if faults:
        raise MalformedRequestError("malformed", violations=faults)
    values = resolve.given_values(entry)
    for instruction in INSTRUCTIONS:
        values.pop(instruction, None)
    empty = {field for field, value in document.items() if value in (None, [], {})}
    said = {field: value for field, value in values.items() if field not in empty}
    differs = bool(empty or _WITH_MONEY & values.keys())
    return KeyTemplate(
        name=name,
        fleet=fleet,
        source=index,
        values=said,
        cleared=frozenset(empty - set(INSTRUCTIONS)) if empty else _NO_FIELDS,
        asked=entry.model_dump(exclude_none=True, exclude=_INSTRUCTED) if differs else said,
        entry=_instructions(
            entry.count, entry.was, entry.adopt, entry.deliver, entry.rotate, entry.administers
        ),
    )


@lru_cache(maxsize=1000)
def _instructions(
    count: int | None,
    was: str | None,
    adopt: str | None,
    deliver: str | None,
    rotate: bool | None,
    administers: bool | None,
) -> Instructions:
    """Return the one that all keys share which say the same."""
    return Instructions(
        count=count,
        was=was,
        adopt=adopt,
        deliver=deliver,
        rotate=rotate,
        administers=administers,
    )


def _path_of(entry: Entry, name: str) -> Path:
    # A name may hold dots: then what is around it is found.
    return (entry.section, entry.name, *(name.split(".") if name else ()))


def _wrong(name: str, message: str) -> Violation:
    return Violation(rule="fleet.value", field=name, message=message)
