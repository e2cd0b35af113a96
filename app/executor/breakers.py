"""Circuit breakers round the requests to model providers.

A request costs nothing more while all is well: each process looks once per sweep at the few rows that failures leave,
and a request only asks what was seen. What it learns then (a failure, an answer after failures) it writes down.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelResponse, ModelResponseStreamEvent
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext

from app.db import Database
from app.errors import BreakerOpen, DatabaseUnavailable, ModelUnavailable, ParleyError
from app.models import new_id
from app.providers import Circuit
from app.runs import Breaker, breakers
from app.settings import Settings

log = structlog.stdlib.get_logger(__name__)


@dataclass
class Passage:
    """One request on its way through a breaker.

    Attributes:
        circuit: Where it goes.
        probe_id: Set when it is the one request that may be made.
        matters: Whether an answer is worth telling: the provider had failed when the request began.
        told: Whether it is known by now that the provider answers.
        stream: Its answer, while that is made.
    """

    circuit: Circuit
    probe_id: UUID | None = None
    matters: bool = False
    told: bool = False
    stream: StreamedResponse | None = None

    @property
    def heard(self) -> bool:
        """Whether anything of the answer has come."""
        return self.told or (self.stream is not None and self.stream.time_to_first_chunk(0.0) is not None)


class Breakers:
    """What this process knows of the breakers, and its door to them."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        failure: Callable[[BaseException], ParleyError],
        on_change: Callable[[], None],
    ) -> None:
        """Begin with nothing known.

        Args:
            database: Where they are.
            settings: When they open, and for how long.
            failure: What a provider's exception means, without secrets.
            on_change: Called when one has opened or closed here, so that other processes look at once.
        """
        self._database = database
        self._settings = settings
        self._failure = failure
        self._on_change = on_change
        self._known: dict[str, Breaker] = {}
        self._probing: set[UUID] = set()
        self._stale = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._telling_apart: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to look."""
        self._looking = asyncio.create_task(self._look_for_ever())

    async def stop(self) -> None:
        """Look no more; what is still to be told is told."""
        if self._looking:
            self._looking.cancel()
            await asyncio.gather(self._looking, *self._telling_apart, return_exceptions=True)

    def look_soon(self) -> None:
        """Another process has changed one."""
        self._stale.set()

    def guard(self, model: Model, circuit: Circuit) -> Model:
        """The model behind its provider's breaker."""
        return Guarded(model, circuit, self) if self._settings.parley_breaker_failures else model

    def open_among(self, through: Sequence[Circuit | None]) -> list[Breaker]:
        """The open breakers of a chain of models."""
        known = {each.key: self._known.get(each.key) for each in through if each}
        return [each for each in known.values() if each and each.open]

    @asynccontextmanager
    async def pass_through(self, circuit: Circuit) -> AsyncGenerator[Passage]:
        """Let a request through, and learn from how it goes.

        Raises:
            BreakerOpen: not now; or it was the probe and failed, so that its run waits on like the others.
        """
        passage = Passage(circuit, await self._enter(circuit), matters=circuit.key in self._known)
        try:
            yield passage
            await self._answered(passage)
        except Exception as error:
            await self._broke(passage, error)
            raise
        except BaseException:  # cut off: it has shown nothing about the provider, another request may probe
            self._give_back(passage)
            raise
        finally:
            if passage.probe_id:
                self._probing.discard(passage.probe_id)

    def listen(self, passage: Passage, stream: StreamedResponse) -> None:
        """Watch for the first piece of an answer: others need not wait for the whole of a probe's."""
        passage.stream = stream
        if passage.matters:
            # As the library's own fallback does it: whoever reads the stream is given this iterator.
            stream._event_iterator = self._telling(passage, aiter(stream))  # pyright: ignore[reportPrivateUsage]

    async def _telling(
        self, passage: Passage, events: AsyncIterator[ModelResponseStreamEvent]
    ) -> AsyncIterator[ModelResponseStreamEvent]:
        async for event in events:
            await self._answered(passage)
            yield event

    # --- before a request, and after it ----------------------------------------------------------------

    async def _enter(self, circuit: Circuit) -> UUID | None:
        """The id under which the request probes; None when it needs none."""
        known = self._known.get(circuit.key)
        if known is None or not known.open:
            return None
        probe_id = new_id()
        found, taken = await breakers.probe(self._database, circuit.key, probe_id, self._lease)
        self._learn(circuit, found)
        if found and found.open and not taken:
            raise BreakerOpen(f"{found.words}.")
        if taken:
            log.info("breaker.probing", provider=circuit.provider, address=circuit.address)
            self._probing.add(probe_id)
        return probe_id if taken else None

    async def _answered(self, passage: Passage) -> None:
        """The provider works: forget its failures, wake who waited."""
        if passage.told or not passage.matters:
            return
        passage.told = True
        circuit, probed = passage.circuit, passage.probe_id is not None
        with self._best_effort():
            woken = await breakers.close(self._database, circuit.key, probed=probed)
            self.look_soon()
            if probed:
                self._known.pop(circuit.key, None)
                log.warning("breaker.closed", provider=circuit.provider, address=circuit.address, woken=woken)
                self._on_change()

    async def _broke(self, passage: Passage, error: Exception) -> None:
        known = self._failure(error)
        if passage.heard:
            await self._answered(passage)
        elif isinstance(known, ModelUnavailable):
            await self._failed(passage, known)
            if passage.probe_id:
                raise BreakerOpen(known.detail, retry_after=known.retry_after) from error
        elif isinstance(error, ModelHTTPError):
            await self._answered(passage)  # It refuses this request, but it answers.
        else:
            self._give_back(passage)

    async def _failed(self, passage: Passage, error: ParleyError) -> None:
        """Count a failure."""
        circuit = passage.circuit
        known = self._known.get(circuit.key)
        with self._best_effort():
            found = await breakers.fail(
                self._database,
                self._settings,
                circuit,
                error=error.detail,
                retry_after=error.retry_after,
                probe_id=passage.probe_id,
            )
            self._learn(circuit, found)
            if found.open and (passage.probe_id or not (known and known.open)):
                log.error("breaker.opened", provider=circuit.provider, address=circuit.address, reason=found.words)
                self._on_change()

    def _give_back(self, passage: Passage) -> None:
        """The request was stopped before it could tell; apart, because whoever made it may be cancelled."""
        if passage.probe_id and not passage.told:
            task = asyncio.create_task(self._give_back_probe(passage.probe_id))
            self._telling_apart.add(task)
            task.add_done_callback(self._telling_apart.discard)

    async def _give_back_probe(self, probe_id: UUID) -> None:
        with self._best_effort():
            await breakers.give_back_probe(self._database, probe_id)

    # --- looking ---------------------------------------------------------------------------------------

    async def _look_for_ever(self) -> None:
        while True:
            self._stale.clear()
            try:
                await self._look()
            except DatabaseUnavailable:
                log.debug("breakers.not_seen")
            except Exception:  # a defect in one look must not blind the process
                log.exception("breakers.not_seen")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.parley_sweep_seconds):
                    await self._stale.wait()

    async def _look(self) -> None:
        if self._probing:
            await breakers.renew_probes(self._database, self._probing, self._lease)
        self._known = await breakers.look(self._database)

    @property
    def _lease(self) -> float:
        return self._settings.parley_lease_seconds

    def _learn(self, circuit: Circuit, found: Breaker | None) -> None:
        if found:
            self._known[circuit.key] = found
        else:
            self._known.pop(circuit.key, None)

    @contextlib.contextmanager
    def _best_effort(self) -> Generator[None]:
        """What was learned is worth less than the run: without PostgreSQL it is not written."""
        try:
            yield
        except DatabaseUnavailable as error:
            log.warning("breaker.not_written", reason=error.detail)


class Guarded(WrapperModel):
    """A model that is asked through its provider's breaker."""

    def __init__(self, wrapped: Model, circuit: Circuit, through: Breakers) -> None:
        """Guard this model."""
        super().__init__(wrapped)
        self._circuit = circuit
        self._breakers = through

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Ask for the whole answer, if the provider may be asked."""
        async with self._breakers.pass_through(self._circuit):
            return await self.wrapped.request(messages, model_settings, model_request_parameters)

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """Ask for a stream, if the provider may be asked."""
        opened = self.wrapped.request_stream(messages, model_settings, model_request_parameters, run_context)
        async with self._breakers.pass_through(self._circuit) as passage, opened as stream:
            self._breakers.listen(passage, stream)
            yield stream
