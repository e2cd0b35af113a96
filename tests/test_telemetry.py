"""Log lines."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from app import telemetry
from app.settings import Settings


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging is the process's: what a test configures is taken back."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    structlog.configure(**before)
    root.handlers, root.level = handlers, level


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def test_a_line_of_ours_and_of_a_library_look_alike(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure(Settings.of(log_format="json"))
    with telemetry.bound(run_id="r", conversation_id=7, request_id=None):
        structlog.stdlib.get_logger("app.x").info("run.started", attempt=1)
        ours = json.loads(last_line(capsys))
        logging.getLogger("library").warning("slow: %s", 3, extra={"color_message": "\x1b[1mslow"})
        theirs = json.loads(last_line(capsys))
    assert (ours["event"], ours["attempt"], ours["level"], ours["logger"]) == ("run.started", 1, "info", "app.x")
    assert theirs["event"] == "slow: 3"
    for line in (ours, theirs):
        assert (line["run_id"], line["conversation_id"]) == ("r", "7")
        assert line["timestamp"].endswith("Z")
        assert "request_id" not in line
        assert "color_message" not in line


def test_the_level_is_the_setting(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure(Settings.of(log_format="json", log_level="WARNING"))
    structlog.stdlib.get_logger("app.x").info("hidden")
    logging.getLogger("httpx").info("hidden")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_local_variables(capsys: pytest.CaptureFixture[str], form: str) -> None:
    telemetry.configure(Settings.of(log_format=form))

    def break_with(password: str) -> None:
        raise ValueError("broken")

    try:
        break_with("hunter" + "2")
    except ValueError as error:
        structlog.stdlib.get_logger("app.x").error("it.broke", exc_info=error)
    text = capsys.readouterr().err
    assert "ValueError: broken" in text
    assert "hunter2" not in text
