"""Text of a message in the making: deltas, and the snapshot they add up to."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, Self
from uuid import UUID

from app.messages import Json

Kind = Literal["text", "thinking"]


@dataclass(frozen=True)
class Delta:
    """A piece of a message in the making, or (with `whole`) all of one part so far.

    Attributes:
        conversation_id: Whose message.
        run_id: Which run speaks.
        seq: The number the message will have.
        fence: The claim that speaks; a higher one drops what a lower one said.
        part: Index of the part in the message.
        kind: Text or thinking.
        offset: Code points of the part that came before.
        text: The piece.
        whole: Whether the piece replaces the part.
    """

    conversation_id: UUID
    run_id: UUID
    seq: int
    fence: int
    part: int
    kind: Kind
    offset: int
    text: str
    whole: bool = False

    @property
    def event(self) -> str:
        """The SSE event name."""
        return "text.snapshot" if self.whole else f"{self.kind}.delta"

    @property
    def data(self) -> Json:
        """The SSE data."""
        place = {
            "run_id": str(self.run_id),
            "seq": self.seq,
            "part": self.part,
            "fence": self.fence,
            "offset": self.offset,
        }
        return place | ({"text": self.text, "kind": self.kind} if self.whole else {"delta": self.text})

    def record(self) -> Json:
        """The delta as it travels."""
        return {
            "conversation_id": str(self.conversation_id),
            "run_id": str(self.run_id),
            "seq": self.seq,
            "fence": self.fence,
            "part": self.part,
            "kind": self.kind,
            "offset": self.offset,
            "text": self.text,
            "whole": self.whole,
        }

    @classmethod
    def of(cls, record: Json) -> Self:
        """The delta of a travelled record."""
        return cls(
            conversation_id=UUID(record["conversation_id"]),
            run_id=UUID(record["run_id"]),
            seq=record["seq"],
            fence=record["fence"],
            part=record["part"],
            kind=record["kind"],
            offset=record["offset"],
            text=record["text"],
            whole=record["whole"],
        )


@dataclass(eq=False)
class LiveText:
    """What one claim has said so far of one message.

    Attributes:
        run_id: Which run speaks.
        seq: The number the message will have.
        fence: The claim that speaks.
        parts: Per part, its last delta with the whole text so far.
        length: Entries of the Redis list written so far.
    """

    run_id: UUID
    seq: int
    fence: int
    parts: dict[int, Delta] = field(default_factory=dict[int, Delta])
    length: int = 0

    def continues(self, delta: Delta) -> bool:
        """Whether the delta belongs to this message and claim."""
        return (self.run_id, self.seq, self.fence) == (delta.run_id, delta.seq, delta.fence)

    def add(self, delta: Delta) -> None:
        """Take a piece in; one whose beginning is missing waits for a whole."""
        so_far = self.parts.get(delta.part)
        if delta.whole or (so_far is None and delta.offset == 0):
            self.parts[delta.part] = replace(delta, offset=0, whole=True)
        elif so_far is not None and delta.offset == len(so_far.text):
            self.parts[delta.part] = replace(so_far, text=so_far.text + delta.text)

    def snapshots(self) -> list[Delta]:
        """One whole per part."""
        return [self.parts[part] for part in sorted(self.parts)]


def assemble(deltas: Iterable[Delta]) -> list[Delta]:
    """The snapshots that a list of deltas adds up to; only the newest message and claim count."""
    found: LiveText | None = None
    for delta in deltas:
        if found is None or (delta.seq, delta.fence) > (found.seq, found.fence):
            found = LiveText(delta.run_id, delta.seq, delta.fence)
        if found.continues(delta):
            found.add(delta)
    return found.snapshots() if found else []
