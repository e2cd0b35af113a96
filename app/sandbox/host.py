"""Host calls: the tools that sandboxed code may call, and the calls under way.

The code sees async functions. A call that fails is a `RuntimeError` that the code may catch; whatever else ends a call
(a run that must wait for a person, a lost lease) is nothing the code may catch: its worker is ended.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from app.errors import InvalidArguments, ToolError
from app.sandbox.values import ResultTooLarge, to_json

MAX_CALLS = 100
ARGUMENTS_BYTES = 1_000_000

Function = Callable[..., Awaitable[Any]]

# Whether it is sandboxed code that calls.
in_code = ContextVar("in_code", default=False)


class Host:
    """What one piece of code may call, for one run of it."""

    def __init__(
        self, functions: Mapping[str, Sequence[str]], call: Callable[[str, dict[str, Any]], Awaitable[Any]]
    ) -> None:
        """Offer functions.

        Args:
            functions: By name, the names of their parameters in order.
            call: Does the work of the function of a name; answers a JSON value. A `ToolError` or `InvalidArguments` is
                told to the code, anything else stops it.
        """
        self._functions = functions
        self._call = call
        self._made = 0
        self._calls: set[asyncio.Task[Any]] = set()
        self._pause: Callable[[], None] = _nothing
        self._resume: Callable[[], None] = _nothing
        self._end: Callable[[], None] = _nothing
        self.stopped_by: BaseException | None = None

    @property
    def lookup(self) -> dict[str, Function]:
        """The functions as the interpreter takes them."""
        return {name: self._function(name) for name in self._functions}

    def attend(self, pause: Callable[[], None], resume: Callable[[], None], end: Callable[[], None]) -> None:
        """Begin: the code's clock stands still during calls, and its worker can be ended."""
        self._pause, self._resume, self._end = pause, resume, end

    def stop(self) -> None:
        """Cut off the calls under way: whoever wanted the code run has gone."""
        for task in self._calls:
            task.cancel()

    async def rest(self) -> None:
        """Wait for calls that the code began and did not wait for."""
        if self._calls:
            await asyncio.wait(self._calls)

    def _function(self, name: str) -> Function:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._answer(name, self._arguments(name, args, kwargs))

        return call

    async def _answer(self, name: str, arguments: dict[str, Any]) -> Any:
        if self.stopped_by is not None:
            raise RuntimeError("the code was stopped")
        self._made += 1
        if self._made > MAX_CALLS:
            raise RuntimeError(f"code may call tools {MAX_CALLS} times, not more")
        task = asyncio.create_task(self._do(name, arguments))
        if not self._calls:
            self._pause()
        self._calls.add(task)
        try:
            await asyncio.wait({task})
            return task.result()
        except (ToolError, InvalidArguments) as error:
            raise RuntimeError(error.detail) from error
        except BaseException as error:
            self.stopped_by = self.stopped_by or error
            raise RuntimeError("the code was stopped") from error
        finally:
            self._calls.discard(task)
            if not self._calls:
                self._went_quiet()

    async def _do(self, name: str, arguments: dict[str, Any]) -> Any:
        in_code.set(True)
        return await self._call(name, arguments)

    def _went_quiet(self) -> None:
        """The last call under way has ended: the clock runs on, or the worker is ended when it has to be."""
        if self.stopped_by is None:
            self._resume()
        else:
            self._end()

    def _arguments(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        names = self._functions[name]
        if len(args) > len(names):
            raise TypeError(f"{name}() takes {len(names)} arguments at most: {', '.join(names)}")
        placed = dict(zip(names, args, strict=False))
        if twice := placed.keys() & kwargs.keys():
            raise TypeError(f"{name}() got {', '.join(sorted(twice))} twice")
        try:
            whole: dict[str, Any] = to_json(placed | kwargs, ARGUMENTS_BYTES)
        except ResultTooLarge as error:
            raise ValueError(f"the arguments of {name}() are too large: {ARGUMENTS_BYTES} bytes are allowed") from error
        return whole


def stubs_of(names: Sequence[str]) -> str:
    """What the type checker is told of tools that a function calls."""
    lines = [f"async def {name}(*args: Any, **kwargs: Any) -> Any: ..." for name in names]
    return "\n".join(["from typing import Any", *lines, ""])


def _nothing() -> None:
    """Before the code has begun there is nothing to stop."""
