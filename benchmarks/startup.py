"""What a short command costs beside the least that could do the same.

`--version` beside the bare interpreter, `--help` and a completion beside a Typer application with as many commands,
`generate` beside a script of Typer, pydantic, SQLAlchemy Core and bcrypt that writes one row;
`generate`, `list` and `verify` beside the bare imports of what they cannot do without.
"""

import sys
import tempfile
from pathlib import Path

from measure import KEYCTL, alternate, compare, fed, run

ROUNDS = 31

MINIMAL = """
import typer

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
"""
COMMAND = '''
@app.command()
def {name}() -> None:
    """{help}"""
'''
GROUP = """
{name} = typer.Typer()
app.add_typer({name}, name="{name}", help="{help}")
"""
IN_GROUP = '''
@{group}.command("{name}")
def {group}_{name}() -> None:
    """{help}"""
'''

FLOOR = """
import secrets
import sys

import bcrypt
import typer
from pydantic import BaseModel
from sqlalchemy import Column, Float, MetaData, String, Table, create_engine, insert


class Request(BaseModel):
    max_budget: float | None = None


keys = Table(
    "keys", MetaData(), Column("id", String, primary_key=True), Column("hash", String),
    Column("max_budget", Float),
)
app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def generate(max_budget: float = 5) -> None:
    request = Request(max_budget=max_budget)
    key = "sk-" + secrets.token_urlsafe(32)
    engine = create_engine(f"sqlite:///{sys.argv[0]}.db")
    keys.metadata.create_all(engine) if prepare else None
    with engine.begin() as connection:
        connection.execute(
            insert(keys),
            {
                "id": secrets.token_hex(8),
                "hash": bcrypt.hashpw(key.encode()[:72], bcrypt.gensalt(4)).decode(),
                "max_budget": request.max_budget,
            },
        )
    print(key)


@app.command()
def other() -> None:
    pass


prepare = "--prepare" in sys.argv
if prepare:
    sys.argv.remove("--prepare")
app()
"""


IMPORTS = "import sqlalchemy, typer, pydantic, bcrypt"
HASH = f"{IMPORTS}; bcrypt.hashpw(b'x' * 64, bcrypt.gensalt(10))"


def minimal_app() -> str:
    """Return the source of a Typer application with as many commands as keyctl, which do nothing."""
    from keyctl.cli.app import Commands

    source = [MINIMAL]
    for name, command in Commands().items():
        help_text = (command.help or "").splitlines()[0]
        children = getattr(command, "commands", None)
        identifier = name.replace("-", "_") + "_"  # `import` is a word of Python's
        if children is None:
            source.append(COMMAND.format(name=identifier, help=help_text))
            continue
        source.append(GROUP.format(name=identifier, help=help_text))
        source += [
            IN_GROUP.format(group=identifier, name=child.replace("-", "_"), help=help_text)
            for child in children
        ]
    return "".join([*source, '\napp(prog_name="minimal")\n'])


def completing(program: str) -> dict[str, str]:
    """Return the environment in which bash asks *program* what begins with `gen`."""
    return {
        f"_{program.upper()}_COMPLETE": "complete_bash",
        "COMP_WORDS": f"{program} gen",
        "COMP_CWORD": "1",
    }


def main() -> None:
    """Print the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        config = home / "config.toml"
        config.write_text("bcrypt_cost = 4\n")
        config.chmod(0o600)
        (home / "floor.py").write_text(FLOOR)
        (home / "minimal.py").write_text(minimal_app())
        floor = [sys.executable, str(home / "floor.py"), "generate"]
        run([*floor, "--prepare"], home)()
        own = {"KEYCTL_CONFIG": str(config), "KEYCTL_DATABASE_URL": f"sqlite:///{home}/keyctl.db"}

        compare(
            "--version",
            alternate(
                {
                    "bare interpreter": run([sys.executable, "-c", "pass"], home),
                    "keyctl --version": run([KEYCTL, "--version"], home, **own),
                },
                rounds=ROUNDS,
            ),
            "bare interpreter",
            1.5,
        )
        compare(
            "--help",
            alternate(
                {
                    "minimal Typer application": run(
                        [sys.executable, str(home / "minimal.py"), "--help"], home
                    ),
                    "keyctl --help": run([KEYCTL, "--help"], home, **own),
                },
                rounds=ROUNDS,
            ),
            "minimal Typer application",
            1.3,
        )
        compare(
            "a command's name completed",
            alternate(
                {
                    "minimal Typer application": run(
                        [sys.executable, str(home / "minimal.py")], home, **completing("minimal")
                    ),
                    "keyctl": run([KEYCTL], home, **own, **completing("keyctl")),
                },
                rounds=ROUNDS,
            ),
            "minimal Typer application",
            1.3,
        )
        compare(
            "generate (SQLite, bcrypt cost 4)",
            alternate(
                {
                    "floor": run(floor, home),
                    "keyctl generate": run([KEYCTL, "generate", "--max-budget", "5"], home, **own),
                },
                rounds=ROUNDS,
            ),
            "floor",
            1.15,
        )


def beside_imports() -> None:
    """Print what commands on an existing SQLite database cost beside their imports, at the default cost of bcrypt."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        own = {"KEYCTL_DATABASE_URL": f"sqlite:///{home}/data/keyctl.db"}
        generate = run([KEYCTL, "generate"], home, **own)
        key = generate().stdout
        medians = alternate(
            {
                "imports": run([sys.executable, "-c", IMPORTS], home),
                "imports and one bcrypt": run([sys.executable, "-c", HASH], home),
                "keyctl generate": generate,
                "keyctl list": run([KEYCTL, "list"], home, **own),
                "keyctl verify": fed(key, [KEYCTL, "verify", "-"], home, **own),
            },
            rounds=ROUNDS,
        )
    for name, base, limit in (
        ("keyctl generate", "imports and one bcrypt", 1.25),
        ("keyctl list", "imports", 1.2),
        ("keyctl verify", "imports and one bcrypt", 1.2),
    ):
        compare(f"{name} beside {base}", {b: medians[b] for b in (base, name)}, base, limit)


if __name__ == "__main__":
    main()
    beside_imports()
