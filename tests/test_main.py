"""The application as a server runs it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from app.errors import ConfigurationError
from app.main import create_app
from app.settings import Settings
from tests.cluster import Cluster

ROOT = Path(__file__).parents[1]
START_SECONDS = 60


@pytest.fixture
async def server(
    settings: Settings, cluster: Cluster, unused_tcp_port: int
) -> AsyncIterator[tuple[str, subprocess.Popen[bytes]]]:
    """`uvicorn app.main:app`, ready."""
    del cluster
    assert settings.redis_url
    environment = {
        **os.environ,
        "DATABASE_URL": settings.dsn(),
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "PARLEY_HOME": str(settings.parley_home),
        "PARLEY_SECRET": "s",
        "DEFAULT_MODEL": "demo",
        "LOG_FORMAT": "json",
    }
    argv = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(unused_tcp_port)]
    log = settings.parley_home.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{unused_tcp_port}"
    try:
        async with asyncio.timeout(START_SECONDS):
            await until_ready(url, process)
        yield url, process
    finally:
        process.kill()
        process.wait()


async def until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        while process.poll() is None:
            try:
                if (await client.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.1)
    raise AssertionError("the server ended")


async def test_uvicorn_serves_it_and_stops_in_order(
    server: tuple[str, subprocess.Popen[bytes]], settings: Settings
) -> None:
    url, process = server
    async with httpx.AsyncClient(base_url=url) as client:
        made = (await client.post("/conversations", json={"pattern_type": "chatbot", "context_data": {}})).json()
        body = {"message": "What is 6*7?", "stream": False}
        answer = (await client.post(f"/conversations/{made['id']}/messages", json=body)).json()
        assert "42" in answer["reply"]
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 20) in (0, -signal.SIGTERM)
    log = settings.parley_home.with_suffix(".log").read_text()
    assert '"event": "request"' in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    "command", [("uvicorn", "app.main:app", "--port", "0"), ("alembic", "upgrade", "head")], ids=["uvicorn", "alembic"]
)
def test_a_database_that_is_away_is_said_in_one_line(command: tuple[str, ...], tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "DATABASE_URL": "postgresql://me:hidden@127.0.0.1:1/parley",
        "PARLEY_HOME": str(tmp_path),
        "LOG_FORMAT": "json",
    }
    ended = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode != 0
    assert "PostgreSQL can't be reached at 127.0.0.1:1/parley (DATABASE_URL)" in said
    assert "Traceback" not in said
    assert "hidden" not in said


def test_importing_reads_no_environment() -> None:
    code = "import app.main, sys; sys.exit('app' in vars(app.main))"
    environment = {**os.environ, "PARLEY_AUTH": "nonsense"}
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=False).returncode == 0


def test_a_wrong_default_model_is_told_at_the_start(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="DEFAULT_MODEL"):
        create_app(settings.model_copy(update={"default_model": "nonsense"}))


@pytest.mark.parametrize("broken", ["app.main.alerts.watch", "app.main.Sender.send_due"])
async def test_the_watch_for_alerts_goes_on_after_a_defect(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    named = settings.model_copy(update={"parley_alert_email": "admin@example.com"})
    left, sent = iter([True]), asyncio.Event()

    async def watch(*_: object, **__: object) -> int:
        if next(left, False):
            raise OSError("Input/output error")
        sent.set()
        return 0

    monkeypatch.setattr("app.main.WATCH_SECONDS", 0.01)
    monkeypatch.setattr(broken, watch)
    app = create_app(named)
    async with app.router.lifespan_context(app), asyncio.timeout(10):
        await sent.wait()
