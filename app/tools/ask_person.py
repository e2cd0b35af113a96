"""ask_person: put a question to a person and wait for the answer, for days if need be."""

from pydantic import Field

from app.tools.tool import Arguments, Park, Risk, Tool, ToolContext, parameters_of, validated


class Question(Arguments):
    """The arguments of `ask_person`."""

    question: str = Field(min_length=1, max_length=5000, description="The question, complete in itself.")


async def ask(context: ToolContext, arguments: Question) -> str:
    """Park the run; the answer becomes the call's result.

    Raises:
        Park: always.
    """
    del context
    raise Park("question", {"question": arguments.question})


TOOL = Tool(
    name="ask_person",
    description="Ask a person who follows this conversation, and wait for the answer. Use it when only a person knows.",
    parameters=parameters_of(Question),
    risk=Risk.READ,
    idempotent=True,
    call=validated(Question, ask),
)
