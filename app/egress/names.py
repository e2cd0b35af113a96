"""Names looked up in threads of their own: one that nobody answers for holds its thread, and nothing else.

The loop's own `getaddrinfo` shares a handful of threads with files and everything else, and a lookup that is given up
keeps its thread until the system gives up, too.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from threading import Thread
from typing import Any

from app.errors import EgressFailed
from app.shares import Shares

LOOKUP_SECONDS = 8.0
MAX_LOOKUPS = 64
MAX_OF_A_DOMAIN = 4  # Under one name of two labels: whoever owns it can let them all hang.


class Names:
    """Looks names up, few at once and none for long."""

    def __init__(self, look_up: Callable[..., Any] = socket.getaddrinfo, *, seconds: float = LOOKUP_SECONDS) -> None:
        """Begin without any lookup.

        Args:
            look_up: What asks the system; it may block.
            seconds: How long a caller waits, for its turn and for the answer together.
        """
        self._look_up = look_up
        self.seconds = seconds
        self._threads = Shares(MAX_LOOKUPS, MAX_OF_A_DOMAIN)

    async def resolve(self, host: str, port: int) -> list[str]:
        """The addresses of a host, in the order the system prefers them.

        Raises:
            EgressFailed: nobody said within the time, or too many others hang.
            OSError: there is no such name.
        """
        with suppress(ValueError):
            return [str(ip_address(host))]
        domain = ".".join(host.lower().rsplit(".", 2)[-2:])
        said = "too many other names are being looked up"
        try:
            async with asyncio.timeout(self.seconds):
                give_back = await self._threads.take(domain)
                said = "its name server does not answer"
                found = await self._begun(host, port, give_back)
        except TimeoutError as error:
            raise EgressFailed(f"egress: {host} can't be resolved: {said} ({self.seconds:g} s)") from error
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def _begun(self, host: str, port: int, give_back: Callable[[], None]) -> "asyncio.Future[Any]":
        """The lookup; its turn ends with its thread, whoever has given up waiting."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()

        def ended(found: Any, error: Exception | None) -> None:
            give_back()
            if answer.done():
                return
            if error is None:
                answer.set_result(found)
            else:
                answer.set_exception(error)

        def work() -> None:
            found, failure = None, None
            try:
                found = self._look_up(host, port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                failure = error
            with suppress(RuntimeError):  # The loop is closed: nobody waits.
                loop.call_soon_threadsafe(ended, found, failure)

        try:
            Thread(target=work, name="parley-names", daemon=True).start()  # A process that ends waits for no name.
        except RuntimeError as error:
            ended(None, OSError(f"no thread can be started: {error}"))
        return answer
