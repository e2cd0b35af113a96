"""What a tool is handed in tests: real settings and egress, and a record of what it asked for."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from app.egress import Egress
from app.settings import Settings
from app.tools import Tool


@dataclass
class Context:
    """A call by hand; the model answers every prompt with `answer`."""

    settings: Settings
    egress: Egress
    credentials: Any = None
    sessions: Any = None
    memories: Any = None
    documents: Any = None
    answer: str = "Paris."
    model_name: str = "test"
    asked: list[tuple[str, ...]] = field(default_factory=list)
    workspace_id: UUID = field(default_factory=uuid4)
    conversation_id: UUID | None = None
    run_id: UUID | None = None
    effect_key: UUID = field(default_factory=uuid4)
    tools: dict[str, Tool] = field(default_factory=dict)

    @classmethod
    def of(cls, **settings: object) -> "Context":
        made = Settings.of(**settings)
        return cls(made, Egress(made))

    async def progress(self, text: str, done: int | None = None, total: int | None = None) -> None:
        self.asked.append(("progress", text, str(done), str(total)))

    async def propose(self, patch: dict[str, Any]) -> None:
        self.asked.append(("propose", str(patch)))

    async def keep(self, name: str, media_type: str, content: bytes) -> dict[str, Any]:
        self.asked.append(("keep", name, media_type, str(len(content))))
        return {"artifact_id": str(self.effect_key), "name": name, "media_type": media_type, "size": len(content)}

    async def complete(self, prompt: str) -> str:
        self.asked.append(("complete", prompt))
        return self.answer

    async def notify(self, text: str, channel: str | None) -> str:
        self.asked.append(("notify", text, str(channel)))
        return "planned"

    async def call_tool(self, name: str, arguments: dict[str, Any]) -> Any:
        self.asked.append(("call_tool", name, str(arguments)))
        return await self.tools[name].call(self, arguments)

    async def schedule_task(self, prompt: str, schedule_expression: str, timezone: str) -> str:
        self.asked.append(("schedule_task", prompt, schedule_expression, timezone))
        return "stored"
