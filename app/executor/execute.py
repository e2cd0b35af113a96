"""`execute`: one claimed run from its rows to its end. Named steps, read top to bottom."""

import asyncio
import random
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import structlog

from app.errors import (
    BreakerOpen,
    CredentialUnreadable,
    DatabaseUnavailable,
    DeadlineExceeded,
    LeaseLost,
    ModelKeyMissing,
    ParleyError,
    TimedOut,
)
from app.executor.converse import Cast, Parked, converse, with_usage
from app.executor.files import Files
from app.executor.load import Loaded
from app.executor.recorder import Recorder, SteppedAside, whole
from app.executor.research import research
from app.executor.speech import Speaking, Speech
from app.executor.toolbox import Doors, Toolbox, tools_of
from app.providers import circuits, default_model, missing_key
from app.queue import LANE
from app.runs import (
    Claim,
    Fenced,
    cancel_reason,
    patiently,
    release,
    retry_later,
    wait_for_credential,
    wait_for_provider,
)
from app.settle import STEP_EVENTS, Outcome, cancelled, error_of, failed

if TYPE_CHECKING:
    from app.executor.engine import Engine

log = structlog.stdlib.get_logger(__name__)

MAX_ATTEMPTS = 3
RETRY_BASE_SECONDS = 2.0
RETRY_MAX_SECONDS = 300.0


class Stop(StrEnum):
    """Why a run is stopped from outside."""

    CANCEL = "cancel"
    LOST = "lost"
    RELEASE = "release"


@dataclass
class Execution:
    """A run this process holds.

    Attributes:
        claim: With which fence.
        task: Executes it.
        why: Set before the task is cancelled.
        cast: Set once the run is loaded.
        ending: It has its answer; being stopped now would only lose it.
        aside: It goes back to the queue at the next step boundary.
    """

    claim: Claim
    task: "asyncio.Task[None] | None" = None
    why: Stop | None = None
    cast: Cast | None = None
    ending: bool = False
    aside: bool = False

    @property
    def fenced(self) -> Fenced:
        """Who writes, as of now."""
        return self.cast.recorder.fenced if self.cast else self.claim.fenced

    def stop(self, why: Stop) -> None:
        """Stop at the next await; the first reason counts."""
        if self.why is None and self.task is not None and not self.ending:
            self.why = why
            # A task that is cancelled before its first step never runs, not even to give the run back: let it begin.
            asyncio.get_running_loop().call_soon(self.task.cancel)

    def step_aside(self) -> None:
        """Give the run back at its next step boundary: nothing is cut off."""
        self.aside = True
        if self.cast:
            self.cast.recorder.aside = True


async def execute(engine: "Engine", execution: Execution) -> None:
    """Run a claimed run to its end, its next try, or wherever it was stopped."""
    try:
        outcome = await _work(engine, execution)
        await _settle(engine, execution, outcome)
    except Parked:
        await _park(engine, execution)
    except SteppedAside:
        execution.why = Stop.RELEASE
        await _stopped(engine, execution)
    except asyncio.CancelledError:
        await _stopped(engine, execution)
    except LeaseLost:
        log.info("run.lease_lost")
    except DatabaseUnavailable as error:
        log.warning("run.left", reason=error.detail)  # Its lease runs out; a sweep hands it on.
    except Exception as error:  # noqa: BLE001 - every failure of a run has an outcome
        await _failed(engine, execution, error)
    finally:
        claim = execution.claim
        engine.bus.forget_text(claim.conversation_id, claim.run_id, claim.fence)
        if execution.cast:
            execution.cast.speech.close()


async def _work(engine: "Engine", execution: Execution) -> Outcome:
    loaded = await engine.loads.load(execution.claim.run_id, execution.claim.fence)
    if loaded.cancel_requested:
        execution.why = Stop.CANCEL
        raise asyncio.CancelledError
    if loaded.told_of & STEP_EVENTS.keys():  # Also what a process that was lost left untold.
        await engine.effects.tell_steps(engine.settings, loaded)
    execution.cast = cast = await _cast(engine, loaded)
    cast.recorder.aside = execution.aside
    return await _within_time(cast)


async def _cast(engine: "Engine", loaded: Loaded) -> Cast:
    name = model_name(engine, loaded)
    model = await engine.providers.load(name, loaded.spec.fallback_models)
    files = Files(engine.database, loaded.workspace_id, model)
    loaded = await files.with_contents(loaded)
    tools = tools_of(engine.settings, loaded)
    effects = engine.effects

    async def tell_progress(after: int) -> None:
        await effects.tell_steps(engine.settings, loaded, after=after)

    told = tell_progress if "progress" in loaded.told_of else None
    recorder = Recorder(engine.checkpoints, engine.bus, loaded, tools, name, files, told)
    doors = Doors(
        engine.settings,
        engine.egress.of(loaded.workspace_id),
        engine.credentials,
        engine.sessions,
        model,
        effects.notify,
        effects.schedule,
        effects.keep,
        effects.memories,
        effects.documents,
    )
    toolbox = Toolbox(tools, loaded, doors, recorder)
    speech = Speech(engine.bus, loaded, recorder)
    return Cast(loaded, Speaking(model, speech), recorder, toolbox, speech)


def model_name(engine: "Engine", loaded: Loaded) -> str:
    """The model of this run: the agent's, or the configured default.

    Raises:
        ModelKeyMissing: a named real model has no key; only the default falls back to the offline model.
    """
    if loaded.spec.model is None:
        return default_model(engine.settings)[0]
    missing = missing_key(engine.settings, loaded.spec.model)
    if missing and not loaded.spec.fallback_models:
        raise ModelKeyMissing(f"the model {loaded.spec.model} needs {missing}, which is not set")
    return loaded.spec.model


async def _within_time(cast: Cast) -> Outcome:
    """Do the work within the running time and the deadline."""
    loaded = cast.loaded
    limits = [seconds for seconds in (loaded.seconds_left, loaded.deadline_seconds) if seconds is not None]
    seconds = max(0.0, min(limits)) if limits else None
    clock = asyncio.timeout(seconds)
    try:
        async with clock:
            return await (research(cast) if loaded.pattern.plan == "research" else converse(cast))
    except TimeoutError:
        if not clock.expired():
            raise
    if loaded.deadline_seconds is not None and seconds == loaded.deadline_seconds:
        raise DeadlineExceeded
    raise TimedOut


async def _settle(engine: "Engine", execution: Execution, outcome: Outcome) -> None:
    execution.ending = True
    await whole(engine.finish(execution.fenced, outcome))


async def _park(engine: "Engine", execution: Execution) -> None:
    """Leave the questions and let go of the run: it waits without a worker."""
    assert execution.cast is not None, "only a loaded run parks"
    execution.ending = True
    recorder, toolbox = execution.cast.recorder, execution.cast.toolbox
    try:
        await whole(patiently(lambda: engine.park(recorder.fenced, toolbox.parked)))
    except LeaseLost:  # Taken over or parked by an earlier try, as its end will find out too; or to be cancelled.
        execution.why = Stop.CANCEL
        await _stopped(engine, execution)
    except DatabaseUnavailable as error:
        log.info("run.not_parked", reason=error.detail)


async def _stopped(engine: "Engine", execution: Execution) -> None:
    """Stopped from outside: cancelled with its partial output, given back, or lost."""
    log.info("run.stopped", why=execution.why)
    if execution.why is Stop.LOST:
        return
    if execution.cast:
        await execution.cast.recorder.rest()
    try:
        if execution.why is Stop.CANCEL:
            reason = await cancel_reason(engine.database, execution.claim.run_id)
            await _settle(engine, execution, _partial(execution, reason))
        else:
            reason = "stepped aside for a pause or a stop of its process"
            who = execution.fenced
            engine.bus.publish(await patiently(lambda: release(engine.database, who, reason=reason)))
            engine.bell.pass_on(LANE)
    except (LeaseLost, DatabaseUnavailable) as error:
        log.info("run.stopped_without_end", reason=error.detail)


def _partial(execution: Execution, reason: str | None) -> Outcome:
    if execution.cast is None:
        return cancelled(reason)
    recorder, speech = execution.cast.recorder, execution.cast.speech
    write = with_usage(recorder, recorder.interrupted_write([*recorder.heard, *speech.unfinished()]))
    said = [message.text for message in write.messages if message.role == "assistant"]
    return cancelled(reason, write, result=said[-1] if said else None)


async def _failed(engine: "Engine", execution: Execution, error: Exception) -> None:
    """Try again later if that may help, else end as failed."""
    known = engine.providers.failure(error)
    log.warning("run.failed_attempt", code=known.code, detail=known.detail, exc_info=_unexpected(error, known))
    cast = execution.cast
    execution.ending = True
    if cast:
        await cast.recorder.rest()
    try:
        if cast and isinstance(known, BreakerOpen):
            await _wait_for_provider(engine, cast)
            return
        if cast and isinstance(known, CredentialUnreadable):
            await _wait_for_credential(engine, cast, known)
            return
        if cast and known.retryable and cast.loaded.attempt < _max_attempts(cast.loaded):
            delay = retry_delay(cast.loaded, known)
            who, told = cast.recorder.fenced, error_of(known)
            again = patiently(lambda: retry_later(engine.database, who, delay_seconds=delay, error=told))
            engine.bus.publish(await again)
            return
        write = cast.recorder.last_write(cast.recorder.heard) if cast else None
        await _settle(engine, execution, failed(known, write))
    except (LeaseLost, DatabaseUnavailable) as late:
        log.info("run.failed_without_end", reason=late.detail)


async def _wait_for_provider(engine: "Engine", cast: Cast) -> None:
    """Back to the queue until the provider is well again; it costs no attempt."""
    spec, who = cast.loaded.spec, cast.recorder.fenced
    shut = engine.breakers.open_among(circuits(engine.settings, spec.model, spec.fallback_models))
    if shut:
        engine.bus.publish(await patiently(lambda: wait_for_provider(engine.database, who, shut)))
        return
    again = "its model provider answers again"
    engine.bus.publish(await patiently(lambda: release(engine.database, who, reason=again)))
    engine.bell.ring(LANE)


async def _wait_for_credential(engine: "Engine", cast: Cast, error: CredentialUnreadable) -> None:
    """Back to the queue until somebody has put the key right; it costs no attempt."""
    who, told = cast.recorder.fenced, error_of(error)
    delay = error.retry_after or RETRY_MAX_SECONDS
    engine.bus.publish(
        await patiently(lambda: wait_for_credential(engine.database, who, error=told, delay_seconds=delay))
    )


def _unexpected(error: Exception, known: ParleyError) -> Exception | None:
    return error if known.code == ParleyError.code else None


def _max_attempts(loaded: Loaded) -> int:
    return int(loaded.retry.get("max_attempts") or MAX_ATTEMPTS)


def retry_delay(loaded: Loaded, error: ParleyError) -> float:
    """Seconds until the next try: exponential with jitter, and never sooner than the provider asked."""
    base = float(loaded.retry.get("base_seconds") or RETRY_BASE_SECONDS)
    longest = float(loaded.retry.get("max_seconds") or RETRY_MAX_SECONDS)
    backoff = min(longest, base * 2.0 ** (loaded.attempt - 1)) * random.uniform(0.75, 1.25)
    return max(backoff, min(error.retry_after or 0.0, 3600.0))
