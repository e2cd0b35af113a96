"""Tools: what agents may call. A new one is one file here and one line below."""

from app.settings import Settings
from app.tools import (
    add_document,
    ask_person,
    calculator,
    chatbot,
    create_chart,
    current_time,
    describe_database,
    execute_code,
    fetch_url,
    forget,
    notify,
    propose_state,
    query_database,
    recall,
    remember,
    schedule_task,
    search_documents,
    summarizer,
    web_search,
)
from app.tools.tool import Park, ParkKind, Risk, Tool, ToolCall, ToolContext

BUILT_IN: dict[str, Tool] = {
    "calculator": calculator.TOOL,
    "current_time": current_time.TOOL,
    "web_search": web_search.TOOL,
    "fetch_url": fetch_url.TOOL,
    "chatbot": chatbot.TOOL,
    "summarizer": summarizer.TOOL,
    "execute_code": execute_code.TOOL,
    "create_chart": create_chart.TOOL,
    "describe_database": describe_database.TOOL,
    "query_database": query_database.TOOL,
    "ask_person": ask_person.TOOL,
    "notify": notify.TOOL,
    "schedule_task": schedule_task.TOOL,
    "propose_state": propose_state.TOOL,
    "search_documents": search_documents.TOOL,
    "add_document": add_document.TOOL,
    "remember": remember.TOOL,
    "recall": recall.TOOL,
    "forget": forget.TOOL,
}


def offered(settings: Settings) -> dict[str, Tool]:
    """The built-in tools that these settings make available."""
    return {name: tool for name, tool in BUILT_IN.items() if tool.available(settings)}


__all__ = ["BUILT_IN", "Park", "ParkKind", "Risk", "Tool", "ToolCall", "ToolContext", "offered"]
