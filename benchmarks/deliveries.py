"""Deliveries a second to an SMTP server on loopback, beside bare aiosmtplib, in interleaved rounds.

    python -m benchmarks.deliveries [MAILS] [ROUNDS]

Ours claims rows, renders text and HTML with inlined styles, sends over connections that it keeps, and marks each row sent. Bare sends
mails that are ready, of the same bytes, each over a connection of its own, as many at once. The server takes any mail and
runs in a process of its own. PostgreSQL is started for it in a folder of its own.
"""

import asyncio
import base64
import logging
import multiprocessing
import statistics
import sys
import tempfile
import time
from email.message import EmailMessage
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path

import aiosmtplib
import structlog
import uvloop
from aiosmtpd.smtp import SMTP
from alembic import command

from app.cli.processes import alembic_config
from app.credentials import Box
from app.db import DEFAULT_WORKSPACE, Database
from app.egress import Egress
from app.embedded import Servers
from app.models import new_id
from app.notifications.channel import Envelope, Means
from app.notifications.deliver import Sender
from app.notifications.email import compose
from app.notifications.notice import Notice
from app.notifications.smtp import Smtp
from app.settings import Settings
from benchmarks import machine

MAILS, ROUNDS = 1_000, 3
BATCH, BATCHES = 10, 4  # As a worker sends.
TEXT = "# Report\n\n" + "All is **well** with [everything](https://example.com) that was looked at. " * 20
# Each tells something else: a text that several receivers get is rendered once.
INSERT = """
insert into deliveries (id, workspace_id, event, channel, address, message_id, payload)
select id, $1, 'run.completed', 'email', 'user@example.com', '<' || id || '@localhost>',
    jsonb_set($2::jsonb, '{text}', to_jsonb(($2::jsonb->>'text') || id))
from unnest($3::uuid[]) as id
"""


class Accepting:
    async def handle_DATA(self, *_: object) -> str:
        return "250 taken"


def serve(pipe: Connection) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: SMTP(Accepting(), hostname="loopback", loop=loop), "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def notice() -> Notice:
    return Notice(
        event="run.completed",
        workspace_id=DEFAULT_WORKSPACE,
        conversation_id=None,
        run_id=None,
        event_seq=None,
        title="Daily report",
        base_url="http://localhost:8000",
        text=TEXT,
        agent="assistant",
        model="openai:gpt-5",
    )


async def ours(database: Database, sender: Sender, mails: int) -> float:
    await database.execute(INSERT, DEFAULT_WORKSPACE, notice().payload(), [new_id() for _ in range(mails)])
    began = time.perf_counter()

    async def batches() -> None:
        while await sender.send_due(BATCH):
            pass

    await asyncio.gather(*(batches() for _ in range(BATCHES)))
    took = time.perf_counter() - began
    left = await database.fetchval("select count(*) from deliveries where state <> 'sent'")
    assert not left, f"{left} were not sent"
    return mails / took


async def bare(port: int, mails: int, message: EmailMessage) -> float:
    gate = asyncio.Semaphore(BATCH * BATCHES)

    async def send() -> None:
        async with gate:
            await aiosmtplib.send(
                message,
                sender="parley@localhost",
                hostname="127.0.0.1",
                port=port,
                local_hostname="bench",
                start_tls=False,
            )

    began = time.perf_counter()
    await asyncio.gather(*(send() for _ in range(mails)))
    return mails / (time.perf_counter() - began)


async def measure(mails: int, rounds: int) -> None:
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    port = here.recv()
    try:
        with tempfile.TemporaryDirectory(prefix="parley-bench-", ignore_cleanup_errors=True) as folder:
            home = Path(folder)
            home.chmod(0o711)  # the servers' account passes through when we are root
            with Servers(home, valkey=False) as servers:
                assert servers.postgres
                await asyncio.to_thread(command.upgrade, alembic_config(servers.postgres.dsn), "head")
                await compare(servers.postgres.dsn, home, port, mails, rounds)
    finally:
        server.terminate()


async def compare(dsn: str, home: Path, port: int, mails: int, rounds: int) -> None:
    keys = "k:" + base64.b64encode(bytes(32)).decode()
    settings = Settings.of(
        database_url=dsn, parley_home=home, parley_encryption_keys=keys, smtp_host="127.0.0.1", smtp_port=port
    )
    database, egress, smtp = await Database.open(settings), Egress(settings), Smtp(settings)
    try:
        await database.execute("insert into workspaces (id, name) values ($1, 'default')", DEFAULT_WORKSPACE)
        sender = Sender(database, Means(settings, egress, Box.from_settings(settings), database, smtp))
        message = compose(Envelope(new_id(), "user@example.com", "<1@localhost>", notice()), "parley@localhost")
        print(f"{mails} mails of {len(message.as_bytes())} bytes, {BATCH * BATCHES} at once; load {machine.load()}")
        ratios: list[float] = []
        for number in range(rounds + 1):
            spent = [time.process_time()]
            mine = await ours(database, sender, mails)
            spent.append(time.process_time())
            theirs = await bare(port, mails, message)
            spent.append(time.process_time())
            if number:  # the first warms up
                ratios.append(mine / theirs)
                cpu = [(after - before) / mails * 1000 for before, after in pairwise(spent)]
                print(
                    f"ours {mine:.0f}/s, {cpu[0]:.2f} ms of CPU; bare {theirs:.0f}/s, {cpu[1]:.2f} ms; ratio {ratios[-1]:.2f}"
                )
        print(f"ratio p50 {statistics.median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}]; load {machine.load()}")
    finally:
        await smtp.aclose()
        await egress.aclose()
        await database.close()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    given = [int(each) for each in sys.argv[1:3]]
    uvloop.run(measure(*(given + [MAILS, ROUNDS][len(given) :])))
