"""What a start of a task says: its prompt, filled in where it is scheduled, and the data that goes with it."""

from datetime import datetime

from app import cron
from app.agents.template import check_names, render_instructions
from app.conversations import given_with
from app.db import Row
from app.errors import RunFailed
from app.messages import Json, clean_text, structured

EXCERPT = 2000
# What the prompt of a scheduled task may name.
LAST = ("outcome", "result", "finished_at")
NAMES: dict[str, tuple[str, ...] | None] = {
    "fire_time": (),
    "timezone": (),
    "last": LAST,
    "input": None,
    "context": None,
}


def check_prompt(prompt: str) -> None:
    """Refuse a prompt of a scheduled task that can't be filled in.

    Raises:
        InvalidRequest: with the line and what is wrong there.
    """
    check_names(prompt, NAMES, "prompt")


def said(task: Row, due_at: datetime) -> str:
    """The prompt; a scheduled one is a template that may name when it was due and what was reported last.

    Raises:
        RunFailed: when the template stumbles over the values.
        InvalidTimezone: when the zone is none any more.
    """
    if task["task_type"] != "scheduled":
        return task["prompt"]
    last = {name: value for name, value in _last(task).items() if value is not None}  # Left out, it renders as nothing.
    if "result" in last and not task["told_is_trusted"]:
        last["result"] = _quoted(last["result"])
    values: Json = {
        "fire_time": _local(task, due_at),
        "timezone": task["timezone"],
        "last": last,
        "input": task["input"],
        "context": task["context_data"],
    }
    try:
        return clean_text(render_instructions(task["prompt"], values))
    except RunFailed as error:
        raise RunFailed(f"the prompt can't be rendered: {error.__cause__}") from error


def _quoted(result: str) -> str:
    """A stranger's text stays data within the prompt: escaped, in an element that it can't close."""
    return structured("untrusted_result", result)["content"]


def data_of(task: Row, due_at: datetime) -> Json | None:
    """The structured data the model gets beside the prompt."""
    given = given_with(task)
    return {**_fire(task, due_at), **given} if task["task_type"] == "scheduled" else given or None


def _fire(task: Row, due_at: datetime) -> Json:
    """When it was due, how the last start ended and what was last reported, and how those before it ended."""
    previous = {**_last(task), "trusted": task["told_is_trusted"]}
    return {
        "due_at": due_at.isoformat(timespec="seconds"),
        "local": _local(task, due_at),
        "timezone": task["timezone"],
        "previous": previous if task["last_run_id"] else None,
        "earlier": task["earlier"],
    }


def _last(task: Row) -> Json:
    """How the last start ended, and the last report: what the last run that had something to tell has said."""
    ended: datetime | None = task["last_finished_at"]
    return {
        "outcome": task["last_outcome"],
        "finished_at": ended.isoformat(timespec="seconds") if ended else None,
        "result": (task["told_result"] or "")[:EXCERPT] or None,
    }


def _local(task: Row, due_at: datetime) -> str:
    return due_at.astimezone(cron.zone(task["timezone"])).isoformat(timespec="seconds")
