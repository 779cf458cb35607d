"""Write the help of a command: options in groups, examples, what the environment may say, exit codes."""

import sys
from pathlib import Path
from typing import Any, Final

from typer.core import TyperCommand

from keyctl.cli.examples import EXAMPLES
from keyctl.cli.parameters import Owner
from keyctl.cli.published import OF_COMMAND

_GROUPS: Final = {
    "Whose it is": (
        "--alias --team --user --org --service-account --role --email --name --key --object --actor"
    ),
    "Which ones": (
        "--search --state --over-budget --expires-before --created-after --unused-for --due --action"
        " --since --until --failed --delivered --hook --issued-by --only --with-alias --with-tag --with-model"
    ),
    "Many at once": "--count --from --max --deadline",
    "Limits": (
        "--model --models --max-budget --soft-budget --budget-duration --budget-id --rpm-limit"
        " --tpm-limit --tpd-limit --max-parallel-requests --rpm-limit-type --tpm-limit-type"
        " --model-rpm-limit --model-tpm-limit --spend --policy --allowed-route --key-type"
        " --permission --guardrail --allowed-cache-control --enforced-param --add-model"
        " --remove-model --policy-name --prompt"
    ),
    "How long it lives": (
        "--duration --expires --blocked --auto-rotate --rotation-interval --grace"
    ),
    "Where the key goes": (
        "--out-file --out-dir --out-format --deliver --force --env-var --key-stdin --key-file"
        " --send-invite-email"
    ),
    "Other fields": "--metadata --tag --add-tag --remove-tag --clear --request",
    "Safety": (
        "--dry-run --yes --expect-count --override --reason --request-id --fail-if-due --abort --keys --prune --plan"
        " --emit"
    ),
    "How it is shown": "--output --columns --sort --limit --after --all --diff --quiet",
    "Who acts, and on what": (
        "--database-url --config --caller-key-file --changed-by --source-url --target-url"
    ),
}
_HEADING: Final = {flag: name for name, flags in _GROUPS.items() for flag in flags.split()}
_REST: Final = "Options"
_ENVIRONMENT: Final = (
    ("KEYCTL_DATABASE_URL", "The database; KEYCTL_DATABASE_URL_FILE names a file with it."),
    (
        "KEYCTL_API_KEY",
        "The caller's key string. Without it you act as the local operator, an admin.",
    ),
    ("KEYCTL_CONFIG", "The configuration file."),
    ("KEYCTL_OUTPUT", "What --output is where it is not given."),
    ("NO_COLOR, FORCE_COLOR", "NO_COLOR: never colour. FORCE_COLOR: always colour."),
)
_EXITS: Final = (
    "0 done or nothing to do, 1 internal error, 2 usage, 3 not found, 4 denied, 5 conflict, 6 database, 7 busy,"
    " 8 delivery, 9 some of many failed, 10 key invalid, plan not empty or keys due, 11 integrity, 130 interrupted."
)
_MANUAL: Final = (
    ("tasks.md", "a recipe for every job"),
    ("reference.md", "every command"),
)


class Named(Owner, TyperCommand):
    """A command whose help calls what an option or argument takes by its name, not by its Python type."""


class Described(Named):
    """A command whose help has groups, examples and what scripts need to know."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what stands behind the command's name: nothing that is hidden."""
        shown = [item for item in self.get_params(ctx) if not getattr(item, "hidden", False)]
        pieces = [piece for item in shown for piece in item.get_usage_pieces(ctx)]
        return [self.options_metavar or "", *pieces]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then options under the headings of their groups."""
        arguments, groups = [], dict[str, list[tuple[str, str]]]()
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                arguments.append(record)
            else:
                heading = next(
                    (_HEADING[flag] for flag in parameter.opts if flag in _HEADING), _REST
                )
                groups.setdefault(heading, []).append(record)
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        for heading in (*_GROUPS, _REST):
            if heading in groups:
                with formatter.section(heading):
                    formatter.write_dl(groups[heading])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write examples, the environment, exit codes, and where to read on."""
        name = ctx.command_path.partition(" ")[2]
        if examples := EXAMPLES.get(name):
            with formatter.section("Examples"):
                for line in examples:
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")
        if published := OF_COMMAND.get(name):
            with formatter.section("Shape of -o json"):
                formatter.write_text(f"keyctl schema NAME prints it: {', '.join(published)}.")
        with formatter.section("Environment"):
            formatter.write_dl(list(_ENVIRONMENT))
        with formatter.section("Exit codes"):
            formatter.write_text(_EXITS)
        with formatter.section("Manual"):
            for line in _where_the_manual_is():
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


def _where_the_manual_is() -> list[str]:
    """Return what there is to read on, a line each: a clone has the manual's pages, and so has an installed wheel."""
    clone, share = Path(__file__).parents[2], Path(sys.prefix) / "share"
    in_clone = (clone / "docs" / "make_reference.py").is_file()
    folder = clone / "docs" if in_clone else share / "doc" / "llm-keyctl"
    pages = [(folder / name, what) for name, what in _MANUAL]
    found = [f"{path}: {what}" for path, what in pages if path.is_file()]
    man = ["man llm-keyctl"] if (share / "man" / "man1" / "llm-keyctl.1").is_file() else []
    # `pip install --target` and the like put pages where nobody can tell.
    return [*found, *man, "keyctl help COMMAND: another command"]
