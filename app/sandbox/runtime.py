"""The Monty workers: one pool per process, opened when first needed.

A worker's turn is never cancelled: a native call that is torn off can take the process down when it
exits. Whoever must stop one ends its worker, and the turn fails at once.
"""

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from pydantic_monty import (
    AsyncMonty,
    AsyncMontySession,
    CollectString,
    MontyCrashedError,
    MontyError,
    MontyRuntimeError,
    MontyTypingError,
    ResourceLimits,
)

from app.errors import InvalidTool, Unavailable
from app.sandbox.confine import Launcher, launcher
from app.sandbox.host import Host, in_code, stubs_of
from app.sandbox.source import FunctionSpec, check_source, read_function
from app.sandbox.values import ResultTooLarge, to_json
from app.shares import Shares

# Started when needed. Calls that sandboxed code makes have as many again, else those who wait for one could hold them all.
MAX_WORKERS = 8
WORKERS_PER_OWNER = 5
CHECKOUT_SECONDS = 30.0  # how long a call waits for a free worker
TURN_SECONDS = 90.0  # the pool's own last line: above the longest limit
WALL_CLOCK_GRACE_SECONDS = 0.5  # so that the interpreter can say itself that time is up
SETTLE_SECONDS = 0.1
PRINT_BYTES = 65_536
ERROR_CHARACTERS = 2_000
DIAGNOSTIC = re.compile(r"^[^:\n]*:(\d+):\d+: \w+\[[\w-]+\] (.*)$", re.MULTILINE)

Turn = Callable[[AsyncMontySession], Coroutine[Any, Any, Any]]


class Limits(BaseModel):
    """What one call of a function may use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: float = Field(5.0, gt=0, le=60, description="Running time.")
    memory_mb: int = Field(64, ge=4, le=512, description="Memory in MB.")
    output_bytes: int = Field(65_536, ge=16, le=1_000_000, description="Longest result as JSON.")
    recursion_depth: int = Field(200, ge=10, le=1_000, description="How deep its calls may nest.")


DEFAULT_LIMITS = Limits.model_validate({})
CHECK_LIMITS = Limits.model_validate({"seconds": 1})  # for defining a function, without calling it


@dataclass(frozen=True)
class Outcome:
    """How a call ended: a result or an error, never both."""

    result: Any
    duration_ms: int
    error: str | None = None
    printed: str = ""


class _Killed(Exception):
    """The worker was ended because the wall clock ran out."""


class _Pool:
    """The process's workers and the turns they are in."""

    def __init__(self) -> None:
        self._monty: AsyncMonty | None = None
        self._launcher = Launcher()
        self._opening = asyncio.Lock()
        self._turns: dict[asyncio.Task[Any], int | None] = {}
        self._shares: dict[bool, Shares] = {}  # by whether sandboxed code makes the call

    async def turn(
        self,
        limits: Limits,
        turn: Turn,
        *,
        owner: UUID | None = None,
        host: Host | None = None,
        stubs: str | None = None,
    ) -> Any:
        """Give a fresh session to `turn`, within the limits and the wall clock.

        Args:
            limits: What it may use.
            turn: Feeds the session.
            owner: Whose it is; beyond its share of the workers it waits for its own others.
            host: What the code may call.
            stubs: Declarations for the type checker, which looks at the code only with some.

        Raises:
            TimeoutError: no worker, or none of the owner's share, became free.
        """
        monty = await self._open()
        give_back = await self._shares[in_code.get()].take(owner, CHECKOUT_SECONDS)
        task = asyncio.create_task(self._run(monty, limits, turn, host, stubs))
        self._turns[task] = None
        task.add_done_callback(self._ended)
        task.add_done_callback(lambda _: give_back())
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            _kill(self._turns.get(task))
            if host is not None:
                host.stop()
            raise

    async def aclose(self) -> None:
        """End what is running and close the workers."""
        monty, self._monty = self._monty, None
        self._opening = asyncio.Lock()  # Of the next life, which another event loop may give it.
        for pid in self._turns.values():
            _kill(pid)
        if self._turns:
            await asyncio.wait(self._turns)
        if monty is not None:
            await monty.__aexit__(None, None, None)
            self._launcher.close()
            # The library's threads still let go of our objects; an interpreter that is gone by then aborts.
            await asyncio.sleep(SETTLE_SECONDS)

    async def _open(self) -> AsyncMonty:
        async with self._opening:
            if self._monty is None:
                self._launcher = await asyncio.to_thread(launcher)
                monty = AsyncMonty(
                    binary_path=self._launcher.path,
                    max_processes=2 * MAX_WORKERS,
                    checkout_timeout=CHECKOUT_SECONDS,
                    request_timeout=TURN_SECONDS,
                )
                self._shares = {within: Shares(MAX_WORKERS, WORKERS_PER_OWNER) for within in (False, True)}
                self._monty = await monty.__aenter__()
            return self._monty

    async def _run(self, monty: AsyncMonty, limits: Limits, turn: Turn, host: Host | None, stubs: str | None) -> Any:
        checkout = monty.checkout(
            script_name="tool.py",
            limits=_resources(limits),
            type_check=stubs is not None,
            type_check_stubs=stubs,
            type_check_format="concise",
        )
        async with checkout as session:
            clock = _WallClock(session.worker_pid, limits.seconds + WALL_CLOCK_GRACE_SECONDS)
            task = asyncio.current_task()
            assert task is not None
            self._turns[task] = session.worker_pid
            if host is not None:
                host.attend(clock.pause, clock.resume, partial(_kill, session.worker_pid))
            try:
                return await turn(session)
            except MontyCrashedError as error:
                if host is not None and host.stopped_by is not None:
                    raise host.stopped_by from error
                if clock.ran_out:
                    raise _Killed from error
                raise
            finally:
                clock.stop()
                if host is not None:
                    await host.rest()
                self._turns[task] = None  # from here on the worker may serve somebody else

    def _ended(self, task: asyncio.Task[Any]) -> None:
        del self._turns[task]
        if not task.cancelled():
            task.exception()  # seen, also when its caller has gone


class _WallClock:
    """Ends a worker when its time is over, whatever it is doing."""

    def __init__(self, pid: int | None, seconds: float) -> None:
        self.ran_out = False
        self._pid = pid
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(seconds, self._ring)
        self._left = seconds

    def pause(self) -> None:
        """Stand still: what the code waits for has clocks of its own."""
        self._left = self._timer.when() - self._loop.time()
        self._timer.cancel()

    def resume(self) -> None:
        self._timer = self._loop.call_later(self._left, self._ring)

    def stop(self) -> None:
        self._timer.cancel()

    def _ring(self) -> None:
        self.ran_out = True
        _kill(self._pid)


def _kill(pid: int | None) -> None:
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _resources(limits: Limits) -> ResourceLimits:
    return {
        "max_feed_duration_secs": limits.seconds,
        "max_total_sleep_secs": limits.seconds,
        "max_memory": limits.memory_mb * 2**20,
        "max_recursion_depth": limits.recursion_depth,
        "max_suspensions": 1000,
    }


_POOL = _Pool()


async def aclose() -> None:
    """Close the process's workers; the next call opens them again."""
    await _POOL.aclose()


# --- checking -------------------------------------------------------------------------------------


async def check(
    code: str,
    *,
    name: str | None = None,
    allowed_imports: list[str] | None = None,
    async_only: bool = False,
    tools: Sequence[str] = (),
) -> FunctionSpec:
    """Read a function, check its types and define it once in the sandbox.

    Args:
        code: The source text.
        name: The function that is meant, when there are several.
        allowed_imports: The modules this code may import; all that the sandbox has when left out.
        async_only: Whether the function must be an `async def`.
        tools: Names of tools that it may call, as async functions.

    Raises:
        InvalidTool: with `line N` for each error.
        ImportNotAllowed: with `line N` and the module.
        Unavailable: no worker became free.
    """
    spec = read_function(code, name, allowed_imports, async_only=async_only)

    async def define(session: AsyncMontySession) -> None:
        await session.feed_run(code, print_callback=CollectString(PRINT_BYTES))

    try:
        await _turn(CHECK_LIMITS, define, stubs=stubs_of(tools))
    except MontyTypingError as error:
        raise InvalidTool(_diagnostics(error.display()), field="code") from error
    except (MontyError, _Killed) as error:
        raise InvalidTool(_failure(error, CHECK_LIMITS, line_first=True), field="code") from error
    return spec


def _diagnostics(text: str) -> str:
    """The type checker's findings as `line N: ...`."""
    found = [f"line {line}: {message}" for line, message in DIAGNOSTIC.findall(text)[:10]]
    return ("; ".join(found) or text.strip())[:ERROR_CHARACTERS]


# --- running --------------------------------------------------------------------------------------


async def run(
    code: str,
    arguments: dict[str, Any],
    limits: Limits = DEFAULT_LIMITS,
    *,
    function: str | None = None,
    owner: UUID | None = None,
    host: Host | None = None,
) -> Outcome:
    """Call the function of a piece of code; whatever it does, there is an outcome.

    Args:
        code: The source text.
        arguments: Its arguments by name, as JSON values.
        limits: What it may use.
        function: The function to call; the code's only one when left out.
        owner: Whose call it is, who has a share of the workers.
        host: What the code may call; what stops it there is raised here.

    Raises:
        InvalidTool: the code holds no such function.
        Unavailable: no worker became free.
    """
    call = _call_of(code, function)

    async def turn(session: AsyncMontySession, printed: CollectString) -> Any:
        lookup = host.lookup if host else None
        await session.feed_run(code, external_lookup=lookup, print_callback=printed)
        inputs = {"arguments": arguments}
        return await session.feed_run(call, inputs=inputs, external_lookup=lookup, print_callback=printed)

    return await _outcome(limits, turn, owner, host)


@lru_cache(maxsize=256)
def _call_of(code: str, function: str | None) -> str:
    return read_function(code, function).call


async def run_script(
    code: str, limits: Limits = DEFAULT_LIMITS, *, owner: UUID | None = None, host: Host | None = None
) -> Outcome:
    """Run a piece of code from top to bottom; its result is the value of its last line, when that is an expression.

    Args:
        code: The source text; `await` may stand at its top level.
        limits: What it may use.
        owner: Whose it is, who has a share of the workers.
        host: What the code may call; what stops it there is raised here.

    Raises:
        InvalidTool: it holds syntax that the sandbox does not know.
        ImportNotAllowed: it imports what the sandbox does not have.
        Unavailable: no worker became free.
    """
    check_source(code)

    async def turn(session: AsyncMontySession, printed: CollectString) -> Any:
        lookup = host.lookup if host else None
        return await session.feed_run(code, external_lookup=lookup, print_callback=printed)

    return await _outcome(limits, turn, owner, host)


async def _outcome(
    limits: Limits,
    turn: Callable[[AsyncMontySession, CollectString], Coroutine[Any, Any, Any]],
    owner: UUID | None,
    host: Host | None,
) -> Outcome:
    printed = CollectString(PRINT_BYTES)
    started = time.perf_counter()
    try:
        result = await _turn(limits, lambda session: turn(session, printed), owner=owner, host=host)
        result = to_json(result, limits.output_bytes)
    except (MontyError, ResultTooLarge, _Killed) as error:
        return Outcome(None, _since(started), _storable(_failure(error, limits)), _storable(printed.output))
    return Outcome(result, _since(started), None, _storable(printed.output))


def _storable(text: str) -> str:
    """Words without NUL, which PostgreSQL does not take; the interpreter lets no half characters through."""
    return text.replace("\0", "")


async def _turn(
    limits: Limits, turn: Turn, *, owner: UUID | None = None, host: Host | None = None, stubs: str | None = None
) -> Any:
    try:
        return await _POOL.turn(limits, turn, owner=owner, host=host, stubs=stubs)
    except TimeoutError as error:
        raise Unavailable("all sandbox workers are busy", retry_after=5) from error


def _since(started: float) -> int:
    return round((time.perf_counter() - started) * 1000)


def _failure(error: Exception, limits: Limits, *, line_first: bool = False) -> str:
    """What went wrong in words, with the line of the code where there is one."""
    if isinstance(error, _Killed):
        return _time_is_up(limits)
    if not isinstance(error, MontyRuntimeError):
        return f"line 1: {error}"[:ERROR_CHARACTERS] if line_first else str(error)[:ERROR_CHARACTERS]
    message = (_limit_reached(error, limits) or error.display("type-msg"))[:ERROR_CHARACTERS]
    line = _line(error)
    if line_first:
        return f"line {line or 1}: {message}"
    return message if line is None else f"{message} (line {line})"


def _limit_reached(error: MontyRuntimeError, limits: Limits) -> str | None:
    inner, text = error.exception(), str(error)
    if isinstance(inner, TimeoutError) and "limit exceeded" in text:
        return _time_is_up(limits)
    if isinstance(inner, MemoryError) and text.endswith(f"> {PRINT_BYTES} bytes"):
        return f"it printed more than {PRINT_BYTES} bytes"
    if isinstance(inner, MemoryError):
        return f"MemoryError: it used more than {limits.memory_mb} MB of memory"
    return None


def _time_is_up(limits: Limits) -> str:
    return f"TimeoutError: it ran longer than {limits.seconds:g} s"


def _line(error: MontyRuntimeError) -> int | None:
    """The innermost line of the person's own code (the first thing fed into a session)."""
    lines = [frame.line for frame in error.traceback() if frame.filename.endswith("input-0>")]
    return lines[-1] if lines else None
