"""Files that come with answers: which of them are kept, and what is said of the others."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from app.answers.take import NOT_KEPT, Answer
from app.artifacts import MAX_ATTACHED, MAX_ATTACHED_BYTES, NewArtifact, checked
from app.errors import ParleyError
from app.models import new_id
from app.settings import Settings


@dataclass(frozen=True)
class File:
    """A file that came with a mail or a message."""

    name: str
    media_type: str
    content: bytes = field(repr=False)


def kept(answer: Answer, files: Iterable[File], settings: Settings) -> tuple[list[NewArtifact], list[str]]:
    """The files that may be kept, and a word about each that may not."""
    found: list[NewArtifact] = []
    left_out: list[str] = []
    for number, file in enumerate(files, start=1):
        name = file_name(file.name) or f"attachment-{number}"
        try:
            artifact = _artifact(answer, name, file, settings)
            if len(found) == MAX_ATTACHED or _size(found) + len(file.content) > MAX_ATTACHED_BYTES:
                left_out.append(NOT_KEPT.format(name, "there were too many"))
            else:
                found.append(artifact)
        except ParleyError as error:
            left_out.append(NOT_KEPT.format(name, error.detail))
    return found, left_out


def file_name(given: str) -> str:
    """The last part of a name, of characters that can be printed; nothing of it can lead elsewhere."""
    last = given.replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in last if character.isprintable()).strip(". ")[:200]


def _artifact(answer: Answer, name: str, file: File, settings: Settings) -> NewArtifact:
    owner: dict[str, UUID | None] = {"conversation_id": answer.conversation_id, "principal_id": answer.principal_id}
    return checked(NewArtifact(new_id(), answer.workspace_id, name, file.media_type, file.content, **owner), settings)


def _size(files: Iterable[NewArtifact]) -> int:
    return sum(len(file.content) for file in files)
