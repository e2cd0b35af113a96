"""How long an OpenAPI document of real size takes to become tools, and whether the event loop stays free while it is read.

    python -m benchmarks.openapi [TIMES [THINGS]]

The document has 500 operations of the shape that real ones have: references, `allOf`, `oneOf` with a discriminator,
`nullable`, schemas that stand inside themselves, parameters in every style, every kind of authentication. Read is what
`POST /tools/import` does before its transaction, in a thread; the longest pause is that of the loop beside it. Saved is its
transaction: a new workspace's tools, each with its version.
"""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from app.db import DEFAULT_WORKSPACE, Database
from app.settings import Settings
from app.tools import sources
from app.tools.openapi import Import, read_document, read_operations
from app.tools.sources import Contents
from benchmarks.figure import Figure, milliseconds, tell
from benchmarks.ground import prepared

THINGS = 100
PER_THING = 5
TIMES = 5
OPERATIONS = THINGS * PER_THING
TICK_SECONDS = 0.001

Json = dict[str, Any]


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def answers(schema: Json, code: str = "200") -> Json:
    problem = {"description": "Refused", "content": {"application/problem+json": {"schema": ref("Problem")}}}
    return {code: {"description": "Done", "content": {"application/json": {"schema": schema}}}, "default": problem}


def query(name: str, **fields: Any) -> Json:
    return {"name": name, "in": "query", "description": f"By {name}"} | fields


def operations(name: str) -> Json:
    """The paths of one kind of thing."""
    words: Json = {"type": "array", "items": {"type": "string"}}
    listed = [
        query("ids", schema={"type": "array", "items": {"type": "integer"}}, explode=False),
        query("tags", schema=words),
        query("sort", schema=words, style="pipeDelimited", explode=False),
        query("filter", schema=ref("Filter"), style="deepObject", explode=True),
        {"$ref": "#/components/parameters/Limit"},
    ]
    body = {"required": True, "content": {"application/json": {"schema": ref(f"New{name}")}}}
    page = {
        "type": "object",
        "properties": {"items": {"type": "array", "items": ref(name)}, "next": {"type": "string"}},
    }

    def operation(verb: str, **fields: Any) -> Json:
        return {"operationId": f"{verb}{name}", "summary": f"{verb} {name}", "tags": [name], **fields}

    return {
        f"/{name.lower()}": {
            "get": operation("list", parameters=listed, responses=answers(page)),
            "post": operation("create", requestBody=body, responses=answers(ref(name), "201")),
        },
        f"/{name.lower()}/{{id}}": {
            "parameters": [{"$ref": "#/components/parameters/Id"}],
            "get": operation("get", responses=answers(ref(name))),
            "patch": operation("change", requestBody=body, responses=answers(ref(name))),
            "delete": operation("delete", responses={"204": {"description": "Gone"}}),
        },
    }


def schemas(name: str) -> Json:
    """The schemas of one kind of thing."""
    new: Json = {
        "type": "object",
        "required": ["name", "owner"],
        "properties": {
            "name": {"type": "string", "maxLength": 200, "example": "Tea"},
            "note": {"type": "string", "nullable": True},
            "price": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
            "owner": ref("Owner"),
            "lines": {"type": "array", "items": ref("Line")},
            "category": ref("Category"),
            "id": {"type": "integer", "readOnly": True},
        },
    }
    whole = {"type": "object", "required": ["id", "name"], "properties": {"state": {"enum": ["new", "old"]}}}
    return {f"New{name}": new, name: {"allOf": [ref("Entity"), whole]}}


SHARED: Json = {
    "Entity": {"type": "object", "properties": {"id": {"type": "integer"}, "created": {"type": "string"}}},
    "Problem": {"type": "object", "properties": {"title": {"type": "string"}, "status": {"type": "integer"}}},
    "Filter": {"type": "object", "properties": {"state": {"type": "string"}, "since": {"type": "string"}}},
    "Line": {"type": "object", "properties": {"sku": {"type": "string"}, "count": {"type": "integer"}}},
    "Category": {"type": "object", "properties": {"title": {"type": "string"}, "parent": ref("Category")}},
    "Person": {
        "type": "object",
        "required": ["kind", "email"],
        "properties": {"kind": {"enum": ["person"]}, "email": {"type": "string", "format": "email"}},
    },
    "Company": {
        "type": "object",
        "required": ["kind", "name"],
        "properties": {"kind": {"enum": ["company"]}, "name": {"type": "string"}, "vat": {"type": "string"}},
    },
    "Owner": {
        "oneOf": [ref("Person"), ref("Company")],
        "discriminator": {"propertyName": "kind", "mapping": {"person": "#/components/schemas/Person"}},
    },
}
SCHEMES: Json = {
    "header": {"type": "apiKey", "in": "header", "name": "X-Key"},
    "query": {"type": "apiKey", "in": "query", "name": "key"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic"},
    "oauth2": {"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": "/token", "scopes": {}}}},
}


def large(version: str = "3.0.3", things: int = THINGS) -> Json:
    """A document of 500 operations, or of fewer kinds of things."""
    names = [f"Thing{number}" for number in range(things)]
    limit = {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 100, "default": 20}}
    own = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "openapi": version,
        "info": {"title": "A shop", "version": "1"},
        "servers": [{"url": "/v1"}],
        "security": [{name: []} for name in SCHEMES],
        "paths": {path: item for name in names for path, item in operations(name).items()},
        "components": {
            "securitySchemes": SCHEMES,
            "parameters": {"Limit": limit, "Id": own},
            "schemas": SHARED | {key: each for name in names for key, each in schemas(name).items()},
        },
    }


def read(text: bytes, name: str = "shop") -> Import:
    found = read_operations(read_document(text), name=name, source="https://shop.example/api")
    assert not found.skipped, found.skipped[:3]
    return found


async def longest_pause(done: asyncio.Event) -> float:
    """The longest time that the loop let nobody else run."""
    worst, last = 0.0, time.perf_counter()
    while not done.is_set():
        await asyncio.sleep(TICK_SECONDS)
        now = time.perf_counter()
        worst, last = max(worst, now - last - TICK_SECONDS), now
    return worst


async def measured(text: bytes) -> tuple[float, float]:
    done = asyncio.Event()
    watch = asyncio.create_task(longest_pause(done))
    began = time.perf_counter()
    await asyncio.to_thread(read, text)
    seconds = time.perf_counter() - began
    done.set()
    return seconds, await watch


async def saved(database: Database, text: bytes, number: int) -> float:
    found = await asyncio.to_thread(read, text, f"shop{number}")

    async def save() -> None:
        async with database.transaction(DEFAULT_WORKSPACE) as session:
            source = await sources.put(session, DEFAULT_WORKSPACE, f"shop{number}", "openapi", {})
            await sources.save(session, source, None, Contents(found.definitions, [], found.names))

    return await milliseconds(save) / 1000


async def measure(times: int = TIMES, things: int = THINGS) -> list[Figure]:
    text = json.dumps(large(things=things)).encode()
    taken = [await measured(text) for _ in range(times)]
    with tempfile.TemporaryDirectory(prefix="parley-bench-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o711)  # the servers' account passes through when we are root
        async with prepared(home) as ground:
            dsn = await ground.database("openapi")
            database = await Database.open(Settings.of(**ground.settings(dsn, ground.redis)))
            try:
                await database.execute("insert into workspaces (id, name) values ($1, 'default')", DEFAULT_WORKSPACE)
                saves = [await saved(database, text, number) for number in range(times)]
            finally:
                await database.close()
    seconds, pauses = ([each[place] for each in taken] for place in (0, 1))
    said = f"openapi: {things * PER_THING} operations, {len(text) / 1000:.0f} kB,"
    return [
        Figure(f"{said} read s p50", median(seconds)),
        Figure(f"{said} saved s p50", median(saves)),
        Figure(f"{said} longest pause of the loop while it is read ms p50", median(pauses) * 1000),
    ]


if __name__ == "__main__":
    tell(asyncio.run(measure(*map(int, sys.argv[1:3]))))
