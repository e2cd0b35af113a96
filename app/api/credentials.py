"""The resource /credentials: secrets go in, and never come out."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from app import audit
from app.api.access import Caller, may
from app.api.idempotency import Idempotent
from app.api.pages import Page, PageOf, paged
from app.api.shapes import Body
from app.api.strict import resource
from app.credentials import rows
from app.credentials.needs import needs
from app.models import Credential, new_id

router = resource("credentials")

Reads = Annotated[Caller, may("credentials:read")]
Writes = Annotated[Caller, may("credentials:write")]

NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"
Kind = Literal["api_key", "bearer", "basic", "oauth2", "headers"]


class Fields(Body):
    """What the kinds consist of."""

    value: str | None = Field(default=None, description="api_key: the key.", examples=["sk-1234567890abcdef"])
    place: Literal["header", "query"] | None = Field(default=None, alias="in", description="api_key: where it goes.")
    key: str | None = Field(default=None, description="api_key: the header or parameter; X-API-Key when left out.")
    token: str | None = Field(default=None, description="bearer: the token.")
    username: str | None = Field(default=None, description="basic: the user.")
    password: str | None = Field(default=None, description="basic: the password.")
    grant: Literal["client_credentials", "refresh_token"] | None = Field(default=None, description="oauth2: how.")
    token_url: str | None = Field(default=None, description="oauth2: where tokens are had.")
    client_id: str | None = Field(default=None, description="oauth2: the client.")
    client_secret: str | None = Field(default=None, description="oauth2: its secret.")
    refresh_token: str | None = Field(default=None, description="oauth2: for the grant refresh_token.")
    scopes: list[str] | None = Field(default=None, description="oauth2: what to ask for.")
    client_auth: Literal["post", "basic"] | None = Field(
        default=None, description="oauth2: how the client proves itself; post, then basic, when left out."
    )
    headers: dict[str, str] | None = Field(default=None, description="headers: names with their secret values.")

    @property
    def values(self) -> dict[str, Any]:
        """What was given of them."""
        given = self.model_dump(by_alias=True, exclude_none=True)
        return {name: value for name, value in given.items() if name not in ("name", "kind")}


class CredentialBody(Fields):
    """A credential to be kept."""

    name: str = Field(pattern=NAME, description="What tools call it.", examples=["weather"])
    kind: Kind = Field(description="What it is; says which of the other fields it takes.", examples=["api_key"])


class CredentialPatch(Fields):
    """Changes; a mask that is sent back keeps what it stands for."""

    name: str | None = Field(default=None, pattern=NAME, description="A new name.")


class NeedsOut(BaseModel):
    """Who needs a credential."""

    model_config = ConfigDict(from_attributes=True)

    tools: list[str] = Field(description="Tools that name it.", examples=[["forecast"]])
    agents: list[str] = Field(description="Agents that have one of those tools.", examples=[["assistant"]])


class CredentialOut(BaseModel):
    """A credential; of its secrets the last four characters."""

    id: UUID
    name: str = Field(examples=["weather"])
    kind: Kind = Field(examples=["api_key"])
    state: Literal["readable", "unreadable"] = Field(description="Whether the encryption keys open it.")
    reason: str | None = Field(description="Why it is unreadable.")
    needed_by: NeedsOut | None = Field(default=None, description="Whose calls wait while it is unreadable.")
    value: str | None = Field(default=None, examples=["****cdef"])
    place: str | None = Field(default=None, alias="in")
    key: str | None = None
    token: str | None = None
    username: str | None = None
    password: str | None = None
    grant: str | None = None
    token_url: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    refresh_token: str | None = None
    scopes: list[str] | None = None
    client_auth: str | None = None
    headers: dict[str, str] | None = None
    token_expires_at: datetime | None = Field(description="oauth2: until when the present access token is used.")
    created_at: datetime
    updated_at: datetime


def show(row: Credential, caller: Caller) -> CredentialOut:
    """A credential as the API shows it."""
    reason = rows.unreadable(caller.engine.box, row)
    common = {
        name: getattr(row, name) for name in ("id", "name", "kind", "token_expires_at", "created_at", "updated_at")
    }
    state = "unreadable" if reason else "readable"
    return CredentialOut.model_validate({**row.public, **row.masks, **common, "state": state, "reason": reason})


@router.get("/credentials", summary="List credentials")
async def list_credentials(caller: Reads, page: Annotated[PageOf, paged("credentials")]) -> Page[CredentialOut]:
    """Credentials, newest first; secrets are masked."""
    async with caller.transaction() as session:
        found = await rows.page(session, caller.workspace_id, after=page.after, limit=page.fetch)
    shown = page.cut(found, lambda row: show(row, caller))
    await _tell_needs(shown.items, caller)
    return shown


async def _tell_needs(credentials: list[CredentialOut], caller: Caller) -> None:
    """Add to unreadable credentials who needs them."""
    shut = [each for each in credentials if each.state == "unreadable"]
    found = await needs(caller.database, caller.workspace_id, [each.name for each in shut])
    for each in shut:
        each.needed_by = NeedsOut.model_validate(found[each.name])


@router.post("/credentials", status_code=201, summary="Keep a credential")
async def create_credential(body: CredentialBody, caller: Writes, key: Idempotent, response: Response) -> CredentialOut:
    """Seals and keeps it. It is opened only at the moment a tool needs it."""
    row_id, box = new_id(), caller.engine.box
    async with caller.transaction() as session:
        if repeat := await key.claim(session, caller, "credential", row_id):
            row = await rows.get(session, caller.workspace_id, str(repeat.uuid))
        else:
            row = await rows.create(session, box, caller.workspace_id, body.name, body.kind, body.values, row_id=row_id)
            audit.record(session, caller.entry("credential.create", "credential", row.id, name=row.name, of=row.kind))
        response.headers["Location"] = f"/credentials/{row.id}"
        return show(row, caller)


@router.get("/credentials/{ref}", summary="Show a credential")
async def get_credential(ref: str, caller: Reads) -> CredentialOut:
    """One credential, by id or name."""
    async with caller.transaction() as session:
        shown = show(await rows.get(session, caller.workspace_id, ref), caller)
    await _tell_needs([shown], caller)
    return shown


@router.patch("/credentials/{ref}", summary="Change a credential")
async def patch_credential(ref: str, changes: CredentialPatch, caller: Writes) -> CredentialOut:
    """New secrets are in force for the next call; a token fetched with the old ones is forgotten."""
    async with caller.transaction() as session:
        row = await rows.change(session, caller.engine.box, caller.workspace_id, ref, changes.name, changes.values)
        fields = sorted(changes.model_fields_set)
        audit.record(session, caller.entry("credential.patch", "credential", row.id, name=row.name, fields=fields))
        return show(row, caller)


@router.delete("/credentials/{ref}", status_code=204, summary="Delete a credential")
async def delete_credential(ref: str, caller: Writes) -> None:
    """Tools that need it fail from now on and say so, also in runs under way."""
    async with caller.transaction() as session:
        row = await rows.delete(session, caller.workspace_id, ref)
        audit.record(session, caller.entry("credential.delete", "credential", row.id, name=row.name))
