"""All commands that there are, from the program itself, and a life with every one of them in it."""

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, Final

import typer
from harness import Cli

from keyctl.cli.app import app

# A life with every command in it, in an order in which each finds what it needs; behind the arrow
# the schema of its answer.  {…} is what an earlier answer said.
LIFE: Final = """
    db upgrade                                      -> db-upgrade-response
    db status                                       -> db-status-response
    version                                         -> version-response
    config show                                     -> config-response
    config path                                     -> config-path-response
    org create acme --max-budget 500                -> org-response
    org update acme --name Acme --model 'gpt-4*'    -> org-response
    user create ann --max-budget 50                 -> user-response
    user create bob                                 -> user-response
    user update bob --email bob@example.com         -> user-response
    user create --from {people} --dry-run           -> owner-verdicts-response 4
    user create --from {people}                     -> users-response 9
    org create --from {orgs} --dry-run              -> owner-verdicts-response
    org create --from {orgs}                        -> orgs-response
    team create --from {teams} --dry-run            -> owner-verdicts-response
    team create --from {teams}                      -> teams-response
    org add-member acme ann                         -> member-response
    org add-member acme bob --role org_admin        -> member-response
    org remove-member acme bob                      -> member-response
    budget create small --max-budget 5 --budget-duration 1d -> budget-response
    budget update small --rpm-limit 9               -> budget-response
    budget info small                               -> budget-response
    budget list                                     -> budget-list-response
    team create web --org acme --tpm-limit 90       -> team-response
    team update web --name Web --max-budget 90      -> team-response
    team add-member web ann --role admin            -> member-response
    team update-member web ann --max-budget 9       -> member-response
    generate --team web --user ann --alias one --deliver file --max-budget 1 -> generate-response
    generate --alias two --model gpt-4o --expires 5d -> generate-response
    generate --dry-run --alias three                -> verdict-response
    generate --count 2 --alias 'many-{n}'           -> many-response
    generate --from {rows} --dry-run                -> verdicts-response
    generate --from {rows}                          -> many-response
    list                                            -> list-response
    info one                                        -> info-response
    update one --max-budget 0.5                     -> update-response
    update one two --rpm-limit 5 --yes              -> results-response
    update one --rpm-limit 6 --dry-run              -> verdict-response
    update one two --rpm-limit 6 --dry-run          -> verdicts-response
    spend one --add 0.45                            -> spend-response
    spend --team web --add 1                        -> spend-response
    spend --user ann --reset                        -> spend-response
    spend --org acme --add 2                        -> spend-response
    rotate two --grace 2h                           -> rotate-response
    rotate one                                      -> rotate-response
    rotate one two --deliver file --yes             -> rotations-response
    rotate one --dry-run                            -> would-response
    rotate --due                                    -> rotations-response
    rotate --due --dry-run                          -> rotations-response
    revoke two                                      -> results-response
    block one                                       -> results-response
    unblock one                                     -> results-response
    block one --dry-run                             -> would-response
    unblock one --dry-run                           -> would-response
    budget reset --due                              -> budget-reset-response
    budget reset --due --dry-run                    -> budget-reset-response
    status                                          -> status-response
    metrics                                         -> metrics-response
    team info web                                   -> team-info-response
    user info ann                                   -> user-info-response
    org info acme                                   -> org-info-response
    team list                                       -> team-list-response
    user list                                       -> user-list-response
    org list                                        -> org-list-response
    audit list                                      -> audit-list-response
    audit export                                    -> audit-list-response
    audit head                                      -> audit-head-response
    audit verify                                    -> audit-verify-response
    audit verify --state                            -> audit-verify-response
    audit accept --reason reviewed                  -> audit-accept-response
    events list                                     -> events-list-response
    events deliver                                  -> events-sent-response
    events retry {event}                            -> events-sent-response 9
    events discard {event} --reason gone            -> events-discard-response
    remind --dry-run                                -> remind-response
    remind                                          -> remind-response
    import litellm --source-file {dump}             -> import-response
    plan {fleet}                                    -> plan-response 10
    apply {fleet} --yes                             -> apply-response
    export                                          -> fleet
    db check                                        -> db-check-response
    db check --repair                               -> db-check-response
    db prune --dry-run                              -> db-prune-response
    db prune                                        -> db-prune-response
    db backup {backup}                              -> db-backup-response
    schema rules                                    -> rules-response
    schema fields                                   -> fields-response
    schema authority                                -> authority-response
    schema routes                                   -> routes-response
    team remove-member web ann --keys block         -> member-response
    delete two --dry-run                            -> would-response
    delete two many-1 --yes                         -> results-response
    user delete bob --dry-run                       -> deleted-response
    user delete bob                                 -> deleted-response
    budget delete small                             -> deleted-response
    team delete spare                               -> deleted-response
    org delete other                                -> deleted-response
    db copy --target-url sqlite:///{copy}           -> db-copy-response
    db copy --abort                                 -> db-copy-response
"""


def commands(group: Any = None, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command with the words that name it."""
    group = group or typer.main.get_command(app)
    for name in group.commands:
        command, words = group.commands[name], f"{path} {name}".strip()
        if hasattr(command, "commands"):
            yield from commands(command, words)
        else:
            yield words, command


def steps() -> Iterator[tuple[str, list[str], str, int]]:
    """Yield each step of the life: the command's words, the arguments, the schema, the exit status."""
    known = sorted((words for words, _ in commands()), key=len, reverse=True)
    for line in LIFE.strip().splitlines():
        text, _, answer = line.partition("->")
        schema, _, status = answer.strip().partition(" ")
        words = next(item for item in known if f"{text.strip()} ".startswith(f"{item} "))
        yield words, shlex.split(text), schema, int(status or 0)


def places_of(cli: Cli) -> dict[str, str]:
    """Return the files that the life reads and writes; make them, a sink, and a hook that never works."""
    cli.configure(
        f'bcrypt_cost = 4\n[sinks.file]\ntype = "file"\npath = "{cli.home}/key-{{alias}}"\n'
        '[hooks.away]\ntype = "command"\nargv = ["false"]\nevents = ["key_updated"]\n'
    )
    rows, fleet = cli.home / "rows.csv", cli.home / "fleet.yaml"
    rows.write_text("key_alias,max_budget\nrow-1,5\nrow-2,6\n")
    lists = {name: cli.home / f"{name}.csv" for name in ("people", "orgs", "teams")}
    lists["people"].write_text("user_id,max_budget\nann,5\neve,6\n")
    lists["orgs"].write_text("organization_id,members\nlisted,ann:org_admin;eve\n")
    lists["teams"].write_text("team_id,organization_id,members\nfirst,listed,eve:admin\nlast,,\n")
    fleet.write_text(
        "version: 1\norganizations: {other: {}}\nteams: {spare: {}}\n"
        "keys: {made: {max_budget: 3, deliver: file}}\n"
    )
    dump = cli.home / "dump.json"
    dump.write_text(json.dumps({"keys": [{"token": "ab" * 32, "key_alias": "foreign"}]}))
    return {
        "dump": str(dump),
        "rows": str(rows),
        **{name: str(path) for name, path in lists.items()},
        "fleet": str(fleet),
        "backup": str(cli.home / "backup"),
        "copy": str(cli.home / "copy.db"),
    }


def filled_in(arguments: Sequence[str], places: dict[str, str]) -> list[str]:
    """Return *arguments* with the places in them."""
    return [
        text if "{n}" in text or "{" not in text else text.format(**places) for text in arguments
    ]
