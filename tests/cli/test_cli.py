"""Help, exit codes and formatting; no server is started."""

import json
import os
import subprocess
import sys
import time
from email.message import EmailMessage
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app import __version__
from app.cli import parley
from app.cli.output import shown
from app.cli.reference import reference
from app.cli.session import find_server
from app.cli.tasks import instants_of
from app.embedded import Home
from app.errors import ConfigurationError
from app.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and none of the settings of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("PARLEY_HOME", str(tmp_path))
    return tmp_path


def parley_says(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(parley, arguments)
    assert result.exit_code == code, result.output
    return result


def test_help_lists_every_command() -> None:
    said = parley_says("--help").output
    for name in ("up", "serve", "worker", "scheduler", "migrate", "doctor", "chat", "run", "runs", "tasks", "agents"):
        assert f" {name} " in said
    for name in ("keys", "encryption", "outbox", "openapi", "bench"):
        assert f" {name} " in said


def test_the_version_is_told() -> None:
    assert parley_says("--version").stdout == f"parley {__version__}\n"


def test_no_command_shows_help_and_is_wrong_usage() -> None:
    assert "Usage" in parley_says(code=2).output
    assert "Usage" in parley_says("runs", code=2).output


def test_an_unknown_option_is_wrong_usage() -> None:
    assert "--bogus" in parley_says("runs", "list", "--bogus", code=2).stderr


def test_without_a_server_one_line_says_how_to_start_it(home: Path) -> None:
    result = parley_says("runs", "list", code=1)
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "parley: no server is running here: start it with `python3 dev.py`, or name one with --url or PARLEY_URL"
    ]


def test_a_server_that_is_not_there_is_one_line(home: Path) -> None:
    result = parley_says("runs", "list", "--url", "http://127.0.0.1:1", code=1)
    assert result.stderr.startswith("parley: http://127.0.0.1:1 can't be reached")
    assert len(result.stderr.splitlines()) == 1


def test_a_wrong_setting_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_WORKERS", "many")
    assert parley_says("doctor", code=1).stderr.startswith("parley: PARLEY_WORKERS")


def test_the_server_is_found_by_flag_then_setting_then_home(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.write_run({"url": "http://here", "database_url": "", "redis_url": ""})
    bare = Settings.of(parley_home=tmp_path)
    assert find_server(bare, None, None) == ("http://here", None)
    set_ = Settings.of(parley_home=tmp_path, parley_url="there:8000", parley_api_key="key")
    assert find_server(set_, None, None) == ("http://there:8000", "key")
    assert find_server(set_, "https://flag", "other") == ("https://flag", "other")


def test_the_key_of_a_home_goes_to_its_own_server_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.secret("admin_key", lambda: "own-key")
    settings = Settings.of(parley_home=tmp_path)
    with pytest.raises(ConfigurationError):
        find_server(settings, None, None)
    home.write_run({"url": "http://here", "database_url": "", "redis_url": ""})
    assert find_server(settings, None, None) == ("http://here", "own-key")
    assert find_server(settings, "http://elsewhere", None) == ("http://elsewhere", None)


def test_doctor_checks_and_masks(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-mine")
    monkeypatch.setenv("REDIS_URL", "redis://:hidden@127.0.0.1:1/0")
    result = parley_says("doctor", "--json", code=1)
    told = json.loads(result.stdout)
    states = {check["check"]: check["state"] for check in told["checks"]}
    assert states["redis"] == "broken"
    assert states["model"] == states["database"] == states["mail"] == "ok"
    values = {each["setting"]: each["value"] for each in told["settings"]}
    assert values["OPENAI_API_KEY"] == "****"
    assert values["REDIS_URL"] == "redis://127.0.0.1:1/0"
    assert "hidden" not in result.output
    assert "secret" not in result.output


def test_doctor_names_what_a_mail_server_does_not_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_HOST", "127.0.0.1")
    monkeypatch.setenv("SMTP_PORT", "1")
    assert "127.0.0.1:1 can't be used" in parley_says("doctor", code=1).stdout
    Home(home).write_run({"url": "http://127.0.0.1:1", "supervisor": os.getpid(), "database_url": "", "redis_url": ""})
    told = json.loads(parley_says("doctor", "--json", code=1).stdout)
    (mail,) = [check["detail"] for check in told["checks"] if check["check"] == "mail"]
    assert "by the settings here; http://127.0.0.1:1 has those it was started with" in mail


def test_outbox_lists_and_shows(home: Path) -> None:
    assert "no mail was captured" in parley_says("outbox").stderr
    (home / "outbox").mkdir()
    for number in (1, 2):
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = "parley@localhost", "ann@example.com", f"Report {number}"
        mail.set_content(f"text of {number}\n")
        (home / "outbox" / f"2026010{number}-x.eml").write_bytes(mail.as_bytes())
    listed = json.loads(parley_says("outbox", "--json").stdout)
    assert [each["subject"] for each in listed] == ["Report 2", "Report 1"]
    shown = parley_says("outbox", "1").stdout
    assert "Report 2" in shown
    assert "text of 2" in shown
    assert "there is no mail 3" in parley_says("outbox", "3", code=1).stderr


def test_openapi_prints_and_checks(home: Path) -> None:
    printed = parley_says("openapi").stdout
    assert "/runs/{run_id}" in json.loads(printed)["paths"]
    file = home / "openapi.json"
    file.write_text(printed)
    parley_says("openapi", "--check", str(file))
    file.write_text("{}")
    assert "is not up to date" in parley_says("openapi", "--check", str(file), code=1).stderr


def test_a_task_file_that_is_none_is_wrong_usage(home: Path) -> None:
    parley_says("tasks", "create", "--file", "missing.json", "--url", "http://127.0.0.1:1", code=2)


@pytest.mark.parametrize("arguments", [["--help"], ["runs", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    heavy = ("pydantic_ai", "sqlalchemy", "fastapi", "httpx", "alembic", "asyncpg", "uvicorn")
    program = f"""
import sys
from typer.testing import CliRunner
from app.cli import parley
CliRunner().invoke(parley, {arguments})
sys.exit(",".join(name for name in {heavy} if name in sys.modules) or None)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_module_is_the_command() -> None:
    environment = {**os.environ, "NO_COLOR": "1"}
    said = subprocess.run(
        [sys.executable, "-m", "app.cli", "--help"], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert "Usage: parley" in said.stdout


def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    assert page == reference(), "run: python -m app.cli.reference > docs/cli.md"


def test_a_preview_tells_utc_and_the_schedules_zone_whatever_the_machines_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    instant = {"utc": "2026-03-29T01:00:00Z", "local": "2026-03-29T03:00:00+02:00", "note": None}
    try:
        (row,) = instants_of({"next": [instant]})
        assert (shown(row["utc"]), shown(row["local"])) == ("2026-03-29 01:00 UTC", "2026-03-29 03:00 +02:00")
    finally:
        monkeypatch.undo()
        time.tzset()
