"""The OpenAPI document: what FastAPI finds, and what it can't know."""

from typing import Any

from fastapi import FastAPI

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
            _complete(found())
        return found()

    app.openapi = complete


def _complete(document: dict[str, Any]) -> None:
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(schema.pop("$defs", {}))
    schemas["Problem"] = schema
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                own = {**EVERYWHERE, **LOCATION} if status in ("201", "202") else EVERYWHERE
                response["headers"] = {**own, **response.get("headers", {})}
