"""Who may import whom, and who may not touch the clock: layers only look down."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import keyctl

PACKAGE = Path(keyctl.__file__).parent

# Values and functions that know neither a database nor the time.
PURE = {
    "actions",
    "errors",
    "durations",
    "hashing",
    "jsontext",
    "keystring",
    "lifecycle",
    "limits",
    "money",
    "names",
    "nearest",
    "packed",
    "portions",
    "purses",
    "records",
    "routes",
    "views",
}
# Who may import whom, lowest layer first.  Anything absent is forbidden.
ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "actions": set(),
    "causes": set(),
    "errors": set(),
    "limits": set(),
    "names": set(),
    "nearest": set(),
    "packed": set(),
    "portions": set(),
    "records": {"errors", "durations"},
    "routes": set(),
    "durations": {"errors"},
    "jsontext": {"errors"},
    "keystring": {"errors"},
    "money": {"errors"},
    "named_files": {"errors"},
    "hashing": {"keystring"},
    "ahead": {"hashing", "keystring"},
    "lifecycle": {"records"},
    "purses": {"durations", "errors", "money", "records"},
    "views": {"lifecycle", "money", "records"},
    "fields": {"durations", "errors", "jsontext", "moments", "money", "names", "routes"},
    "requests": {"fields"},
    "moments": {"durations", "errors"},
    "policy": PURE | {"fields", "requests"},
    "principals": {
        "errors",
        "fields",
        "money",
        "names",
        "nearest",
        "policy",
        "records",
        "requests",
    },
    "fleetfile": {"errors", "fields", "jsontext", "policy", "principals", "records", "requests"},
    "litellm": PURE | {"fields", "policy", "principals", "requests"},
    "db": PURE,
    "sinks": PURE | {"causes"},
    "hooks": PURE | {"causes", "sinks"},
    "config": PURE | {"fields", "policy", "sinks"},
    "shapes": {"lifecycle", "records"},
    "owner_answers": {"records", "shapes"},
    "answers": {"lifecycle", "owner_answers", "shapes"},
    "schemas": {
        "actions",
        "answers",
        "config",
        "fleetfile",
        "lifecycle",
        "limits",
        "owner_answers",
        "policy",
        "principals",
        "records",
        "requests",
        "shapes",
    },
    "services": PURE
    | {
        "causes",
        "config",
        "db",
        "fields",
        "fleetfile",
        "hooks",
        "litellm",
        "moments",
        "policy",
        "principals",
        "requests",
        "sinks",
    },
    "gateway": PURE | {"db", "named_files", "policy", "services"},
    "cli": PURE
    | {
        "__init__",
        "ahead",
        "config",
        "db",
        "fields",
        "fleetfile",
        "moments",
        "litellm",
        "named_files",
        "policy",
        "principals",
        "requests",
        "schemas",
    }
    | {"services", "sinks"},
    "entry": {"__init__", "cli", "errors", "keystring"},
    "__main__": {"entry"},
}
# Who may import what others wrote.  Anything absent is forbidden.
LIBRARIES: dict[str, set[str]] = {
    "alembic": {"db"},
    "bcrypt": {"hashing"},
    "cachetools": {"gateway"},
    "fastapi": {"gateway"},
    "litellm": {"gateway"},
    "boto3": {"sinks"},
    "botocore": {"sinks"},
    "hvac": {"sinks"},
    "kubernetes": {"sinks"},
    "platformdirs": {"config"},
    "prometheus_client": {"services"},
    "psycopg": {"db"},
    "pydantic": {"config", "fields", "fleetfile", "policy", "principals", "requests", "schemas"},
    "pydantic_core": {"fields"},
    "re2": {"policy"},
    "requests": {"sinks"},
    "rich": {"cli"},
    "simplejson": {"jsontext"},
    "sqlalchemy": {"db", "gateway", "services"},
    "standardwebhooks": {"hooks"},
    "typer": {"cli"},
    "yaml": {"fleetfile"},
}
# What asks for the time of day.  `time.monotonic` measures lengths, which is another thing.
CLOCKS = {"now", "utcnow", "today", "time", "time_ns", "gmtime", "localtime"}

# A wheel carries the migrations inside the package: scripts, not modules.
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "_alembic" not in path.parts)


def name_of(path: Path) -> str:
    """Return the path of a module inside the package, for messages."""
    return path.relative_to(PACKAGE).as_posix()


def unit_of(path: Path) -> str:
    """Return the layer a module belongs to: its folder, or its own name on the top level."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_by(tree: ast.AST) -> Iterator[str]:
    """Yield the whole name of every module that *tree* imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level
            elif node.module == "keyctl":
                yield from (f"keyctl.{item.name}" for item in node.names)
            else:
                yield str(node.module)


def own(modules: Iterator[str]) -> set[str]:
    """Return the layers of keyctl among *modules*; what the package itself holds is ``__init__``."""
    layers = {module.split(".")[1] for module in modules if module.startswith("keyctl.")}
    return {"__init__" if layer.startswith("__version") else layer for layer in layers}


TREES = {path: ast.parse(path.read_text("utf-8"), str(path)) for path in MODULES}


def test_a_module_only_looks_down() -> None:
    """No module imports from a layer above its own; a new layer is given its place here first."""
    upward = {
        name_of(path): above
        for path, tree in TREES.items()
        if (above := own(imported_by(tree)) - {unit_of(path)} - ALLOWED.get(unit_of(path), set()))
    }

    assert {unit_of(path) for path in MODULES} - set(ALLOWED) == set()
    assert upward == {}


def test_a_module_uses_the_libraries_of_its_layer() -> None:
    """What others wrote is used where the table says so, and `click` nowhere: Typer carries its own."""
    foreign = {
        (name_of(path), library)
        for path, tree in TREES.items()
        for library in {module.partition(".")[0] for module in imported_by(tree)}
        if library not in {*sys.stdlib_module_names, "keyctl"}
        and unit_of(path) not in LIBRARIES.get(library, set())
    }

    assert foreign == set()


def test_no_sql_outside_the_database_layer() -> None:
    """Services hold a connection and catch a broken constraint; they build no statement and see no table."""
    allowed = {("sqlalchemy", "Connection"), ("sqlalchemy.exc", "IntegrityError")}
    found = {
        (name_of(path), str(node.module), item.name)
        for path, tree in TREES.items()
        if unit_of(path) != "db"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and str(node.module).startswith(("sqlalchemy", "keyctl.db.tables"))
        for item in node.names
        if (node.module, item.name) not in allowed
    }

    assert found == set()


def test_no_module_imports_the_orm() -> None:
    """Importing it costs every command about a fifth of its time."""
    users = [
        name_of(path)
        for path, tree in TREES.items()
        if any("sqlalchemy.orm" in module for module in imported_by(tree))
    ]

    assert users == []


def test_one_module_asks_for_the_time() -> None:
    """`utcnow` in db/database.py is the only clock; everybody else is told."""
    asked = [
        (name_of(path), ast.unparse(node))
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in CLOCKS
        and ast.unparse(node.func.value).rpartition(".")[2] in ("datetime", "date", "time")
    ]

    assert asked == [("db/database.py", "datetime.now(UTC)")]


def test_no_module_has_an_assert_statement() -> None:
    """`python -O` removes them, and with them whatever they guard."""
    asserts = [
        f"{name_of(path)}:{node.lineno}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]

    assert asserts == []


def test_pure_modules_stay_pure() -> None:
    """A pure module imports only pure ones, and neither a database nor the operating system."""
    outside = {"os", "pathlib", "socket", "sqlalchemy", "subprocess", "sys", "time"}
    found = {
        (unit, module)
        for path, tree in TREES.items()
        if (unit := unit_of(path)) in PURE
        for module in imported_by(tree)
        if module.partition(".")[0] in outside
    }

    assert found == set()
    assert set().union(*(ALLOWED[unit] for unit in PURE)) <= PURE


def test_the_table_has_no_circles() -> None:
    """Whatever the table allows, following it always ends at the bottom."""
    above: set[str] = set()
    rest = dict(ALLOWED)
    while rest:
        free = {unit for unit, below in rest.items() if below <= above}
        assert free, f"circle among {sorted(rest)}"
        above |= free
        rest = {unit: below for unit, below in rest.items() if unit not in free}


def test_importing_the_package_imports_nothing() -> None:
    """`keyctl/__init__.py` holds a constant: `--version` is answered from it."""
    assert list(imported_by(TREES[PACKAGE / "__init__.py"])) == []


def test_the_entry_point_imports_the_command_line_late() -> None:
    """What must be settled first (descriptors, umask, core files) is settled before Typer is imported."""
    tree = TREES[PACKAGE / "entry.py"]
    early = ast.Module(
        [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))], []
    )

    assert own(imported_by(early)) == {"__init__"}
    assert "keyctl.cli.app" in set(imported_by(tree))


def test_the_clock_is_asked_for_by_the_database_only() -> None:
    """Nobody imports `utcnow`: the database hands out the time, its own on PostgreSQL."""
    users = [name_of(path) for path in MODULES if "utcnow" in path.read_text("utf-8")]

    assert users == ["db/database.py"]
