"""chatbot: one stateless question to the run's model."""

from pydantic import Field

from app.tools.tool import Arguments, Risk, Tool, ToolContext, parameters_of, validated


class Question(Arguments):
    """The arguments of `chatbot`."""

    query: str = Field(min_length=1, max_length=50_000, description="The question, with all it needs to be answered.")


async def ask(context: ToolContext, arguments: Question) -> str:
    """The model's answer."""
    return await context.complete(arguments.query)


TOOL = Tool(
    name="chatbot",
    description="Ask a language model one question. It sees only this text: no history, no tools.",
    parameters=parameters_of(Question),
    risk=Risk.READ,
    idempotent=True,
    call=validated(Question, ask),
    timeout_seconds=120.0,
)
