"""The audit log: who did what to which row. Rows are only ever inserted, in the transaction they tell about."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Connection
from app.models import AuditEntry, new_id


@dataclass(frozen=True)
class Entry:
    """One act.

    Attributes:
        workspace_id: Where it happened.
        principal_id: Who did it.
        action: What, as `agent.create`.
        subject_kind: The kind of row it was done to.
        subject_id: The row's id or name.
        detail: More about it; never a secret.
        request_id: The request it came with.
        address: The caller's network address.
    """

    workspace_id: UUID
    principal_id: UUID | None
    action: str
    subject_kind: str
    subject_id: str
    detail: dict[str, Any] = field(default_factory=dict[str, Any])
    request_id: str | None = None
    address: str | None = None


INSERT = """
insert into audit (id, workspace_id, principal_id, action, subject_kind, subject_id, detail, request_id, address)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""


# The same as a part of a larger statement, from the records in `$3`.
INSERT_RECORDS = """
insert into audit (id, workspace_id, principal_id, action, subject_kind, subject_id, detail, request_id, address)
select id, workspace_id, principal_id, action, subject_kind, subject_id, detail, request_id, address
from json_populate_recordset(null::audit, $3::json)
"""


def record(session: AsyncSession, entry: Entry) -> None:
    """Write an act down in a session's transaction."""
    session.add(AuditEntry(id=new_id(), **asdict(entry)))


def record_of(entry: Entry) -> dict[str, Any]:
    """An act as `INSERT_RECORDS` reads it."""
    return {"id": new_id(), **asdict(entry)}


async def record_engine(connection: Connection, entry: Entry) -> None:
    """Write an act down in an `engine_tx()`."""
    await connection.execute(
        INSERT,
        new_id(),
        entry.workspace_id,
        entry.principal_id,
        entry.action,
        entry.subject_kind,
        entry.subject_id,
        entry.detail,
        entry.request_id,
        entry.address,
    )


async def entries(
    session: AsyncSession,
    workspace_id: UUID,
    *,
    after: UUID | None,
    limit: int,
    action: str | None = None,
    subject_id: str | None = None,
) -> Sequence[AuditEntry]:
    """What was done in a workspace, newest first, from after one entry on."""
    query = select(AuditEntry).where(AuditEntry.workspace_id == workspace_id)
    if after:
        query = query.where(AuditEntry.id < after)
    if action:
        query = query.where(AuditEntry.action == action)
    if subject_id:
        query = query.where(AuditEntry.subject_id == subject_id)
    return (await session.scalars(query.order_by(AuditEntry.id.desc()).limit(limit))).all()
