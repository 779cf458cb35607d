"""Judge many keys that one request asks for, on facts that count the ones before each."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from keyctl.errors import KeyctlError, PolicyDeniedError, UsageError
from keyctl.policy import engine, resolve
from keyctl.services.authorize.custom_hook import decide
from keyctl.services.authorize.verdict import Judgement, KeyDecision, gather
from keyctl.services.delivery import run_lock
from keyctl.services.issue.order import Order, new_key_id
from keyctl.services.issue.takeover import refused_aliases
from keyctl.services.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyJudged:
    """What would become of many keys.

    `verdict` is that of the first key that a rule is against, or of the first key if no rule is
    against any; `refused` are the keys that would not be made, by alias.
    """

    verdict: Judgement
    count: int
    refused: list[tuple[str | None, KeyctlError]]


@dataclass(frozen=True, slots=True)
class ManyVerdictsService:
    """Says what `BulkService` would do, and writes nothing."""

    workspace: Workspace

    def dry_run(self, order: Order, count: int) -> ManyJudged:
        """Return the verdict on *count* keys, the custom hook's included.

        Raises:
            UsageError: The order cannot be carried out many times.
            NotFoundError: It names an owner that does not exist.
        """
        check_many(order)
        engine.check_overrides(order.overrides)
        database, caller = self.workspace.database, self.workspace.caller
        with database.read() as connection:
            now = database.now(connection)
            decision = gather(
                connection,
                self.workspace.settings,
                caller,
                resolve.given_values(order.request),
                service_account=order.service_account,
                overrides=order.overrides,
                lock=False,
                now=now,
            )
            taken = refused_aliases(
                connection,
                [alias for alias in aliases(order, count) if alias is not None],
                caller=caller,
                run=run_lock.onlooker(self.workspace.runs_folder),
                now=now,
            )
        try:
            decide(self.workspace.settings, order.request, caller)
        except PolicyDeniedError as error:
            first = decision.verdict(new_key_id(), next(aliases(order, count)))
            verdict = replace(first, violations=[*first.violations, *error.violations])
            refused = engine.refuse(list(verdict.violations))
            return ManyJudged(
                verdict=verdict,
                count=count,
                refused=[(alias, refused) for alias in aliases(order, count)],
            )
        return _judged(decision, order, count, taken)


def _judged(
    decision: KeyDecision, order: Order, count: int, taken: Mapping[str, KeyctlError]
) -> ManyJudged:
    first = decision.verdict(new_key_id(), next(aliases(order, count)))
    broken: Judgement | None = None
    refused: list[tuple[str | None, KeyctlError]] = []
    found = verdicts(decision, aliases(order, count), taken)
    for alias, item in zip(aliases(order, count), found, strict=True):
        if isinstance(item, KeyctlError):
            refused.append((alias, item))
            continue
        _, verdict = item
        if verdict.violations:
            broken = broken or verdict
            refused.append((alias, engine.refuse(list(verdict.violations))))
    return ManyJudged(verdict=broken or first, count=count, refused=refused)


def check_many(order: Order) -> None:
    """Refuse what can be asked for one key only.

    Raises:
        UsageError: It was asked for.
    """
    alias = order.request.key_alias
    if alias is not None and "{n}" not in alias:
        raise UsageError(
            "--count needs {n} in the alias, which is unique", hint="such as --alias 'ci-{n}'"
        )
    if order.request.key is not None:
        raise UsageError("--count cannot supply a key", hint="let keyctl generate them")
    if order.request_id is not None:
        raise UsageError(
            "--count takes no --request-id",
            hint="give an alias template: a second run makes only what is missing",
        )


def aliases(order: Order, count: int) -> Iterator[str | None]:
    """Yield the alias of each key by the template, None for each without one."""
    template = order.request.key_alias
    for number in range(1, count + 1):
        yield None if template is None else template.replace("{n}", str(number))


def verdicts(
    decision: KeyDecision, names: Iterable[str | None], taken: Mapping[str, KeyctlError]
) -> Iterator[tuple[str, Judgement] | KeyctlError]:
    """Yield the id and the verdict of each key as if it were alone, on facts that count those before it.

    Where its alias is *taken* that is yielded.  Keys that are judged alike share one verdict.
    """
    uniform = decision.is_uniform
    verdict: Judgement | None = None
    for alias in names:
        if alias is not None and alias in taken:
            yield taken[alias]
            continue
        key_id = new_key_id()
        if verdict is None or not uniform:
            verdict = decision.verdict(key_id, alias)
            if not (uniform or verdict.violations):
                decision.count_as_live(verdict.key)
        yield key_id, verdict
