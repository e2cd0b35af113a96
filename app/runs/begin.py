"""The statement that inserts conversations with their first runs, all of them new.

A new conversation has no run before this one and nobody waits for its head: nothing needs to be locked or asked first.
"""

from app.messages import FORMAT
from app.runs.holds import OF_CONVERSATION, TOLD
from app.runs.reasons import WORKERS

# Without its agent, or held or perhaps without a model provider while it wants to run at once, a beginning matches
# nothing here: `start` and `reply` see to it.
BEGINNINGS = f"""
with c as materialized (
    select x.*, a.id as agent_id, a.name as agent_name, a.published_version
    from json_to_recordset($1::json) as x(run_id uuid, conversation_id uuid, workspace_id uuid, agent text, agent_key uuid,
        pattern text, title text, origin text, trusted bool, pins_version bool, context_data json, created_by uuid,
        owner text, lease_seconds float, task_id uuid, lane text, priority bigint, run_at timestamptz,
        queue_timeout_seconds float, deadline_at timestamptz, timeout_seconds float, retry json, detached bool,
        concurrency_key text, concurrency_limit bigint, principal_id uuid, input_id uuid, body json, source text,
        source_id text, events json, n_events int, correlation_key text,
        fire_id uuid, agent_version bigint)
    join agents a on a.workspace_id = x.workspace_id and a.deleted_at is null
        and (a.name = x.agent or a.id = x.agent_key)
), held as materialized (
    select c.*, (select {TOLD} from holds k where {OF_CONVERSATION} order by k.created_at limit 1) as hold from c
), free as materialized (
    select * from held
    where owner is null or hold is null and not exists (select from breakers where opened_at is not null)
)"""
# Which of them begin: all, unless the statement says more between the two.
ALL = ", x as (select * from free)"

ROWS = f""", conversation as (
    insert into conversations (id, workspace_id, pattern_type, title, agent_id, agent_version, origin, trusted, root_id,
        task_id, fire_id, correlation_key, context_data, created_by)
    select conversation_id, workspace_id, pattern, title, agent_id,
        coalesce(agent_version, case when pins_version then published_version end), origin,
        trusted, conversation_id, task_id, fire_id, correlation_key, context_data, created_by
    from x
), head as (
    insert into heads (conversation_id, workspace_id, state, active_run_id, open_runs, message_seq, event_seq, run_no)
    select conversation_id, workspace_id, case when owner is null then 'queued' else 'running' end,
        case when owner is not null then run_id end, 1, case when owner is null then 0 else 1 end, n_events, 1
    from x
), input as (
    insert into inputs (id, workspace_id, conversation_id, run_id, kind, body, principal_id, source, source_id,
        consumed_seq)
    select input_id, workspace_id, conversation_id, run_id, 'prompt', body, principal_id, source, source_id,
        case when owner is not null then 1 end
    from x
), message as (
    insert into messages (conversation_id, seq, workspace_id, run_id, fence, role, text, body, format)
    select conversation_id, 1, workspace_id, run_id, 1, body->>'role', body->>'text', body->'message', {FORMAT}
    from x where owner is not null
), run as (
    insert into runs (id, workspace_id, conversation_id, number, root_run_id, task_id, fire_id, state, ready, lane, priority,
        run_at, queue_deadline, deadline_at, timeout_seconds, retry, agent_version, principal_id, detached,
        concurrency_key, concurrency_limit, fence, owner, lease_until, claimed_at, started_at)
    select run_id, workspace_id, conversation_id, 1, run_id, task_id, fire_id,
        case when owner is null then 'queued' else 'running' end, true, lane, priority, coalesce(run_at, now()),
        now() + make_interval(secs => queue_timeout_seconds), deadline_at, timeout_seconds, retry,
        coalesce(agent_version, case when owner is not null or task_id is not null then published_version end), principal_id, detached,
        concurrency_key, concurrency_limit, case when owner is null then 0 else 1 end, owner,
        case when owner is not null then now() + make_interval(secs => lease_seconds) end,
        case when owner is not null then now() end, case when owner is not null then now() end
    from x
), event as (
    insert into events (conversation_id, seq, workspace_id, run_id, type, ref, payload)
    select x.conversation_id, e.i, x.workspace_id, x.run_id, e.type, e.m, e.payload
    from x, json_to_recordset(x.events) as e(i int, type text, m int, payload json)
)
select run_id, agent_id, agent_name, published_version, now() as at, hold, {WORKERS} as workers from x
"""

BEGIN = BEGINNINGS + ALL + ROWS
