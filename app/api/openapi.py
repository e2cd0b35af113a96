"""The OpenAPI document: what FastAPI finds, and what it can't know."""

from copy import deepcopy
from typing import Any, cast

from fastapi import FastAPI
from pydantic import BaseModel

from app.api.problems import Problem

EVERYWHERE = {
    "X-Request-ID": {
        "description": "The id of the request, as sent or made; it is in the logs.",
        "schema": {"type": "string"},
    }
}
LOCATION = {
    "Location": {"description": "Where what was made or started is, when it has a place.", "schema": {"type": "string"}}
}


def install(app: FastAPI) -> None:
    """Complete the application's document when it is first asked for."""
    found = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = deepcopy(found())  # Its schemas belong to the routes.
            _complete(app.openapi_schema)
        return found()

    app.openapi = complete


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a body that FastAPI does not read itself; its `$defs` go to the document's components."""
    return model.model_json_schema(by_alias=True, ref_template="#/components/schemas/{model}")


def _gather(value: Any, schemas: dict[str, Any]) -> None:
    """Put the `$defs` of schemas where their references lead."""
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        schemas.update(members.pop("$defs", {}))
        value = list(members.values())
    if isinstance(value, list):
        for each in cast("list[Any]", value):
            _gather(each, schemas)


def _complete(document: dict[str, Any]) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = schema_of(Problem)
    _gather(document, schemas)
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                own = {**EVERYWHERE, **LOCATION} if status in ("201", "202") else EVERYWHERE
                response["headers"] = {**own, **response.get("headers", {})}
