"""What is true of the database after the drain, as statements that each answer only what is wrong."""

LIVE = "('queued', 'running', 'waiting')"
ENDS = "('run.completed', 'run.failed', 'run.cancelled')"


def _gap_free(table: str) -> str:
    return f"""
select h.conversation_id, coalesce(n.count, 0) as rows, n.last, h.{table[:-1]}_seq as head
from heads h left join (
    select conversation_id, count(*) as count, max(seq) as last, min(seq) as first from {table} group by 1
) n on n.conversation_id = h.conversation_id
where coalesce(n.count, 0) <> h.{table[:-1]}_seq or coalesce(n.last, 0) <> h.{table[:-1]}_seq or n.first <> 1
"""


WRONG = {
    "a run never ended": f"select id, state, reason, waits from runs where state in {LIVE}",
    "events have a gap": _gap_free("events"),
    "messages have a gap": _gap_free("messages"),
    "a run has not exactly one end": f"""
        select r.id, r.state, count(e.seq) from runs r left join events e
        on e.conversation_id = r.conversation_id and e.run_id = r.id and e.type in {ENDS}
        where r.state not in {LIVE} group by r.id, r.state
        having count(e.seq) <> 1 or max(e.type) <> 'run.' || r.state""",
    "something came after a run's end": f"""
        select e.run_id, e.type from events e join events o on o.conversation_id = e.conversation_id
        and o.run_id = e.run_id and o.type in {ENDS} and o.seq < e.seq
        where e.type not in ('message.queued', 'run.queued')""",
    "a head counts wrongly": f"""
        select h.conversation_id, h.open_runs, h.run_no, h.state, h.active_run_id from heads h left join (
            select conversation_id, count(*) as runs, count(*) filter (where state in {LIVE}) as open,
                sum(requests) as requests from runs group by 1) r using (conversation_id)
        where h.open_runs <> coalesce(r.open, 0) or h.run_no <> coalesce(r.runs, 0)
            or h.requests <> coalesce(r.requests, 0) or (h.state = 'idle') <> (coalesce(r.open, 0) = 0)
            or (h.open_runs = 0 and h.active_run_id is not null)""",
    "usage and responses differ": """
        select r.id, r.requests, count(m.seq) from runs r left join messages m
        on m.conversation_id = r.conversation_id and m.run_id = r.id and m.role = 'assistant'
        group by r.id having r.requests <> count(m.seq)""",
    "an input was not taken in": """
        select i.id, r.id as run, r.state from inputs i join runs r on r.id = i.run_id
        where i.consumed_seq is null and r.state = 'completed'""",
    "a call of a completed run is open": """
        select c.id, c.state from tool_calls c join runs r on r.id = c.run_id
        where r.state = 'completed' and c.state in ('proposed', 'started')""",
    "an approval is open or was decided twice": """
        select a.id, a.state, count(e.seq) from approvals a left join events e on e.conversation_id = a.conversation_id
        and e.type = 'approval.decided' and e.payload->>'approval_id' = a.id::text
        group by a.id having a.state = 'pending' or count(e.seq) > 1
            or (a.state in ('approved', 'denied', 'expired')) <> (count(e.seq) = 1)""",
    "a run was resumed more often than it parked": """
        select run_id from events where type in ('run.waiting', 'run.queued') group by run_id
        having count(*) filter (where type = 'run.queued' and payload->>'reason' = 'decided')
            > count(*) filter (where type = 'run.waiting')""",
    "an instant fired twice": """
        select task_id, due_at from fires where kind = 'schedule' group by 1, 2 having count(*) > 1""",
    "a fire has not exactly one run": """
        select f.id, f.outcome, count(r.id) from fires f left join runs r on r.fire_id = f.id
        group by f.id having count(r.id) <> case when f.outcome = 'run' then 1 else 0 end""",
    "an instant is not accounted for": """
        select t.id, sum(f.count), t.next_fire_at, min(f.due_at) from tasks t join fires f on f.task_id = t.id
        where f.kind = 'schedule' and t.interval_seconds is not null group by t.id
        having sum(f.count) <> round(extract(epoch from t.next_fire_at - min(f.due_at)) / t.interval_seconds)""",
    "a webhook delivery has not exactly one run": """
        select task_id, receipt_key from receipts where receipt_key is not null group by 1, 2
        having count(distinct run_id) <> 1 or count(*) filter (where outcome = 'run') <> 1""",
    "an end was not planned to be told exactly once": """
        select r.id, r.state, count(d.id), count(distinct d.channel) from runs r join tasks t on t.id = r.task_id left join deliveries d
        on d.run_id = r.id and d.event = 'run.' || r.state
        where t.notification_config is not null and r.state in ('completed', 'failed')
        group by r.id, t.id, t.notification_config::text having count(d.id) <> json_array_length(t.notification_config::text::json->'channels')
            or count(distinct d.channel) <> count(d.id)""",
    "a delivery was not sent": """
        select id, event, state, reason, attempts, last_error from deliveries
        where state <> 'sent' and (state <> 'suppressed' or reason is null or event <> 'run.cancelled')""",
}

RUNS = """
select r.id, r.state, r.fence, r.requests, r.error, r.result, a.name as agent, (
    select substring(m.body::text from 'name=(\\S+) tools') from messages m
    where m.conversation_id = r.conversation_id and m.run_id = r.id and m.role = 'user' order by m.seq limit 1) as name
from runs r join conversations c on c.id = r.conversation_id join agents a on a.id = c.agent_id
"""
RESPONSES = """
select run_id, text, extract(epoch from created_at)::float as at from messages where role = 'assistant'
order by conversation_id, seq
"""
CALLS = """
select conversation_id, message_seq, call_index, sub_index, run_id, tool, state, extract(epoch from finished_at)::float as at
from tool_calls where conversation_id is not null
"""
DECISIONS = """
select conversation_id, subject, kind, state, decision->'arguments'->>'outcome' as outcome from approvals
"""
EVENT_NUMBERS = "select run_id, array_agg(seq order by seq) as numbers from events group by 1"
STARTS = """
select run_id, (payload->>'fence')::int as fence, extract(epoch from at)::float as at
from events where type = 'run.started'
"""
SENT = "select message_id, attempts, state from deliveries where channel = 'email'"
TOLD_SLACK = """
select run_id::text, sum(attempts) as attempts, count(*) filter (where state = 'sent') as sent from deliveries
where channel = 'slack' group by run_id
"""
