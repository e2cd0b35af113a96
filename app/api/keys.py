"""The resource /keys."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Response
from pydantic import AwareDatetime, BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession

from app import audit, identity
from app.api.access import Caller, may
from app.api.idempotency import Idempotent
from app.api.pages import Page, PageOf, paged
from app.api.shapes import Body
from app.api.strict import resource
from app.errors import InvalidRequest
from app.identity import SCOPES
from app.models import ApiKey, Principal, new_id
from app.notifications.config import Address

router = resource("keys")

SLACK_USER = r"^[UW][A-Z0-9]{1,20}$"
Admin = Annotated[Caller, may("admin")]


class KeyBody(Body):
    """A key to be made."""

    name: str = Field(min_length=1, max_length=100, description="For people.", examples=["ci"])
    scopes: list[str] = Field(
        min_length=1, max_length=50, description=f"What it may do: {', '.join(SCOPES)}.", examples=[["tasks:write"]]
    )
    expires_at: AwareDatetime | None = Field(default=None, description="When it stops working; never when null.")
    email: Address | None = Field(
        default=None, description="Whose it is: mails and Slack messages from this address act with its scopes."
    )
    slack_user_id: str | None = Field(
        default=None, pattern=SLACK_USER, description="Whose it is in Slack.", examples=["U012AB3CD"]
    )


class KeyOut(BaseModel):
    """A key, without its secret."""

    id: UUID
    name: str = Field(examples=["ci"])
    scopes: list[str] = Field(examples=[["tasks:write"]])
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To within half a minute.")
    email: str | None = Field(description="Whose it is.")
    slack_user_id: str | None = Field(description="Whose it is in Slack.")


class NewKeyOut(KeyOut):
    """A key just made."""

    key: str | None = Field(description="The whole key, shown this once; null when the request is repeated.")


async def show_all(session: AsyncSession, rows: Sequence[ApiKey]) -> list[KeyOut]:
    """Keys as the API shows them."""
    owners = await identity.principals_of(session, rows)
    return [_shown(row, owners[row.principal_id]) for row in rows]


def _shown(row: ApiKey, owner: Principal) -> KeyOut:
    person = {"email": owner.email, "slack_user_id": owner.slack_user_id}
    return KeyOut.model_validate(
        {name: getattr(row, name) for name in KeyOut.model_fields.keys() - person.keys()} | person
    )


@router.get("/keys", summary="List keys")
async def list_keys(caller: Admin, page: Annotated[PageOf, paged("keys")]) -> Page[KeyOut]:
    """API keys, newest first; secrets are never shown."""
    async with caller.transaction() as session:
        found = await identity.list_keys(session, caller.workspace_id, page.after, page.fetch)
        return page.cut(await show_all(session, found), lambda key: key)


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
                session,
                caller.workspace_id,
                body.name,
                scopes,
                body.expires_at,
                key_id=key_id,
                email=body.email,
                slack_user_id=body.slack_user_id,
            )
            row, text = made.row, made.text
            audit.record(session, caller.entry("key.create", "key", row.id, name=row.name, scopes=row.scopes))
        response.headers["Location"] = f"/keys/{row.id}"
        (shown,) = await show_all(session, [row])
        return NewKeyOut(**shown.model_dump(), key=text)


@router.get("/keys/{key_id}", summary="Show a key")
async def get_key(key_id: UUID, caller: Admin) -> KeyOut:
    """One key."""
    async with caller.transaction() as session:
        return (await show_all(session, [await identity.get_key(session, caller.workspace_id, key_id)]))[0]


@router.delete("/keys/{key_id}", status_code=204, summary="Revoke a key")
async def revoke_key(key_id: UUID, caller: Admin) -> None:
    """It stops working at once; revoking it again changes nothing."""
    async with caller.transaction() as session:
        await identity.revoke_key(session, caller.workspace_id, key_id)
        audit.record(session, caller.entry("key.revoke", "key", key_id))
