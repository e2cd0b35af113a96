"""What a statement is, by PostgreSQL's own grammar: one that reads is let through, anything else named with its place."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import pgparse as untyped_pgparse

from app.errors import ToolError

pgparse = cast(Any, untyped_pgparse)

Tree = dict[str, Any]

READING = frozenset({"SelectStmt", "ExplainStmt"})
# They show statements of others, who may be of other workspaces: all act as the same role.
OF_OTHERS = re.compile(r"pg_stat_(activity|get_activity|get_backend_\w+|statements\w*|monitor\w*)")
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
LOCKING = r"FOR\s+(?:NO\s+KEY\s+|KEY\s+)?(?:UPDATE|SHARE)"
# What a syntax tree calls some statements, where that is not what people write.
WORDS = {
    "AlterSystemStmt": "ALTER SYSTEM",
    "CheckPointStmt": "CHECKPOINT",
    "CreateTableAsStmt": "CREATE TABLE AS",
    "DeclareCursorStmt": "DECLARE CURSOR",
    "RefreshMatViewStmt": "REFRESH MATERIALIZED VIEW",
    "SecLabelStmt": "SECURITY LABEL",
    "TransactionStmt": "BEGIN, COMMIT, ROLLBACK and the like",
    "VariableSetStmt": "SET or RESET",
    "VariableShowStmt": "SHOW",
}
STATEMENTS_OF_OTHERS = "it shows what others ask of the database"
WHAT_IS_READ = "only SELECT, WITH ... SELECT, VALUES, TABLE and EXPLAIN of these are run"


@dataclass(frozen=True)
class Called:
    """A function that a statement names.

    Attributes:
        name: Without its schema.
        schema: Where the statement says so.
        as_column: Written `row.name`, which calls a function when there is no such column.
        place: Where it stands, in words.
    """

    name: str
    schema: str | None
    as_column: bool
    place: str


@dataclass(frozen=True)
class Statement:
    """One statement that reads.

    Attributes:
        text: Without its semicolon.
        explains: Whether it asks for a plan.
        called: The functions it names; whether they only read is the server's to say.
    """

    text: str
    explains: bool
    called: tuple[Called, ...]


def parse(sql: str) -> Statement:
    """The one statement of a text, if it is one that reads.

    Raises:
        ToolError: naming what is wrong with it, and where.
    """
    if "\x00" in sql:  # The parser ends there, and would not see what follows.
        raise ToolError(f"query: {position_of(sql, sql.index(chr(0)))}: a statement can't hold the character NUL")
    found = _trees(sql)
    if not found:
        raise ToolError("query: there is no statement")
    if len(found) > 1:
        where = position_of(sql, _characters(sql, found[1].get("stmt_location", 0)))
        raise ToolError(f"query: {where}: a second statement; one call runs one statement")
    kind, body = next(iter(cast(Tree, found[0]["stmt"]).items()))
    _refuse_writing(sql, kind, body)
    statement = Statement(_alone(sql, found[0]), kind == "ExplainStmt", tuple(_called(sql, body)))
    for called in statement.called:
        if OF_OTHERS.fullmatch(called.name):
            raise ToolError(f"query: {called.place}: {called.name} is refused: {STATEMENTS_OF_OTHERS}")
    return statement


def position_of(sql: str, offset: int) -> str:
    """Line and column of an offset in characters, from 1 on."""
    before = sql[:offset]
    return f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"


def _trees(sql: str) -> list[Tree]:
    try:
        return pgparse.parse(sql)
    except pgparse.PGQueryError as error:
        raise ToolError(f"query: {position_of(sql, max(error.position - 1, 0))}: {error.message}") from error
    except (RecursionError, UnicodeError, ValueError) as error:
        raise ToolError("query: the statement is nested too deeply, or holds what is no text") from error


def _alone(sql: str, found: Tree) -> str:
    """The statement without its semicolon; the parser counts bytes."""
    text = sql.encode()
    start = found.get("stmt_location", 0)
    length = found.get("stmt_len", 0) or len(text) - start
    return text[start : start + length].decode()


# --- what is refused ------------------------------------------------------------------------------


def _refuse_writing(sql: str, kind: str, body: Tree) -> None:
    for name, node in [(kind, body), *_nodes(body)]:
        if name.endswith("Stmt") and name not in READING:
            word = _word(name)
            _refuse(sql, node, word.split()[0], f"{word} is refused: {WHAT_IS_READ}")
        if OF_OTHERS.fullmatch(relation := str(node.get("relname") or "")):
            _refuse(sql, node, "", f"{relation} is refused: {STATEMENTS_OF_OTHERS}")
        if name == "intoClause":
            _refuse(sql, node, "INTO", "SELECT INTO is refused: it makes a table")
        if name == "LockingClause":
            _refuse(sql, node, LOCKING, "FOR UPDATE, FOR SHARE and the like are refused: they lock rows")
        if name == "ParamRef":
            _refuse(sql, node, "", f"${node.get('number', '')} is refused: write the value itself")


def _refuse(sql: str, node: Tree, word: str, why: str) -> NoReturn:
    raise ToolError(f"query: {position_of(sql, _where(sql, node, word))}: {why}")


def _where(sql: str, node: Tree, word: str) -> int:
    """Where a node begins: at its word, which stands before the first place that the parser notes of it."""
    noted = _noted(sql, node)
    words = [found.start() for found in re.finditer(rf"\b{word}\b", sql, re.IGNORECASE)] if word else []
    before = [start for start in words if noted is not None and start <= noted]
    return before[-1] if before else noted if noted is not None else next(iter(words), 0)


def _noted(sql: str, node: Tree) -> int | None:
    """The first place that the parser notes of a node or of what it holds."""
    found = [each["location"] for _, each in _nodes({"": node}) if "location" in each]
    return _characters(sql, min(found)) if found else None


def _word(kind: str) -> str:
    """What people call a statement: `DropStmt` is DROP."""
    return WORDS.get(kind, CAMEL.sub(" ", kind.removesuffix("Stmt")).upper())


# --- what is called -------------------------------------------------------------------------------


def _called(sql: str, body: Tree) -> Iterator[Called]:
    for name, node in _nodes(body):
        if name == "FuncCall":
            yield _function(sql, _texts(node.get("funcname")), node, as_column=False)
        elif name == "ColumnRef" and len(fields := _texts(node.get("fields"))) > 1:
            yield _function(sql, fields[-1:], node, as_column=True)
        elif name == "A_Indirection":
            for field in _texts(node.get("indirection")):
                yield _function(sql, [field], node, as_column=True)


def _function(sql: str, names: list[str], node: Tree, *, as_column: bool) -> Called:
    schema = names[-2] if len(names) > 1 else None
    return Called(names[-1], schema, as_column, position_of(sql, _noted(sql, node) or 0))


def _texts(nodes: Any) -> list[str]:
    """The names in a list of nodes; a star is none."""
    return [node["String"].get("sval", "") for node in cast(list[Tree], nodes or []) if "String" in node]


def _nodes(tree: Tree) -> Iterator[tuple[str, Tree]]:
    """Every object in a tree with the key it stands under, those of one list under the list's."""
    waiting: list[tuple[str, Any]] = list(tree.items())
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            yield name, cast(Tree, value)
            waiting += cast(Tree, value).items()
        elif isinstance(value, list):
            waiting += [(name, each) for each in cast(list[Any], value)]


def _characters(sql: str, byte_offset: int) -> int:
    """An offset in bytes as one in characters, past the blanks that a statement may begin with."""
    offset = len(sql.encode()[:byte_offset].decode(errors="ignore"))
    return offset + len(sql[offset:]) - len(sql[offset:].lstrip())
