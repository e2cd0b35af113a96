"""Slack by the bot token: a thread per conversation, progress in one message, questions with buttons.

https://docs.slack.dev/reference/methods/chat.postMessage and chat.update. Messages are posted at least once: Slack knows no
key by which a repeat could be told from a new one.
"""

from typing import Any, cast
from uuid import UUID

from app.db import Database, Row
from app.errors import DeliveryFailed, DeliveryRefused, EgressFailed
from app.notifications import slack_threads
from app.notifications.channel import Envelope, Means, SendResult
from app.notifications.http import post
from app.notifications.mutes import unsubscribe_url
from app.notifications.notice import DECISION, Notice
from app.notifications.slack_message import Decided, render_slack
from app.notifications.slack_threads import Thread

OPENING_RETRY_SECONDS = 2.0
# Slack answers 200 and says in the body what went wrong; these may pass.
PASSING = frozenset(
    {"ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"}
)
STATUS, QUESTION = "run.progress", "run.waiting"
KEPT = {"waiting": QUESTION, "started": STATUS, "progress": STATUS}

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
        if notice.rule == "waiting":
            if thread.thread_ts is None or not await self._was_posted(envelope):
                await self._post_new(envelope, thread, run_id)
            await self._show_decisions(notice, envelope.address)  # One may have been decided while it was posted.
            return SendResult()
        if notice.rule in ("started", "progress") and thread.thread_ts:
            return await self._post_or_change(envelope, thread, run_id)
        await self._post_new(envelope, thread, run_id)
        return SendResult()

    async def _post_or_change(self, envelope: Envelope, thread: Thread, run_id: UUID | None) -> SendResult:
        """A run has one message of how it goes: the first posts it, and whoever comes after changes it, one at a time."""
        async with slack_threads.alone_in(self._database, thread) as alone:
            if not alone:
                raise DeliveryFailed(
                    "another message of the thread is just being sent", retry_after=OPENING_RETRY_SECONDS
                )
            if await self._show_progress(envelope):
                return SendResult("the run's message was changed")
            await self._post_new(envelope, thread, run_id)
        return SendResult()

    async def _post_new(self, envelope: Envelope, thread: Thread, run_id: UUID | None) -> None:
        """Post, and remember where that went: the thread, if this opened one, and what may be changed later."""
        database, notice = self._database, envelope.notice
        try:
            # Asked before, for what fails after the post would have it posted again.
            team = await self._team() if thread.thread_ts is None else ""
            answer = await self._post(envelope, thread)
        except (DeliveryFailed, DeliveryRefused):
            await slack_threads.not_opened(database, thread)
            raise
        ts, channel = str(answer["ts"]), str(answer["channel"])
        if run_id and (event := KEPT.get(notice.rule or "")):
            payload = notice.payload() | {"delivery_id": str(envelope.delivery_id)}
            await slack_threads.remember(database, thread, ts, run_id=run_id, event=event, payload=payload)
        # Last: whoever waits for the thread then finds what was posted into it.
        if thread.thread_ts is None:
            await slack_threads.opened(database, thread, team=team, channel=channel, ts=ts)

    async def _post(self, envelope: Envelope, thread: Thread | None) -> dict[str, Any]:
        place = {"channel": (thread and thread.channel) or envelope.address}
        if thread and thread.thread_ts:
            place["thread_ts"] = thread.thread_ts
        return await self._call("chat.postMessage", {**place, **self._rendered(envelope)})

    def _rendered(self, envelope: Envelope) -> dict[str, Any]:
        notice, mute_url = envelope.notice, envelope.unsubscribe_url
        return render_slack(notice, envelope.linked, mute_url=mute_url, interactive=self._is_answered)

    @property
    def _is_answered(self) -> bool:
        """Whether Slack's calls are taken: without its secret nobody could tell that a click is one."""
        return self._means.settings.slack_signing_secret is not None

    async def _was_posted(self, envelope: Envelope) -> bool:
        """Whether an attempt before this one got as far as that."""
        messages = await self._messages(envelope.notice, envelope.address, QUESTION)
        return any(message.payload.get("delivery_id") == str(envelope.delivery_id) for message in messages)

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
                await self._update(message.channel, message.ts, self._rendered(envelope))
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
                url = unsubscribe_url(self._means.settings, UUID(message.payload["delivery_id"]))
                body = render_slack(asked, decided=decided, mute_url=url, interactive=self._is_answered)
                await self._update(message.channel, message.ts, body)
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
        url, who = f"{settings.slack_api_url.rstrip('/')}/{method}", f"Slack ({method})"
        headers = {"authorization": f"Bearer {settings.slack_bot_token.get_secret_value()}"}
        response = await post(self._means.egress, url, who, json=body, headers=headers, operator_url=True)
        try:
            answer = cast("dict[str, Any]", response.json())
        except EgressFailed as error:
            raise DeliveryFailed(error.detail) from error
        if answer.get("ok") is not True:
            _refuse(method, str(answer.get("error", "unknown_error"))[:100])
        return answer


def _refuse(method: str, said: str) -> None:
    what = f"Slack ({method}) answered {said}"
    raise DeliveryFailed(what) if said in PASSING else DeliveryRefused(what)
