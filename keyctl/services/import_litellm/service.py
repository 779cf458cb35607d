"""Import LiteLLM's keys: their strings keep working, and everything they may do is judged as if asked for.

A key string that clients hold already needs no delivery, so none is staged and no claim is
taken: a batch of keys, their secrets and their audit events is one transaction, and what is
committed is active.  LiteLLM stores the SHA-256 of each key string, and bcrypt of that very
digest is what `keyctl.hashing` makes of the string: so it can be checked without being known.
"""

import os
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final

from keyctl import hashing
from keyctl.db import queries
from keyctl.errors import BatchError, DeniedError, KeyctlError
from keyctl.lifecycle import is_past
from keyctl.litellm import inventory
from keyctl.litellm.keys import SESSIONS, MappedKey, digest_of, map_key
from keyctl.litellm.values import Row, decoded
from keyctl.policy import engine
from keyctl.portions import portions
from keyctl.services import denials
from keyctl.services.authorize.custom_hook import decide
from keyctl.services.callers import require_admin
from keyctl.services.delivery.confirm import Written, check_written, persist
from keyctl.services.import_litellm.keys import RUN, Candidate, KeyBatch, digests_of, lookup_of
from keyctl.services.import_litellm.owners import OwnerImport
from keyctl.services.import_litellm.report import (
    Begin,
    ImportLine,
    ImportOrder,
    LitellmRows,
    committed,
    failed,
    key_name,
    on_record,
    passed_over,
    units,
)
from keyctl.services.workspace import Workspace

_LARGEST_BATCH: Final = 500
_SMALLEST_BATCH: Final = 50
_CHEAP: Final = 6  # the bcrypt cost up to which a batch is as large as it gets
_AHEAD: Final = 2


@dataclass(frozen=True, slots=True)
class ImportService:
    """Imports from LiteLLM.  Every batch is one transaction; what is here already is left alone."""

    workspace: Workspace

    def run(self, source: LitellmRows, order: ImportOrder) -> Iterator[ImportLine]:
        """Import all that *source* has, and yield a line for each row once it is committed.

        A row that fails stops none of the others; a run that dies loses one batch, and the next
        goes on behind it.

        Raises:
            DeniedError: The caller is no admin.
            BatchError: The caller lost that right after some rows were imported.
            UsageError: A rule that cannot be overridden, or a column that cannot be dropped.
        """
        require_admin(self.workspace, "import keys", "key_import_denied", "key")
        engine.check_overrides(order.overrides)
        inventory.check_droppable(order.dropped)
        imported = False
        try:
            with (
                denials.recorded(self.workspace, "key_import_denied", "key"),
                units(self.workspace, dry_run=order.dry_run) as begin,
            ):
                for line in self._lines(source, order, begin):
                    imported = imported or line.result == "imported"
                    yield line
        except DeniedError as error:
            if not imported:
                raise
            raise BatchError(
                f"no more rows are imported: {error.message}", hint=error.hint
            ) from error

    def _lines(self, source: LitellmRows, order: ImportOrder, begin: Begin) -> Iterator[ImportLine]:
        yield from OwnerImport(begin, order).run(source)
        importing = _KeyImport(self.workspace, order, begin)
        for batch in importing.prepared(source.keys()):
            lines, written = committed(partial(importing.write, batch), order)
            yield from lines
            # What is wrong with one secret must not hide what became of the others.
            importing.read_back(written)


@dataclass(frozen=True, slots=True)
class _KeyImport:
    workspace: Workspace
    order: ImportOrder
    begin: Begin

    # --- before the transactions: map, pass over what is here, hash on all cores

    def prepared(self, rows: Iterator[Row]) -> Iterator[list[ImportLine | Candidate]]:
        """Yield batches of rows; all cores go on hashing while a batch is written."""
        cost = self.workspace.settings.bcrypt_cost
        size = max(_SMALLEST_BATCH, _LARGEST_BATCH >> max(0, cost - _CHEAP))
        ahead: deque[list[ImportLine | Candidate]] = deque()
        # bcrypt releases the GIL, so threads are enough for all cores.
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            try:
                for batch in portions(rows, size):
                    ahead.append(self._prepare(batch, pool))
                    if len(ahead) > _AHEAD:
                        yield ahead.popleft()
                yield from ahead
            finally:
                pool.shutdown(cancel_futures=True)

    def _prepare(
        self, rows: Sequence[Row], pool: ThreadPoolExecutor
    ) -> list[ImportLine | Candidate]:
        now, known = self._known(rows)
        return [self._prepare_one(row, known, pool, now=now) for row in rows]

    def _known(self, rows: Sequence[Row]) -> tuple[datetime, Collection[str]]:
        """Return the time, and the lookups that need no hashing: a second run should not take minutes."""
        tokens = [row.get("token") for row in rows]
        lookups = [lookup_of(token) for token in tokens if isinstance(token, str)]
        database = self.workspace.database
        if self.order.dry_run or (database.path is not None and not database.path.exists()):
            with self.begin() as unit:
                return unit.now, ()
        with database.read() as connection:
            found = queries.secrets_by_lookup(connection, lookups)
            now = database.now(connection)
        return now, [lookup for lookup, secret in found.items() if secret.run_id == RUN]

    def _prepare_one(
        self, row: Row, known: Collection[str], pool: ThreadPoolExecutor, *, now: datetime
    ) -> ImportLine | Candidate:
        source, lost = key_name(row), []
        try:
            digest = digest_of(row)
            if row.get("team_id") == SESSIONS:
                return passed_over(source, "skipped", "a session of LiteLLM's web interface")
            if lookup_of(digest) in known:
                return passed_over(source, "present")
            whole = decoded(row)
            lost = inventory.lost("key", whole)
            if is_past(whole.get("expires"), now=now) and not self.order.include_expired:
                return passed_over(source, "skipped", "expired")
            mapped = map_key(whole, dropped=self.order.dropped)
            self._ask_hook(mapped)
        except KeyctlError as error:
            return failed("key", source, error, lost=lost)
        mapped = replace(
            mapped, grace=tuple(item for item in mapped.grace if not is_past(item.until, now=now))
        )
        hashes = pool.submit(self._hash, digests_of(digest, mapped))
        return Candidate(source=source, digest=digest, mapped=mapped, lost=lost, hashes=hashes)

    def _ask_hook(self, mapped: MappedKey) -> None:
        workspace, request = self.workspace, mapped.request
        if self.order.dry_run:  # asked as well, and nothing written
            decide(workspace.settings, request, workspace.caller)
            return
        with denials.recorded(workspace, "key_import_denied", "key", request.key_alias or ""):
            decide(workspace.settings, request, workspace.caller)

    def _hash(self, digests: Sequence[str]) -> list[str]:
        if self.order.dry_run:
            return ["" for _ in digests]
        cost = self.workspace.settings.bcrypt_cost
        return [hashing.hash_digest(digest, cost=cost) for digest in digests]

    # --- the transaction

    def write(self, batch: Sequence[ImportLine | Candidate]) -> tuple[list[ImportLine], Written]:
        """Judge and write a batch; return its lines, and what is to be read back."""
        candidates = [item for item in batch if isinstance(item, Candidate)]
        if not candidates:
            return [item for item in batch if isinstance(item, ImportLine)], Written()
        with self.begin() as unit:
            writing = KeyBatch(self.workspace, self.order, unit, candidates)
            lines = [item if isinstance(item, ImportLine) else writing.line(item) for item in batch]
            writing.flush()
        return on_record(lines, unit), Written(secrets=writing.written, events=unit.heads)

    def read_back(self, written: Written) -> None:
        """Compare what was written with what the database holds; a dry run has written nothing.

        Raises:
            CorruptedError: It is not what was written.
            UnconfirmedError: The database stayed away.
        """
        if self.order.dry_run or not written.secrets:
            return
        count = len({secret.key_id for secret in written.secrets})
        persist(
            lambda: check_written(self.workspace.database, [written]),
            delivered=f"{count} {'key was' if count == 1 else 'keys were'} imported",
            left="not read back",
        )
