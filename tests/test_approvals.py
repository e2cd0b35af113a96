"""Approvals below the API: what two transactions at once must not do to each other."""

import asyncio
import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from app.approvals import MAX_SHOWN, Decision, NewApproval, as_told, decide, park, shown, told
from app.db import DEFAULT_WORKSPACE
from app.models import new_id
from app.runs import Claim
from app.settings import Settings
from tests.engine import World, world

__all__ = ["world"]


def question(index: int) -> NewApproval:
    return NewApproval(
        kind="tool",
        subject=f"2:{index}",
        tool="notify",
        arguments={},
        args_sha256="x",
        risk="write",
        expires_seconds=60,
        on_expiry="tell",
    )


async def parked(world: World, settings: Settings, *questions: NewApproval) -> tuple[Claim, list[UUID]]:
    held = await world.one()
    async with world.database.engine_tx() as connection:
        await park(connection, settings, held.fenced, list(questions))
    rows = await world.database.fetch("select id from approvals order by subject")
    return held, [row["id"] for row in rows]


async def test_the_last_of_two_answers_at_once_queues_the_run(world: World, settings: Settings) -> None:
    held, (one, other) = await parked(world, settings, question(0), question(1))

    async def answer(approval_id: UUID) -> bool:
        async with world.database.engine_tx() as connection:
            yes = Decision(approve=True)
            decided = await decide(connection, DEFAULT_WORKSPACE, approval_id, yes, principal_id=None)
        return decided.work_is_due

    async with world.database.engine_tx() as connection:
        await decide(connection, DEFAULT_WORKSPACE, one, Decision(approve=True), principal_id=None)
        second = asyncio.create_task(answer(other))
        await asyncio.sleep(0.2)  # It has read what it reads before it must wait.
    assert await second
    assert (await world.run(held.run_id))["state"] == "queued"
    assert (await world.types(held.conversation_id)).count("run.queued") == 2
    await world.check()


# --- what is shown to who decides ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tool", "effect"])
def test_a_message_says_how_much_of_the_arguments_it_leaves_out(kind: Any, settings: Settings) -> None:
    arguments = {"text": "x" * 5_000}
    long = as_told(new_id(), replace(question(0), kind=kind, arguments=arguments), settings)
    assert long["left_out"] == 5_000 - MAX_SHOWN + len('{\n  "text": ""\n}')
    assert f"… cut: {long['left_out']} characters more" in told(long)
    whole = as_told(new_id(), replace(question(0), kind=kind, arguments={"text": "x" * 1_000}), settings)
    assert ("cut:" in told(whole), whole["left_out"]) == (False, 0)
    assert f"POST {whole['url']} with" in told(whole)


@pytest.mark.parametrize("hidden", "\u200b\u00ad\u061c\u2028\u2060\u180e\ufeff\u3164\u2800\ufe0f\u00a0\U000e0041\x7f")
def test_what_can_not_be_seen_is_shown_as_an_escape(hidden: str) -> None:
    text, _ = shown({"to": f"a{hidden}b", "by": "Zoë 東京 😀"}, 1_000)
    assert hidden not in text
    assert json.loads(text) == {"to": f"a{hidden}b", "by": "Zoë 東京 😀"}
    assert "Zoë 東京 😀" in text


def test_what_would_reorder_the_arguments_is_shown_as_an_escape() -> None:
    text, _ = shown({"to": "\u202emoc.elpmaxe@nna", "by": "Zoë\u2066"}, 1_000)
    assert '"\\u202emoc.elpmaxe@nna"' in text
    assert '"Zoë\\u2066"' in text


async def test_a_notice_says_which_arguments_it_does_not_hold_whole(world: World, settings: Settings) -> None:
    long = replace(question(0), arguments={"text": "x" * 3_000})
    short = replace(question(1), arguments={"text": "y" * 1_900})
    told_to = {"config": {"channels": ["email"], "email_address": "ann@example.com"}, "thread": None}
    held = await world.one(run={"notification": told_to})
    async with world.database.engine_tx() as connection:
        await park(connection, settings, held.fenced, [long, short])
    payload = await world.database.fetchval("select payload from deliveries where event = 'run.waiting'")
    assert [each["left_out"] > 0 for each in payload["asked"]] == [True, False]
