"""The house is in order: files and functions are small, no imports go in circles, and what the manual shows of the program is true."""

import ast
import re
from pathlib import Path

import make_reference
from test_layers import PACKAGE, TREES, imported_by, name_of

from keyctl import gateway

LINES = 400
FUNCTION_LINES = 60
# Declares fourteen options, and says what each of them means.
DECLARATIONS = {"gateway/verifier.py:__init__"}
ROOT = {
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "Dockerfile"),
    *("pyproject.toml", "alembic.ini"),
    *("keyctl", "migrations", "docs", "benchmarks", "tests"),
}
# What tools make, which .gitignore names.
MADE = {"build", "dist", "llm_keyctl.egg-info"}


def module_name(path: Path) -> str:
    """Return the name by which a module is imported."""
    return ".".join(("keyctl", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    )


def test_a_file_is_short() -> None:
    """Whoever opens a module reads it in one go."""
    longer = {name_of(path) for path in TREES if len(path.read_text("utf-8").splitlines()) > LINES}

    assert longer == set()


def test_a_function_is_short() -> None:
    """What does not fit on a screen has parts with names; functions that only declare commands are lists."""
    longer = {
        f"{name_of(path)}:{node.name}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES
        and not (name_of(path).startswith("cli/") and declares(node))
    }

    assert longer == DECLARATIONS


def declares(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether a function of the command line is a command, whose options fill its lines, or declares some."""
    commands = [ast.unparse(item).startswith("command(") for item in node.decorator_list]
    return any(commands) or any(
        declares(item) for item in node.body if isinstance(item, ast.FunctionDef)
    )


def test_what_moved_is_where_the_table_says() -> None:
    """In CONTRIBUTING, each path of the package on the right is there."""
    table = (
        (make_reference.ROOT / "CONTRIBUTING.md")
        .read_text("utf-8")
        .split("## Where things went")[1]
    )
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| `keyctl/")]
    gone = []
    for row in rows:
        folder = ""
        for path in re.findall(r"`([^`]+\.py)`", row):
            folder = path.rpartition("/")[0] if "/" in path else folder
            whole = path if "/" in path else f"{folder}/{path}"
            if not (make_reference.ROOT / whole).exists():
                gone.append(whole)

    assert len(rows) > 10
    assert gone == []


def test_the_public_library_keeps_its_names() -> None:
    """What programs import from `keyctl.gateway` may become more; a name that goes is deprecated first."""
    assert {
        "AsyncVerdict", "AsyncVerifier", "Found", "UnavailableError", "Verdict", "Verifier",
    } <= set(gateway.__all__)  # fmt: skip


def test_no_two_classes_share_a_name() -> None:
    """Whoever searches for a class finds one; a gateway's verdict is the one of `verify`, and more."""
    homes: dict[str, list[str]] = {}
    for path, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(name_of(path))

    assert {name: found for name, found in homes.items() if len(found) > 1} == {
        "Verdict": ["gateway/verdict.py", "services/verify.py"]
    }


def test_no_imports_go_in_circles() -> None:
    """Following what modules import always ends, wherever in a module the import stands."""
    names = {module_name(path): path for path in TREES}
    below = {
        name: {
            target
            for module in imported_by(TREES[path])
            for target in (module, module.rpartition(".")[0])
            if target in names and target != name
        }
        - {name.rpartition(".")[0], "keyctl"}
        for name, path in names.items()
    }
    while free := {name for name, wanted in below.items() if not wanted & set(below)}:
        below = {name: wanted for name, wanted in below.items() if name not in free}

    assert sorted(below) == []


def test_what_is_made_from_the_program_is_made_anew() -> None:
    """After a change of commands, options, help texts or modules: python docs/make_reference.py."""
    stale = [
        path.name
        for path, text in make_reference.pages().items()
        if not path.exists() or path.read_text("utf-8") != text
    ]

    assert stale == []


def test_no_man_page_is_left_over() -> None:
    """A command that is gone takes its page along."""
    there = set((make_reference.ROOT / "docs" / "man").glob("*.1"))

    assert there == set(make_reference.man_pages())


def test_every_room_has_its_line() -> None:
    """A folder of the package says what it is for."""
    rooms = {
        path.parent.relative_to(PACKAGE).as_posix() for path in TREES if path.parent != PACKAGE
    }

    assert rooms == set(make_reference.ROOMS["keyctl"])


def test_the_root_holds_nothing_else() -> None:
    """A trial of the program in the clone once left its tables and key files there, and a commit took them along."""
    there = {path.name for path in make_reference.ROOT.iterdir() if path.name[0] != "."}

    assert there - MADE == ROOT
