"""Agents and tools with their immutable versions, and the sources that tools are read from."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.table import Base, Owned, in_workspace, points_at, unique_in_workspace


class Agent(Owned, Base):
    """A named agent; what it is stands in its versions."""

    __tablename__ = "agents"
    __table_args__ = (
        unique_in_workspace(),
        in_workspace(),
        Index("uq_agents_name", "workspace_id", "name", unique=True, postgresql_where=text("deleted_at is null")),
    )

    name: Mapped[str]
    published_version: Mapped[int]
    latest_version: Mapped[int]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]


class AgentVersion(Base):
    """One version of an agent; nothing of it changes once written but when it was published last."""

    __tablename__ = "agent_versions"
    __table_args__ = (points_at("agents", "agent_id", ondelete="CASCADE"),)

    agent_id: Mapped[UUID] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    workspace_id: Mapped[UUID]
    spec: Mapped[dict[str, Any]]
    sha256: Mapped[str]
    principal_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    published_at: Mapped[datetime | None]


class RegisteredTool(Owned, Base):
    """A tool people registered at run time; built-in tools are code."""

    __tablename__ = "tools"
    __table_args__ = (
        unique_in_workspace(),
        in_workspace(),
        Index("uq_tools_name", "workspace_id", "name", unique=True, postgresql_where=text("deleted_at is null")),
        points_at("tool_sources", "source_id"),
        Index("ix_tools_source_id", "source_id", postgresql_where=text("source_id is not null")),
    )

    name: Mapped[str]
    kind: Mapped[str]
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    published_version: Mapped[int]
    approval: Mapped[Any | None]
    source_id: Mapped[UUID | None]
    disabled_reason: Mapped[str | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]


class ToolVersion(Base):
    """One version of a registered tool, named by the hash of its content."""

    __tablename__ = "tool_versions"
    __table_args__ = (points_at("tools", "tool_id", ondelete="CASCADE"),)

    tool_id: Mapped[UUID] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    workspace_id: Mapped[UUID]
    spec: Mapped[dict[str, Any]]
    sha256: Mapped[str]
    principal_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ToolSource(Owned, Base):
    """What tools are read from, and read again: an MCP server or an OpenAPI document."""

    __tablename__ = "tool_sources"
    __table_args__ = (
        unique_in_workspace(),
        in_workspace(),
        UniqueConstraint("workspace_id", "name"),
        Index("ix_tool_sources_due_at", "due_at", postgresql_where=text("due_at is not null")),
    )

    name: Mapped[str]
    kind: Mapped[str]
    spec: Mapped[dict[str, Any]]
    sha256: Mapped[str | None]
    skipped: Mapped[list[Any]]
    error: Mapped[str | None]
    read_at: Mapped[datetime | None]
    due_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
