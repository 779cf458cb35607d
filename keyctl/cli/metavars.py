"""Name the value of each option by what a person types there, as help, manual and man pages show it."""

from typing import Any, Final

_WORDS: Final = {
    "TEXT": "--search --reason",
    "NAME": (
        "--alias --with-alias --name --fleet --env-var --changed-by --guardrail --policy-name --prompt"
        " --enforced-param --allowed-cache-control"
    ),
    "KEY": "--key",
    "TEAM": "--team",
    "USER": "--user --set-user",
    "ORG": "--org",
    "TIER": "--budget-id",
    "ID": "--request-id --object",
    "TYPE/ID": "--only",
    "EMAIL": "--email",
    "ROLE": "--role",
    "STATE": "--state",
    "TYPE": "--key-type --rpm-limit-type --tpm-limit-type",
    "TAG": "--tag --add-tag --remove-tag --with-tag",
    "MODEL": "--model --add-model --remove-model --with-model",
    "MODEL,…": "--models",
    "MODEL=NUMBER": "--model-rpm-limit --model-tpm-limit",
    "NAME=VALUE": "--metadata --permission",
    "ROUTE": "--allowed-route",
    "RULE": "--override",
    "FIELD": "--clear",
    "NUMBER": (
        "--rpm-limit --tpm-limit --tpd-limit --max-parallel-requests --count --max --limit --expect-count"
        " --at-seq"
    ),
    "DOLLARS": "--max-budget --soft-budget --spend --add",
    "DURATION": "--duration --rotation-interval --grace --deadline --older-than",
    "PERIOD": "--budget-duration",
    "WHEN": "--expires --expires-before --created-after --unused-for --since --until",
    "FILE": (
        "--from --request --policy --plan --key-file --out-file --source-file --config --caller-key-file"
    ),
    "DIR": "--out-dir",
    "URL": "--database-url --source-url --target-url",
    "SINK": "--deliver",
    "HOOK": "--hook",
    "ACTION": "--action",
    "ACTOR": "--actor",
    "HASH": "--expect-head",
    "FORM": "--output --out-format",
    "COLUMN": "--sort --drop",
    "COLUMN,…": "--columns",
    "CURSOR": "--after",
}
_OF: Final = {flag: word for word, flags in _WORDS.items() for flag in flags.split()}


def metavar(parameter: Any) -> str | None:
    """Return what stands for the option's value in help: its own word, or else the one for its name."""
    if parameter.metavar is not None:
        return str(parameter.metavar)
    return next((_OF[flag] for flag in parameter.opts if flag in _OF), None)


def bounds(low: float | None, high: float | None) -> str:
    """Return in words what a number may be."""
    if low is None or high is None:
        return f"{low} or more" if high is None else f"{high} or less"
    return f"{low} to {high}"
