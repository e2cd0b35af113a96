"""`parley chat`: talk with an agent, the answer as it is written."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.output import Output
from app.cli.session import Attach, Session, at, with_server
from app.cli.watch import Transcript, finish

if TYPE_CHECKING:
    from app.client import Event

LEAVE = ("/quit", "/exit", "/q")


@with_server
def chat(
    session: Session,
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name or id.")] = "assistant",
    message: Annotated[str | None, typer.Argument(metavar="MESSAGE", help="Say this alone and leave.")] = None,
    conversation: Annotated[
        str | None, typer.Option("--conversation", metavar="ID", help="Go on with this conversation.")
    ] = None,
    attach: Attach = None,
) -> None:
    """Chat with an agent; each line is a message.

    Ctrl-C stops an answer, Ctrl-D leaves. With MESSAGE: one message, one answer; the exit code is 0 when it
    completed and 1 when not. Files of --attach go with the first message.
    """
    if message is not None:
        return _once(session, agent, message, conversation, session.attached(attach))
    conversation = conversation or _begin(session, agent)
    files = session.attached(attach)
    for line in _lines(session.out):
        _answered(session, at("conversations", conversation, "messages"), {"message": line, **files})
        files = {}
    session.out.hint("go on later", f"chat --conversation {conversation}")


def _once(session: Session, agent: str, message: str, conversation: str | None, files: dict[str, Any]) -> None:
    path = at("conversations", conversation, "messages") if conversation else "/runs"
    body = {"message": message, **files} | ({} if conversation else {"agent": agent})
    run_id = _answered(session, path, body)
    if run_id is None:
        raise typer.Exit(130)
    run = session.client.get(at("runs", run_id))
    if session.out.as_json:
        return finish(session, run)
    session.out.hint("go on", f"chat --conversation {run['conversation_id']}")
    if run["state"] != "completed":
        raise typer.Exit(1)


def _begin(session: Session, agent: str) -> str:
    known = session.client.get(at("agents", agent))
    made = session.client.post("/conversations", {"pattern_type": "chatbot", "agent": agent})
    model = known["model"] or session.client.get("/healthz")["model"]
    label = "demo, the offline demo model" if model == "demo" else model
    session.out.note(f"{known['name']} ({label}); /quit or Ctrl-D leaves, Ctrl-C stops an answer")
    return made["id"]


def _lines(out: Output) -> Iterator[str]:
    """What the person says, line by line."""
    if sys.stdin.isatty():
        # Loading it gives input() arrow keys and a history.
        with suppress(ImportError):
            import_module("readline")
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if line in LEAVE:
            return
        if line:
            yield line


def _answered(session: Session, path: str, body: dict[str, Any]) -> str | None:
    """Say something and print the answer as it comes; the id of the run that gave it."""
    run_id: str | None = None
    transcript = Transcript(session.out)
    events = session.client.stream(path, body)
    try:
        for event in events:
            run_id = event.data.get("run_id") or run_id
            _show(session.out, transcript, event)
    except KeyboardInterrupt:
        transcript.end_line()
        if run_id:
            session.client.post(at("runs", run_id, "cancel"))
        session.out.note("stopped")
    transcript.end_line()
    return run_id


def _show(out: Output, transcript: Transcript, event: "Event") -> None:
    if not out.as_json:
        transcript.show(event)
