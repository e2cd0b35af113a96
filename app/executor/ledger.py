"""The ledger of one run: which calls the last response asked for, where each stands, and what to write of it.

It decides and writes nothing; the recorder commits what it answers.
"""

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid5

from pydantic_ai.messages import ModelResponse

from app.errors import LimitReached
from app.events import EventType, NewEvent
from app.executor.load import Loaded
from app.messages import Json, arguments_of, clean_text, clean_value, parts_of, tool_calls_of
from app.runs import CallRecord, Usage, Write
from app.tools import Risk, Tool

# Names a tool call for ever: conversation, number of the response that asked for it, index of the call in it, and for
# a call that the code of that call made its number there.
EFFECTS = UUID("5b0c0f0e-6a53-5f0e-9d53-6a7e1c2b9f10")


@dataclass(frozen=True)
class Place:
    """Where a tool call stands: its effect key."""

    conversation_id: UUID
    message_seq: int
    call_index: int
    sub_index: int = 0

    @property
    def subject(self) -> str:
        """How an approval names the call."""
        within = f":{self.sub_index}" if self.sub_index else ""
        return f"{self.message_seq}:{self.call_index}{within}"

    @property
    def effect_key(self) -> UUID:
        """The UUIDv5 that the tool receives."""
        return uuid5(EFFECTS, f"{self.conversation_id}:{self.subject}")


@dataclass
class Call:
    """A tool call of the last response, as the ledger has it.

    Attributes:
        place: Its effect key.
        record: Its row.
        recovered: Whether an earlier claim had written the row.
        parent: The call whose code made it.
        earlier: Rows of calls that its code made before a recovery and has not made again yet.
        made: How many rows its code's calls have.
    """

    place: Place
    record: CallRecord
    recovered: bool = False
    parent: "Call | None" = None
    earlier: list[Json] = field(default_factory=list[Json])
    made: int = 0


class Ledger:
    """The calls of a claimed run's last response."""

    def __init__(self, loaded: Loaded, tools: dict[str, Tool]) -> None:
        """Begin where the loaded rows end.

        Args:
            loaded: The run and its rows.
            tools: By name; what a call's row says about risk and repetition.
        """
        self._loaded = loaded
        self._tools = tools
        self._versions = {each["name"]: each["version"] for each in loaded.registered_tools}
        self._asked: int = loaded.used["tool_calls"]  # Calls asked for so far, however they ended.
        self.calls: dict[str, Call] = self._recovered()

    def _recovered(self) -> dict[str, Call]:
        last = next(
            (message for message in reversed(self._loaded.messages) if message["body"].get("kind") == "response"), None
        )
        if last is None:
            return {}
        rows = {(row["call_index"], row["sub_index"]): row for row in self._loaded.calls}
        found: dict[str, Call] = {}
        for index, part in enumerate(tool_calls_of(last["body"])):
            row = rows.get((index, 0))
            if row is not None and row["message_seq"] == last["seq"]:
                place = Place(self._loaded.conversation_id, last["seq"], index)
                record = self._record(part["tool_call_id"], part["tool"], part["arguments"], place, row["state"])
                record = replace(record, result=row["result"], error=row["error"])
                earlier = [row for (of, sub), row in rows.items() if of == index and sub]
                made = max((row["sub_index"] for row in earlier), default=0)
                found[part["tool_call_id"]] = Call(place, record, recovered=True, earlier=earlier, made=made)
        return found

    def _record(self, call_id: str, name: str, arguments: Any, place: Place, state: str) -> CallRecord:
        tool = self._tools.get(name)
        return CallRecord(
            tool_call_id=call_id,
            tool=name,
            arguments=arguments,
            args_sha256=sha256_of(arguments),
            state=state,
            idempotent=tool.idempotent if tool else True,
            risk=str(tool.risk if tool else Risk.READ),
            message_seq=place.message_seq,
            call_index=place.call_index,
            sub_index=place.sub_index,
            tool_version=self._versions.get(name),
        )

    # --- calls begin -----------------------------------------------------------------------------------

    def add(self, write: Write, response: ModelResponse, message_seq: int, output_tools: set[str]) -> None:
        """Rows of a response's calls; those that may be repeated start with it, in the same commit.

        Args:
            write: Gets the rows; the response is its last message.
            response: What the model answered.
            message_seq: The number that the response will have.
            output_tools: Tools of the library's own, which have no rows.
        """
        message = len(write.messages) - 1
        self.calls = {}
        for index, part in enumerate(response.tool_calls):
            if part.tool_name in output_tools:
                continue
            place = Place(self._loaded.conversation_id, message_seq, index)
            arguments = clean_value(arguments_of(part.args))
            record = self._record(
                part.tool_call_id, part.tool_name, arguments, place, self._first_state(part.tool_name)
            )
            self.calls[part.tool_call_id] = Call(place, record)
            write.calls.append(replace(record, message=message, message_seq=None))
            if record.state == "started":
                shown = started_fields(record)
                write.events.append(NewEvent(EventType.TOOL_STARTED, message=message, call_index=index, shown=shown))
        self._asked += len(write.calls)

    def check(self) -> None:
        """Raises LimitReached when more calls are asked for than the agent may make; failed ones count like others."""
        limit = self._loaded.spec.limits.tool_calls
        if limit is not None and self._asked > limit:
            raise LimitReached(f"the run asks for its tool call {self._asked}; its agent's limit is {limit}")

    def within(self, parent: Call, name: str, arguments: Json) -> tuple[Call, Write | None]:
        """A call that the code of a call makes, and what to write of it.

        Code that runs again after a recovery makes its calls again, maybe in another order: the same call of the same
        tool gets the row it had, and nothing is written.

        Raises:
            LimitReached: when its agent may make no more calls.
        """
        sha256 = sha256_of(arguments)
        row = next((row for row in parent.earlier if (row["tool"], self._called_with(row)) == (name, sha256)), None)
        if row is not None:
            parent.earlier.remove(row)
            place = replace(parent.place, sub_index=row["sub_index"])
            record = self._record(row["tool_call_id"], name, arguments, place, row["state"])
            record = replace(record, result=row["result"], error=row["error"])
            return Call(place, record, recovered=True, parent=parent), None
        self._asked += 1
        self.check()
        parent.made += 1
        place = replace(parent.place, sub_index=parent.made)
        call_id = f"{parent.record.tool_call_id}.{place.sub_index}"
        call = Call(place, self._record(call_id, name, arguments, place, self._first_state(name)), parent=parent)
        started = call.record.state == "started"
        return call, Write(calls=[call.record], events=[self._event(call, EventType.TOOL_STARTED)] if started else [])

    def _called_with(self, row: Json) -> str:
        """The hash of the arguments that the code gave; a person may have put others in their place."""
        subject = f"{row['message_seq']}:{row['call_index']}:{row['sub_index']}"
        asked = [
            each["args_sha256"]
            for each in self._loaded.decisions
            if (each["kind"], each["subject"]) == ("tool", subject)
        ]
        return asked[-1] if asked else row["args_sha256"]

    def _first_state(self, name: str) -> str:
        tool = self._tools.get(name)
        return "started" if tool is None or tool.idempotent else "proposed"

    def start(self, call: Call) -> Write:
        """A call that must not run twice begins."""
        call.record = replace(call.record, state="started")
        return Write(calls=[call.record], events=[self._event(call, EventType.TOOL_STARTED)])

    # --- calls end ---------------------------------------------------------------------------------------

    def finish(self, call: Call, record: CallRecord, usage: Usage) -> Write:
        """A call has ended, with what it cost: done, failed, denied or unknown."""
        call.record = record = replace(record, cost_usd=usage.cost_usd)
        return Write(calls=[record], events=[self._ended(call)], usage=usage)

    def close(self, write: Write, body: Json) -> None:
        """Calls that the library answered by itself (bad arguments, unknown tool) never ran: close their rows."""
        for part in parts_of(body):
            call = self.calls.get(part.get("tool_call_id") or "")
            if part["type"] == "tool_result" and call and call.record.state in ("proposed", "started"):
                said = part["result"] if isinstance(part["result"], str) else json.dumps(part["result"])
                call.record = replace(call.record, state="failed", error=clean_text(said, 2000))
                write.calls.append(call.record)
                write.events.append(self._ended(call))

    def _ended(self, call: Call) -> NewEvent:
        return self._event(call, EventType.TOOL_COMPLETED if call.record.state == "done" else EventType.TOOL_FAILED)

    def _event(self, call: Call, kind: EventType) -> NewEvent:
        """An event of a call; replay takes what it shows from the row."""
        record = call.record
        shown = started_fields(record)
        if kind is not EventType.TOOL_STARTED:
            del shown["arguments"]
            done = kind is EventType.TOOL_COMPLETED
            shown |= {"result": record.result, "duration_ms": record.duration_ms} if done else {"error": record.error}
        within: Json = {}
        if call.parent is not None:
            within = {"parent_tool_call_id": call.parent.record.tool_call_id, "sub_index": call.place.sub_index}
        return NewEvent(kind, within, ref=call.place.message_seq, call_index=call.place.call_index, shown=shown)


def started_fields(record: CallRecord) -> Json:
    """What `tool.started` shows."""
    return {"tool_call_id": record.tool_call_id, "tool": record.tool, "arguments": record.arguments}


def sha256_of(value: Any) -> str:
    """The hash of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
