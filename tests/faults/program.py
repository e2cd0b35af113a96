"""A worker as `parley worker` starts it, with a scripted model and tools that keep a journal of what really happened.

The prompt says what to do, like `name=a tools=3 seconds=0.4`: so many tool calls one after the other, each so long.
"""

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart

from app.settings import Settings
from app.tools import Risk
from app.tools.registry import INSTALLED
from tests.engine import scripted, tool
from workers import resident, worker

SAYING = re.compile(r"name=(\w+) tools=(\d+) seconds=([\d.]+)")


class Journal:
    """Lines that survive the process that wrote them."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, *words: object) -> None:
        os.write(self._file, (" ".join(str(word) for word in words) + "\n").encode())


def install(journal: Journal) -> None:
    """Register the model and the tool."""

    async def model(messages: list[ModelMessage], info: Any) -> ModelResponse:
        said = SAYING.search(str(messages[0].parts[0].content))  # type: ignore[union-attr]
        assert said
        name, tools, seconds = said[1], int(said[2]), float(said[3])
        given = sum(isinstance(message, ModelResponse) for message in messages)
        await asyncio.sleep(0.02)
        journal.note("answer", name, given)
        if given < tools:
            arguments = {"name": name, "n": given, "seconds": seconds}
            return ModelResponse(parts=[ToolCallPart("slow", arguments, tool_call_id=f"c{given}")])
        return ModelResponse(parts=[TextPart(f"{name} is done")])

    async def slow(context: Any, arguments: dict[str, Any]) -> Any:
        journal.note("begin", arguments["name"], arguments["n"])
        await asyncio.sleep(arguments["seconds"])
        journal.note("end", arguments["name"], arguments["n"])
        return arguments["n"]

    scripted("steps", model)
    INSTALLED["slow"] = tool("slow", slow, risk=Risk.WRITE, timeout_seconds=60)


def main() -> None:
    given = json.loads(sys.argv[1])
    install(Journal(Path(given.pop("journal"))))
    resident.GRACE_SECONDS = 0.5
    asyncio.run(worker.main(Settings.of(**given)))


if __name__ == "__main__":
    main()
