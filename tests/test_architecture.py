"""The rules of the house that no linter knows, checked on the source itself."""

import ast
import hashlib
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from app.failpoints import EDGES
from app.notifications.registry import CHANNELS
from app.patterns import PATTERNS
from app.tools import BUILT_IN
from app.tools.stored import KINDS

ROOT = Path(__file__).parents[1]
T = TypeVar("T", bound=ast.AST)
LINES = 500
# Heavy packages that few processes need: provider clients, the commands' HTTP client.
LOADED_WHEN_USED = ("app.providers", "app.cli", "app.paths")
BANNED = {"utils", "helpers", "common", "core", "base", "services", "managers", "handlers"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = sorted(path for package in ("app", "workers") for path in (ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    """A source file as its module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def nodes(kind: type[T]) -> Iterator[tuple[str, T]]:
    """All nodes of a kind, each with its module."""
    for module, tree in TREES.items():
        yield from ((module, node) for node in ast.walk(tree) if isinstance(node, kind))


def inside(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


# Every import as (module, what it imports); `from a import b` may mean the module a.b.
IMPORTS = [
    *((module, alias.name) for module, node in nodes(ast.Import) for alias in node.names),
    *(
        (module, name)
        for module, node in nodes(ast.ImportFrom)
        for alias in node.names
        for name in (node.module or "", f"{node.module}.{alias.name}")
    ),
]


def importers(package: str) -> set[str]:
    """The modules that import a package or anything in it."""
    return {module for module, name in IMPORTS if inside(name, package)}


def strings() -> Iterator[tuple[str, str]]:
    """Every text in the code, each with its module."""
    return ((module, node.value) for module, node in nodes(ast.Constant) if isinstance(node.value, str))


def calls() -> Iterator[tuple[str, str, str]]:
    """Every call as (module, what it is called on, its name)."""
    for module, node in nodes(ast.Call):
        if isinstance(node.func, ast.Attribute):
            yield module, ast.unparse(node.func.value), node.func.attr
        elif isinstance(node.func, ast.Name):
            yield module, "", node.func.id


# --- who may do what --------------------------------------------------------------------------------

WRITES_STATE = re.compile(r"\bupdate\s+runs\b(?:(?!\bwhere\b).)*?\bset\b(?:(?!\bwhere\b).)*?\bstate\s*=", re.I | re.S)
CAN_COMMIT = re.compile(r"(session|connection|transaction|engine)\w*(\(\))?$")
ADDS_RUN = re.compile(r"\binsert\s+into\s+runs\b", re.I)


def test_only_runs_writes_the_state_of_a_run() -> None:
    by_sql = {module for module, text in strings() if WRITES_STATE.search(text) or ADDS_RUN.search(text)}
    by_orm = {
        module
        for module, node in nodes(ast.Call)
        if isinstance(node.func, ast.Name) and node.func.id in ("insert", "update", "delete")
        for argument in node.args
        if ast.unparse(argument) in ("Run", "models.Run", "Run.__table__")
    }
    assert {module for module in by_sql | by_orm if not inside(module, "app.runs")} == set()
    assert by_sql, "the search finds what it looks for"


def test_only_settle_ends_a_run() -> None:
    assert importers("app.runs.end") == {"app.settle"}


def test_only_the_database_module_commits() -> None:
    """Sessions begin and commit in `app.db`; asyncpg's connections to our own, which could too, are known there."""
    words = ("commit", "rollback", "begin", "begin_nested")
    committing = {module for module, target, name in calls() if name in words and CAN_COMMIT.search(target)}
    assert committing == {"app.db"}
    taken = {
        alias.name
        for module, node in nodes(ast.ImportFrom)
        if node.module == "sqlalchemy.ext.asyncio" and module != "app.db"
        for alias in node.names
    }
    assert taken <= {"AsyncSession"}, "a session is passed down, an engine is not"


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("arq", ("app.queue", "workers")),
        ("apscheduler", ("workers.scheduler",)),
        ("asyncpg", ("app.db", "app.sql")),  # The second reads somebody else's database, and commits nothing.
        ("pgparse", ("app.sql",)),
        ("fastapi", ("app.api", "app.web", "app.main")),
        ("starlette", ("app.api", "app.web", "app.main")),
        ("sse_starlette", ("app.api",)),
        ("cronsim", ("app.cron",)),
        ("aiosmtplib", ("app.notifications.smtp", "app.cli.checks")),
        ("pydantic_monty", ("app.sandbox",)),
        ("pydantic_settings", ("app.settings",)),
        ("typer", ("app.cli",)),
    ],
)
def test_a_library_is_known_only_where_it_belongs(library: str, allowed: tuple[str, ...]) -> None:
    assert {module for module in importers(library) if not inside(module, *allowed)} == set()


EDGE = re.compile(
    r"\b(?:before|after|engine_tx|connection)\((\"[^)]*)\)|recorder\.write\(.*, \"([^\"]*)\"\)|self\.write\(.*, \"([^\"]*)\"\)"
)


def test_failpoints_are_named_and_armed_by_nobody_here() -> None:
    """Every edge that is reached has a line in `EDGES`, and the other way round; only tests arm one."""
    found = "".join(path.read_text(encoding="utf-8") for path in SOURCES if path.name != "failpoints.py")
    used = {name for match in EDGE.finditer(found) for text in match.groups() if text for name in names_in(text)}
    assert used == set(EDGES)
    assert {module for module, _, name in calls() if name == "arm"} == set()


def names_in(text: str) -> list[str]:
    """The names of a literal, or of a choice between two."""
    return re.findall(r'"([^"]+)"', text) or [text]


def test_only_settings_reads_the_environment() -> None:
    read = {module for module, node in nodes(ast.Attribute) if ast.unparse(node) in ("os.environ", "os.environb")}
    asked = {module for module, target, name in calls() if target == "os" and name in ("getenv", "getenvb")}
    named = {
        module
        for module, node in nodes(ast.ImportFrom)
        if node.module == "os" and {"environ", "getenv"} & {alias.name for alias in node.names}
    }
    assert read | asked | named == {"app.settings"}


def test_http_exceptions_stay_at_the_edge() -> None:
    named = {
        module
        for module, node in nodes(ast.ImportFrom)
        if (node.module or "").startswith(("fastapi", "starlette"))
        and {"HTTPException"} & {alias.name for alias in node.names}
    }
    assert named <= {"app.api.problems"}


def test_nothing_branches_on_the_name_of_a_pattern() -> None:
    compared = {
        (module, ast.unparse(node))
        for module, node in nodes(ast.Compare)
        for side in (node.left, *node.comparators)
        for part in (side.elts if isinstance(side, ast.Tuple | ast.Set | ast.List) else [side])
        if isinstance(part, ast.Constant)
        and part.value in PATTERNS
        and re.search(r"pattern(_type)?(\.name)?\b(?!\.plan)", ast.unparse(node))
    }
    assert compared == set()


@pytest.mark.parametrize(
    "entries",
    [
        {f"app.tools.{name}" for name in BUILT_IN},
        {channel.__module__ for channel in CHANNELS.values()},
    ],
    ids=["tools", "channels"],
)
def test_no_entry_of_a_registry_imports_another(entries: set[str]) -> None:
    assert entries <= set(TREES)
    assert {
        (module, other) for module in entries for other in entries - {module} if module in importers(other)
    } == set()


def test_no_kind_of_tool_imports_another() -> None:
    kinds = {f"app.tools.{kind}" for kind in KINDS}
    assert kinds <= set(TREES)
    found = {(module, other) for module in kinds for other in kinds - {module} if module in importers(other)}
    assert found == {("app.tools.openapi", "app.tools.http")}, "what a document describes are HTTP tools"


# --- where things live ------------------------------------------------------------------------------


def test_no_file_is_long() -> None:
    long = {name_of(path): count for path in SOURCES if (count := len(path.read_text().splitlines())) > LINES}
    assert long == {}


def test_no_module_is_a_drawer_for_everything() -> None:
    names = {module: module.split(".") for module in TREES}
    banned = {
        module
        for module, parts in names.items()
        if any(part in BANNED or part.endswith(("_manager", "_service", "_handler", "_helper")) for part in parts)
    }
    assert banned == set()


def test_every_module_has_its_place_in_the_layers() -> None:
    [layers] = [each["layers"] for each in PROJECT["tool"]["importlinter"]["contracts"] if each["type"] == "layers"]
    placed = {name.strip("() ") for line in layers for name in re.split(r"[|:]", line)}
    there = {".".join(module.split(".")[:2]) for module in TREES if inside(module, "app") and module != "app"}
    assert there - placed == set()


def test_imports_stand_at_the_top_of_the_file() -> None:
    hidden = {
        f"{module}: {ast.unparse(node)}"
        for module, function in [*nodes(ast.FunctionDef), *nodes(ast.AsyncFunctionDef)]
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom) and not inside(module, *LOADED_WHEN_USED)
    }
    assert hidden == set()


def registers(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2].startswith("add_")


def test_importing_a_module_does_nothing() -> None:
    """No bare call at a module's top level, but for registering with an object made there."""
    acting = {
        f"{module}: {ast.unparse(node)[:80]}"
        for module, tree in TREES.items()
        if not module.endswith(".__main__")
        for node in tree.body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await) and not registers(node.value)
    }
    assert acting == set()


def test_alembic_is_a_folder_not_a_package() -> None:
    assert not (ROOT / "alembic" / "__init__.py").exists()


# --- what is locked ---------------------------------------------------------------------------------


# The SHA-256 of the host that the public index serves its files from, so that a mirror's can't slip in.
FILES_HOST = "ecd9636e60d6eda7f33c9d42f265acc9af5f2bb64c1621695d8dda72527bedc8"


def test_the_lock_file_names_only_the_public_index() -> None:
    lock = (ROOT / "uv.lock").read_text()
    [index] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["index"]
    sources = {json.dumps(package["source"], sort_keys=True) for package in tomllib.loads(lock)["package"]}
    assert sources == {'{"editable": "."}', json.dumps({"registry": index["url"]})}
    [host] = set(re.findall(r'url = "(https?://[^/"]+)', lock))
    assert hashlib.sha256(host.encode()).hexdigest() == FILES_HOST


def test_the_lock_file_fits_the_project() -> None:
    [own] = [each for each in tomllib.loads((ROOT / "uv.lock").read_text())["package"] if each["name"] == "parley"]
    assert own["version"] == PROJECT["project"]["version"]
    asked = {re.split(r"[\[<>=~;! ]", text, maxsplit=1)[0] for text in PROJECT["project"]["dependencies"]}
    assert asked == {each["name"] for each in own["dependencies"]}
