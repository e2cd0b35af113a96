"""A question is decided by the link of a mail: opening it decides nothing, the form does, once."""

import asyncio
from email.message import EmailMessage
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo

from app.db import DEFAULT_WORKSPACE
from app.notifications.decision_links import decision_url
from app.settings import Settings
from tests.answers.conftest import Office, body_of, last_words, links_of, reply_to
from tests.engine import World, scripted
from tests.executor.test_turns import calls
from tests.notifications.servers import MailServer

BOSS = "boss@example.com"


async def asked(office: Office, server: MailServer) -> tuple[str, dict[str, Any]]:
    """The link of a mail that asks whether a tool may be called, and the approval."""
    told = {"channels": ["email"], "email_address": BOSS}
    await office.post("/tasks", task_type="delegation", prompt="Tell them.", agent="careful", notification_config=told)
    await office.settled()
    (link,) = links_of(server.mails[-1], "/decisions/")
    approval, *_ = (await office.get("/approvals"))["items"]
    return link, approval


async def state(office: Office, approval: dict[str, Any]) -> str:
    return (await office.get(f"/approvals/{approval['id']}"))["state"]


async def decide(office: Office, link: str, **form: str) -> httpx.Response:
    return await office.http.post(link, data=form)


async def test_the_link_opens_a_page_and_its_form_decides(office: Office, mail_server: MailServer) -> None:
    link, approval = await asked(office, mail_server)
    for method in ("GET", "HEAD", "GET"):
        opened = await office.http.request(method, link)
        assert opened.status_code in (200, 405)
    page = await office.http.get(link)
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert (page.headers["referrer-policy"], page.headers["cache-control"]) == ("no-referrer", "no-store")
    assert "<code>notify</code>" in page.text
    assert "Hello &lt;b&gt;" in page.text
    assert f"You decide as {BOSS}." in page.text
    assert await state(office, approval) == "pending"
    decided = await decide(office, link, action="approve")
    assert (decided.status_code, "is <strong>approved</strong>" in decided.text) == (200, True)
    await office.settled()
    assert (await office.get(f"/approvals/{approval['id']}"))["decided_by"] == BOSS
    assert (await office.get("/audit", action="approval.approve"))["items"][0]["detail"]["by_mail"] == BOSS
    again = await decide(office, link, action="deny")
    assert again.status_code == 409
    assert "the approval is approved" in again.text
    assert "<form" not in (await office.http.get(link)).text
    assert await state(office, approval) == "approved"


async def test_clicks_at_once_are_one_decision(office: Office, mail_server: MailServer) -> None:
    link, approval = await asked(office, mail_server)
    answers = await asyncio.gather(*(decide(office, link, action=each) for each in ("approve", "deny") * 3))
    assert sorted(each.status_code for each in answers) == [200] + [409] * 5
    assert await state(office, approval) in ("approved", "denied")


async def test_a_denial_carries_its_reason(office: Office, mail_server: MailServer) -> None:
    link, approval = await asked(office, mail_server)
    page = await decide(office, link, action="deny", reason="Not before <Monday>.")
    assert "denied</strong>" in page.text
    assert ": Not before &lt;Monday&gt;." in page.text
    assert (await office.get(f"/approvals/{approval['id']}"))["reason"] == "Not before <Monday>."


async def test_a_form_that_says_nothing_decides_nothing(office: Office, mail_server: MailServer) -> None:
    link, approval = await asked(office, mail_server)
    for body in (b"", b"action=perhaps", b"a=1&" * 5):
        answer = await office.http.post(link, content=body)
        assert (answer.status_code, "must be approve or deny" in answer.text) == (422, True)
    assert await state(office, approval) == "pending"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"\xff\xfe", 400, "the form is not UTF-8"),
        (b"action=deny&reason=%ff", 400, "the form is not UTF-8"),
        (b"a=1&" * 21, 400, "at most 20 fields"),
        (b"action=deny&reason=%00", 422, "NUL"),
        (b"action=deny&reason=" + b"x" * 2_001, 422, "at most 2000 characters"),
        (b"action=deny&reason=" + b"x" * 100_000, 413, "100000 bytes"),
    ],
)
async def test_a_form_that_can_not_be_read_says_why_on_the_page(
    office: Office, mail_server: MailServer, body: bytes, status: int, said: str
) -> None:
    link, approval = await asked(office, mail_server)
    answer = await office.http.post(link, content=body)
    assert (answer.status_code, said in answer.text, "<form" in answer.text) == (status, True, True), answer.text
    assert await state(office, approval) == "pending"


LONG = "update approvals set arguments = jsonb_build_object('text', repeat('x', $1))"


async def test_arguments_are_shown_whole_or_not_approved(office: Office, mail_server: MailServer) -> None:
    link, approval = await asked(office, mail_server)
    await office.database.execute(LONG, 150_000)
    page = (await office.http.get(link)).text
    assert ("x" * 150_000 in page, 'value="approve"' in page, "cut:" in page) == (True, True, False)
    await office.database.execute(LONG, 250_000)
    page = (await office.http.get(link)).text
    assert ('value="approve"' in page, 'value="deny"' in page) == (False, True)
    assert "… cut: 50016 characters more" in page
    assert f"GET /approvals/{approval['id']}" in page
    refused = await decide(office, link, action="approve")
    assert (refused.status_code, "not shown whole here" in refused.text) == (422, True)
    assert await state(office, approval) == "pending"
    assert (await decide(office, link, action="deny")).status_code == 200


async def test_a_principal_who_lost_the_scope_decides_nothing(office: Office, mail_server: MailServer) -> None:
    link, approval = await asked(office, mail_server)
    await office.person("approvals:read", email=BOSS)
    assert (await decide(office, link, action="approve")).status_code == 403
    assert await state(office, approval) == "pending"
    principal = await office.person("approvals:write", email=BOSS)
    assert (await decide(office, link, action="approve")).status_code == 200
    assert await office.database.fetchval("select decided_by from approvals") == principal


CUSTOMER = "customer@outside.test"


async def asked_by_customer(office: Office, server: MailServer, **told: Any) -> tuple[EmailMessage, dict[str, Any]]:
    """A report's mail was answered, the answer's run asks, and this is what the one who answered hears; the approval."""
    config = {"channels": ["email"], "email_address": CUSTOMER, "on": ["completed"]} | told
    await office.post("/tasks", task_type="delegation", prompt="Go.", agent="wary", notification_config=config)
    await office.settled()
    taken = await office.mail_in(reply_to(server.mails[-1], "Now notify them."))
    assert taken.json()["outcome"] == "message", taken.text
    await office.settled()
    (approval,) = (await office.get("/approvals"))["items"]
    return server.mails[-1], approval


def wary(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Reports; asked once more, calls a tool that asks first."""
    del info
    if last_words(messages) == "Go.":
        return ModelResponse(parts=[TextPart("Revenue was 42.")])
    if any(part.part_kind == "tool-return" for part in messages[-1].parts):
        return ModelResponse(parts=[TextPart("Done.")])
    return calls(("notify", {"text": "Hello", "channel": "email"}))


@pytest.fixture
async def reports(world: World, office: Office) -> None:
    await world.agent("wary", model=scripted("wary", wary), tools=["notify"], approval={"notify": "ask"})


@pytest.mark.usefixtures("reports")
@pytest.mark.parametrize("told", [{}, {"on": ["completed", "waiting"]}], ids=["reports", "questions too"])
async def test_nobody_without_a_key_decides_what_their_own_words_led_to(
    office: Office, mail_server: MailServer, told: dict[str, Any]
) -> None:
    mail, approval = await asked_by_customer(office, mail_server, **told)
    assert mail["To"] == CUSTOMER
    assert links_of(mail, "/decisions/") == []
    assert "A call of `notify` waits for approval by somebody else." in body_of(mail)
    assert "/decision" not in str(mail.get_body(("html",)))
    forged = decision_url(
        office.settings, workspace_id=DEFAULT_WORKSPACE, approval_id=UUID(approval["id"]), address=CUSTOMER
    )
    refused = await decide(office, forged.removeprefix(office.settings.base_url), action="approve")
    assert (refused.status_code, "you may not decide this" in refused.text) == (403, True)
    assert await state(office, approval) == "pending"


@pytest.mark.usefixtures("reports")
async def test_whom_a_key_names_decides(office: Office, mail_server: MailServer) -> None:
    await office.person("approvals:write", "conversations:write", email=CUSTOMER)
    mail, approval = await asked_by_customer(office, mail_server)
    (link,) = links_of(mail, "/decisions/")
    assert "Decide by the link; a reply to this mail does not decide." in body_of(mail)
    assert (await decide(office, link, action="deny")).status_code == 200
    assert await state(office, approval) == "denied"


async def test_a_link_is_worth_what_its_address_may_do_now(office: Office, mail_server: MailServer) -> None:
    link, approval = await asked(office, mail_server)
    others = {"channels": ["email"], "email_address": BOSS, "on": ["failed"]}
    await office.database.execute("update tasks set notification_config = $1", others)
    assert (await decide(office, link, action="approve")).status_code == 403
    assert await state(office, approval) == "pending"


async def test_changed_cut_and_foreign_links_are_none(
    office: Office, mail_server: MailServer, settings: Settings
) -> None:
    link, approval = await asked(office, mail_server)
    token = link.removeprefix("/decisions/")
    for position in range(0, len(token), 7):
        changed = token[:position] + ("A" if token[position] != "A" else "B") + token[position + 1 :]
        assert (await decide(office, f"/decisions/{changed}", action="approve")).status_code == 404
    for wrong in (token[:-1], token[:20], token + "AAAA", "x", "é", "%00", "a" * 2000):
        assert (await decide(office, f"/decisions/{wrong}", action="approve")).status_code in (404, 422), wrong
    assert await state(office, approval) == "pending"


async def test_a_link_expires(office: Office, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.notifications import decision_links

    monkeypatch.setattr(decision_links, "OPEN_SECONDS", -1)
    link, approval = await asked(office, mail_server)
    assert (await office.http.get(link)).status_code == 404
    assert (await decide(office, link, action="approve")).status_code == 404
    assert await state(office, approval) == "pending"


async def test_an_expired_question_says_so(office: Office, mail_server: MailServer) -> None:
    link, _ = await asked(office, mail_server)
    await office.database.execute("update approvals set expires_at = now() - interval '1 second'")
    assert "<strong>expired</strong>" in (await office.http.get(link)).text
    assert (await decide(office, link, action="approve")).status_code == 409


async def test_a_deleted_conversation_takes_its_question_along(office: Office, mail_server: MailServer) -> None:
    link, approval = await asked(office, mail_server)
    await office.database.execute("delete from approvals where id = $1", approval["id"])
    assert (await office.http.get(link)).status_code == 404
