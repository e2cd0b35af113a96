"""What a person wrote in an answering mail: without what it quotes."""

import re

import quotequail  # pyright: ignore[reportMissingTypeStubs]

from app.knowledge.html import page_of
from app.settings import Settings

MAX_CHARACTERS = 200_000
# A header of the mail below, as Outlook puts it there in whatever language, that holds an address of ours.
HEADER = r"[ \t>*]*[^\s:]{{1,20}}[ \t]*:[^\n]{{0,300}}(?:{})[^\n]*"


def written(text: str, html: str, settings: Settings) -> str:
    """The words of a mail's author, from its plain part, else its HTML.

    Takes a moment for a long mail: call it in a thread.
    """
    if text.strip():
        return _own_words(text[:MAX_CHARACTERS], settings)
    if not html.strip():
        return ""
    parts = quotequail.quote_html(html[:MAX_CHARACTERS], quote_intro_line=True)
    new = "".join(part for is_new, part in parts if is_new)
    # What begins with a tag is not taken for the address of a page.
    return page_of(f"<body>{new}")[1].strip()


def _own_words(text: str, settings: Settings) -> str:
    parts = quotequail.quote(text, quote_intro_line=True)
    new = "\n".join(part for is_new, part in parts if is_new)
    said = _above_header(new, settings).strip()
    # Answers between the lines stay with what they answer; a quote with none says nothing.
    return said if any(line.strip() and not line.startswith(">") for line in said.splitlines()) else ""


def _above_header(text: str, settings: Settings) -> str:
    local, _, domain = (settings.parley_reply_address or "").partition("@")
    ours = [re.escape(settings.smtp_from_email)] + (
        [f"{re.escape(local)}(?:\\+[a-z0-9]+)?@{re.escape(domain)}"] if local else []
    )
    found = re.search(rf"^{HEADER.format('|'.join(ours))}", text, re.MULTILINE | re.IGNORECASE)
    return text[: found.start()] if found else text
