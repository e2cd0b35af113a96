"""Runs as a person watches them: text as it is written, tools as they are called, progress while waiting."""

import json
from typing import TYPE_CHECKING, Any

import typer

from app.cli.output import Output, shown, value_at
from app.cli.session import Session, at

if TYPE_CHECKING:
    from app.client import Event

Json = dict[str, Any]

# Whatever follows one of these is said anew.
ANEW = ("run.queued", "run.retrying", "run.recovered")
SHOWN_CHARACTERS = 300


class LiveText:
    """An answer in the making: turns events into what is to be printed next.

    Per message, a higher fence drops what was said; a delta must fit its offset; a snapshot replaces its
    part; the completed message has the last word.
    """

    def __init__(self) -> None:
        """Begin with nothing said."""
        self._fence = -1
        self._parts: dict[int, str] = {}
        self._printed = ""

    def take(self, event: "Event") -> str:
        """What to print after this event; empty most of the time."""
        data = event.data
        if event.name == "text.delta":
            return self._piece(data, data["offset"], data["delta"])
        if event.name == "text.snapshot" and data.get("kind", "text") == "text":
            return self._piece(data, 0, data["text"])
        if event.name == "message.completed" and data.get("role") == "assistant":
            said = self._say(data.get("text") or "")
            self._forget()
            return said
        if event.name in ANEW:
            said = "\n" if self._printed else ""
            self._forget()
            return said
        return ""

    def _piece(self, data: Json, offset: int, text: str) -> str:
        if data["fence"] < self._fence:
            return ""
        if data["fence"] > self._fence:
            self._fence, self._parts = data["fence"], {}
        so_far = self._parts.get(data["part"], "")
        if offset == len(so_far):
            self._parts[data["part"]] = so_far + text
        elif offset == 0:
            self._parts[data["part"]] = text
        else:
            return ""
        return self._say("\n\n".join(self._parts[part] for part in sorted(self._parts) if self._parts[part]))

    def _say(self, whole: str) -> str:
        """What of the whole text was not printed yet; all of it, on a new line, when it has become another."""
        printed, self._printed = self._printed, whole
        if whole.startswith(printed):
            return whole[len(printed) :]
        return f"\n{whole}" if whole else ""

    def _forget(self) -> None:
        self._fence, self._parts, self._printed = -1, {}, ""


class Transcript:
    """Prints a run as it happens."""

    def __init__(self, out: Output, *, every: bool = False) -> None:
        """Say where and how much.

        Args:
            out: The answer goes to its standard output, the rest beside it.
            every: Every event of the log gets a line of the result.
        """
        self._out = out
        self._every = every
        self._text = LiveText()
        self._mid_line = False

    def show(self, event: "Event") -> None:
        """Print what this event adds."""
        if said := self._text.take(event):
            self._out.text(said, end="")
            self._mid_line = not said.endswith("\n")
        if self._every and "at" in event.data:
            self.end_line()
            self._out.line(log_line(event), style="dim")
        elif line := remark(event):
            self.end_line()
            self._out.note(line, style="red" if event.name.endswith("failed") else "dim")
        elif event.name == "message.completed":
            self.end_line()

    def end_line(self) -> None:
        """End the line that is being written, if one is."""
        if self._mid_line:
            self._out.text("")
        self._mid_line = False


def log_line(event: "Event") -> str:
    """A durable event on one line: when, its number, its name, what it is about."""
    when = shown(event.data.get("at"))
    # The text of an answer is printed as it comes.
    told = event.data.get("role") if event.name == "message.completed" else about(event)
    return f"{when}  #{event.data.get('seq')}  {event.name}  {told or ''}".rstrip()


def remark(event: "Event") -> str | None:
    """What a reader of the answer wants to know beside it."""
    data = event.data
    if event.name in ("tool.started", "tool.completed", "tool.failed"):
        return f"  {event.name.partition('.')[2]} {about(event)}"
    if event.name in ("run.progress", "run.retrying", "run.recovered", "run.failed"):
        return f"  {phrase(event)}"
    return "  cancelled" if event.name == "run.cancelled" and not data.get("quiet") else None


def about(event: "Event") -> str:
    """What an event is about, in few words."""
    data = event.data
    if event.name.startswith("tool."):
        told = next((data[name] for name in ("error", "result", "arguments") if data.get(name) is not None), "")
        return _short(f"{data.get('tool')} {_flat(told)}")
    told = [data.get(name) for name in ("role", "text", "result", "error", "url", "plan", "waiting_for")]
    return _short(" ".join(_flat(each) for each in told if each))


def phrase(event: "Event") -> str | None:
    """What is going on after this event; None when that is as before."""
    data = event.data
    match event.name:
        case "run.queued":
            return "queued"
        case "run.started" | "tool.completed" | "message.completed":
            return "working"
        case "text.delta" | "text.snapshot":
            return "writing"
        case "tool.started":
            return f"calling {data.get('tool')}"
        case "tool.failed":
            return f"{data.get('tool')} failed: {_short(_flat(data.get('error')))}"
        case "run.progress":
            count = f" ({data.get('done')} of {data['total']})" if data.get("total") else ""
            return f"{data.get('text') or 'working'}{count}"
        case "run.retrying":
            return f"next try at {shown(data.get('at'))}: {_flat(data.get('error'))}"
        case "run.recovered":
            return "taken over after its process died"
        case "run.failed":
            return f"failed: {_flat(data.get('error'))}"
        case _:
            return None


def _flat(value: Any) -> str:
    if isinstance(value, dict) and "message" in value and "code" in value:
        return f"{value['message']} ({value['code']})"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]}…"


def wait_for(session: Session, run_id: str) -> None:
    """Show a run's progress until it ends, then its result; the exit code is 0 when it completed, else 1."""
    try:
        with session.out.progress("queued") as progress:
            for event in session.client.follow(at("runs", run_id, "events")):
                if said := phrase(event):
                    progress.say(_why_queued(session, run_id) if said == "queued" else said)
    except KeyboardInterrupt:
        session.out.hint("it goes on", f"runs tail {run_id}")
        raise
    finish(session, session.client.get(at("runs", run_id)))


def _why_queued(session: Session, run_id: str) -> str:
    reason = session.client.get(at("runs", run_id)).get("reason")
    return f"queued: {reason}" if reason else "queued"


def finish(session: Session, run: Json) -> None:
    """Print a run's end; anything but `completed` is exit code 1."""
    completed = run["state"] == "completed"
    if session.out.as_json:
        session.out.json(run)
    elif completed:
        session.out.text(run.get("result") or "")
    else:
        why = value_at(run, "error.message") or run.get("reason") or "no reason was recorded"
        session.out.note(f"{run['state']}: {why}", style="red")
        session.out.hint("more", f"runs explain {run['id']}")
    if not completed:
        raise typer.Exit(1)
