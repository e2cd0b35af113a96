"""Answers while a run is open: what comes of them returns to the thread that they came from, and nobody is left waiting."""

import asyncio
from typing import Any

import pytest
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo

from tests.answers.conftest import Office, body_of, last_words, reply_to
from tests.answers.slack import Workspace
from tests.answers.test_in_slack import ANN, THEIRS, shown
from tests.engine import World, scripted
from tests.executor.test_turns import calls
from tests.notifications.servers import MailServer

BOSS = "boss@example.com"
MAILED = {"channels": ["email"], "email_address": BOSS}


def asking(*made: tuple[str, dict[str, Any]]) -> Any:
    """Makes these calls at once, then says what each gave."""

    def script(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        del info
        given = [part.content for each in messages for part in each.parts if isinstance(part, ToolReturnPart)]
        if not given:
            return calls(*made)
        later = last_words(messages)
        return ModelResponse(parts=[TextPart(f"Given {given}; asked {later!r}.")])

    return script


async def asks(world: World, *made: tuple[str, dict[str, Any]]) -> None:
    tools = ["notify", "ask_person"]
    model = scripted("asks", asking(*made))
    await world.agent("asks", model=model, tools=tools, approval={"notify": "ask"})


NOTIFY = ("notify", {"text": "Hello", "channel": "email"})
CITY, YEAR = ("ask_person", {"question": "Which city?"}), ("ask_person", {"question": "Which year?"})


async def waiting(office: Office, told: dict[str, Any]) -> None:
    """A run that has asked, and told so."""
    await office.post("/tasks", task_type="delegation", prompt="Go.", agent="asks", notification_config=told)
    async with asyncio.timeout(20):
        while not await office.database.fetchval("select count(*) from deliveries where event = 'run.waiting'"):
            await asyncio.sleep(0.02)
    await office.settled()


async def states(office: Office) -> list[tuple[str, str]]:
    items = (await office.get("/approvals"))["items"]
    return [(each["arguments"].get("question", each["tool"]), each["state"]) for each in reversed(items)]


# --- a run under way ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["steer", "reject", "interrupt", "enqueue"])
async def test_an_answer_returns_to_its_thread_whatever_runs_meanwhile(
    office: Office, slack: Workspace, world: World, policy: str
) -> None:
    gate, begun = asyncio.Event(), asyncio.Event()

    async def held(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        del info
        if (said := last_words(messages)) == "Take your time.":
            begun.set()
            await gate.wait()
        return ModelResponse(parts=[TextPart(f"About {said!r}.")])

    await world.agent("held", model=scripted("held", held))
    await office.person("conversations:write", slack_user=ANN)
    await office.post("/tasks", task_type="delegation", prompt="Go.", agent="held", notification_config=THEIRS)
    await office.settled()
    (report,) = slack.posted
    (conversation,) = await office.conversations()
    await office.database.execute("update conversations set on_message = $1", policy)
    slow = {"message": "Take your time.", "background": True, "on_message": "enqueue"}
    under_way = (await office.post(f"/conversations/{conversation}/messages", **slow))["run_id"]
    async with asyncio.timeout(20):
        await begun.wait()
    taken = (await slack.say(office.http, ANN, "And the totals?", report["ts"])).json()
    assert (taken["outcome"], taken["run_id"] != under_way) == ("message", True), taken
    if policy != "interrupt":
        gate.set()
    await office.settled()
    answers = [each for each in slack.posted if "About 'And the totals?'." in shown(each)]
    assert [each["thread_ts"] for each in answers] == [report["ts"]]
    assert (await office.get(f"/runs/{under_way}"))["state"] == ("cancelled" if policy == "interrupt" else "completed")


# --- questions that are open -------------------------------------------------------------------------------


async def test_each_message_answers_the_question_that_is_open_longest(
    office: Office, slack: Workspace, world: World
) -> None:
    await asks(world, CITY, YEAR)
    await office.person("conversations:write", slack_user=ANN)
    await waiting(office, THEIRS)
    question = slack.posted[0]
    assert (await slack.say(office.http, ANN, "Paris", question["ts"])).json()["outcome"] == "message"
    await office.settled()
    assert await states(office) == [("Which city?", "approved"), ("Which year?", "pending")]
    note = str(slack.posted[-1]["blocks"])
    assert "Your message is the answer to: “Which city?”" in note
    assert "“Which year?”: answer it by another message." in note
    assert slack.posted[-1]["thread_ts"] == question["ts"]
    assert (await slack.say(office.http, ANN, "1900", question["ts"])).json()["outcome"] == "message"
    await office.settled()
    assert "Given ['Paris', '1900']" in shown(slack.posted[-1])


async def test_words_answer_a_question_and_decide_no_call(office: Office, slack: Workspace, world: World) -> None:
    await asks(world, NOTIFY, CITY)
    await office.person("conversations:write", "approvals:write", slack_user=ANN)
    await waiting(office, THEIRS)
    question = slack.posted[0]
    await slack.say(office.http, ANN, "Paris", question["ts"])
    await office.settled()
    assert await states(office) == [("notify", "pending"), ("Which city?", "approved")]
    assert "Use the buttons below the question." in shown(slack.posted[-1])
    assert (await slack.click(office.http, ANN, question, "deny")).json()["outcome"] == "decision"
    await office.settled()
    assert "'Paris']" in shown(slack.posted[-1])


async def test_words_to_a_call_wait_and_say_so_once(office: Office, mail_server: MailServer, world: World) -> None:
    await asks(world, NOTIFY)
    await waiting(office, MAILED)
    (mail,) = mail_server.mails
    for _ in range(2):
        taken = await office.mail_in(reply_to(mail, "Yes, do."))
        assert taken.json()["outcome"] == "message", taken.text
    async with asyncio.timeout(20):
        while len(mail_server.mails) < 2:
            await asyncio.sleep(0.02)
    _, note = mail_server.mails
    assert "It is answered when this is decided" in body_of(note)
    assert "Whoever may decide it has a link in the mail that asked." in body_of(note)
    assert note["In-Reply-To"].startswith("<")
    assert note["Reply-To"] == mail["Reply-To"]
    assert await states(office) == [("notify", "pending")]
    (approval,) = (await office.get("/approvals"))["items"]
    await office.post(f"/approvals/{approval['id']}/decision", decision="deny")
    await office.settled()
    assert len([each for each in mail_server.mails if "asked 'Yes, do.'" in body_of(each)]) == 2


async def test_a_signature_with_a_picture_does_not_keep_an_answer_out(
    office: Office, mail_server: MailServer, world: World
) -> None:
    await asks(world, CITY)
    await waiting(office, MAILED)
    file = {"name": "logo.png", "content_type": "image/png", "content": "eA=="}
    taken = await office.mail_in(reply_to(mail_server.mails[0], "Paris", attachments=[file]))
    assert taken.json()["outcome"] == "message", taken.text
    await office.settled()
    assert await states(office) == [("Which city?", "approved")]
    assert "the file logo.png was not kept" in body_of(mail_server.mails[-1])


async def test_an_answer_by_message_is_in_the_audit_log(office: Office, slack: Workspace, world: World) -> None:
    await asks(world, CITY)
    principal = await office.person("conversations:write", slack_user=ANN)
    await waiting(office, THEIRS)
    await slack.say(office.http, ANN, "Paris", slack.posted[0]["ts"])
    (entry,) = (await office.get("/audit", action="approval.approve"))["items"]
    assert (entry["principal_id"], entry["detail"]) == (str(principal), {"by_message": "slack"})
