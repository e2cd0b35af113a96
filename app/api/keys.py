"""The resource /keys."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Response
from pydantic import AwareDatetime, BaseModel, Field

from app import audit, identity
from app.api.access import Caller, may
from app.api.idempotency import Idempotent
from app.api.pages import Page, PageOf, paged
from app.api.shapes import Body
from app.api.strict import resource
from app.errors import InvalidRequest
from app.identity import SCOPES
from app.models import ApiKey, new_id

router = resource("keys")

Admin = Annotated[Caller, may("admin")]


class KeyBody(Body):
    """A key to be made."""

    name: str = Field(min_length=1, max_length=100, description="For people.", examples=["ci"])
    scopes: list[str] = Field(
        min_length=1, max_length=50, description=f"What it may do: {', '.join(SCOPES)}.", examples=[["tasks:write"]]
    )
    expires_at: AwareDatetime | None = Field(default=None, description="When it stops working; never when null.")


class KeyOut(BaseModel):
    """A key, without its secret."""

    id: UUID
    name: str = Field(examples=["ci"])
    scopes: list[str] = Field(examples=[["tasks:write"]])
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To within half a minute.")


class NewKeyOut(KeyOut):
    """A key just made."""

    key: str | None = Field(description="The whole key, shown this once; null when the request is repeated.")


def show(row: ApiKey) -> KeyOut:
    """A key as the API shows it."""
    return KeyOut.model_validate(row, from_attributes=True)


@router.get("/keys", summary="List keys")
async def list_keys(caller: Admin, page: Annotated[PageOf, paged("keys")]) -> Page[KeyOut]:
    """API keys, newest first; secrets are never shown."""
    async with caller.transaction() as session:
        return page.cut(await identity.list_keys(session, caller.workspace_id, page.after, page.fetch), show)


@router.post("/keys", status_code=201, summary="Create a key")
async def create_key(body: KeyBody, caller: Admin, key: Idempotent, response: Response) -> NewKeyOut:
    """Answers the key once: only a hash of it is kept."""
    scopes = identity.check_scopes(body.scopes)
    if body.expires_at and body.expires_at <= datetime.now(UTC):
        raise InvalidRequest("expires_at lies in the past", field="expires_at")
    key_id = new_id()
    async with caller.transaction() as session:
        text = None
        if repeat := await key.claim(session, caller, "key", key_id):
            row = await identity.get_key(session, caller.workspace_id, repeat.uuid)
        else:
            made = await identity.create_key(
                session, caller.workspace_id, body.name, scopes, body.expires_at, key_id=key_id
            )
            row, text = made.row, made.text
            audit.record(session, caller.entry("key.create", "key", row.id, name=row.name, scopes=row.scopes))
        response.headers["Location"] = f"/keys/{row.id}"
        return NewKeyOut(**show(row).model_dump(), key=text)


@router.get("/keys/{key_id}", summary="Show a key")
async def get_key(key_id: UUID, caller: Admin) -> KeyOut:
    """One key."""
    async with caller.transaction() as session:
        return show(await identity.get_key(session, caller.workspace_id, key_id))


@router.delete("/keys/{key_id}", status_code=204, summary="Revoke a key")
async def revoke_key(key_id: UUID, caller: Admin) -> None:
    """It stops working at once; revoking it again changes nothing."""
    async with caller.transaction() as session:
        await identity.revoke_key(session, caller.workspace_id, key_id)
        audit.record(session, caller.entry("key.revoke", "key", key_id))
