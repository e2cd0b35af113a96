"""Reading what became of answers, in a session of the workspace."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import NotFound
from app.models import Answer, Conversation


async def answers_to(
    session: AsyncSession, workspace_id: UUID, conversation_id: UUID, *, after: UUID | None, limit: int
) -> Sequence[Answer]:
    """The answers to a conversation, newest first, from after one on.

    Raises:
        NotFound: when there is no such conversation.
    """
    place = (Conversation.workspace_id == workspace_id, Conversation.id == conversation_id)
    if await session.scalar(select(Conversation.id).where(*place)) is None:
        raise NotFound(f"there is no conversation {conversation_id}")
    query = select(Answer).where(Answer.workspace_id == workspace_id, Answer.conversation_id == conversation_id)
    query = query.where(Answer.id < after) if after else query
    return (await session.scalars(query.order_by(Answer.id.desc()).limit(limit))).all()
