"""Who may decide a question by the link of a mail, where nobody is asked for a key.

A mail about a question also goes to people who were only sent reports and have answered one: what their own words led to
is not theirs to approve.
"""

from dataclasses import dataclass
from uuid import UUID

from app.db import Database
from app.identity import people, who_may
from app.notifications.config import NotificationConfig
from app.notifications.notice import Notice
from app.settings import Settings

DECIDE = "approvals:write"

# A run that answers a mail has no task: what it asks is decided by somebody with a key.
RULES = """
select t.notification_config from approvals p join runs r on r.id = p.run_id join tasks t on t.id = r.task_id
where p.id = $1 and p.workspace_id = $2
"""


@dataclass(frozen=True)
class Decider:
    """Somebody who may decide; `principal_id` is None of whom no key names."""

    principal_id: UUID | None


async def decider(
    database: Database, settings: Settings, *, workspace_id: UUID, approval_id: UUID, address: str
) -> Decider | None:
    """Who decides a question at a mail address; None where nobody may.

    Whose address keys name needs one with the scope `approvals:write`. Of others the task's `notification_config` has to say that
    their address is told of `waiting`, and the task itself has to have started the run: not an answer to its report.
    """
    if found := await people(database, settings, workspace_id, email=address):
        who = who_may(found, DECIDE)
        return Decider(who.id) if who else None
    config = NotificationConfig.from_stored(await database.fetchval(RULES, approval_id, workspace_id))
    return Decider(None) if config and _is_asked(config, address) else None


async def decides(database: Database, settings: Settings, notice: Notice, address: str) -> bool:
    """Whether a mail with this notice lets its receiver decide: all its questions are one run's."""
    if not notice.asked:
        return False
    approval_id = UUID(notice.asked[0]["id"])
    found = await decider(
        database, settings, workspace_id=notice.workspace_id, approval_id=approval_id, address=address
    )
    return found is not None


def _is_asked(config: NotificationConfig, address: str) -> bool:
    named = [each.lower() for each in config.email_address or []]
    return "email" in config.channels and "waiting" in config.on and address.lower() in named
