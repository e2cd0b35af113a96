"""/audit, /workers and /settings: what an operator looks at."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field, SecretStr

from app import audit
from app.api.access import Caller, may, server_only
from app.api.pages import Page, PageOf, paged
from app.api.strict import resource
from app.credentials import mask
from app.models import AuditEntry
from app.settings import Settings

router = resource("operation")

Admin = Annotated[Caller, may("admin")]

ALIVE_SECONDS = 30
WORKERS = f"""
select id, kind, host, pid, slots, running, started_at, seen_at,
    seen_at > now() - interval '{ALIVE_SECONDS} seconds' as alive
from workers where $1::text is null or id collate "C" > $1 order by id collate "C" limit $2
"""


class AuditOut(BaseModel):
    """One act."""

    id: UUID
    created_at: datetime
    principal_id: UUID | None = Field(description="Who did it.")
    action: str = Field(examples=["agent.publish"])
    subject_kind: str = Field(examples=["agent"])
    subject_id: str
    detail: dict[str, Any]
    request_id: str | None
    address: str | None = Field(examples=["127.0.0.1"])


def _show_entry(row: AuditEntry) -> AuditOut:
    return AuditOut.model_validate(row, from_attributes=True)


@router.get("/audit", summary="Read the audit log")
async def list_audit(
    caller: Admin,
    page: Annotated[PageOf, paged("audit")],
    action: Annotated[str | None, Query(description="Only this action.", examples=["key.create"])] = None,
    subject_id: Annotated[str | None, Query(description="Only what was done to this row.")] = None,
) -> Page[AuditOut]:
    """Who did what, newest first. Entries are only ever added."""
    async with caller.transaction() as session:
        rows = await audit.entries(
            session, caller.workspace_id, after=page.after, limit=page.fetch, action=action, subject_id=subject_id
        )
        return page.cut(rows, _show_entry)


class WorkerOut(BaseModel):
    """A process of this installation."""

    id: str
    kind: str = Field(description="api, worker or scheduler.", examples=["worker"])
    host: str
    pid: int
    slots: int = Field(description="Runs it executes at a time.")
    running: int = Field(description="Runs it executes now.")
    started_at: datetime
    seen_at: datetime
    alive: bool = Field(description=f"Whether it was seen in the last {ALIVE_SECONDS} seconds.")


@router.get("/workers", summary="List processes")
async def list_workers(caller: Admin, page: Annotated[PageOf, paged("workers")]) -> Page[WorkerOut]:
    """API, worker and scheduler processes. For display: what a process holds stands in its runs' leases.

    They are the server's, so other workspaces than its own do not see them.
    """
    server_only(caller, "the processes belong to the server")
    rows = await caller.database.fetch(WORKERS, page.position, page.fetch)
    return page.cut(rows, lambda row: WorkerOut(**dict(row)))


class SettingOut(BaseModel):
    """One setting."""

    name: str = Field(examples=["PARLEY_LEASE_SECONDS"])
    value: Any = Field(description="What is in force; secrets are masked.", examples=[10.0])
    default: Any = Field(description="What holds when it is not set.", examples=[10.0])
    secret: bool
    description: str


class SettingsOut(BaseModel):
    """All settings."""

    items: list[SettingOut]


def _effective(settings: Settings) -> Iterator[SettingOut]:
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        secret = "SecretStr" in str(field.annotation)
        yield SettingOut(
            name=name.upper(),
            value=_plain(value),
            default=_plain(field.default),
            secret=secret,
            description=field.description or "",
        )


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return mask(value.get_secret_value())
    return str(value) if isinstance(value, Path) else value


@router.get("/settings", summary="Show the settings")
async def get_settings(caller: Admin) -> SettingsOut:
    """What is in force in this process. Settings are changed in the environment, not here.

    They are the server's, so other workspaces than its own do not see them.
    """
    server_only(caller, "the settings belong to the server")
    return SettingsOut(items=list(_effective(caller.settings)))
