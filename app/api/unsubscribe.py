"""/unsubscribe/{token}: the link of every message by which its receiver wants no more of them.

Mail programs call it with one POST (RFC 8058). A person opens it: the page asks first, so that a scanner that opens every
link of a mail changes nothing.
"""

from collections.abc import AsyncIterator
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, select_autoescape

from app.api.access import count_forger, engine_of
from app.api.strict import RESPONSES
from app.errors import NotFound
from app.notifications import mutes
from app.notifications.mutes import Subscription

router = APIRouter(tags=["deliveries"], responses=RESPONSES)

MAX_BODY = 2_000
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex",
}
PAGES = Environment(loader=PackageLoader("app.notifications"), autoescape=select_autoescape(["html.j2"]))


async def _subscription(token: str, request: Request) -> AsyncIterator[Subscription]:
    engine = engine_of(request)
    found = await mutes.find(engine.database, engine.settings, token)
    if found is None:
        await count_forger(request)
        raise NotFound("this link is not valid any more")
    yield found


Linked = Annotated[Subscription, Depends(_subscription)]


@router.get(mutes.PATH + "{token}", summary="Ask before unsubscribing", response_class=HTMLResponse)
async def show(subscription: Linked) -> HTMLResponse:
    """A page with a button. Opening it changes nothing."""
    return _page(subscription, muted=subscription.muted)


@router.post(mutes.PATH + "{token}", summary="Unsubscribe an address", response_class=HTMLResponse)
async def unsubscribe(subscription: Linked, request: Request) -> HTMLResponse:
    """Send no more messages of this task, or conversation, to this address; with `action=subscribe`, send them again."""
    again = await _wants_them_again(request)
    work = mutes.unmute if again else mutes.mute
    await work(engine_of(request).database, subscription)
    return _page(subscription, muted=not again)


async def _wants_them_again(request: Request) -> bool:
    body = (await request.body())[:MAX_BODY]
    return parse_qs(body.decode(errors="replace")).get("action") == ["subscribe"]


def _page(subscription: Subscription, *, muted: bool) -> HTMLResponse:
    page = PAGES.get_template("unsubscribe.html.j2").render(of=subscription, muted=muted)
    return HTMLResponse(page, headers=HEADERS)
