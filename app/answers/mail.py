"""Answers by mail, as a mail provider posts them: Postmark's form, and one of no provider."""

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Self, cast

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from app.answers.files import File
from app.answers.headers import addresses_in, collected, dmarc_results, mailbox_of, why_automatic
from app.errors import InvalidRequest
from app.wording import said

MAX_MESSAGE_ID = 500
MAX_SUBJECT = 300


def _named(value: object) -> object:
    """Headers as a list of names and values, from that, or from an object."""
    if isinstance(value, dict):
        return [{"name": name, "value": text} for name, text in cast("dict[str, Any]", value).items()]
    return value


class Header(BaseModel):
    """A header of the mail."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(max_length=200, validation_alias=AliasChoices("name", "Name"))
    value: str = Field(max_length=20_000, validation_alias=AliasChoices("value", "Value"))


class Attached(BaseModel):
    """A file of the mail."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field("", max_length=1000)
    content_type: str = Field("application/octet-stream", max_length=200)
    content: str = Field(description="Base64.")


# With something in it that can be seen: of two that are blank the second would be taken for a repeat.
MessageId = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_MESSAGE_ID, pattern="[!-~]")
]


class NeutralMail(BaseModel):
    """A mail in the form of no provider."""

    model_config = ConfigDict(
        extra="forbid",
        populate_by_name=True,
        json_schema_extra={
            "examples": [
                {
                    "from": "Ann <ann@example.com>",
                    "to": ["parley+k3v…@example.org"],
                    "subject": "Re: Completed: Morning report",
                    "text": "Add the totals, please.",
                    "message_id": "<1@mail.example.com>",
                    "headers": {"In-Reply-To": "<2@parley.example.org>"},
                }
            ]
        },
    )

    sender: str = Field(alias="from", max_length=1000, description="The header From.")
    to: Annotated[
        list[Annotated[str, Field(max_length=1000)]],
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    ] = Field(max_length=100, description="Whom it came in for; the reply address among them.")
    message_id: MessageId = Field(description="The header Message-ID.")
    envelope_from: str | None = Field(
        None, max_length=1000, description="The return path; empty for a bounce. Left out when it is not known."
    )
    subject: str = Field("", max_length=5000)
    text: str = Field("", description="The plain part.")
    html: str = Field("", description="The HTML part; read when there is no plain one.")
    headers: Annotated[list[Header], BeforeValidator(_named)] = Field(
        default_factory=list[Header], max_length=500, description="Names and values: an object, or a list of both."
    )
    attachments: list[Attached] = Field(default_factory=list[Attached], max_length=100)


class PostmarkAttachment(BaseModel):
    """A file in Postmark's form."""

    model_config = ConfigDict(extra="ignore")

    Name: str = Field("", max_length=1000)
    Content: str
    ContentType: str = Field("application/octet-stream", max_length=200)


class PostmarkMail(BaseModel):
    """Postmark's inbound webhook (https://postmarkapp.com/developer/webhooks/inbound-webhook)."""

    model_config = ConfigDict(extra="ignore")

    From: str = Field(max_length=1000)
    To: str = Field("", max_length=20_000)
    OriginalRecipient: str = Field("", max_length=1000)
    MessageID: MessageId
    Subject: str = Field("", max_length=5000)
    TextBody: str = ""
    HtmlBody: str = ""
    Headers: list[Header] = Field(default_factory=list[Header], max_length=500)
    Attachments: list[PostmarkAttachment] = Field(default_factory=list[PostmarkAttachment], max_length=100)

    def neutral(self) -> NeutralMail:
        """The same in the form of no provider."""
        said = {header.name.lower(): header.value for header in self.Headers}
        return NeutralMail.model_validate(
            {
                "from": self.From,
                "to": [self.OriginalRecipient, *addresses_in(self.To)[:99]],
                # Postmark's own number is no Message-ID of the mail.
                "message_id": said.get("message-id", "").strip() or self.MessageID,
                "envelope_from": said.get("return-path"),
                "subject": self.Subject,
                "text": self.TextBody,
                "html": self.HtmlBody,
                "headers": [header.model_dump() for header in self.Headers],
                "attachments": [
                    {"name": each.Name, "content_type": each.ContentType, "content": each.Content}
                    for each in self.Attachments
                ],
            }
        )


@dataclass(frozen=True)
class Mail:
    """A mail that came in.

    Attributes:
        to: The addresses it came in for.
        sender: The address of its author, plain ASCII; None when its header does not name one, and one alone.
        automatic: Why it is taken for a machine's, if it is.
        dmarc: What servers found out about its author: see `dmarc_results`.
    """

    to: tuple[str, ...]
    sender: str | None
    message_id: str
    subject: str
    text: str
    html: str
    automatic: str | None
    dmarc: tuple[str, ...] = ()
    files: tuple[File, ...] = ()

    @property
    def forged(self) -> bool:
        """Whether a server found that it is not from whom it says."""
        return "fail" in self.dmarc

    @property
    def vouched(self) -> bool:
        """Whether each server that looked found it to be from whom it says; true of a mail that says nothing of servers."""
        return all(result == "pass" for result in self.dmarc)

    @classmethod
    def of(cls, form: NeutralMail) -> Self:
        """Read a form.

        Raises:
            InvalidRequest: naming the field that can't be read.
        """
        headers, sender = collected((header.name, header.value) for header in form.headers), mailbox_of(form.sender)
        return cls(
            to=tuple(dict.fromkeys(address for each in form.to for address in addresses_in(each))),
            sender=sender,
            message_id=form.message_id,
            subject=" ".join(form.subject.split())[:MAX_SUBJECT],
            text=form.text.replace("\r\n", "\n"),
            html=form.html,
            automatic=why_automatic(headers, sender, form.envelope_from),
            dmarc=dmarc_results(headers),
            files=tuple(_files(form.attachments)),
        )


def mail_of(payload: Any) -> Mail:
    """The mail in a call of the inbound webhook.

    Raises:
        InvalidRequest: naming the field that is missing or wrong.
    """
    try:
        if isinstance(payload, dict) and "MessageID" in payload:
            return Mail.of(PostmarkMail.model_validate(payload).neutral())
        return Mail.of(NeutralMail.model_validate(payload))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise InvalidRequest(f"{place}: {said(first)}", field=place) from error


def _files(attached: Iterable[Attached]) -> Iterable[File]:
    for position, each in enumerate(attached):
        try:
            content = base64.b64decode(each.content, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidRequest("is not base64", field=f"attachments.{position}.content") from error
        yield File(each.name, each.content_type.partition(";")[0].strip().lower(), content)
