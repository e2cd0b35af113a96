"""Answers in Slack: messages in a thread of ours, and buttons below a question."""

import json
import re
from typing import Annotated, Any, Literal, get_args
from urllib.parse import parse_qs
from uuid import UUID

from pydantic import BaseModel, Field, ValidationError

from app.answers.files import kept
from app.answers.people import WRITE, slack_email
from app.answers.slack_files import SharedFile, fetch_files
from app.answers.take import Answer, Answered, Door
from app.approvals import Decision
from app.db import Database
from app.egress import Egress
from app.errors import MalformedBody
from app.identity import Principal, people, who_may
from app.messages import Json
from app.notifications.deciders import DECIDE
from app.notifications.slack_threads import Thread, find_thread
from app.settings import Settings

Ts = Annotated[str, Field(pattern=r"^[0-9]{1,12}\.[0-9]{1,10}$")]
Team = Annotated[str, Field(pattern=r"^[TE][A-Z0-9]{1,20}$")]
Channel = Annotated[str, Field(pattern=r"^[A-Z0-9]{1,20}$")]
User = Annotated[str, Field(pattern=r"^[UW][A-Z0-9]{1,20}$")]
Verdict = Literal["approve", "deny", "happened", "repeat", "fail"]
MARKUP = re.compile(r"<([^<>|]*)(?:\|([^<>]*))?>")
LEADING_MENTION = re.compile(r"^\s*<@[A-Z0-9]+(?:\|[^<>]*)?>[,:]?\s*")
# Subtypes that are words of a person; others are edits, joins, reminders and bots.
WORDS = (None, "file_share", "thread_broadcast")
UNKNOWN = (
    "nobody here is known by your Slack account, so this was not taken: ask whoever runs this server to give your "
    "API key your e-mail address or your Slack id"
)
FORBIDDEN = "you are not allowed to {} here, so this was not taken: your API key needs the scope {}"


class Message(BaseModel):
    """A person's message in a thread.

    Attributes:
        team: The workspace in Slack.
        thread_ts: The message that its thread hangs on.
        files: What hangs on it.
    """

    team: Team
    channel: Channel
    thread_ts: Ts
    ts: Ts
    user: User
    text: str
    files: list[SharedFile] = Field(default_factory=list[SharedFile])

    @property
    def source_id(self) -> str:
        """The same for every event about it: Slack sends one again until it is answered, and may send two kinds."""
        return f"{self.team}/{self.channel}/{self.ts}"


class Click(BaseModel):
    """A person's click on a button of a question."""

    team: Team
    channel: Channel
    thread_ts: Ts
    ts: Ts
    user: User
    decision: Verdict
    approval_id: UUID
    at: Ts

    @property
    def source_id(self) -> str:
        """One per click."""
        return f"{self.team}/{self.channel}/{self.ts}/{self.approval_id}/{self.user}/{self.at}"


def message_of(payload: dict[str, Any]) -> Message | None:
    """The person's message in an event of the Events API; None for anything else, such as our own messages and edits.

    Raises:
        MalformedBody: when it is not what Slack sends.
    """
    if payload.get("type") != "event_callback" or not isinstance(payload.get("event"), dict):
        return None
    event: Json = payload["event"]
    if event.get("type") not in ("message", "app_mention") or event.get("subtype") not in WORDS:
        return None
    if any(event.get(name) for name in ("bot_id", "bot_profile", "app_id", "hidden", "edited")):
        return None
    if not event.get("user") or not event.get("thread_ts") or event["thread_ts"] == event.get("ts"):
        return None
    try:
        said: Json = {
            "team": payload.get("team_id"),
            "text": event.get("text") or "",
            "files": event.get("files") or [],
        }
        return Message.model_validate({**event, **said})
    except ValidationError as error:
        raise _malformed(error) from error


def click_of(body: bytes) -> Click | None:
    """The click in a form of the interactivity endpoint; None for anything but one of our buttons.

    Raises:
        MalformedBody: when it is not what Slack sends.
    """
    try:
        (text,) = parse_qs(body.decode(), strict_parsing=True, max_num_fields=5)["payload"]
        payload = json.loads(text)
        actions: list[Json] = payload["actions"] if payload["type"] == "block_actions" else []
        action = next((each for each in actions if _is_ours(each)), None)
        if action is None:
            return None
        decision, _, approval_id = action["action_id"].partition(":")
        message = payload["message"]
        return Click(
            team=payload["team"]["id"],
            channel=payload["channel"]["id"],
            thread_ts=message.get("thread_ts") or message["ts"],
            ts=message["ts"],
            user=payload["user"]["id"],
            decision=decision,
            approval_id=approval_id,
            at=action["action_ts"],
        )
    except ValidationError as error:
        raise _malformed(error) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedBody("the form's payload is not what Slack sends") from error


def _is_ours(action: Any) -> bool:
    decision, _, approval_id = action["action_id"].partition(":")
    return decision in get_args(Verdict) and approval_id == action.get("value")


def _malformed(error: ValidationError) -> MalformedBody:
    field = ".".join(str(part) for part in error.errors(include_url=False, include_input=False)[0]["loc"])
    return MalformedBody(f"the event's {field} is not what Slack sends")


def plain_text(text: str) -> str:
    """What a person typed, of what Slack makes of it."""

    def shown(found: re.Match[str]) -> str:
        target, name = found[1], found[2]
        if target[:1] in "@#!":
            return f"{target[0] if target[0] != '!' else '@'}{name or target[1:]}"
        return f"{name} ({target})" if name and name not in target else target.removeprefix("mailto:")

    said = MARKUP.sub(shown, LEADING_MENTION.sub("", text))
    return said.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").strip()


class SlackDoor:
    """Takes what Slack sends about threads of ours."""

    def __init__(self, database: Database, settings: Settings, egress: Egress) -> None:
        """Look people up through the egress guard."""
        self._database = database
        self._settings = settings
        self._egress = egress
        self._door = Door(database, settings)

    async def message(self, said: Message) -> Answered | None:
        """Take a message; None when its thread is none of ours.

        Raises:
            Unavailable: when Slack can't be asked who wrote it: send it again.
        """
        thread = await self._thread(said)
        if thread is None:
            return None
        answer, found = self._answer(thread, said, said.ts), await self._people(thread, said)
        writer = who_may(found, WRITE)
        if writer is None:
            return await self._door.refuse(answer, FORBIDDEN.format("answer", WRITE) if found else UNKNOWN)
        answer = self._answer(thread, said, said.ts, writer)
        files, missing = await fetch_files(self._egress, self._settings, said.files)
        artifacts, left_out = kept(answer, files, self._settings)
        text, missing = plain_text(said.text), [*missing, *left_out]
        if not text and not artifacts:
            return await self._door.refuse(answer, " ".join(["there was no text in it", *missing]))
        whole = "\n\n".join([text or "(no text)", *missing])
        return await self._door.message(answer, whole, artifacts, left_out="\n\n".join(missing))

    async def click(self, click: Click) -> Answered | None:
        """Take a decision; None when the thread is none of ours. A second click finds it decided.

        Raises:
            Unavailable: when Slack can't be asked who clicked: click again.
        """
        thread = await self._thread(click)
        if thread is None:
            return None
        found = await self._people(thread, click)
        decider = who_may(found, DECIDE)
        answer = self._answer(thread, click, click.ts, decider)
        if decider is None:
            return await self._door.refuse(answer, FORBIDDEN.format("decide", DECIDE) if found else UNKNOWN)
        outcome = None if click.decision in ("approve", "deny") else {"outcome": click.decision}
        decision = Decision(approve=click.decision != "deny", arguments=outcome)
        return await self._door.decision(answer, click.approval_id, decision)

    async def _thread(self, of: Message | Click) -> Thread | None:
        return await find_thread(self._database, team=of.team, channel=of.channel, thread_ts=of.thread_ts)

    async def _people(self, thread: Thread, of: Message | Click) -> list[Principal]:
        """By the Slack id that was written down for them, else by the address that Slack has confirmed."""
        place = (self._database, self._settings, thread.workspace_id)
        if found := await people(*place, slack_user=of.user):
            return found
        email = await slack_email(self._egress, self._settings, team=of.team, user=of.user)
        return await people(*place, email=email) if email else []

    def _answer(self, thread: Thread, of: Message | Click, ts: str, who: Principal | None = None) -> Answer:
        return Answer(
            workspace_id=thread.workspace_id,
            conversation_id=thread.conversation_id,
            channel="slack",
            source_id=of.source_id,
            sender=of.user,
            address=thread.address,
            thread={"in_reply_to": ts},
            principal=who,
        )
