"""Files that messages name, as a run's model gets them: text as text, images and PDF as they are, others in words.

A stored message holds a reference only. The content is put in beside it for the model, by each claim anew, so it is in
no row but the artifact's own; a file that was deleted meanwhile is told to be gone.
"""

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from pydantic_ai.models import Model
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.profiles import ModelProfile

from app.db import Database
from app.executor.load import Loaded
from app.messages import Json, file_of, files_of

MAX_TEXT = 100_000  # Characters of one file.
MAX_TEXTS = 400_000  # Characters of all files of a history, the newest first.
# Bytes of all files of a history, the newest first. Base64 makes a third more of them, and the strictest provider takes
# requests of 32 MB (https://platform.claude.com/docs/en/api/overview#request-size-limits).
MAX_BYTES = 20_000_000

CONTENTS = "select id, content from artifacts where workspace_id = $1 and id = any($2::uuid[])"

# How files begin that models look at: what was said of a file when it was uploaded may be wrong.
BEGINNINGS = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"%PDF-"), "application/pdf"),
)
NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
# Nothing in a file may end the element it stands in, nor begin one like it.
TAG = re.compile(r"<(?=\s*/?\s*attachment)", re.IGNORECASE)

GONE = "[The file is not there any more: it was deleted.]"
LEFT_OUT = "[The file's content is left out: the files of this conversation are too much together.]"
OPAQUE = "[The file's content is not shown: it is no text, image or PDF.]"


@dataclass
class Room:
    """What the files of a history may still take."""

    characters: int = MAX_TEXTS
    bytes: int = MAX_BYTES


class Files:
    """Puts the contents of files into messages, for one run's model."""

    def __init__(self, database: Database, workspace_id: UUID, model: Model) -> None:
        """Read the workspace's artifacts, as far as this model takes them."""
        self._database = database
        self._workspace_id = workspace_id
        self._models = model.models if isinstance(model, FallbackModel) else [model]

    async def with_contents(self, loaded: Loaded) -> Loaded:
        """A loaded run whose messages hold the files they name."""
        history = loaded.history
        filled = await self.put_in(history)
        if filled is history:
            return loaded
        pairs = zip(loaded.messages, filled, strict=True)
        return replace(loaded, messages=[{**message, "body": body} for message, body in pairs])

    async def put_in(self, bodies: list[Json]) -> list[Json]:
        """Bodies of messages with the files they name; costs one statement, and none where they name no file."""
        named = [file for body in bodies for file in files_of(body)]
        if not named:
            return bodies
        contents = await self._contents(named)
        room = Room(bytes=MAX_BYTES)
        return [self._filled(body, contents, room) for body in reversed(bodies)][::-1]

    async def _contents(self, named: Sequence[Json]) -> dict[str, bytes | None]:
        """The newest files' contents as far as there is room; None is a file that was deleted."""
        wanted: dict[str, bytes | None] = {}
        size = 0
        for file in reversed(named):
            size += 0 if file["artifact_id"] in wanted else file["size"]
            if size <= MAX_BYTES:
                wanted[file["artifact_id"]] = None
        ids = [UUID(artifact_id) for artifact_id in wanted]
        rows = await self._database.fetch(CONTENTS, self._workspace_id, ids)
        return wanted | {str(row["id"]): row["content"] for row in rows}

    def _filled(self, body: Json, contents: dict[str, bytes | None], room: Room) -> Json:
        if not files_of(body):
            return body
        return {**body, "parts": [self._filled_part(part, contents, room) for part in body["parts"]]}

    def _filled_part(self, part: Json, contents: dict[str, bytes | None], room: Room) -> Json:
        if not isinstance(part.get("content"), list):
            return part
        items = [each for item in part["content"] for each in self._items(item, contents, room)]
        return {**part, "content": items}

    def _items(self, item: Any, contents: dict[str, bytes | None], room: Room) -> Iterator[Any]:
        """The item itself; after a reference to a file, what the model gets of the file."""
        yield item
        file = file_of(item)
        if file is None:
            return
        artifact_id = file["artifact_id"]
        if artifact_id not in contents:
            yield LEFT_OUT
        elif (content := contents[artifact_id]) is None:
            yield GONE
        else:
            yield self._shown(content, room)

    def _shown(self, content: bytes, room: Room) -> Any:
        media_type = media_type_of(content)
        if media_type is None:
            return _text(content, room)
        if not all(takes(model.profile, media_type) for model in self._models):
            return f"[The file's content is not shown: this model takes no {media_type}.]"
        room.bytes -= len(content)
        return {"kind": "binary", "data": content, "media_type": media_type} if room.bytes >= 0 else LEFT_OUT


def media_type_of(content: bytes) -> str | None:
    """The media type of an image or a PDF, by how it begins."""
    return next((media_type for beginning, media_type in BEGINNINGS if beginning.match(content)), None)


def takes(profile: ModelProfile, media_type: str) -> bool:
    """Whether a model takes files of this type; one that nothing is known of is given them."""
    if media_type.startswith("image/"):
        return profile.get("supports_image_input", True)
    documents = profile.get("supported_document_media_types")
    return profile.get("supports_document_input", True) and (documents is None or media_type in documents)


def _text(content: bytes, room: Room) -> str:
    """A text in an element that it can't leave, cut where it is long; in words, what is no text."""
    text = decoded(content)
    if text is None:
        return OPAQUE
    length = min(MAX_TEXT, room.characters)
    shown = text[:length]
    room.characters -= len(shown)
    cut = f"\n[cut: the file has {len(content)} bytes]" if len(text) > length else ""
    return f"<attachment_text>\n{TAG.sub('&lt;', shown)}\n</attachment_text>{cut}"


def decoded(content: bytes) -> str | None:
    """The beginning of a file as text, a little more of it than is shown; None when it is none."""
    most = 4 * (MAX_TEXT + 1)  # A character has at most four bytes in UTF-8.
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(content[:most], final=len(content) <= most)
    except UnicodeDecodeError:
        return None
    return None if NO_TEXT.search(text) else text
