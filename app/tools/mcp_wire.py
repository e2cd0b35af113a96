"""The MCP SDK on our own connections. Loaded with the first server that is used: the SDK takes most of a second.

HTTP goes through the egress guard, with the credential of the moment; what fails on the way reaches the SDK as a JSON-RPC
error, so that one refused request does not take the session of others with it.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Self, TypeVar, cast

import httpx2
import mcp_types
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from pydantic import TypeAdapter, ValidationError

from app import __version__
from app.credentials import Access
from app.egress import Egress, Stream
from app.errors import EgressFailed, ParleyError

MAX_ANSWER_BYTES = 5_000_000
MAX_ERROR_BYTES = 64_000
MAX_SAID = 300
MAX_REFUSED = 100  # Of one list, that are told of.
IDLE_SECONDS = 60.0
SESSION_HEADER = "mcp-session-id"
# Of JSON-RPC's range for implementations: what happened on the way to the server, never said by one to us.
UNREACHED, SESSION_GONE = -32090, -32091
KEY_OF_EFFECT = "parley/effect_key"
US = mcp_types.Implementation(name="parley", version=__version__)
ANSWER: TypeAdapter[Any] = TypeAdapter(mcp_types.CallToolResult | mcp_types.InputRequiredResult)

Json = dict[str, Any]
Opening = Callable[[int | None], Awaitable[Access]]
Progress = Callable[[str, int | None, int | None], Awaitable[None]]
T = TypeVar("T")


class Rejected(Exception):
    """The server, or something on the way to it, answered with an error."""

    def __init__(self, code: int, said: str) -> None:
        """Keep the JSON-RPC code and the words."""
        self.code = code
        self.said = said
        super().__init__(said)


# --- HTTP -------------------------------------------------------------------------------------------


class Body(httpx2.AsyncByteStream):
    """An answer as the SDK reads it, never longer than allowed."""

    def __init__(self, stream: Stream) -> None:
        """Read from an open stream."""
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces."""
        read = 0
        try:
            async for piece in self._stream.read():
                read += len(piece)
                if read > MAX_ANSWER_BYTES:
                    raise httpx2.StreamError(f"egress: the answer is longer than {MAX_ANSWER_BYTES} bytes")
                yield piece
        except EgressFailed as error:
            raise httpx2.StreamError(error.detail) from error

    async def aclose(self) -> None:
        """Give the connection back."""
        await self._stream.aclose()


class Guarded(httpx2.AsyncBaseTransport):
    """The SDK's HTTP over the egress guard."""

    def __init__(self, egress: Egress, access: Opening) -> None:
        """Send through `egress` what `access` opens at each request."""
        self._egress = egress
        self._access = access
        self.failure: ParleyError | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The answer; one made here where there is none."""
        content = await request.aread()
        try:
            access = await self._access(None)
            stream = await self._sent(request, content, access)
            if stream.status == 401 and access.token_no is not None:
                await stream.aclose()
                stream = await self._sent(request, content, await self._access(access.token_no))
            return await _response(request, stream)
        except ParleyError as error:
            self.failure = error
            return _error(UNREACHED, error.detail)

    async def _sent(self, request: httpx2.Request, content: bytes, access: Access) -> Stream:
        url = request.url.copy_merge_params(dict(access.query)) if access.query else request.url
        headers = {**request.headers, **{name.lower(): value for name, value in access.headers.items()}}
        return await self._egress.open(request.method, str(url), headers=headers, content=content)


async def _response(request: httpx2.Request, stream: Stream) -> httpx2.Response:
    if stream.status < 400:
        return httpx2.Response(stream.status, headers=stream.headers.raw, stream=Body(stream))
    try:
        body = await _beginning(stream)
    finally:
        await stream.aclose()
    if stream.status == 404 and SESSION_HEADER in request.headers:
        return _error(SESSION_GONE, "the server has ended the session")
    if _is_error(body):
        return httpx2.Response(stream.status, headers={"content-type": "application/json"}, content=body)
    said = " ".join(body.decode("utf-8", "replace").split())[:MAX_SAID]
    return _error(UNREACHED, f"{request.url.host} answered {stream.status}{': ' if said else ''}{said}")


async def _beginning(stream: Stream) -> bytes:
    body = bytearray()
    async for piece in stream.read():
        body += piece
        if len(body) > MAX_ERROR_BYTES:
            break
    return bytes(body[:MAX_ERROR_BYTES])


def _is_error(body: bytes) -> bool:
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and isinstance(cast("Json", found).get("error"), dict)


def _error(code: int, said: str) -> httpx2.Response:
    """An answer of our own making; the SDK gives it to the request that failed."""
    return httpx2.Response(400, json={"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": said}})


# --- lists of tools ---------------------------------------------------------------------------------


class Sifted:
    """What a server sends, without those of its tools that are none: to the SDK, one of them spoils the whole list."""

    def __init__(self, stream: Any, refused: list[Json]) -> None:
        """Read from a stream of the SDK's; add what is left out to `refused`."""
        self._stream = stream
        self._refused = refused

    def __getattr__(self, name: str) -> Any:
        """The stream's own, such as the context of what came last."""
        return getattr(self._stream, name)

    async def __aenter__(self) -> Self:
        """Open the stream."""
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> Any:
        """Close the stream."""
        return await self._stream.__aexit__(*raised)

    def __aiter__(self) -> Self:
        """The messages."""
        return self

    async def __anext__(self) -> Any:
        """The next message."""
        return self._sifted(await anext(self._stream))

    async def receive(self) -> Any:
        """The next message."""
        return self._sifted(await self._stream.receive())

    def _sifted(self, received: Any) -> Any:
        result: Any = getattr(getattr(received, "message", None), "result", None)
        listed: Any = cast("Json", result).get("tools") if isinstance(result, dict) else None
        if isinstance(listed, list):
            result["tools"] = [each for each in cast("list[Any]", listed) if self._fits(each)]
        return received

    def _fits(self, tool: Any) -> bool:
        reason = _malformed(tool)
        if reason and len(self._refused) < MAX_REFUSED:
            self._refused.append({"name": _name_of(tool), "malformed": reason})
        return reason is None


@asynccontextmanager
async def _sifting(transport: Any, refused: list[Json]) -> AsyncGenerator[Any]:
    async with transport as (read, write):
        yield Sifted(read, refused), write


def _malformed(tool: Any) -> str | None:
    """What is wrong with a tool of a list."""
    try:
        checked = mcp_types.Tool.model_validate(tool, by_name=False)
    except ValidationError as error:
        return _reason(error)
    return None if checked.input_schema.get("type") == "object" else "inputSchema: it must be of type object"


def _name_of(tool: Any) -> str:
    name = cast("Json", tool).get("name") if isinstance(tool, dict) else None
    return name[:MAX_SAID] if isinstance(name, str) else "a tool without a name"


# --- a session ---------------------------------------------------------------------------------------


class Connection:
    """A session with one server, held by a task of its own: whoever calls may come and go."""

    def __init__(self, changed: Callable[[], None], *, idle_seconds: float | None) -> None:
        """Not open yet; use `http` or `stdio`.

        Args:
            changed: Called when the server says that its tools have changed.
            idle_seconds: When to close after the last call; never when None.
        """
        self._changed = changed
        self._idle_seconds = idle_seconds
        self._opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._closing = asyncio.Event()
        self._busy = 0
        self._refused: list[Json] = []  # Of the list that is being read.
        self._guarded: Guarded | None = None
        self._task: asyncio.Task[None] | None = None
        self.used = time.monotonic()

    @classmethod
    def http(cls, url: str, egress: Egress, access: Opening, changed: Callable[[], None]) -> Self:
        """A session over streamable HTTP."""
        made = cls(changed, idle_seconds=IDLE_SECONDS)
        made._guarded = Guarded(egress, access)
        made._task = asyncio.create_task(made._hold(url), name=f"mcp {url}")
        return made

    @classmethod
    def stdio(cls, command: str, args: list[str], env: Mapping[str, str], cwd: str | None = None) -> Self:
        """A session with a child process, which ends with it."""
        made = cls(lambda: None, idle_seconds=None)
        child = StdioServerParameters(command=command, args=args, env=dict(env), cwd=cwd)
        made._task = asyncio.create_task(made._hold(child), name=f"mcp {command}")
        return made

    @property
    def alive(self) -> bool:
        """Whether calls may still be made."""
        return not self._closing.is_set() and self._task is not None and not self._task.done()

    @property
    def idle(self) -> bool:
        """Whether nobody is using it."""
        return self._busy == 0

    @property
    def failure(self) -> ParleyError | None:
        """What went wrong last on the way to the server."""
        return self._guarded.failure if self._guarded else None

    def leave(self) -> None:
        """Let it end by itself."""
        self._closing.set()

    async def close(self) -> None:
        """End the session, and the child where there is one."""
        self.leave()
        if self._task:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _hold(self, server: str | StdioServerParameters) -> None:
        try:
            async with AsyncExitStack() as stack:
                if isinstance(server, StdioServerParameters):
                    target: Any = stdio_client(server)
                else:
                    http = httpx2.AsyncClient(transport=self._guarded, timeout=None, trust_env=False)
                    await stack.enter_async_context(http)
                    target = streamable_http_client(server, http_client=http)
                client = Client(
                    _sifting(target, self._refused), cache=None, client_info=US, message_handler=self._heard
                )
                self._opened.set_result(await stack.enter_async_context(client))
                await self._rest()
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises, whoever waits is told
            self._closing.set()
            if not self._opened.done():
                self._opened.set_exception(_first(error))
                self._opened.exception()  # It may be that nobody waits any more.

    async def _rest(self) -> None:
        """Stay until told to close, or until nobody has called for a while."""
        while not self._closing.is_set():
            left = self._idle_seconds
            if left is not None and self.idle:
                left -= time.monotonic() - self.used
                if left <= 0:
                    self._closing.set()
                    return
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._closing.wait()

    async def _heard(self, message: object) -> None:
        if isinstance(message, mcp_types.ToolListChangedNotification):
            self._changed()

    # --- asking ----------------------------------------------------------------------------------------

    async def list_tools(self, *, max_pages: int, max_tools: int) -> list[Json]:
        """Every tool of the server; one that is none as its name with what is `malformed` about it.

        Raises:
            Rejected: it answered with an error, or its list does not end.
        """
        found: list[Json] = []
        seen: set[str] = set()
        cursor: str | None = None
        self._refused.clear()
        for _ in range(max_pages):
            page = await self._asked(lambda client, at=cursor: client.list_tools(cursor=at))
            found += [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                return found + self._refused
            if cursor in seen or len(found) > max_tools:
                break
            seen.add(cursor)
        raise Rejected(UNREACHED, f"its list of tools does not end, or has more than {max_tools}")

    async def call(self, tool: str, arguments: Json, effect_key: str, watch: Progress) -> Json:
        """The result of one call, as the server gave it.

        Raises:
            Rejected: it answered with an error, or asks for something that no server is given.
        """

        async def tell(progress: float, total: float | None, message: str | None) -> None:
            await watch(message or "", int(progress), int(total) if total is not None else None)

        params = mcp_types.CallToolRequestParams.model_validate(
            {"name": tool, "arguments": arguments, "_meta": {KEY_OF_EFFECT: effect_key}}
        )

        async def ask(client: Client) -> Any:
            request = mcp_types.CallToolRequest(params=params)
            return await client.session.send_request(request, ANSWER, progress_callback=tell)

        try:
            answer = await self._asked(ask)
        except Rejected as error:
            if error.code != mcp_types.HEADER_MISMATCH:
                raise
            await self._asked(lambda client: client.list_tools())  # Which arguments go into headers, stands there.
            answer = await self._asked(ask)
        if isinstance(answer, mcp_types.InputRequiredResult):
            raise Rejected(mcp_types.INVALID_REQUEST, "it asks for input of ours, which no server is given")
        return cast("Json", answer.model_dump(mode="json", by_alias=True, exclude_none=True))

    async def _asked(self, ask: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        """An answer, or the news that the session has ended under it."""
        self._busy += 1
        try:
            client = await asyncio.shield(self._opened)
            return await self._while_open(ask(client))
        except MCPError as error:
            raise Rejected(error.code, error.message[:2000]) from error
        except ValidationError as error:
            raise Rejected(UNREACHED, f"its answer is not what MCP says: {_reason(error)}") from error
        finally:
            self._busy -= 1
            self.used = time.monotonic()

    async def _while_open(self, asking: Coroutine[Any, Any, T]) -> T:
        assert self._task is not None
        work = asyncio.ensure_future(asking)
        try:
            await asyncio.wait({work, self._task}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise Rejected(UNREACHED, "the connection was lost")
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"[:MAX_SAID]


def _first(error: BaseException) -> BaseException:
    """What lies at the bottom of a group of exceptions, in words of ours."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    if isinstance(error, MCPError | ValidationError | Rejected):
        return error
    return Rejected(UNREACHED, f"{type(error).__name__}: {error}"[:MAX_SAID])
