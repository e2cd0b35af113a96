"""What models can be asked to answer with."""

from copy import deepcopy
from typing import Any


def can_be_asked(schema: dict[str, Any]) -> bool:
    """Whether a model can be sent this schema of a structured output: its $defs are written out, and a ring has no end."""
    # The library is heavy, and most processes that read agents never ask a model.
    from pydantic_ai import StructuredDict
    from pydantic_ai.exceptions import UserError

    try:
        StructuredDict(deepcopy(schema))
    except UserError:
        return False
    return True
