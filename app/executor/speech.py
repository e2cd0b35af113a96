"""Speech: the text of a response while it is made, in pieces of a few dozen milliseconds."""

import asyncio
from dataclasses import dataclass, field, replace

from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
)
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from app.events import Bus, Delta
from app.events.live import Kind
from app.executor.load import Loaded
from app.executor.recorder import Recorder
from app.messages import clean_text

COALESCE_SECONDS = 0.025


@dataclass
class Part:
    """A part being spoken: what was sent, and what was not yet."""

    kind: Kind
    sent: int = 0
    waiting: list[str] = field(default_factory=list[str])


class Speech:
    """Hands a run's text to the live bus. Nothing here is stored or waits."""

    def __init__(self, bus: Bus, loaded: Loaded, recorder: Recorder) -> None:
        """Speak for this run."""
        self._bus = bus
        self._loaded = loaded
        self._recorder = recorder
        self._parts: dict[int, Part] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._stream: StreamedResponse | None = None

    async def hear(self, stream: StreamedResponse) -> ModelResponse:
        """Speak a response while it is made; answers the whole of it."""
        self._parts = {}
        self._stream = stream
        async for event in stream:
            if isinstance(event, PartStartEvent):
                self._begin(event)
            elif isinstance(event, PartDeltaEvent):
                self._go_on(event)
        self.flush()
        self._stream = None
        return stream.get()

    def unfinished(self) -> list[ModelMessage]:
        """What there is of a response that was stopped before its end."""
        return [replace(self._stream.get(), state="interrupted")] if self._stream else []

    def _begin(self, event: PartStartEvent) -> None:
        if isinstance(event.part, TextPart):
            self._parts[event.index] = Part("text")
            self._say(event.index, event.part.content)
        elif isinstance(event.part, ThinkingPart):
            self._parts[event.index] = Part("thinking")
            self._say(event.index, event.part.content)

    def _go_on(self, event: PartDeltaEvent) -> None:
        if isinstance(event.delta, TextPartDelta | ThinkingPartDelta) and event.index in self._parts:
            self._say(event.index, event.delta.content_delta or "")

    def _say(self, index: int, text: str) -> None:
        """The first words go out at once, the rest in pieces."""
        if not text:
            return
        self._parts[index].waiting.append(text)
        if self._timer is None:
            self.flush()
            self._timer = asyncio.get_running_loop().call_later(COALESCE_SECONDS, self._flush_on_time)

    def _flush_on_time(self) -> None:
        self._timer = None
        if any(part.waiting for part in self._parts.values()):
            self.flush()
            self._timer = asyncio.get_running_loop().call_later(COALESCE_SECONDS, self._flush_on_time)

    def flush(self) -> None:
        """Send what waits."""
        for index, part in self._parts.items():
            if part.waiting:
                text = clean_text("".join(part.waiting))
                part.waiting.clear()
                self._bus.stream(
                    Delta(
                        conversation_id=self._loaded.conversation_id,
                        run_id=self._loaded.run_id,
                        seq=self._recorder.message_seq + 1,
                        fence=self._loaded.fence,
                        part=index,
                        kind=part.kind,
                        offset=part.sent,
                        text=text,
                    )
                )
                part.sent += len(text)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer:
            self._timer.cancel()


class Speaking(WrapperModel):
    """A model whose responses are spoken while they are made.

    It streams below the library's agent loop: streaming through the loop costs more than twice as much.
    """

    def __init__(self, wrapped: Model, speech: Speech) -> None:
        """Speak for this model."""
        super().__init__(wrapped)
        self._speech = speech

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Ask for a stream and answer the whole."""
        async with self.wrapped.request_stream(messages, model_settings, model_request_parameters) as stream:
            return await self._speech.hear(stream)
