"""Connections to checked addresses, and requests over them."""

import asyncio
import json as jsonlib
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address
from typing import Any, Self, cast
from uuid import UUID

import httpcore
import httpx

from app.egress.names import Names
from app.egress.policy import Policy, not_listed, parse_url, port_of, refusal
from app.errors import EgressFailed, EgressRefused, ResponseTooLarge
from app.settings import Settings
from app.shares import Shares

Resolver = Callable[[str, int], Awaitable[list[str]]]

MAX_BODY_BYTES = 5_000_000
MAX_REDIRECTS = 10
CONNECT_SECONDS = 10.0
MAX_CONNECTIONS = 400  # Of each kind: of those who fetch, and of those who stream.
MAX_OF_ONE = 100  # The same of one workspace: services that do not answer hold up nobody else's calls.
CONNECTION_ERRORS = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)

# What may go along to another origin after a redirect; anything else may be a secret.
PORTABLE_HEADERS = frozenset({"accept", "accept-language", "user-agent", "content-type"})
# Framing is ours: a caller who could set these could smuggle a second request.
FRAMING_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})


# --- connections ----------------------------------------------------------------------------------


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only."""

    def __init__(self, policy: Policy, resolver: Resolver) -> None:
        """Connect under this policy, asking this resolver once per connection."""
        self._policy = policy
        self._resolver = resolver
        self._network = _network_backend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first of the host's checked addresses that answers."""
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in await self._checked(host, port):
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refused."""
        raise refusal(path, "not a network address")

    async def sleep(self, seconds: float) -> None:
        """Wait between connection attempts."""
        await asyncio.sleep(seconds)

    async def _checked(self, host: str, port: int) -> list[str]:
        """The addresses of a host, provided that every one of them is permitted."""
        try:
            addresses = await self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            raise EgressFailed(f"egress: {host} can't be resolved") from error
        if self._policy.lists(host, port):
            return addresses
        if wrong := [address for address in addresses if not _is_address(address)]:
            raise EgressFailed(f"egress: {host} can't be resolved: {wrong[0]!r} is no address")
        if not all(self._policy.permits(ip_address(address), port) for address in addresses):
            raise not_listed(host, f"a private or reserved address, or port {port}")
        return addresses


# --- requests -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Response:
    """An answer, read whole and decoded."""

    status: int
    headers: httpx.Headers
    body: bytes = field(repr=False)
    url: str

    @property
    def content_type(self) -> str:
        """The media type without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def retry_after(self) -> float | None:
        """The seconds that the service asks to wait; a date is not read."""
        value = self.headers.get("retry-after", "").strip()
        return float(value) if value.isascii() and value.isdecimal() else None

    @property
    def text(self) -> str:
        """The body as text in its declared encoding, else UTF-8."""
        return httpx.Response(self.status, headers=self._text_headers(), content=self.body).text

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            EgressFailed: when it is none.
        """
        try:
            return jsonlib.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise EgressFailed(f"egress: {httpx.URL(self.url).host} did not answer with JSON") from error

    def _text_headers(self) -> dict[str, str]:
        return {"content-type": self.headers.get("content-type", "text/plain")}


@dataclass(frozen=True)
class Stream:
    """An answer whose body has not been read yet; whoever opened it closes it."""

    status: int
    headers: httpx.Headers
    answer: httpcore.Response = field(repr=False)
    place: ExitStack = field(repr=False)

    async def read(self) -> AsyncIterator[bytes]:
        """The body, piece by piece.

        Raises:
            EgressFailed: when the connection breaks.
        """
        try:
            async for piece in self.answer.aiter_stream():
                yield piece
        except CONNECTION_ERRORS as error:
            raise EgressFailed(f"egress: the connection broke: {error or type(error).__name__}") from error

    async def aclose(self) -> None:
        """Give the connection back, or end it where the body was not read to its end."""
        with self.place:
            await self.answer.aclose()


class Egress:
    """The guarded client; one per process, its connections are shared by all who fetch."""

    def __init__(self, settings: Settings, *, resolver: Resolver | None = None) -> None:
        """Build the guard from the settings.

        Args:
            settings: `PARLEY_EGRESS_ALLOW` names what passes beside public addresses.
            resolver: Name resolution; the system's when left out.

        Raises:
            ConfigurationError: when an entry of `PARLEY_EGRESS_ALLOW` can't be read.
        """
        self._policy = Policy.of(settings.egress_allow)
        resolver = resolver or Names().resolve
        tls = _trust(ssl.get_default_verify_paths())
        self._guarded = _pool(tls, GuardedBackend(self._policy, resolver))
        self._plain = _pool(tls, _network_backend())
        # Streams stay open for long: they must not take the connections of those who only fetch.
        self._streams = _pool(tls, GuardedBackend(self._policy, resolver))
        self._fetching, self._streaming = (Shares(MAX_CONNECTIONS, MAX_OF_ONE) for _ in range(2))
        self._owner: UUID | None = None

    def of(self, workspace_id: UUID | None) -> Self:
        """The same client on behalf of a workspace, which gets no more than its share of the connections."""
        own = copy(self)
        own._owner = workspace_id
        return own

    def check_url(self, url: str) -> None:
        """Refuse a URL that `fetch` would refuse whatever its name resolves to.

        Raises:
            EgressRefused: naming the host and the rule.
        """
        self._policy.check_url(url)

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | str | None = None,
        json: Any = None,
        timeout_seconds: float = 30.0,
        max_bytes: int = MAX_BODY_BYTES,
        follow_redirects: bool = False,
        operator_url: bool = False,
    ) -> Response:
        """Make one request and read its answer.

        Args:
            method: The HTTP method.
            url: An http or https URL.
            headers: Request headers; those of framing are ours.
            content: The body, or
            json: a value to send as JSON.
            timeout_seconds: For everything together: resolving, redirects, reading.
            max_bytes: The longest body accepted, counted after decompression.
            follow_redirects: Follow up to ten; each is checked anew, and only harmless headers cross origins.
            operator_url: The URL's host comes from the settings, so it may be private; redirects may not.

        Raises:
            EgressRefused: the guard does not let it through.
            EgressFailed: it could not be reached or did not answer properly in time.
            ResponseTooLarge: the body is longer than `max_bytes`.
        """
        request = _request(method, url, headers, content, json)
        try:
            async with asyncio.timeout(timeout_seconds):
                with await self._placed(self._fetching, timeout_seconds / 2):
                    hops = MAX_REDIRECTS if follow_redirects else 0
                    return await self._follow(request, hops, max_bytes, operator_url)
        except TimeoutError as error:
            raise EgressFailed(f"egress: {request.url.host} did not answer within {timeout_seconds:g} s") from error
        except CONNECTION_ERRORS as error:
            raise EgressFailed(f"egress: {request.url.host} failed: {error or type(error).__name__}") from error

    async def open(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> Stream:
        """Make one request and answer as soon as the answer's head is there; no redirect is followed.

        The caller keeps the time, counts the bytes, and closes the stream.

        Raises:
            EgressRefused: the guard does not let it through.
            EgressFailed: it could not be reached or did not answer properly.
        """
        request = _request(method, url, headers, content, None)
        request.headers["accept-encoding"] = "identity"
        self._policy.check_url(str(request.url))
        with await self._placed(self._streaming, CONNECT_SECONDS) as place:
            try:
                answer = await self._streams.handle_async_request(_wire(request))
            except CONNECTION_ERRORS as error:
                raise EgressFailed(f"egress: {request.url.host} failed: {error or type(error).__name__}") from error
            found = httpx.Headers(answer.headers)
            if found.get("content-encoding", "identity").strip().lower() != "identity":
                await answer.aclose()
                raise EgressFailed(f"egress: {request.url.host} answered in an encoding that was not asked for")
            return Stream(answer.status, found, answer, place.pop_all())

    async def aclose(self) -> None:
        """Close all connections."""
        await self._guarded.aclose()
        await self._plain.aclose()
        await self._streams.aclose()

    async def _placed(self, shares: Shares, seconds: float) -> ExitStack:
        """A place among those who use the connections, to be left at the end."""
        place = ExitStack()
        try:
            place.callback(await shares.take(self._owner, seconds))
        except TimeoutError as error:
            said = f"egress: no connection became free within {seconds:g} s: {MAX_OF_ONE} at a time are a workspace's share"
            raise EgressFailed(said) from error
        return place

    async def _follow(self, request: httpx.Request, hops: int, max_bytes: int, operator_url: bool) -> Response:
        pool = self._plain if operator_url else self._guarded
        origin = _origin(request.url)
        for _ in range(hops):
            response = await self._send(pool, request, max_bytes)
            following = _redirected(request, response)
            if following is None:
                return response
            request = following
            if _origin(request.url) != origin:
                pool = self._guarded
        response = await self._send(pool, request, max_bytes)
        if hops and _redirected(request, response):
            raise EgressFailed(f"egress: {request.url.host} redirects more than {hops} times")
        return response

    async def _send(self, pool: httpcore.AsyncConnectionPool, request: httpx.Request, max_bytes: int) -> Response:
        if pool is self._guarded:
            self._policy.check_url(str(request.url))
        answer = await pool.handle_async_request(_wire(request))
        try:
            found = httpx.Headers(answer.headers)
            body = await _read(answer.aiter_stream(), found.get("content-encoding", ""), max_bytes)
            return Response(answer.status, found, body, str(request.url))
        except ResponseTooLarge as error:
            raise ResponseTooLarge(error.detail, extra={"answered": answer.status}) from error
        finally:
            await answer.aclose()


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _network_backend() -> httpcore.AsyncNetworkBackend:
    return cast(httpcore.AsyncNetworkBackend, httpcore.AnyIOBackend())


def _wire(request: httpx.Request) -> httpcore.Request:
    """A request as the connections take it."""
    target = httpcore.URL(
        scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port, target=request.url.raw_path
    )
    return httpcore.Request(
        request.method,
        target,
        headers=request.headers.raw,
        content=request.content or None,
        extensions={"timeout": {"connect": CONNECT_SECONDS}},
    )


@cache
def _trust(paths: ssl.DefaultVerifyPaths) -> ssl.SSLContext:
    """The roots that are trusted, read once for the paths that OpenSSL takes them from: it takes tens of milliseconds."""
    del paths
    tls = httpx.create_ssl_context(trust_env=False)
    tls.load_default_certs()  # beside the bundled roots: an operator's own
    return tls


def _pool(tls: ssl.SSLContext, backend: httpcore.AsyncNetworkBackend) -> httpcore.AsyncConnectionPool:
    return httpcore.AsyncConnectionPool(
        ssl_context=tls,
        max_connections=MAX_CONNECTIONS,
        max_keepalive_connections=20,
        keepalive_expiry=5.0,
        network_backend=backend,
    )


def _request(
    method: str, url: str, headers: Mapping[str, str] | None, content: bytes | str | None, json: Any
) -> httpx.Request:
    kept = {name: value for name, value in (headers or {}).items() if name.lower() not in FRAMING_HEADERS}
    try:
        # Only encodings whose output can be bounded while it is being decoded.
        sent = httpx.Headers({"user-agent": "parley", "accept": "*/*"})
        sent.update(kept)
        sent["accept-encoding"] = "gzip"
        return httpx.Request(method.upper(), parse_url(url), headers=sent, content=content, json=json)
    except (UnicodeError, ValueError, TypeError) as error:
        raise EgressFailed(f"egress: the request can't be sent: {error}") from error


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, port_of(url)


def _redirected(request: httpx.Request, response: Response) -> httpx.Request | None:
    """The request a redirect asks for, or None when the response is the answer."""
    if response.status not in (301, 302, 303, 307, 308) or "location" not in response.headers:
        return None
    target = parse_url(_joined(request.url, response.headers["location"]))
    bodyless = response.status == 303 or (response.status in (301, 302) and request.method == "POST")
    method = "GET" if bodyless and request.method != "HEAD" else request.method
    dropped = FRAMING_HEADERS | {"content-type"} if bodyless else FRAMING_HEADERS
    kept = {
        name: value
        for name, value in request.headers.items()
        if name not in dropped and (_origin(target) == _origin(request.url) or name in PORTABLE_HEADERS)
    }
    return _request(method, str(target), kept, None if bodyless else request.content or None, None)


def _joined(base: httpx.URL, location: str) -> str:
    try:
        return str(base.join(location))
    except (httpx.InvalidURL, ValueError) as error:
        raise EgressRefused(f"egress: refused a redirect of {base.host} (not a valid URL)") from error


async def _read(stream: AsyncIterator[bytes], encoding: str, max_bytes: int) -> bytes:
    """The body, decoded piece by piece and never longer than allowed."""
    if encoding.strip().lower() not in ("", "identity", "gzip", "x-gzip"):
        raise EgressFailed(f"egress: the answer is encoded as {encoding}, which was not asked for")
    decoder = zlib.decompressobj(wbits=31) if encoding.strip().lower().endswith("gzip") else None
    body = bytearray()
    async for chunk in stream:
        try:
            body += decoder.decompress(chunk, max_bytes - len(body) + 1) if decoder else chunk
        except zlib.error as error:
            raise EgressFailed("egress: the answer's compression is broken") from error
        if len(body) > max_bytes:
            raise ResponseTooLarge(f"egress: the answer is longer than {max_bytes} bytes")
    if decoder and body and not decoder.eof:
        raise EgressFailed("egress: the answer's compression is cut off")
    return bytes(body)
