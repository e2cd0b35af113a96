"""Decisions by the link of a mail: what the page shows, and what its form decides."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from app import audit
from app.approvals import Decision, decide, shown
from app.audit import Entry
from app.db import Database
from app.errors import InvalidRequest, MissingScope
from app.notifications.deciders import DECIDE, decider
from app.notifications.decision_links import DecisionLink
from app.settings import Settings
from app.settle import Settled

MAX_SHOWN = 200_000  # Characters of a call's arguments: a page can scroll, but a browser must be able to open it.
MAX_REASON = 2_000

NOT_YOURS = (
    f"you may not decide this: your address needs an API key with the scope {DECIDE}, or, where no key names it, a task that "
    "tells it of `waiting`"
)

ASKED = """
select p.id, p.kind, p.tool, p.arguments, p.reason, p.decided_at, p.expires_at, c.title, a.name as agent, d.name as decided_by,
    case when p.state = 'pending' and p.expires_at <= now() then 'expired' else p.state end as state
from approvals p join conversations c on c.id = p.conversation_id join agents a on a.id = c.agent_id
left join principals d on d.id = p.decided_by
where p.id = $1 and p.workspace_id = $2
"""


@dataclass(frozen=True)
class Asked:
    """A question as its page shows it."""

    id: UUID
    kind: str
    tool: str | None
    arguments: Any
    state: str
    reason: str | None
    title: str
    agent: str
    decided_by: str | None
    decided_at: datetime | None
    expires_at: datetime | None

    @property
    def shown(self) -> str:
        """The arguments as the page shows them."""
        return shown(self.arguments, MAX_SHOWN)[0]

    @property
    def can_approve(self) -> bool:
        """Whether what would be approved can be seen on the page."""
        return self.kind == "question" or not shown(self.arguments, MAX_SHOWN)[1]


async def asked(database: Database, link: DecisionLink) -> Asked | None:
    """The question of a link; None when it is gone."""
    row = await database.fetchrow(ASKED, link.approval_id, link.workspace_id)
    return Asked(**dict(row)) if row else None


def decision_of(form: Mapping[str, str], question: Asked) -> Decision:
    """What was said in the form of a question's page.

    Raises:
        InvalidRequest: naming the field.
    """
    action = form.get("action")
    if action not in ("approve", "deny"):
        raise InvalidRequest("must be approve or deny", field="action")
    if action == "deny":
        reason = form.get("reason", "").strip()
        if len(reason) > MAX_REASON:
            raise InvalidRequest(f"has at most {MAX_REASON} characters", field="reason")
        return Decision(approve=False, reason=reason or None)
    if not question.can_approve:
        raise InvalidRequest("the arguments are not shown whole here: deny, or decide by the API", field="action")
    given = {"question": {"answer": form.get("answer", "").strip()}, "effect": {"outcome": form.get("outcome", "")}}
    return Decision(approve=True, arguments=given.get(question.kind))


async def decide_linked(database: Database, settings: Settings, link: DecisionLink, decision: Decision) -> Settled:
    """Decide as the person whom the link was sent to.

    Raises:
        MissingScope: when that address may not decide it, or not any more.
        AlreadyDecided: it was decided, withdrawn or has expired.
        InvalidRequest: the form does not fit the question.
    """
    of = {"workspace_id": link.workspace_id, "approval_id": link.approval_id}
    who = await decider(database, settings, **of, address=link.address)
    if who is None:
        raise MissingScope(NOT_YOURS, extra={"scope": DECIDE})
    principal_id, decision = who.principal_id, replace(decision, by=link.address)
    async with database.engine_tx("decide") as connection:
        settled = await decide(connection, link.workspace_id, link.approval_id, decision, principal_id=principal_id)
        action = f"approval.{'approve' if decision.approve else 'deny'}"
        detail = {"by_mail": link.address, "reason": decision.reason}
        entry = Entry(link.workspace_id, principal_id, action, "approval", str(link.approval_id), detail)
        await audit.record_engine(connection, entry)
    return settled
