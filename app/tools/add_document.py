"""add_document: keep a text so that it can be found later."""

from typing import Any

from pydantic import Field

from app.errors import InvalidArguments, InvalidRequest
from app.knowledge.documents import MAX_TITLE
from app.tools.tool import Arguments, Risk, Tool, ToolContext, parameters_of, validated

MAX_TEXT = 200_000


class AddDocument(Arguments):
    """The arguments of `add_document`."""

    title: str = Field(min_length=1, max_length=MAX_TITLE, description="What it is called when it is cited.")
    text: str = Field(min_length=1, max_length=MAX_TEXT, description="The text; headings as in Markdown.")
    metadata: dict[str, Any] = Field(
        default_factory=dict[str, Any], description="Names with plain values, by which searches can filter."
    )


async def add(context: ToolContext, arguments: AddDocument) -> dict[str, Any]:
    """Keep the text; a repeat after a crash keeps it once."""
    try:
        added = await context.documents.add(context.effect_key, arguments.title, arguments.text, arguments.metadata)
    except InvalidRequest as error:
        raise InvalidArguments(f"{error.field}: {error.detail}", field=error.field) from error
    return {"document_id": str(added.id), "title": added.title, "trusted": added.trusted}


TOOL = Tool(
    name="add_document",
    description="Keep a text among the workspace's documents, where search_documents finds it from now on.",
    parameters=parameters_of(AddDocument),
    risk=Risk.WRITE,
    idempotent=True,
    call=validated(AddDocument, add),
    timeout_seconds=20.0,
)
