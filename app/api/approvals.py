"""Approvals: the inbox of what waits for a person, and decisions."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Row, Select, select

from app import approvals, audit
from app.api.access import Caller, may
from app.api.pages import Page, PageOf, paged
from app.api.strict import resource
from app.approvals import Decision
from app.errors import NotFound
from app.messages import Json
from app.models import Agent, Approval, Conversation, Principal

router = resource("approvals")

State = Literal["pending", "approved", "denied", "expired", "cancelled"]
Kind = Literal["tool", "budget", "effect", "question"]
Reader = Annotated[Caller, may("approvals:read")]
Writer = Annotated[Caller, may("approvals:write")]


class ApprovalOut(BaseModel):
    """A question to a person."""

    id: UUID
    kind: Kind
    run_id: UUID
    conversation_id: UUID
    agent: str
    tool: str | None
    arguments: Any | None = Field(description="What was asked about.")
    decided_arguments: Any | None = Field(description="What a person put in their place, or answered; null: nothing.")
    risk: str | None
    state: State
    expires_at: datetime | None
    decided_by: str | None = Field(description="The principal; without one, the address that the link was sent to.")
    decided_at: datetime | None
    reason: str | None


class DecisionBody(BaseModel):
    """What a person says."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"decision": "deny", "reason": "Not before Monday."}]}
    )

    decision: Literal["approve", "deny"]
    arguments: Json | None = Field(
        None, description='Edited arguments; for an effect `{"outcome", "result"}`, for a question `{"answer"}`.'
    )
    reason: str | None = Field(None, max_length=2000, description="Told to the model with a denial.")


Found = Row[Approval, str, str]


def selected() -> Select[Approval, str, str]:
    """Approvals with their agent's name and who decided."""
    return (
        select(Approval, Agent.name, Principal.name)
        .join(Conversation, Conversation.id == Approval.conversation_id)
        .join(Agent, Agent.id == Conversation.agent_id)
        .outerjoin(Principal, Principal.id == Approval.decided_by)
    )


def shown(row: Found) -> ApprovalOut:
    """An approval's row as the API shows it."""
    approval, agent, decider = row
    said: dict[str, Any] = approval.decision or {}
    return ApprovalOut(
        id=approval.id,
        kind=approval.kind,  # pyright: ignore[reportArgumentType]
        run_id=approval.run_id,
        conversation_id=approval.conversation_id,
        agent=agent,
        tool=approval.tool,
        arguments=approval.arguments,
        decided_arguments=said.get("arguments"),
        risk=approval.risk,
        state=approval.state,  # pyright: ignore[reportArgumentType]
        expires_at=approval.expires_at,
        decided_by=decider or said.get("by"),
        decided_at=approval.decided_at,
        reason=approval.reason,
    )


async def show(caller: Caller, approval_id: UUID) -> ApprovalOut:
    """The approval of that id as the API shows it.

    Raises:
        NotFound: when the workspace has none.
    """
    query = selected().where(Approval.workspace_id == caller.workspace_id, Approval.id == approval_id)
    async with caller.transaction() as session:
        row = (await session.execute(query)).one_or_none()
    if row is None:
        raise NotFound(f"there is no approval {approval_id}")
    return shown(row)


@router.get("/approvals", summary="List approvals")
async def list_approvals(
    caller: Reader,
    page: Annotated[PageOf, paged("approvals")],
    state: Annotated[State | None, Query(description="In this state.")] = None,
    kind: Annotated[Kind | None, Query(description="Of this kind.")] = None,
    run_id: Annotated[UUID | None, Query(description="Asked by this run.")] = None,
    conversation_id: Annotated[UUID | None, Query(description="Asked in this conversation.")] = None,
) -> Page[ApprovalOut]:
    """Newest first."""
    query = selected().where(Approval.workspace_id == caller.workspace_id)
    wanted = (
        (Approval.state, state),
        (Approval.kind, kind),
        (Approval.run_id, run_id),
        (Approval.conversation_id, conversation_id),
    )
    for column, value in wanted:
        query = query.where(column == value) if value is not None else query
    query = query.where(Approval.id < page.after) if page.after else query
    async with caller.transaction() as session:
        rows = (await session.execute(query.order_by(Approval.id.desc()).limit(page.fetch))).all()
    return page.cut([shown(row) for row in rows], lambda each: each)


@router.get("/approvals/{approval_id}", summary="An approval")
async def get_approval(approval_id: UUID, caller: Reader) -> ApprovalOut:
    """What is asked, of which run, and what was decided."""
    return await show(caller, approval_id)


@router.post("/approvals/{approval_id}/decision", summary="Decide an approval")
async def decide(approval_id: UUID, body: DecisionBody, caller: Writer) -> ApprovalOut:
    """Decided once; a second decision, or one on an expired approval, is 409."""
    decision = Decision(body.decision == "approve", body.arguments, body.reason)
    async with caller.database.engine_tx("decide") as connection:
        decided = await approvals.decide(
            connection, caller.workspace_id, approval_id, decision, principal_id=caller.principal.id
        )
        await audit.record_engine(
            connection, caller.entry(f"approval.{body.decision}", "approval", approval_id, reason=body.reason)
        )
    caller.engine.tell(decided)
    return await show(caller, approval_id)
