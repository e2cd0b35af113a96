"""The commands as a person types them, against a whole Parley of their own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from app.cli import parley as command
from app.embedded import running
from app.settings import Settings
from tests.embedded.conftest import home as home_of_its_own
from tests.embedded.stacks import ROOT, wait_for

PARLEY = [sys.executable, "-m", "app.cli"]
home = home_of_its_own


class Parley:
    """A running Parley and the command that talks to it."""

    def __init__(self, folder: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
        self.environment = {**kept, "PYTHONPATH": str(ROOT), "PARLEY_HOME": str(folder), "PARLEY_PORT": "0"}
        self.folder = folder
        self.said: list[str] = []
        self.up = subprocess.Popen(
            [*PARLEY, "up"],
            cwd=folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.up.stdout
        for line in self.up.stdout:
            self.said.append(line)
            if "Ctrl-C" in line:
                return
        raise AssertionError("".join(self.said))

    def __call__(self, *arguments: str, code: int = 0, say: str | None = None) -> Result:
        done = CliRunner().invoke(command, arguments, input=say, env=self.environment, catch_exceptions=False)
        assert done.exit_code == code, (arguments, done.output)
        return done

    def in_a_process(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*PARLEY, *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code).stdout)

    @property
    def database_url(self) -> str:
        run = running(self.folder)
        assert run
        return run.database_url

    def stop(self) -> None:
        self.up.send_signal(signal.SIGINT)
        assert self.up.stdout
        self.said += self.up.stdout.readlines()
        assert self.up.wait(timeout=20) == 0, "".join(self.said)
        self.up.stdout.close()


@pytest.fixture
def parley(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parley]:
    monkeypatch.chdir(home)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    running = Parley(home)
    yield running
    running.stop()


def test_every_command_against_a_running_parley(parley: Parley) -> None:
    chats(parley)
    run_id = runs(parley)
    reads_runs(parley, run_id)
    tasks(parley)
    notifies(parley)
    approvals(parley)
    keys(parley)
    operation(parley)


def chats(parley: Parley) -> None:
    once = parley("chat", "assistant", "What is 6*7?")
    assert "42" in once.stdout
    assert "calculator" in once.stderr
    many = parley("chat", say="What is 2+3?\n/quit\n")
    assert "5" in many.stdout
    assert "offline demo model" in many.stderr
    file = parley.folder / "cities.csv"
    file.write_text("city\nParis\n")
    run = parley.json("chat", "assistant", "Read it", "--attach", str(file))
    told = parley("chat", "--conversation", run["conversation_id"], "--attach", str(file), say="And again\nAnd now?\n")
    assert "go on later" in told.stderr
    task = parley.json("run", "assistant", "Read it", "--attach", str(file))
    assert [(each["name"], each["media_type"]) for each in task["attachments"]] == [("cities.csv", "text/csv")]
    assert "no agent 'nobody'" in parley("chat", "nobody", "hi", code=1).stderr


def runs(parley: Parley) -> str:
    waited = parley("run", "assistant", "What is 12*12?", "--wait")
    alone = parley.in_a_process("run", "What is 13*13?", "--wait", "--json")
    assert "169" in json.loads(alone.stdout)["result"]
    assert "watch it: python3 dev.py runs tail" in parley.in_a_process("run", "hello").stderr
    assert "say what it shall do" in parley("run", code=2).stderr
    assert "144" in waited.stdout
    assert "working" in waited.stderr
    run = parley.json("run", "assistant", "What is 11*11?", "--wait")
    assert (run["state"], "121" in run["result"]) == ("completed", True)
    made = parley("run", "assistant", "hello")
    assert "parley runs tail" in made.stderr
    return run["id"]


def reads_runs(parley: Parley, run_id: str) -> None:
    assert run_id in parley("runs", "list").stdout
    assert run_id in [run["id"] for run in parley.json("runs", "list", "--state", "completed")["items"]]
    assert "121" in parley("runs", "show", run_id).stdout
    assert parley.json("runs", "explain", run_id)["state"] == "completed"
    events = [json.loads(line) for line in parley("runs", "tail", run_id, "--json").stdout.splitlines()]
    assert events[-1]["event"] == "run.completed"
    assert parley.json("runs", "cancel", run_id)["state"] == "completed"
    assert "121" in parley("runs", "retry", run_id, "--from", "start", "--wait").stdout
    assert "not_found" in parley("runs", "show", "nonsense", code=1).stderr


def tasks(parley: Parley) -> None:
    task = parley.json("tasks", "create", "Say hello", "--cron", "0 9 * * *", "--email", "ann@example.com")
    assert task["task_type"] == "scheduled"
    assert task["next_fire_at"]
    assert task["id"] in parley("tasks", "list").stdout
    preview = parley("tasks", "preview", "0 9 * * 1", "--timezone", "Europe/Berlin", "--count", "2").stdout
    assert "Monday" in preview
    assert len(preview.splitlines()) == 4
    assert "timezone" in parley("tasks", "preview", "0 9 * * 1", "--timezone", "Nowhere", code=1).stderr
    spring = parley("tasks", "preview", "30 2 * * *", "--timezone", "Europe/Berlin", "--from", "2026-03-28T12:00:00Z")
    assert "02:30 does not exist that day" in " ".join(spring.stdout.split())
    assert "1 task to pause" in parley("tasks", "pause", task["id"], "--dry-run").stdout
    assert "1 task paused" in parley("tasks", "pause", task["id"], "--reason", "release").stdout
    assert parley.json("tasks", "resume", "--paused-for", "release") == {"count": 1}
    assert parley("tasks", "execute", task["id"], "--wait").stdout
    assert "manual" in parley("tasks", "fires", task["id"]).stdout
    mails = wait_for(lambda: parley.json("outbox"))
    assert mails[0]["to"] == "ann@example.com"
    assert "Say hello" in parley("outbox", "1").stdout
    hooked = parley.json("tasks", "create", "React", "--webhook")
    httpx.post(hooked["webhook_url"], json={"order": 17}).raise_for_status()
    (receipt,) = parley.json("tasks", "receipts", hooked["id"])["items"]
    assert receipt["id"] in parley("tasks", "receipts", hooked["id"]).stdout
    assert parley.json("tasks", "replay", hooked["id"], receipt["id"])["replay_of"] == receipt["id"]
    assert parley("tasks", "replay", hooked["id"], receipt["id"], "--wait").stdout
    assert "no receipt" in parley("tasks", "replay", hooked["id"], task["id"], code=1).stderr
    rotated = parley.json("tasks", "rotate", hooked["id"], "--secret", "chosen-by-hand", "--overlap", "0")
    assert (rotated["secret"], "chosen-by-hand" in rotated["webhook_url"]) == ("chosen-by-hand", True)
    after = parley.json("tasks", "create", "What is 6*7?", "--after", f"{task['id']}:any", "--wait")
    assert after["state"] == "completed"


def notifies(parley: Parley) -> None:
    tried = parley("notify", "test", "--email", "ann@example.com")
    assert "captured in" in " ".join(tried.stdout.split())
    assert "nobody to tell" in parley("notify", "test", code=1).stderr
    assert "Subject: Failed: Daily report" in parley("notify", "preview", "--event", "failed").stdout
    assert "<h1" in parley("notify", "preview", "--html").stdout
    assert json.loads(parley("notify", "preview", "--blocks").stdout)[0]["type"] == "header"
    (sent,) = parley.json("notify", "list", "--state", "sent")["items"]
    assert sent["id"] in parley("notify", "list", "--channel", "email", "--task", sent["task_id"]).stdout
    assert "Say hello" in parley("notify", "preview", sent["id"]).stdout
    assert "1 would be sent again" in parley("notify", "resend", "--state", "sent", "--dry-run").stdout
    assert parley.json("notify", "resend", sent["id"], "--state", "sent", "--hours", "1") == {"count": 1}
    assert parley.json("notify", "resend", sent["id"], "--state", "sent") == {"count": 0}
    again = wait_for(lambda: [each for each in parley.json("outbox") if each["subject"] == "Completed: Say hello"][1:])
    assert again


def approvals(parley: Parley) -> None:
    mailer = parley.folder / "mailer.yaml"
    mailer.write_text("name: mailer\ntools: [notify, ask_person]\napproval: {notify: ask}\n")
    parley("agents", "apply", str(mailer))
    run = parley.json("run", "mailer", 'notify(text="It is done.", channel="email")')["latest_run"]["id"]
    asked = wait_for(lambda: parley.json("approvals", "list", "--run", run)["items"])
    assert f"parley approvals list --run {run}" in parley("runs", "explain", run).stdout
    assert "It is done." in parley("approvals", "list").stdout
    assert "holds no JSON" in parley("approvals", "approve", asked[0]["id"], "--arguments", "{", code=2).stderr
    edited = {"text": "It is nearly done.", "channel": "email"}
    done = parley.json("approvals", "approve", asked[0]["id"], "--arguments", json.dumps(edited))
    assert (done["state"], done["decided_arguments"]) == ("approved", edited)
    assert "already_decided" in parley("approvals", "deny", asked[0]["id"], code=1).stderr

    run = parley.json("run", "mailer", "Ask me which cup to take")["latest_run"]["id"]
    asked = wait_for(lambda: parley.json("approvals", "list", "--run", run)["items"])
    assert "runs tail" in parley("approvals", "answer", asked[0]["id"], "The blue one.").stderr
    assert "The blue one." in parley("runs", "tail", run).stdout
    assert parley.json("approvals", "list", "--state", "all")["items"][0]["state"] == "approved"
    assert "The blue one." in parley("approvals", "show", asked[0]["id"]).stdout


def keys(parley: Parley) -> None:
    made = parley.json("keys", "create", "ci", "--scope", "tasks:write", "--days", "3")
    assert made["key"].startswith("parley_")
    assert made["id"] in parley("keys", "list").stdout
    parley("keys", "revoke", made["id"])
    assert parley.json("keys", "list")["items"][0]["revoked_at"]
    assert "scope" in parley("keys", "create", "x", "--scope", "bogus", code=1).stderr


def operation(parley: Parley) -> None:
    doctor = parley.json("doctor")
    assert {check["state"] for check in doctor["checks"]} == {"ok"}
    assert "assistant" in parley.in_a_process("agents", "list").stdout
    assert parley.json("agents", "show", "assistant")["name"] == "assistant"
    parley.environment["DATABASE_URL"] = f"{parley.database_url}_missing"
    assert "does not exist" in parley("doctor", code=1).stdout
    assert "does not exist" in parley.in_a_process("migrate", code=1).stderr
    del parley.environment["DATABASE_URL"]
    assert "already running here" in parley.in_a_process("up", code=1).stdout
    assert "the schema is at" in parley.in_a_process("migrate").stdout
