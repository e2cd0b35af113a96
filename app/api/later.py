"""What the contract names and a later version brings: refused by name, never half there."""

from typing import Annotated, Any

from fastapi import APIRouter, Request, WebSocket

from app.errors import NotAvailable

router = APIRouter()

# Path prefix -> what it will be.
LATER = {
    "/budgets": "budgets",
    "/usage": "usage reports",
    "/v1": "the OpenAI-compatible API",
    "/workspaces": "further workspaces",
}
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def _refusing(what: str) -> Any:
    async def refuse(request: Request) -> None:
        del request
        raise NotAvailable(f"this version does not offer {what} yet", extra={"feature": what})

    return refuse


for path, what in LATER.items():
    for each in (path, path + "/{rest:path}"):
        router.add_api_route(each, _refusing(what), methods=METHODS, include_in_schema=False)


@router.websocket("/playground/{agent_id}")
async def playground(socket: WebSocket, agent_id: Annotated[str, "the agent's id or name"]) -> None:
    """Say in the playground's own words that it is not offered yet."""
    del agent_id
    await socket.accept()
    await socket.send_json(
        {"type": "error", "error": "this version does not offer the playground yet", "code": NotAvailable.code}
    )
    await socket.close(1000, NotAvailable.code)
