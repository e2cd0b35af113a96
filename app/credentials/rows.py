"""The rows of credentials: written whole, shown without their secrets."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.credentials.box import Box, is_mask
from app.credentials.kinds import KINDS, CredentialKind
from app.errors import Conflict, Duplicate, InvalidRequest, NotFound, UnknownField, Unreadable
from app.models import Credential
from app.redaction import remember
from app.wording import said

TABLE = "credentials"
SECRET, TOKEN = "secret", "token"


def read_kind(kind: str, values: Mapping[str, Any]) -> CredentialKind:
    """What makes up a credential of a kind.

    Raises:
        InvalidRequest: naming the field, never its value.
        UnknownField: when the kind has no such field.
    """
    try:
        return KINDS[kind].model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"] if part != "[key]") or None
        there = [each.alias or name for name, each in KINDS[kind].model_fields.items()]
        if foreign := next((name for name in values if name not in there), None):
            said_of = f"a credential of the kind {kind} has no {foreign}; it has {', '.join(there)}"
            raise UnknownField(said_of, field=foreign) from None
        raise InvalidRequest(f"{field}: {said(first)}" if field else said(first), field=field) from None


async def create(
    session: AsyncSession,
    box: Box,
    workspace_id: UUID,
    name: str,
    kind: str,
    values: Mapping[str, Any],
    *,
    row_id: UUID,
) -> Credential:
    """Save a new credential.

    Raises:
        InvalidRequest: naming the field.
        Duplicate: when the name is taken.
        ConfigurationError: when no encryption key is set.
    """
    made = read_kind(kind, values)
    _refuse_masks(made)
    row = Credential(id=row_id, workspace_id=workspace_id, name=name, kind=kind, token_no=0)
    _fill(row, box, made)
    session.add(row)
    await _flush(session, row)
    return row


async def change(
    session: AsyncSession, box: Box, workspace_id: UUID, ref: str, name: str | None, values: Mapping[str, Any]
) -> Credential:
    """Change some of a credential; a mask that is sent back keeps what it stands for.

    Raises:
        NotFound: when there is none.
        InvalidRequest: naming the field.
        Conflict: when it is unreadable and not all of its secrets were given anew.
    """
    row = await get(session, workspace_id, ref, lock=True)
    row.name = name or row.name
    shown = row.public | row.masks
    given = {field: value for field, value in values.items() if value != shown.get(field)}
    if given:
        made = read_kind(row.kind, row.public | _kept(row, box, given) | _unmasked(row, box, given))
        _refuse_masks(made)
        _fill(row, box, made)
    row.updated_at = func.now()
    await _flush(session, row)
    return row


def _kept(row: Credential, box: Box, given: Mapping[str, Any]) -> dict[str, Any]:
    if set(row.masks) <= set(given):
        return {}
    try:
        return open_secrets(box, row.workspace_id, row.id, row.secret)
    except Unreadable as error:
        missing = ", ".join(sorted(set(row.masks) - set(given)))
        raise Conflict(f"the credential is unreadable ({error.detail}): send {missing} too") from error


def _unmasked(row: Credential, box: Box, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, a header whose mask was sent back with its stored value."""
    headers: dict[str, str] = given.get("headers") or {}
    masks: dict[str, str] = row.masks.get("headers") or {}
    back = [name for name, value in headers.items() if value == masks.get(name)]
    if not back:
        return dict(given)
    stored = open_secrets(box, row.workspace_id, row.id, row.secret)["headers"]
    return dict(given) | {"headers": headers | {name: stored[name] for name in back}}


def _refuse_masks(made: CredentialKind) -> None:
    for field, value in made.secrets.items():
        texts = [value] if isinstance(value, str) else value.values()
        if any(is_mask(text) for text in texts):
            raise InvalidRequest("this is a mask, not a secret: send the whole secret", field=field)


def _fill(row: Credential, box: Box, made: CredentialKind) -> None:
    row.public, row.masks = made.public, made.masks
    row.secret = seal_secrets(box, row.workspace_id, row.id, made.secrets)
    # What is being fetched with the old secret comes too late.
    row.token, row.token_expires_at, row.refresher, row.refreshing_until = None, None, None, None
    row.token_no = row.token_no + 1


def seal_secrets(box: Box, workspace_id: UUID, row_id: UUID, secrets: Mapping[str, Any]) -> str:
    """The secrets of a credential as its row keeps them."""
    remember(dict(secrets), workspace_id)
    return box.seal(json.dumps(secrets), table=TABLE, workspace=workspace_id, row=row_id, field=SECRET)


def open_secrets(box: Box, workspace_id: UUID, row_id: UUID, sealed: str) -> dict[str, Any]:
    """The secrets of a row.

    Raises:
        Unreadable: when they can't be opened with the configured keys.
    """
    secrets = json.loads(box.open(sealed, table=TABLE, workspace=workspace_id, row=row_id, field=SECRET))
    remember(secrets, workspace_id)
    return secrets


def unreadable(box: Box, row: Credential) -> str | None:
    """Why a credential can't be used, None when it can."""
    try:
        open_secrets(box, row.workspace_id, row.id, row.secret)
    except Unreadable as error:
        return error.detail
    return None


async def _flush(session: AsyncSession, row: Credential) -> None:
    name = row.name
    try:
        await session.flush()
    except IntegrityError as error:
        raise Duplicate(f"a credential called {name} exists already", field="name") from error
    await session.refresh(row)


async def get(session: AsyncSession, workspace_id: UUID, ref: str, *, lock: bool = False) -> Credential:
    """A credential by its id or name.

    Raises:
        NotFound: when there is none.
    """
    try:
        named = Credential.id == UUID(ref)
    except ValueError:
        named = Credential.name == ref
    query = select(Credential).where(Credential.workspace_id == workspace_id, named)
    row = await session.scalar(query.with_for_update(key_share=True) if lock else query)
    if row is None:
        raise NotFound(f"there is no credential {ref!r}")
    return row


async def named(session: AsyncSession, workspace_id: UUID, name: str) -> Credential:
    """A credential by its name alone.

    Raises:
        NotFound: when there is none.
    """
    query = select(Credential).where(Credential.workspace_id == workspace_id, Credential.name == name)
    row = await session.scalar(query)
    if row is None:
        raise NotFound(f"there is no credential {name!r}")
    return row


async def page(session: AsyncSession, workspace_id: UUID, *, after: UUID | None, limit: int) -> Sequence[Credential]:
    """Credentials, newest first, from after one on."""
    query = select(Credential).where(Credential.workspace_id == workspace_id)
    if after:
        query = query.where(Credential.id < after)
    return (await session.scalars(query.order_by(Credential.id.desc()).limit(limit))).all()


async def delete(session: AsyncSession, workspace_id: UUID, ref: str) -> Credential:
    """Take a credential away, at once and for good: calls that need it fail and say so.

    Raises:
        NotFound: when there is none.
    """
    row = await get(session, workspace_id, ref, lock=True)
    await session.delete(row)
    await session.flush()
    return row
