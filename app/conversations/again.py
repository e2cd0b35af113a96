"""Going on from where a conversation stopped, trying a run again, and copying a conversation."""

from dataclasses import replace
from uuid import UUID

from app.conversations.reply import Accepted, Turn, lock, reply
from app.db import Connection
from app.errors import (
    AlreadyFinished,
    InvalidRequest,
    NotFinished,
    NotFound,
    UseFork,
)
from app.messages import reworded
from app.models import new_id
from app.runs import (
    TERMINAL_STATES,
    Inline,
    RunState,
)
from app.settings import Settings

GO_ON = "Continue."

LAST_MESSAGE = "select role, interrupted from messages where conversation_id = $1 order by seq desc limit 1"
HAS_OPEN_CALLS = """
select exists (select from tool_calls t where t.conversation_id = $1 and t.message_seq = $2
    and t.state in ('proposed', 'started', 'unknown'))
"""


async def carry_on(
    connection: Connection,
    settings: Settings,
    workspace_id: UUID,
    conversation_id: UUID,
    turn: Turn,
    *,
    inline: Inline | None = None,
) -> Accepted:
    """Go on: with a message, from the last checkpoint, or by saying "Continue."."""
    if turn.text is None:
        head = await lock(connection, workspace_id, conversation_id)
        if (
            head["open_runs"]
            or turn.attachments
            or not await _stops_midway(connection, conversation_id, head["message_seq"])
        ):
            turn = replace(turn, text=GO_ON)
    return await reply(connection, settings, workspace_id, conversation_id, turn, inline=inline)


async def _stops_midway(connection: Connection, conversation_id: UUID, message_seq: int) -> bool:
    """Whether the history ends where a model has something to answer or a tool to run."""
    last = await connection.fetchrow(LAST_MESSAGE, conversation_id)
    if last is None or last["interrupted"]:
        return False
    if last["role"] != "assistant":
        return True
    return bool(await connection.fetchval(HAS_OPEN_CALLS, conversation_id, message_seq))


RUN = """
select r.id, r.conversation_id, r.number, r.state, r.task_id, r.fire_id, r.priority, r.timeout_seconds, r.retry, r.output_schema,
    r.concurrency_key, r.concurrency_limit, r.notification,
    case when r.started_at is null then (select count(*) from task_dependencies d where d.task_id = r.task_id)
        else 0 end as waits,
    r.pins, r.agent_version, h.run_no, i.body, i.consumed_seq,
    coalesce((select min(m.seq) - 1 from messages m join runs o on o.id = m.run_id
        where m.conversation_id = r.conversation_id and o.conversation_id = r.conversation_id
        and o.number >= r.number), h.message_seq) as before_seq
from runs r join heads h on h.conversation_id = r.conversation_id
left join lateral (select body, consumed_seq from inputs where run_id = r.id and kind <> 'steer' order by id limit 1) i
    on true
where r.id = $1
"""
# The run of a fire is the one that tries it last: later starts wait for it, and are told what it reports.
TRY_AGAIN = "update fires set run_id = $2 where id = $1"
CONVERSATION_OF = "select conversation_id from runs where id = $1 and workspace_id = $2"


async def retry(
    connection: Connection,
    settings: Settings,
    workspace_id: UUID,
    run_id: UUID,
    *,
    origin: str,
    text: str | None = None,
    principal_id: UUID | None = None,
    new_run_id: UUID | None = None,
) -> Accepted:
    """Try an ended run again, as a new run with `retry_of`.

    Args:
        connection: Of an `engine_tx()`.
        settings: For notifications.
        workspace_id: Whose run.
        run_id: The ended run.
        origin: `failed_step` goes on with the same history, `start` says the input again with new effect keys,
            `fork` does so in a new conversation that ends before the run.
        text: Said instead of the run's input (`start` and `fork`).
        principal_id: Who asks.
        new_run_id: The new run's id, made by the caller.

    Raises:
        NotFound: no such run.
        NotFinished: it has not ended.
        UseFork: `failed_step` of a run that is not the conversation's latest.
    """
    conversation_id = await connection.fetchval(CONVERSATION_OF, run_id, workspace_id)
    if conversation_id is None:
        raise NotFound(f"there is no run {run_id}")
    await lock(connection, workspace_id, conversation_id)
    row = await connection.fetchrow(RUN, run_id)
    assert row is not None
    if row["state"] not in TERMINAL_STATES:
        raise NotFinished(f"the run is {row['state']}; cancel it first or wait")
    if origin == "failed_step":
        if row["state"] == RunState.COMPLETED:
            raise AlreadyFinished("the run completed; there is no failed step to go on from")
        if row["number"] != row["run_no"]:
            raise UseFork
    columns = (
        "task_id",
        "priority",
        "timeout_seconds",
        "retry",
        "output_schema",
        "pins",
        "agent_version",
        "concurrency_key",
        "concurrency_limit",
        "waits",
        "notification",
    )
    keep = {name: row[name] for name in columns} | {"retry_of": run_id}
    keep["fire_id"] = row["fire_id"] if origin != "fork" else None  # A copy is no other try of the fire.
    said = reworded(row["body"], text) if row["body"] and text else row["body"]
    if origin == "failed_step" and row["consumed_seq"] is not None:
        text, said = None, None
    turn = Turn(text, said, principal_id=principal_id, run=keep, run_id=new_run_id or new_id())
    if origin == "fork":
        return await fork(connection, settings, workspace_id, conversation_id, row["before_seq"], turn)
    accepted = await reply(connection, settings, workspace_id, conversation_id, turn)
    if row["fire_id"] and accepted.run_id == turn.run_id:
        await connection.execute(TRY_AGAIN, row["fire_id"], turn.run_id)
    return accepted


COPY_CONVERSATION = """
insert into conversations (id, workspace_id, pattern_type, title, agent_id, agent_version, origin, trusted, "user",
    root_id, context_data, on_message, created_by, forked_from_id, forked_at_seq)
select $1, workspace_id, pattern_type, title, agent_id, agent_version, 'fork', trusted, "user", $1, context_data,
    on_message, $4, id, $3
from conversations where id = $2
"""
COPY_HEAD = "insert into heads (conversation_id, workspace_id, message_seq) values ($1, $2, $3)"
COPY_MESSAGES = """
insert into messages (conversation_id, seq, workspace_id, run_id, fence, role, text, body, format, interrupted, model,
    input_tokens, output_tokens, cost_usd, created_at)
select $1, seq, workspace_id, run_id, fence, role, text, body, format, interrupted, model, input_tokens, output_tokens,
    cost_usd, created_at
from messages where conversation_id = $2 and seq <= $3
"""
COPY_CALLS = """
insert into tool_calls (id, workspace_id, conversation_id, message_seq, call_index, sub_index, run_id, tool_call_id,
    tool, tool_version, arguments, args_sha256, state, idempotent, risk, fence, result, artifact_id, error, started_at, finished_at,
    duration_ms)
select gen_random_uuid(), workspace_id, $1, message_seq, call_index, sub_index, run_id, tool_call_id, tool,
    tool_version, arguments, args_sha256, state, idempotent, risk, fence, result, artifact_id, error, started_at,
    finished_at, duration_ms
from tool_calls where conversation_id = $2 and message_seq <= $3
"""


async def fork(
    connection: Connection,
    settings: Settings,
    workspace_id: UUID,
    conversation_id: UUID,
    last_seq: int,
    turn: Turn | None,
    *,
    inline: Inline | None = None,
    copy_id: UUID | None = None,
) -> Accepted:
    """Copy a conversation up to a message into a new one, and go on there with a message if one is given.

    Args:
        connection: Of an `engine_tx()`.
        settings: For notifications.
        workspace_id: Whose conversation.
        conversation_id: The one to copy.
        last_seq: The last message to copy; 0 copies none.
        turn: What is said there; None leaves the copy idle.
        inline: As for `reply`.
        copy_id: The copy's id, made by the caller.

    Raises:
        NotFound: no such conversation.
        InvalidRequest: it has no message of that number.
    """
    head = await lock(connection, workspace_id, conversation_id)
    if not 0 <= last_seq <= head["message_seq"]:
        raise InvalidRequest(
            f"from_seq must be between 1 and {head['message_seq']}, the number of the last message", field="from_seq"
        )
    copy = copy_id or new_id()
    principal_id = turn.principal_id if turn else None
    await connection.execute(COPY_CONVERSATION, copy, conversation_id, last_seq, principal_id)
    await connection.execute(COPY_HEAD, copy, workspace_id, last_seq)
    await connection.execute(COPY_MESSAGES, copy, conversation_id, last_seq)
    await connection.execute(COPY_CALLS, copy, conversation_id, last_seq)
    if turn is None:
        return Accepted(copy, copy, None, ready=False, events=[])
    return await reply(connection, settings, workspace_id, copy, turn, inline=inline)
