"""What a reader gets to see, and what never reaches them."""

from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from app.notifications.render import render_mail
from app.notifications.slack_message import escape, mrkdwn, render_slack
from app.notifications.text import cut, one_line, plain, safe_html
from tests.notifications.conftest import CONVERSATION, RUN, TASK, make_notice

NASTY = """# Report

**bold** and [a link](https://example.com "t") and ![pixel](https://evil.example/p.gif)

<script>alert(1)</script> <img src=https://evil.example/q.gif onerror=alert(1)> <iframe src="//evil"></iframe>

[x](javascript:alert(1)) [y](data:text/html;base64,AAAA) <a href="https://e" style="position:fixed" onclick=x>z</a>

| a | b |
|---|---|
| 1 | 2 |

<!channel> <@U123> <https://evil.example|bank.example> & more
"""


def test_a_mail_says_what_happened_why_it_came_and_where_to_read() -> None:
    mail = render_mail(make_notice(finished_at=datetime(2026, 11, 20, 9, 5, tzinfo=UTC)))
    assert mail.subject == "Completed: Daily report"
    for body in (mail.text, mail.html):
        assert f"https://parley.example.com/conversations/{CONVERSATION}/export?format=markdown" in body
        assert f"https://parley.example.com/runs/{RUN}" in body
        assert f"https://parley.example.com/tasks/{TASK}/disable" in body
        assert "notification_config names you for completed" in body
        assert "By agent assistant, with openai:gpt-5." in body
        assert "Finished 2026-11-20 09:05 UTC." in body
    assert "<strong>well</strong>" in mail.html
    assert "All is **well**." in mail.text


def test_styles_are_inlined() -> None:
    mail = render_mail(make_notice())
    assert "<style" not in mail.html
    assert "<link" not in mail.html
    assert 'class="button"' in mail.html
    assert "background: #1f5fbf" in mail.html


def test_a_failure_shows_its_error() -> None:
    mail = render_mail(make_notice(event="run.failed", error="The model said no <b>", text="partial"))
    assert mail.subject == "Failed: Daily report"
    assert "The model said no <b>" in mail.text
    assert "The model said no &lt;b&gt;" in mail.html
    assert "partial" in mail.text


def test_the_demo_model_is_labelled() -> None:
    notice = make_notice(model="demo")
    mail = render_mail(notice)
    assert "offline demo model" in mail.text
    assert "offline demo model" in mail.html
    assert "offline demo model" in str(render_slack(notice))


class Elements(HTMLParser):
    """The elements of a page with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_nothing_active_or_remote_gets_into_the_html() -> None:
    elements = Elements(safe_html(NASTY)).found
    assert not {tag for tag, _ in elements} & {"script", "img", "iframe", "style", "form", "link", "object", "svg"}
    assert {name for _, attributes in elements for name in attributes} <= {"href", "title", "rel"}
    assert {attributes.get("href") for tag, attributes in elements if tag == "a"} <= {"https://example.com", None}


def test_markdown_is_rendered_and_images_become_words() -> None:
    html = safe_html(NASTY)
    assert '<a href="https://example.com" title="t" rel="noopener noreferrer nofollow">a link</a>' in html
    assert "[image: pixel]" in html
    assert "evil.example/p.gif" not in html
    assert "<td>1</td>" in html


def test_a_title_can_not_break_the_html_or_the_subject() -> None:
    mail = render_mail(make_notice(title="</title><script>x\r\nBcc: all@example.com\u202e\x00"))
    assert "<script" not in mail.html
    assert "\n" not in mail.subject
    assert mail.subject == "Completed: </title><script>x Bcc: all@example.com"


def test_a_huge_text_is_cut_and_says_so() -> None:
    mail = render_mail(make_notice(text="word " * 100_000))
    assert len(mail.html) < 40_000
    assert "The rest is in the conversation" in mail.html
    assert "The rest is in the conversation" in mail.text


def test_slack_blocks_hold_the_same_and_no_live_mention() -> None:
    body = render_slack(make_notice(title="<!here> & co", text=NASTY))
    header, section, context = body["blocks"]
    assert header["text"] == {"type": "plain_text", "text": "Completed: <!here> & co", "emoji": False}
    assert body["text"] == "Completed: &lt;!here&gt; &amp; co"
    text = section["text"]["text"]
    assert "*Report*" in text
    assert "*bold*" in text
    assert "&lt;!channel&gt; &lt;@U123&gt; &lt;https://evil.example|bank.example&gt; &amp; more" in text
    assert "p.gif" not in text
    assert "<javascript" not in text
    assert section["text"]["verbatim"] is True
    links, why = (element["text"] for element in context["elements"])
    assert links.startswith(
        f"<https://parley.example.com/conversations/{CONVERSATION}/export?format=markdown|Read the conversation>"
    )
    assert "disable the task" in why
    assert f"POST https://parley.example.com/conversations/{CONVERSATION}/messages" in why
    assert (body["unfurl_links"], body["unfurl_media"]) == (False, False)


def test_slack_limits_count_after_escaping() -> None:
    body = render_slack(make_notice(text="&<>" * 5_000, title="&" * 500, agent="<" * 3_000))
    assert len(body["blocks"][1]["text"]["text"]) <= 3_000
    assert len(body["blocks"][0]["text"]["text"]) <= 150
    assert all(len(element["text"]) <= 3_000 for element in body["blocks"][2]["elements"])
    assert mrkdwn("&" * 100, 52).endswith("&amp;…")
    assert len(mrkdwn("[a](https://example.com/)" * 400, 300)) <= 300


def test_a_digest_shows_titles_as_they_are_on_every_surface() -> None:
    title = "Failed: Daily_report (v2) *x*"
    entry = {"title": title, "text": "a_b <!here>", "url": "https://x.example/runs/1", "at": "2026-11-20T09:05:00Z"}
    notice = make_notice(event="digest", text="", digest=(entry,))
    mail = render_mail(notice)
    assert f"- 2026-11-20 09:05 UTC {title}: a_b <!here>\n  https://x.example/runs/1" in mail.text
    assert f">{title}</a>: a_b &lt;!here&gt;" in mail.html
    assert "You get these together because many came at once" in mail.text
    section = render_slack(notice)["blocks"][1]["text"]["text"]
    assert section == f"• 2026-11-20 09:05 UTC <https://x.example/runs/1|{title}>: a_b &lt;!here&gt;\n"


def test_a_long_digest_fits_into_slacks_limits() -> None:
    entry = {"title": "&" * 160, "text": "x" * 160, "url": "https://x.example", "at": "2026-11-20T09:05:00Z"}
    blocks = render_slack(make_notice(event="digest", text="", digest=(entry,) * 50))["blocks"]
    sections = [block["text"]["text"] for block in blocks if block["type"] == "section"]
    assert all(len(text) <= 3_000 for text in sections)
    shown = sum(text.count("•") for text in sections)
    assert f"{50 - shown} more: <" in str(blocks)


def test_an_empty_outcome_has_no_empty_section() -> None:
    assert [block["type"] for block in render_slack(make_notice(text=" "))["blocks"]] == ["header", "context"]


def test_text_is_made_safe() -> None:
    assert escape("<@U1> & >") == "&lt;@U1&gt; &amp; &gt;"
    assert one_line("a\r\n b\x00\u202ec\ud800", 99) == "a b c"
    assert plain("a\r\nb\x07\tc") == "a\nb\tc"
    assert cut("abcdef", 4) == "abc…"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("![a cat](https://e.example/a.png) **b**", "[image: a cat] *b*"),
        ("![](https://e.example/a.png)", "[image]"),
        ("say `[a](https://e.example/)` **b**", "say `[a](https://e.example/)` *b*"),
        ("```\n# [a](https://e.example/)\n**b**\n```\n# c", "```\n# [a](https://e.example/)\n**b**\n```\n*c*"),
        ("`a [b](https://e.example/)", "`a <https://e.example/|b>"),
        ("`<!channel>`", "`&lt;!channel&gt;`"),
    ],
)
def test_slack_gets_code_as_it_is_and_the_words_of_images(text: str, shown: str) -> None:
    assert mrkdwn(text, 3000) == shown


# --- questions ---------------------------------------------------------------------------------------------

URL = "https://parley.example.com/decisions/x"
CALL = {
    "id": "1",
    "kind": "tool",
    "tool": "send_money",
    "question": "May this be called?",
    "arguments": '{"to": "eve"}',
    "left_out": 0,
    "url": "https://parley.example.com/approvals/1/decision",
    "answer": '{"decision": "approve"}',
}
QUESTION = CALL | {"kind": "question", "tool": "ask_person", "question": "Which city?", "arguments": ""}
REPLYING = "To answer, reply to this mail"


def asks(*asked: dict[str, Any], links: bool = True, by_mail: bool = True) -> str:
    """The plain part of a mail that asks; the HTML says the same."""
    notice = make_notice(event="run.waiting", text="To decide: POST https://x/decision", asked=asked)
    mail = render_mail(notice, by_mail=by_mail, decision_urls=[URL] * len(asked) if links else ())
    assert "POST" not in mail.text.partition("\n--\n")[0]
    assert "approvals/1/decision" not in mail.text + mail.html
    assert (URL in mail.text, URL in mail.html) == (links, links)
    for said in ("a reply to this mail does not decide", "send_money", "Which city?", REPLYING):
        assert (said in mail.text) == (said in mail.html), said
    return mail.text


def test_a_call_is_decided_by_its_link_and_by_no_reply() -> None:
    for asked in (CALL, CALL | {"kind": "effect"}):
        said = asks(asked)
        assert '{"to": "eve"}' in said
        assert "Decide by the link; a reply to this mail does not decide." in said
        assert REPLYING not in said


def test_a_question_is_answered_by_replying() -> None:
    said = asks(QUESTION)
    assert "Which city?" in said
    assert REPLYING in said
    assert REPLYING not in asks(QUESTION, by_mail=False)


def test_of_both_a_mail_says_which_is_which() -> None:
    assert "by the link; a reply to this mail answers the question." in asks(CALL, QUESTION)
    assert "a reply to this mail does not decide." in asks(CALL, QUESTION, by_mail=False)


def test_who_may_not_decide_sees_no_call_and_no_link() -> None:
    said = asks(CALL, QUESTION, links=False)
    assert "A call of `send_money` waits for approval by somebody else." in said
    assert "Which city?" in said
    assert "eve" not in said
    assert REPLYING not in said
    assert "This waits for somebody else." in asks(QUESTION, links=False, by_mail=False)
