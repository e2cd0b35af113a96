"""The process that draws: started when first needed, ended when nobody has needed it for a while."""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from app.errors import ToolError
from app.settings import Settings
from app.shares import Shares

SCRIPT = Path(__file__).with_name("drawing.py")
IDLE_SECONDS = 120.0


@dataclass(frozen=True)
class Pictures:
    """One chart in both formats."""

    svg: bytes = field(repr=False)
    png: bytes = field(repr=False)


class _Artist:
    """The drawing process of this one, and the chart it is at."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._turns = Shares(1, 1)  # So that workspaces take turns, however many charts one wants.
        self._idle: asyncio.TimerHandle | None = None

    async def draw(self, settings: Settings, chart: dict[str, Any], workspace_id: UUID | None) -> Pictures:
        """Have one chart drawn."""
        async with self._turns.place(workspace_id):
            process = await self._ready(settings)
            try:
                pictures = await _asked(process, chart)
            except BaseException:  # Half an answer may be on its way: nobody else must get it.
                await self._end()
                raise
            self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, _kill, process)
            return pictures

    async def aclose(self) -> None:
        """End the process."""
        async with self._turns.place(None):
            await self._end()

    async def _ready(self, settings: Settings) -> Process:
        if self._idle:
            self._idle.cancel()
        if self._process is None or self._process.returncode is not None:
            self._process = await _start(settings)
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if self._idle:
            self._idle.cancel()
        if process is not None:
            _kill(process)
            await process.wait()


_ARTIST = _Artist()


async def draw(settings: Settings, chart: dict[str, Any], workspace_id: UUID | None = None) -> Pictures:
    """Draw a chart.

    Args:
        settings: For `PARLEY_HOME`, where the library keeps its list of fonts.
        chart: What `app/charts/drawing.py` reads, checked by the caller.
        workspace_id: Whose chart it is; workspaces take turns.

    Raises:
        ToolError: when it can't be drawn.
    """
    try:
        return await _ARTIST.draw(settings, chart, workspace_id)
    except (asyncio.IncompleteReadError, OSError) as error:
        raise ToolError("the process that draws charts ended; call again") from error


async def aclose() -> None:
    """End the drawing process; the next chart starts another."""
    await _ARTIST.aclose()


async def _start(settings: Settings) -> Process:
    # Isolated, without our environment and secrets; a session of its own, so that a terminal's Ctrl-C is not its business.
    # It ends with its standard input, and so with this process, however that ends.
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", str(SCRIPT)),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        cwd="/",
        env={"MPLCONFIGDIR": str(settings.parley_home / "matplotlib"), "OPENBLAS_NUM_THREADS": "1"},
        start_new_session=True,
    )


async def _asked(process: Process, chart: dict[str, Any]) -> Pictures:
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps(chart, allow_nan=False).encode() + b"\n")
    await process.stdin.drain()
    said = json.loads(await process.stdout.readuntil(b"\n"))
    if "error" in said:
        raise ToolError(f"the chart can't be drawn: {said['error']}")
    svg = await process.stdout.readexactly(said["svg"])
    return Pictures(svg, await process.stdout.readexactly(said["png"]))


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
