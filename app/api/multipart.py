"""Forms with files, `multipart/form-data`: read whole, for the body's size is limited before."""

import asyncio
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP

from fastapi import Request

from app.api.strict import check_text
from app.errors import MalformedBody, UnsupportedMediaType

MAX_PARTS = 20


@dataclass(frozen=True)
class Part:
    """One field of a form."""

    filename: str | None
    media_type: str | None
    content: bytes

    def text(self, name: str) -> str:
        """What the field says.

        Raises:
            MalformedBody: naming the field, when it is no clean text.
        """
        try:
            text = self.content.decode()
        except UnicodeDecodeError as error:
            raise MalformedBody(f"the field {name[:100]!r} is not UTF-8") from error
        check_text(text, name)
        return text


def is_form(content_type: str) -> bool:
    """Whether a Content-Type is that of a form with files."""
    return content_type.partition(";")[0].strip().lower() == "multipart/form-data"


async def read_form(request: Request) -> dict[str, Part]:
    """The fields of a form by name.

    Raises:
        UnsupportedMediaType: when the body is no such form.
        MalformedBody: when it can't be read.
    """
    content_type = request.headers.get("content-type", "")
    if not is_form(content_type):
        raise UnsupportedMediaType("the body must be multipart/form-data")
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1")
    return await asyncio.to_thread(_fields, head + await request.body())


def _fields(content: bytes) -> dict[str, Part]:
    message = BytesParser(EmailMessage, policy=HTTP).parsebytes(content)
    if not message.is_multipart() or message.defects:
        raise MalformedBody("the body is not a form with the boundary that its content type names")
    parts = list(message.iter_parts())
    if len(parts) > MAX_PARTS:
        raise MalformedBody(f"the form has more than {MAX_PARTS} fields")
    return dict(_named(part) for part in parts if isinstance(part, EmailMessage))


def _named(part: EmailMessage) -> tuple[str, Part]:
    disposition = part["content-disposition"]
    name = disposition.params.get("name") if disposition and not disposition.defects else None
    content = part.get_payload(decode=True)
    if name is None or not isinstance(content, bytes):
        raise MalformedBody("each field of the form needs a Content-Disposition with its name")
    media_type = part.get_content_type().lower() if part["content-type"] else None
    return name, Part(part.get_filename(), media_type, content)
