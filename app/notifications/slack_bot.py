"""Slack by the bot token: a thread per conversation, progress in one message, questions with buttons.

https://docs.slack.dev/reference/methods/chat.postMessage and chat.update. Messages are posted at least once: Slack knows no
key by which a repeat could be told from a new one.
"""

from typing import Any, cast
from uuid import UUID

from app.db import Database, Row
from app.errors import DeliveryFailed, DeliveryRefused, EgressFailed, EgressRefused, ToolError
from app.notifications import slack_threads
from app.notifications.channel import Envelope, Means, SendResult
from app.notifications.http import judge
from app.notifications.notice import Notice
from app.notifications.slack_message import Decided, render_slack
from app.notifications.slack_threads import Thread

TIMEOUT_SECONDS = 15.0
MAX_ANSWER_BYTES = 500_000
OPENING_RETRY_SECONDS = 2.0
# Slack answers 200 and says in the body what went wrong; these may pass.
PASSING = frozenset(
    {"ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"}
)
STATUS, QUESTION, DECISION = "run.progress", "run.waiting", "approval.decided"

DECIDED = """
select a.id, a.state, a.reason, p.name as decided_by from approvals a left join principals p on p.id = a.decided_by
where a.workspace_id = $1 and a.id = any($2::uuid[]) and a.state <> 'pending'
"""


class Bot:
    """Posts into channels and changes what it posted."""

    def __init__(self, means: Means) -> None:
        """Call Slack's Web API through the egress guard."""
        self._means = means
        self._own_team: str | None = None

    async def send(self, envelope: Envelope) -> SendResult:
        """Post one notice into its conversation's thread, or change the message that it is about."""
        if envelope.notice.event == DECISION:
            return await self._show_decisions(envelope.notice, envelope.address)
        if envelope.notice.conversation_id is None:
            await self._post(envelope, None)
            return SendResult()
        return await self._post_in_thread(envelope, envelope.notice.conversation_id, envelope.notice.run_id)

    # --- posting ---------------------------------------------------------------------------------------

    async def _post_in_thread(self, envelope: Envelope, conversation_id: UUID, run_id: UUID | None) -> SendResult:
        notice = envelope.notice
        thread = await slack_threads.thread_of(
            self._database,
            workspace_id=notice.workspace_id,
            conversation_id=conversation_id,
            address=envelope.address,
        )
        if thread is None:
            raise DeliveryFailed("another message is about to open the thread", retry_after=OPENING_RETRY_SECONDS)
        if notice.rule in ("started", "progress") and thread.thread_ts and await self._show_progress(envelope):
            return SendResult("the run's message was changed")
        try:
            answer = await self._post(envelope, thread)
        except (DeliveryFailed, DeliveryRefused):
            await slack_threads.not_opened(self._database, thread)
            raise
        await self._keep(thread, answer, notice, run_id)
        if notice.rule == "waiting":
            await self._show_decisions(notice, envelope.address)  # One may have been decided while it was posted.
        return SendResult()

    async def _post(self, envelope: Envelope, thread: Thread | None) -> dict[str, Any]:
        place = {"channel": (thread and thread.channel) or envelope.address}
        if thread and thread.thread_ts:
            place["thread_ts"] = thread.thread_ts
        return await self._call(
            "chat.postMessage", {**place, **render_slack(envelope.notice, envelope.linked, buttons=True)}
        )

    async def _keep(self, thread: Thread, answer: dict[str, Any], notice: Notice, run_id: UUID | None) -> None:
        """Remember where the message went: the thread, if it opened one, and what may be changed later."""
        ts, channel, database = str(answer["ts"]), str(answer["channel"]), self._database
        event = {"waiting": QUESTION, "started": STATUS, "progress": STATUS}.get(notice.rule or "")
        if event and run_id:
            payload = notice.payload()
            await slack_threads.remember(database, thread, ts, run_id=run_id, event=event, payload=payload)
        # Last: whoever waits for the thread then finds what was posted into it.
        if thread.thread_ts is None:
            team = str(answer.get("message", {}).get("team") or await self._team())
            await slack_threads.opened(database, thread, team=team, channel=channel, ts=ts)

    async def _team(self) -> str:
        if self._own_team is None:
            self._own_team = str((await self._call("auth.test", {}))["team_id"])
        return self._own_team

    # --- changing --------------------------------------------------------------------------------------

    async def _show_progress(self, envelope: Envelope) -> bool:
        """Put the newest progress into the run's one message; False when there is none yet."""
        messages = await self._messages(envelope.notice, envelope.address, STATUS)
        for message in messages[:1]:
            # Sent out of turn, older news must not take the place of newer.
            if (message.payload.get("event_seq") or 0) < (envelope.notice.event_seq or 0):
                await self._update(message.channel, message.ts, render_slack(envelope.notice, envelope.linked))
                await slack_threads.renew(self._database, message, envelope.notice.payload())
        return bool(messages)

    async def _show_decisions(self, notice: Notice, address: str) -> SendResult:
        """Let the messages that ask a run's questions say what was decided."""
        changed = 0
        for message in await self._messages(notice, address, QUESTION):
            ids = {"event": QUESTION, "workspace_id": notice.workspace_id, "conversation_id": notice.conversation_id}
            asked = Notice.of_row(
                {**ids, "run_id": notice.run_id, "task_id": notice.task_id, "payload": message.payload}
            )
            decided = await self._decided(asked)
            if decided:
                await self._update(message.channel, message.ts, render_slack(asked, decided=decided, buttons=True))
                changed += 1
        return SendResult(f"{changed} messages changed" if changed != 1 else "the message was changed")

    async def _decided(self, asked: Notice) -> list[Decided]:
        ids = [UUID(question["id"]) for question in asked.asked]
        rows: list[Row] = await self._database.fetch(DECIDED, asked.workspace_id, ids) if ids else []
        return [Decided(str(row["id"]), row["state"], row["decided_by"], row["reason"]) for row in rows]

    async def _messages(self, notice: Notice, address: str, event: str) -> list[slack_threads.Message]:
        if notice.run_id is None:
            return []
        found = await slack_threads.messages_of(
            self._database, workspace_id=notice.workspace_id, run_id=notice.run_id, event=event
        )
        return [message for message in found if message.address == address]

    async def _update(self, channel: str, ts: str, body: dict[str, Any]) -> None:
        await self._call("chat.update", {"channel": channel, "ts": ts, "text": body["text"], "blocks": body["blocks"]})

    # --- calling ---------------------------------------------------------------------------------------

    @property
    def _database(self) -> Database:
        return self._means.database

    async def _call(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """One call of the Web API.

        Raises:
            DeliveryFailed: it may work later.
            DeliveryRefused: it never will.
        """
        settings = self._means.settings
        if settings.slack_bot_token is None:
            raise DeliveryRefused("SLACK_BOT_TOKEN is not set any more")
        try:
            response = await self._means.egress.fetch(
                "POST",
                f"{settings.slack_api_url.rstrip('/')}/{method}",
                json=body,
                headers={"authorization": f"Bearer {settings.slack_bot_token.get_secret_value()}"},
                timeout_seconds=TIMEOUT_SECONDS,
                max_bytes=MAX_ANSWER_BYTES,
                operator_url=True,
            )
            judge(response, f"Slack ({method})")
            answer = cast("dict[str, Any]", response.json())
        except EgressRefused as error:
            raise DeliveryRefused(error.detail) from error
        except (EgressFailed, ToolError) as error:
            raise DeliveryFailed(error.detail) from error
        if answer.get("ok") is not True:
            _refuse(method, str(answer.get("error", "unknown_error"))[:100])
        return answer


def _refuse(method: str, said: str) -> None:
    what = f"Slack ({method}) answered {said}"
    raise DeliveryFailed(what) if said in PASSING else DeliveryRefused(what)
