"""Everything a run needs to begin or to go on, read in one statement with the others of its claim."""

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.agents import AgentSpec
from app.coalesce import Coalescer
from app.db import Database, Row
from app.errors import AgentGone, InputInvalid, LeaseLost
from app.messages import Json
from app.patterns import PATTERNS, Pattern
from app.tools.approval import Occasion
from app.tools.registry import in_reach
from app.tools.schema import misfit

USED = ("requests", "input_tokens", "output_tokens", "cost_usd", "tool_calls")

# Of the ledger, only the calls of the last response matter: older ones have their results in the history.
LOAD = """
select r.id, r.conversation_id, r.workspace_id, r.fence, r.write_no, r.attempt, r.retry, r.timeout_seconds,
    r.ran_seconds, r.deadline_at, extract(epoch from r.deadline_at - now())::float as deadline_seconds,
    r.output_schema, r.pins, r.requests, r.input_tokens, r.output_tokens, r.cost_usd, r.principal_id, r.task_id,
    r.fire_id, r.agent_version, r.number, r.cancel_requested_at,
    c.pattern_type, c.trusted, c.context_data, c."user", c.title, c.origin,
    c.task_id as conversation_task_id, c.agent_id, a.name as agent,
    a.deleted_at <= r.started_at as agent_gone, v.spec, h.message_seq,
    (select t.input from tasks t where t.id = r.task_id) as task_input,
    (select t.notification_config->'on' from tasks t where t.id = r.task_id) as told_of,
    (select count(*) from tool_calls t where t.run_id = r.id) as tool_calls,
    (select coalesce(json_agg(json_build_object('seq', m.seq, 'run_id', m.run_id, 'body', m.body) order by m.seq), '[]')
     from messages m where m.conversation_id = r.conversation_id) as messages,
    (select coalesce(json_agg(json_build_object('message_seq', t.message_seq, 'call_index', t.call_index,
        'sub_index', t.sub_index, 'tool', t.tool, 'args_sha256', t.args_sha256, 'tool_call_id', t.tool_call_id,
        'state', t.state, 'result', t.result, 'error', t.error) order by t.sub_index), '[]')
     from tool_calls t where t.conversation_id = r.conversation_id and t.message_seq = (select max(seq) from messages where conversation_id = r.conversation_id
        and role = 'assistant')) as calls,
    (select coalesce(json_agg(json_build_object('kind', p.kind, 'subject', p.subject, 'state', p.state,
        'decision', p.decision, 'args_sha256', p.args_sha256, 'reason', p.reason) order by p.id), '[]')
     from approvals p where p.run_id = r.id and p.state <> 'pending') as decisions,
    (select coalesce(json_agg(json_build_object('name', t.name, 'version', tv.version, 'sha256', tv.sha256,
        'spec', tv.spec, 'approval', t.approval)), '[]')
     from tools t join tool_versions tv on tv.tool_id = t.id
        and coalesce(tv.sha256 = r.pins->'tools'->>t.name, tv.version = t.published_version)
     where t.workspace_id = r.workspace_id and t.deleted_at is null and t.enabled
        and t.name in (select json_array_elements_text(v.spec->'tools'))) as registered_tools
from runs r join conversations c on c.id = r.conversation_id join heads h on h.conversation_id = c.id
join agents a on a.id = c.agent_id
left join agent_versions v on v.agent_id = a.id
    and v.version = coalesce(r.agent_version, c.agent_version, a.published_version)
where r.id = any($1::uuid[]) and r.state = 'running'
"""


@dataclass(frozen=True)
class Loaded:
    """A run with its conversation, agent version, history and ledger.

    Attributes:
        told_of: The events that its task's notification_config names.
    """

    run_id: UUID
    conversation_id: UUID
    workspace_id: UUID
    principal_id: UUID | None
    task_id: UUID | None
    conversation_task_id: UUID | None
    fire_id: UUID | None
    fence: int
    write_no: int
    attempt: int
    retry: Json
    seconds_left: float | None
    deadline_at: datetime | None
    deadline_seconds: float | None
    output_schema: Json | None
    pins: Json | None
    used: Json
    pattern: Pattern
    origin: str
    trusted: bool
    context_data: Json
    user: str | None
    title: str
    agent_id: UUID
    agent: str
    spec: AgentSpec
    messages: list[Json]
    message_seq: int
    calls: list[Json]
    decisions: list[Json]
    registered_tools: list[Json]
    told_of: frozenset[str]
    cancel_requested: bool

    @property
    def occasion(self) -> Occasion:
        """What approval policies ask of the conversation."""
        return Occasion(self.origin, self.trusted)

    @property
    def history(self) -> list[Json]:
        """The bodies of the conversation's messages, oldest first."""
        return [message["body"] for message in self.messages]


class Loads:
    """The seam behind which the runs of one claim are read together."""

    def __init__(self, database: Database) -> None:
        """Read through this database's engine pool."""
        self._database = database
        self._seam: Coalescer[UUID, Row | None] = Coalescer(self._together, self._alone, key=lambda run_id: run_id)

    async def load(self, run_id: UUID, fence: int) -> Loaded:
        """Read a claimed run.

        Raises:
            LeaseLost: when the claim does not hold any more.
            AgentGone: when its agent was deleted before it began.
            InputInvalid: when its task's input is not what its agent takes.
        """
        row = await self._seam.do(run_id)
        if row is None or row["fence"] != fence:
            raise LeaseLost
        return loaded(row)

    async def _together(self, run_ids: list[UUID]) -> dict[Hashable, Row | None]:
        rows = {row["id"]: row for row in await self._database.fetch(LOAD, run_ids)}
        return {run_id: rows.get(run_id) for run_id in run_ids}

    async def _alone(self, run_id: UUID) -> Row | None:
        return (await self._together([run_id]))[run_id]


def loaded(row: Row) -> Loaded:
    """A run of its row.

    Raises:
        AgentGone: when its agent was deleted before it began; a run under way goes on with what it has.
        InputInvalid: when its task's input is not what its agent takes.
    """
    if row["agent_gone"] or row["spec"] is None:
        raise AgentGone(f"the agent {row['agent']!r} was deleted")
    spec = AgentSpec.model_validate(row["spec"])
    _check_input(row, spec)
    return Loaded(
        run_id=row["id"],
        conversation_id=row["conversation_id"],
        workspace_id=row["workspace_id"],
        principal_id=row["principal_id"],
        task_id=row["task_id"],
        conversation_task_id=row["conversation_task_id"],
        fire_id=row["fire_id"],
        fence=row["fence"],
        write_no=row["write_no"],
        attempt=row["attempt"],
        retry=row["retry"] or {},
        seconds_left=_seconds_left(row["timeout_seconds"], spec.limits.seconds, row["ran_seconds"]),
        deadline_at=row["deadline_at"],
        deadline_seconds=row["deadline_seconds"],
        output_schema=row["output_schema"] or spec.output_schema,
        pins=row["pins"],
        used={name: row[name] for name in USED},
        pattern=PATTERNS[row["pattern_type"]],
        origin=row["origin"],
        trusted=row["trusted"],
        context_data=row["context_data"],
        user=row["user"],
        title=row["title"],
        agent_id=row["agent_id"],
        agent=row["agent"],
        spec=spec,
        messages=row["messages"],
        message_seq=row["message_seq"],
        calls=row["calls"],
        decisions=row["decisions"],
        registered_tools=in_reach(row["registered_tools"]),
        told_of=frozenset(row["told_of"] or ()),
        cancel_requested=row["cancel_requested_at"] is not None,
    )


def _check_input(row: Row, spec: AgentSpec) -> None:
    given = row["task_input"]
    # What a webhook brings is its payload; its task's input is only what was set beside it.
    if spec.input_schema is None or row["task_id"] is None or (given is None and row["origin"] == "webhook"):
        return
    if wrong := misfit(spec.input_schema, {} if given is None else given, "input"):
        raise InputInvalid(wrong)


def _seconds_left(wanted: float | None, allowed: float | None, used: Any) -> float | None:
    """What is left of the running time: the task's limit, and never more than the agent's."""
    limits = [limit for limit in (wanted, allowed) if limit is not None]
    return max(0.0, min(limits) - float(used)) if limits else None
