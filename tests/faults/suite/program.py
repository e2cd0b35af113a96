"""The processes under test, as `parley serve`, `worker` and `scheduler` run them, with a scripted model and tools.

Three tools keep a journal: `note` may be repeated, `pay` may not, `tell` reports progress. The prompt says what to do,
see `words`. Each answer is worded differently, so that two
answers mixed into one are seen.
"""

import asyncio
import re
import secrets
from pathlib import Path
from typing import Any

import pydantic_ai.models.openai  # noqa: F401 - loaded here once, so that no process under test has to
import structlog
import uvicorn
import uvloop
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, UserPromptPart

from app import failpoints, telemetry
from app.main import create_app
from app.notifications import deliver
from app.settings import Settings
from app.tools import Risk
from app.tools.registry import INSTALLED
from tests.engine import scripted, tool
from tests.faults.suite.failpoint import Slot, hook
from tests.faults.suite.journal import Journal
from tests.faults.suite.words import SAYING
from workers import resident, scheduler, worker

# Faults come far more often than in life: a run that meets many is no poison, and a sender's lease is short.
CRASH_CAP = 50
MAIL_ATTEMPTS = 1000

CODE = """
first = await note(name="{name}", n=0)
second = await pay(name="{name}", n=first + 1)
await note(name="{name}", n=second + 1)
"""


def run(role: str, given: dict[str, Any]) -> None:
    """Be one of the processes until a signal ends it."""
    journal = Journal(Path(given.pop("journal")))
    install(journal)
    failpoints.arm(hook(Slot(Path(given.pop("slot"))), journal))
    resident.CRASH_CAP = CRASH_CAP
    deliver.MAX_ATTEMPTS = deliver.LOST_SENDERS = MAIL_ATTEMPTS
    deliver.SEND_SECONDS, deliver.LEASE_SECONDS, deliver.LONGEST_RETRY_SECONDS = 2.0, 4.0, 2.0
    settings = Settings.of(**given)
    telemetry.configure(settings)
    structlog.contextvars.bind_contextvars(role=role)
    if role == "api":
        _serve(settings)
    else:
        uvloop.run({"worker": worker, "scheduler": scheduler}[role].main(settings))


def _serve(settings: Settings) -> None:
    uvicorn.run(
        create_app(settings),
        host="127.0.0.1",
        port=settings.parley_port or 0,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )


def install(journal: Journal) -> None:
    """Register the model and the tools."""

    async def model(messages: list[ModelMessage], info: Any) -> ModelResponse:
        name, tools, words, given = understand(messages)
        nonce = secrets.token_hex(3)
        journal.note("ask", name=name, n=given, nonce=nonce)
        await asyncio.sleep(0.01)
        if given < len(tools):
            arguments = _arguments(tools[given], name, given)
            return ModelResponse(parts=[ToolCallPart(tools[given], arguments, tool_call_id=f"call-{given}")])
        return ModelResponse(parts=[TextPart(" ".join([name, *(f"{nonce}{n}" for n in range(words))]))])

    async def flaky(messages: list[ModelMessage], info: Any) -> ModelResponse:
        if secrets.randbelow(2):
            journal.note("ask", name=understand(messages)[0], n=understand(messages)[3], nonce="none")
            raise ModelHTTPError(503, "flaky")
        return await model(messages, info)

    async def tell(context: Any, arguments: dict[str, Any]) -> Any:
        await context.progress(f"{arguments['name']} is at it")
        return await _work(journal, "tell", context, arguments, 0.05)

    async def note(context: Any, arguments: dict[str, Any]) -> Any:
        return await _work(journal, "note", context, arguments, 0.05)

    async def pay(context: Any, arguments: dict[str, Any]) -> Any:
        return await _work(journal, "pay", context, arguments, 0.15)

    scripted("suite", model, pause=0.02)
    scripted("flaky", flaky, pause=0.02)
    INSTALLED["note"] = tool("note", note, risk=Risk.WRITE, timeout_seconds=60)
    INSTALLED["tell"] = tool("tell", tell, risk=Risk.WRITE, timeout_seconds=60)
    INSTALLED["pay"] = tool("pay", pay, idempotent=False, risk=Risk.WRITE, timeout_seconds=60)


def _arguments(called: str, name: str, n: int) -> dict[str, Any]:
    if called == "execute_code":
        return {"code": CODE.format(name=name)}
    return {"text": name} if called == "notify" else {"name": name, "n": n}


async def _work(journal: Journal, kind: str, context: Any, arguments: dict[str, Any], seconds: float) -> Any:
    about = {"tool": kind, "key": str(context.effect_key), "name": arguments["name"], "n": arguments["n"]}
    journal.note("begin", **about)
    await asyncio.sleep(seconds)
    journal.note("effect", **about, amount=arguments.get("amount"))
    await asyncio.sleep(seconds / 2)
    journal.note("end", **about)
    return arguments["n"]


def understand(messages: list[ModelMessage]) -> tuple[str, list[str], int, int]:
    """What the last prompt asks for, and how many responses came since."""
    given = 0
    for message in reversed(messages):
        if isinstance(message, ModelResponse):
            given += 1
        elif said := _prompt(message):
            return said[1], said[2].split(",") if said[2] else [], int(said[3]), given
    raise ValueError("the history holds no prompt")


def _prompt(message: ModelRequest) -> re.Match[str] | None:
    texts = [str(part.content) for part in message.parts if isinstance(part, UserPromptPart)]
    return next(reversed(list(SAYING.finditer("\n".join(texts)))), None)
