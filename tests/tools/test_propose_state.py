import pytest

from app.errors import InvalidArguments
from app.tools import BUILT_IN
from tests.tools.context import Context

TOOL = BUILT_IN["propose_state"]


async def test_the_application_is_handed_the_patch() -> None:
    context = Context.of()
    assert await TOOL.call(context, {"patch": {"status": "done"}}) == "Proposed to the application."
    assert context.asked == [("propose", "{'status': 'done'}")]


@pytest.mark.parametrize("arguments", [{}, {"patch": {}}, {"patch": "done"}])
async def test_a_patch_must_change_something(arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidArguments):
        await TOOL.call(Context.of(), arguments)
