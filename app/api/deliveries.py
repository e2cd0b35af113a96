"""Deliveries: what was sent to whom, what was not and why, and sending one again."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Query, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import exists, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app import audit
from app.api.access import Caller, may
from app.api.idempotency import Idempotent
from app.api.pages import Page, PageOf, paged
from app.api.strict import resource
from app.errors import Conflict, InvalidRequest, NotFound
from app.models import Delivery, new_id
from app.notifications.plan import message_id

router = resource("deliveries")

MOST = 1000  # Deliveries of one call; call again for the rest.
State = Literal["pending", "sending", "sent", "dead", "suppressed"]
Reader = Annotated[Caller, may("deliveries:read")]
Writer = Annotated[Caller, may("deliveries:write")]


class Filter(BaseModel):
    """Which deliveries; every field given must hold, and at least one must be given."""

    model_config = ConfigDict(extra="forbid")

    ids: list[UUID] | None = Field(None, min_length=1, max_length=MOST)
    state: Literal["sent", "dead", "suppressed"] | None = Field(None, description="dead when left out.")
    channel: str | None = Field(None, min_length=1, max_length=50)
    address: str | None = Field(None, min_length=1, max_length=500)
    task_id: UUID | None = None
    run_id: UUID | None = None
    since: AwareDatetime | None = Field(None, description="Made at this instant or later.")

    @model_validator(mode="after")
    def _says_something(self) -> "Filter":
        if not self.model_dump(exclude_none=True):
            raise InvalidRequest("the filter must name something: it would mean every delivery", field="filter")
        return self


class BulkResend(BaseModel):
    """A filter, and whether to only count."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"filter": {"state": "dead"}, "dry_run": True}]}
    )

    filter: Filter
    dry_run: bool = Field(False, description="Count what would be sent again, and do nothing.")


class BulkResent(BaseModel):
    """How many deliveries it is about; at most 1,000 in one call."""

    count: int


class DeliveryOut(BaseModel):
    """One outgoing notification to one address."""

    id: UUID
    run_id: UUID | None
    task_id: UUID | None
    conversation_id: UUID | None
    channel: str
    address: str
    event: str
    state: State
    resend_of: UUID | None
    reason: str | None = Field(description="Why it was not sent, or what became of it.")
    attempts: int
    last_error: str | None
    next_attempt_at: datetime | None
    message_id: str
    created_at: datetime
    sent_at: datetime | None

    @classmethod
    def of(cls, row: Delivery) -> "DeliveryOut":
        """A delivery's row as the API shows it."""
        return cls.model_validate(row, from_attributes=True)


async def find(session: AsyncSession, workspace_id: UUID, delivery_id: UUID) -> Delivery:
    """The delivery of that id.

    Raises:
        NotFound: when the workspace has none.
    """
    query = select(Delivery).where(Delivery.workspace_id == workspace_id, Delivery.id == delivery_id)
    row = await session.scalar(query)
    if row is None:
        raise NotFound(f"there is no delivery {delivery_id}")
    return row


@router.get("/deliveries", summary="List deliveries")
async def list_deliveries(
    caller: Reader,
    page: Annotated[PageOf, paged("deliveries")],
    state: Annotated[State | None, Query(description="In this state.")] = None,
    channel: Annotated[str | None, Query(max_length=50, description="By this channel, such as `email`.")] = None,
    task_id: Annotated[UUID | None, Query(description="Of this task.")] = None,
    run_id: Annotated[UUID | None, Query(description="Of this run.")] = None,
) -> Page[DeliveryOut]:
    """Newest first."""
    query = select(Delivery).where(Delivery.workspace_id == caller.workspace_id)
    wanted = (
        (Delivery.state, state),
        (Delivery.channel, channel),
        (Delivery.task_id, task_id),
        (Delivery.run_id, run_id),
    )
    for column, value in wanted:
        query = query.where(column == value) if value is not None else query
    query = query.where(Delivery.id < page.after) if page.after else query
    async with caller.transaction() as session:
        rows = (await session.scalars(query.order_by(Delivery.id.desc()).limit(page.fetch))).all()
    return page.cut(rows, DeliveryOut.of)


@router.get("/deliveries/{delivery_id}", summary="A delivery")
async def get_delivery(delivery_id: UUID, caller: Reader) -> DeliveryOut:
    """Its state, attempts and last error."""
    async with caller.transaction() as session:
        return DeliveryOut.of(await find(session, caller.workspace_id, delivery_id))


@router.post("/deliveries/resend", summary="Send deliveries again by filter")
async def resend_many(body: BulkResend, caller: Writer, key: Idempotent) -> BulkResent:
    """Each gets a new delivery; one that was sent again before is left out, so that a second call goes on."""
    async with caller.transaction() as session:
        if body.dry_run:
            return BulkResent(count=len(await _found(session, caller.workspace_id, body.filter)))
        await _one_at_a_time(session, caller)
        if repeat := await key.made(session, caller):
            return BulkResent(count=int(repeat.id))
        found = await _found(session, caller.workspace_id, body.filter)
        await key.claim(session, caller, "deliveries", len(found))
        session.add_all([_again(old, new_id(), caller) for old in found])
        await session.flush()
        told = body.filter.model_dump(mode="json", exclude_none=True)
        audit.record(session, caller.entry("deliveries.resend", "deliveries", "filter", filter=told, count=len(found)))
    caller.engine.bell.ring()
    return BulkResent(count=len(found))


# Invariant: a call by filter sends each at most once. Who looks whether one was sent again sees all who did before.
LOCK = text("select pg_advisory_xact_lock(hashtextextended(:workspace, 7031996))")


async def _one_at_a_time(session: AsyncSession, caller: Caller) -> None:
    await session.execute(LOCK, {"workspace": str(caller.workspace_id)})


async def _found(session: AsyncSession, workspace_id: UUID, of: Filter) -> Sequence[Delivery]:
    wanted = (
        (Delivery.state, of.state or "dead"),
        (Delivery.channel, of.channel),
        (Delivery.address, of.address),
        (Delivery.task_id, of.task_id),
        (Delivery.run_id, of.run_id),
    )
    resent = aliased(Delivery)
    query = select(Delivery).where(
        Delivery.workspace_id == workspace_id,
        ~exists().where(resent.workspace_id == workspace_id, resent.resend_of == Delivery.id),
    )
    for column, value in wanted:
        query = query.where(column == value) if value is not None else query
    query = query.where(Delivery.id.in_(of.ids)) if of.ids else query
    query = query.where(Delivery.created_at >= of.since) if of.since else query
    return (await session.scalars(query.order_by(Delivery.id).limit(MOST))).all()


@router.post("/deliveries/{delivery_id}/resend", summary="Send a delivery again", status_code=202)
async def resend(delivery_id: UUID, caller: Writer, key: Idempotent, response: Response) -> DeliveryOut:
    """A new delivery with `resend_of` and a Message-ID of its own; the old one stays as it is."""
    new = new_id()
    async with caller.transaction() as session:
        repeat = await key.claim(session, caller, "delivery", new)
        if repeat is None:
            await _one_at_a_time(session, caller)
            await _copy(session, caller, delivery_id, new)
        row = await find(session, caller.workspace_id, repeat.uuid if repeat else new)
    caller.engine.bell.ring()
    response.headers["Location"] = f"/deliveries/{row.id}"
    return DeliveryOut.of(row)


async def _copy(session: AsyncSession, caller: Caller, delivery_id: UUID, new: UUID) -> None:
    old = await find(session, caller.workspace_id, delivery_id)
    if old.state in ("pending", "sending"):
        raise Conflict(f"the delivery is still {old.state}")
    session.add(_again(old, new, caller))
    await session.flush()
    audit.record(session, caller.entry("delivery.resend", "delivery", delivery_id, new=str(new)))


def _again(old: Delivery, new: UUID, caller: Caller) -> Delivery:
    return Delivery(
        id=new,
        workspace_id=old.workspace_id,
        conversation_id=old.conversation_id,
        event_seq=old.event_seq,
        event=old.event,
        resend_of=old.id,
        run_id=old.run_id,
        task_id=old.task_id,
        channel=old.channel,
        address=old.address,
        fingerprint=old.fingerprint,
        payload=old.payload,
        message_id=message_id(str(new), caller.settings.base_url),
    )
