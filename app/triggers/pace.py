"""How fast the calls of one webhook may start runs."""

from datetime import datetime, timedelta

from app.db import Connection, Row
from app.errors import RateLimited
from app.patterns import RUNS_A_MINUTE

LONGEST_WAIT = timedelta(hours=1)
# So many calls at once may each count without the others; nearer to the end they count one after the other.
NEAR = 40

# The start that opened a minute of so many: the next may come a minute after it.
NEXT = """
select starts_at + interval '1 minute' from receipts
where task_id = {task} and starts_at > now() - interval '1 minute' order by starts_at desc offset {offset} limit 1
"""
OF_TASK = NEXT.format(task="$1", offset="$2")
ONE_AT_A_TIME = "select pg_advisory_xact_lock(hashtextextended($1, 0))"


def most_of(task: Row) -> int:
    """How many runs the calls of a task may start a minute."""
    return task["trigger_config"].get("runs_per_minute", RUNS_A_MINUTE)


async def starts_at(connection: Connection, task: Row) -> datetime | None:
    """When the call's run may start, if its minute has had its share of runs.

    Raises:
        RateLimited: when the runs of an hour are waiting already: nothing was taken, the sender may come again.
    """
    most = most_of(task)
    if most > NEAR and await connection.fetchval(OF_TASK, task["id"], most - 1 - NEAR) is None:
        return None
    await connection.execute(ONE_AT_A_TIME, f"{task['id']} pace")
    starts: datetime | None = await connection.fetchval(OF_TASK, task["id"], most - 1)
    beyond = starts - task["now"] - LONGEST_WAIT if starts else timedelta()
    if beyond > timedelta():
        raise RateLimited(
            f"the task starts {most} runs a minute, and those of an hour are waiting",
            retry_after=max(1.0, beyond.total_seconds()),
        )
    return starts
