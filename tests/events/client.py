"""The reference client: what a reader must do with a stream, as the docs tell it."""

from dataclasses import dataclass, field

from app.events import ServerEvent
from app.messages import Json

DROPS = {"run.retrying", "run.recovered", "run.queued", "run.completed", "run.failed", "run.cancelled"}


@dataclass
class Partial:
    """A part being received."""

    fence: int
    text: str = ""


@dataclass
class Client:
    """Applies the client's rule to events."""

    cursor: int = 0
    messages: dict[int, tuple[str, str]] = field(default_factory=dict)
    partials: dict[tuple[int, int], Partial] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)

    def take(self, event: ServerEvent) -> None:
        self.names.append(event.event)
        if event.id is not None:
            assert event.id > self.cursor, "an event came twice or out of order"
            self.cursor = event.id
            self.ids.append(event.id)
        if event.event == "text.delta":
            self._delta(event.data)
        elif event.event == "text.snapshot":
            self._snapshot(event.data)
        elif event.event in ("message.created", "message.completed"):
            self._message(event.data)
        elif event.event in DROPS:
            self.partials.clear()
        elif event.event == "stream.reset":
            self.cursor = 0

    def _message(self, data: Json) -> None:
        seq = data["message_seq"]
        self.messages[seq] = (data["role"], data["text"])
        self.partials = {key: part for key, part in self.partials.items() if key[0] != seq}

    def _part(self, data: Json) -> Partial | None:
        key = (data["seq"], data["part"])
        if data["seq"] in self.messages:
            return None
        part = self.partials.get(key)
        if part is None or part.fence < data["fence"]:
            part = self.partials[key] = Partial(data["fence"])
        return part if part.fence == data["fence"] else None

    def _delta(self, data: Json) -> None:
        part = self._part(data)
        if part is not None and data["offset"] == len(part.text):
            part.text += data["delta"]

    def _snapshot(self, data: Json) -> None:
        part = self._part(data)
        if part is not None and data["kind"] == "text":
            part.text = data["text"]

    def shown(self) -> list[str]:
        """What a person sees: finished messages, then what is being said."""
        done = [text for _, (_, text) in sorted(self.messages.items())]
        return done + [part.text for _, part in sorted(self.partials.items()) if part.text]
