"""What all rows share: naming of constraints, column types, the workspace on every row."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    ForeignKeyConstraint,
    MetaData,
    Numeric,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from uuid_utils import compat


class Base(DeclarativeBase):
    """The declarative base of every table."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    # `json`, not `jsonb`: histories and tool output may hold anything, key order included.
    type_annotation_map = {  # noqa: RUF012 - read once by SQLAlchemy
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
        Any: JSON(none_as_null=True),
        list[str]: ARRAY(Text),
        Decimal: Numeric(24, 12),
        int: BigInteger,
        str: Text,
    }


def new_id() -> UUID:
    """A UUIDv7: sortable by time, made by the caller so that a write can be tried again."""
    return compat.uuid7()


class Owned:
    """A row of a workspace with its own id.

    The workspace itself is checked where a chain of composite keys ends (principals, agents, tools):
    one more key on each row would only lock the same workspace row on every insert.
    """

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    workspace_id: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


def unique_in_workspace() -> UniqueConstraint:
    """What a composite foreign key points at, so that no row can point into another workspace."""
    return UniqueConstraint("workspace_id", "id")


def in_workspace() -> ForeignKeyConstraint:
    """A foreign key to the workspace, for rows at the end of a chain of composite keys."""
    return ForeignKeyConstraint(["workspace_id"], ["workspaces.id"])


def points_at(table: str, column: str, *, ondelete: str | None = None) -> ForeignKeyConstraint:
    """A foreign key to a row of the same workspace."""
    return ForeignKeyConstraint(["workspace_id", column], [f"{table}.workspace_id", f"{table}.id"], ondelete=ondelete)


def part_of_conversation() -> ForeignKeyConstraint:
    """A foreign key to the conversation a row belongs to and disappears with."""
    return points_at("conversations", "conversation_id", ondelete="CASCADE")
