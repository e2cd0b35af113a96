"""Connections to the mail server that are kept for the next mail: no mail is lost by that, and none goes twice."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.errors import DeliveryFailed
from app.notifications.email import compose
from app.notifications.smtp import Smtp
from tests.notifications.conftest import make_envelope, make_notice, make_settings
from tests.notifications.servers import At, MailServer, ShortTempered


@pytest.fixture
def settings_of(tmp_path: Path) -> Callable[..., Any]:
    return lambda server: make_settings(tmp_path, smtp_host="127.0.0.1", smtp_port=server.port)


@pytest.fixture
def kept(settings_of: Callable[..., Any]) -> Callable[..., Any]:
    """A server and what sends to it."""

    @asynccontextmanager
    async def running(**values: Any) -> AsyncIterator[tuple[ShortTempered, Smtp]]:
        async with ShortTempered(**values) as server:
            smtp = Smtp(settings_of(server))
            try:
                yield server, smtp
            finally:
                server.over.set()
                await smtp.aclose()

    return running


async def send(smtp: Smtp, number: int) -> None:
    await smtp.send(compose(make_envelope(make_notice(), f"user{number}@example.com"), "parley@example.com"))


def taken_by(server: MailServer) -> list[str]:
    assert all(len(to) == 1 for _, to in server.envelopes)
    return [to[0].partition("@")[0] for _, to in server.envelopes]


async def test_mails_share_a_connection_and_nothing_else(kept: Callable[..., Any]) -> None:
    async with kept() as (server, smtp):
        for number in range(4):
            await send(smtp, number)
        assert len(server.sessions) == 1
        assert taken_by(server) == ["user0", "user1", "user2", "user3"]
        assert [mail["To"].partition("@")[0] for mail in server.mails] == taken_by(server)


async def test_mails_at_once_have_connections_of_their_own(kept: Callable[..., Any]) -> None:
    async with kept() as (server, smtp):
        for _ in range(3):
            await asyncio.gather(*(send(smtp, number) for number in range(5)))
        assert len(server.sessions) == 5
        assert sorted(taken_by(server)) == sorted(f"user{number}" for number in range(5) for _ in range(3))


@pytest.mark.parametrize(
    ("at", "says"),
    [
        ("RSET", None),
        ("RSET", "421 too many mails"),
        ("MAIL", "421 too many mails"),
        ("RCPT", "421 too many mails"),
        ("DATA", "421 too many mails"),
    ],
)
async def test_a_server_that_ends_a_connection_gets_the_mail_over_another(
    kept: Callable[..., Any], at: At, says: str | None
) -> None:
    async with kept(most=2, at=at, says=says) as (server, smtp):
        for number in range(5):
            await send(smtp, number)
        assert taken_by(server) == ["user0", "user1", "user2", "user3", "user4"]
        assert len(server.sessions) == 3


async def test_a_server_that_ends_every_connection_is_asked_twice_and_no_more(kept: Callable[..., Any]) -> None:
    async with kept() as (server, smtp):
        await send(smtp, 0)
        server.most, server.at, server.says = 0, "MAIL", "421 going down"
        with pytest.raises(DeliveryFailed, match="421 going down"):
            await send(smtp, 1)
        assert len(server.sessions) == 2
        assert taken_by(server) == ["user0"]


async def test_a_connection_that_was_lost_with_the_mail_on_it_is_not_tried_again_at_once(
    kept: Callable[..., Any],
) -> None:
    async with kept(most=2, at="DATA") as (server, smtp):
        for number in range(2):
            await send(smtp, number)
        with pytest.raises(DeliveryFailed, match="could not be used"):
            await send(smtp, 2)  # The server may have taken it.
        assert len(server.begun) == 3
        await send(smtp, 3)
        assert taken_by(server) == ["user0", "user1", "user3"]


async def test_a_mail_that_is_put_off_spoils_none_of_those_after_it(kept: Callable[..., Any]) -> None:
    async with kept(replies=["250 ok", "451 later"]) as (server, smtp):
        await send(smtp, 0)
        with pytest.raises(DeliveryFailed, match="451 later"):
            await send(smtp, 1)
        await send(smtp, 2)
        assert taken_by(server) == ["user0", "user2"]


async def test_a_connection_that_hangs_is_left_for_another(
    kept: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.notifications.smtp.PROBE_SECONDS", 0.2)
    async with kept(most=1, at="RSET", says="nothing") as (server, smtp):
        await send(smtp, 0)
        await send(smtp, 1)
        assert taken_by(server) == ["user0", "user1"]
        assert len(server.sessions) == 2


async def test_a_send_that_is_given_up_leaves_no_connection_behind(kept: Callable[..., Any]) -> None:
    async with kept(most=1, at="DATA", says="nothing") as (server, smtp):
        await send(smtp, 0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await send(smtp, 1)
        await asyncio.wait_for(server.left.wait(), 5)
        server.over.set()
        await send(smtp, 2)
        assert taken_by(server) == ["user0", "user2"]
        assert len(server.sessions) == 2


async def test_an_idle_connection_is_left(kept: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.notifications.smtp.IDLE_SECONDS", 0)
    async with kept() as (server, smtp):
        await send(smtp, 0)
        await asyncio.wait_for(server.left.wait(), 5)
        await send(smtp, 1)
        assert len(server.sessions) == 2


async def test_a_connection_carries_so_many_mails(kept: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.notifications.smtp.MOST_MAILS", 2)
    async with kept() as (server, smtp):
        for number in range(5):
            await send(smtp, number)
        assert len(server.sessions) == 3
        assert len(taken_by(server)) == 5
