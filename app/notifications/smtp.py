"""The mail server: mails are handed to it over connections that stay open a little for the next mail."""

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import parseaddr
from typing import Any

import aiosmtplib

from app.errors import DeliveryFailed, DeliveryRefused
from app.notifications.text import one_line
from app.settings import Settings, is_loopback

TIMEOUT_SECONDS = 20.0
TLS_PORT, SUBMISSION_PORT = 465, 587
IDLE_SECONDS = 5.0  # Between two batches; servers count the connections of those that keep them longer.
PROBE_SECONDS = 5.0  # For words that a server has nothing to do for.
MOST_MAILS = 100  # Over one connection: servers that limit them allow no fewer (the number of Nodemailer's pool).
ENDING = 421  # RFC 5321, 3.8: the server ends the connection, and what it answered so was not done.


@dataclass(eq=False)
class Line:
    """A connection to the mail server, and how many mails went over it."""

    client: aiosmtplib.SMTP
    mails: int = 0
    idle: asyncio.TimerHandle | None = None


class Smtp:
    """Hands mails to the server of the settings; one per process."""

    def __init__(self, settings: Settings) -> None:
        """Connect to nothing yet."""
        self._settings = settings
        self._idle: list[Line] = []
        self._leaving: set[asyncio.Task[None]] = set()

    async def send(self, message: EmailMessage) -> None:
        """Hand one mail over.

        Raises:
            DeliveryFailed: it may work later.
            DeliveryRefused: it never will.
        """
        try:
            await self._send(message)
        except aiosmtplib.SMTPResponseException as error:
            raise _failure(error) from error
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            said = one_line(str(error), 300) or type(error).__name__
            raise DeliveryFailed(f"the mail server could not be used: {said}") from error
        except ValueError as error:
            raise DeliveryRefused(f"the mail can't be sent: {one_line(str(error), 200)}") from error

    async def aclose(self) -> None:
        """Take leave of the server."""
        for line in self._idle:
            self._leave(line)
        self._idle.clear()
        await asyncio.gather(*self._leaving)

    async def _send(self, message: EmailMessage) -> None:
        """Over a connection that is open still, else over a new one."""
        line = await self._take()
        if line is not None:
            try:
                return await self._hand_over(line, message)
            except aiosmtplib.SMTPResponseException as error:
                if error.code != ENDING:
                    raise
        client = aiosmtplib.SMTP(**connection_options(self._settings))
        await client.connect()
        return await self._hand_over(Line(client), message)

    async def _take(self) -> Line | None:
        """The connection that was used last, if the server still answers on it; it forgets what was left undone."""
        if not self._idle:
            return None
        line = self._idle.pop()
        if line.idle:
            line.idle.cancel()
        try:
            await line.client.rset(timeout=PROBE_SECONDS)
        except (aiosmtplib.SMTPException, OSError):
            line.client.close()
            return None
        except asyncio.CancelledError:
            line.client.close()  # Nobody would hear the answer.
            raise
        return line

    async def _hand_over(self, line: Line, message: EmailMessage) -> None:
        sender = parseaddr(self._settings.smtp_from_email)[1]
        try:
            await line.client.send_message(message, sender=sender)
        except aiosmtplib.SMTPRecipientsRefused as error:
            self._leave(line)
            raise error.recipients[0] from error
        except aiosmtplib.SMTPResponseException:
            self._leave(line)
            raise
        except (Exception, asyncio.CancelledError):  # Without an answer nobody knows where the two stand.
            line.client.close()
            raise
        line.mails += 1
        self._keep(line)

    def _keep(self, line: Line) -> None:
        if line.mails >= MOST_MAILS:
            self._leave(line)
            return
        line.idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._expire, line)
        self._idle.append(line)

    def _expire(self, line: Line) -> None:
        self._idle.remove(line)
        self._leave(line)

    def _leave(self, line: Line) -> None:
        if line.idle:
            line.idle.cancel()
        task = asyncio.create_task(_quit(line.client))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


async def _quit(client: aiosmtplib.SMTP) -> None:
    with contextlib.suppress(aiosmtplib.SMTPException, OSError):
        await client.quit(timeout=PROBE_SECONDS)
    client.close()


def connection_options(settings: Settings) -> dict[str, Any]:
    """Host, port, security and login for aiosmtplib.

    Without `SMTP_SECURITY` the port decides: 465 is TLS, 587 needs STARTTLS, any other uses STARTTLS
    where offered - but a password is never sent over a plain connection to another machine.
    """
    security = settings.smtp_security
    port = settings.smtp_port or (TLS_PORT if security == "tls" else SUBMISSION_PORT)
    if security is None and port in (TLS_PORT, SUBMISSION_PORT):
        security = "tls" if port == TLS_PORT else "starttls"
    host = settings.smtp_host or "localhost"
    opportunistic = True if settings.smtp_username and not is_loopback(host) else None
    return {
        "hostname": host,
        "port": port,
        "use_tls": security == "tls",
        "start_tls": {"tls": False, "starttls": True, "none": False}.get(security or "", opportunistic),
        "username": settings.smtp_username,
        "password": settings.smtp_password.get_secret_value() if settings.smtp_password else None,
        "timeout": TIMEOUT_SECONDS,
        # The default asks DNS for this machine's name and blocks meanwhile.
        "local_hostname": socket.gethostname(),
    }


def _failure(error: aiosmtplib.SMTPResponseException) -> DeliveryFailed | DeliveryRefused:
    said = f"the mail server answered {error.code} {one_line(error.message, 300)}"
    return DeliveryRefused(said) if error.code >= 500 else DeliveryFailed(said)
