"""/decisions/{token}: the page that a mail's link opens, where a question is decided.

Opening it changes nothing, so a scanner that opens every link of a mail decides nothing; its form does.
"""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, select_autoescape

from app.answers import linked
from app.answers.linked import Asked
from app.api.access import count_forger, engine_of
from app.api.problems import RESPONSES
from app.api.strict import raw_body, read_form
from app.api.unsubscribe import HEADERS
from app.errors import AlreadyDecided, BodyTooLarge, InvalidRequest, MalformedBody, NotFound
from app.notifications.decision_links import PATH, DecisionLink, read_link

router = APIRouter(tags=["approvals"], responses=RESPONSES)

MAX_BODY = 100_000
PAGES = Environment(loader=PackageLoader("app.answers"), autoescape=select_autoescape(["html.j2"]))


@dataclass(frozen=True)
class Opened:
    """A link that is good, and its question."""

    link: DecisionLink
    question: Asked


async def _opened(token: str, request: Request) -> AsyncIterator[Opened]:
    engine = engine_of(request)
    link = read_link(engine.settings, token, time.time())
    if link is None:
        await count_forger(request)
        raise NotFound("this link is not valid, or not any more")
    question = await linked.asked(engine.database, link)
    if question is None:
        raise NotFound("the question is gone")
    yield Opened(link, question)


Linked = Annotated[Opened, Depends(_opened)]


@router.get(PATH + "{token}", summary="Show a question before deciding it", response_class=HTMLResponse)
async def show_decision(opened: Linked) -> HTMLResponse:
    """A page with the question and a form. Opening it decides nothing."""
    return _page(opened)


@router.post(PATH + "{token}", summary="Decide a question by its link", response_class=HTMLResponse)
async def decide_by_link(opened: Linked, request: Request) -> HTMLResponse:
    """The page's form: `action` approve or deny, with `answer`, `outcome` or `reason`. Decided once; the page then says how."""
    engine, link = engine_of(request), opened.link
    problem, status = "", 200
    try:
        form = read_form(await raw_body(request, MAX_BODY))
        decision = linked.decision_of(form, opened.question)
        engine.tell(await linked.decide_linked(engine.database, engine.settings, link, decision))
    except (AlreadyDecided, BodyTooLarge, InvalidRequest, MalformedBody) as error:
        problem, status = error.detail, error.status
    question = await linked.asked(engine.database, link)
    return _page(Opened(link, question or opened.question), problem, status)


def _page(opened: Opened, problem: str = "", status: int = 200) -> HTMLResponse:
    page = PAGES.get_template("decision.html.j2").render(
        of=opened.question, address=opened.link.address, problem=problem
    )
    return HTMLResponse(page, status, headers=HEADERS)
