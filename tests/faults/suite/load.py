"""The load: clients that do what clients do, insist until they are answered, and remember what they were told.

Every client draws from random numbers of its own, so the same seed asks for the same things. A request that fails is
sent again with the same Idempotency-Key until it is acknowledged: what was acknowledged must exist, once.
"""

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
from httpx_sse import EventSource, SSEError

from app.events import ServerEvent
from tests.events.client import Client
from tests.faults.suite.stage import Stage, seeded

Json = dict[str, Any]
Deed = Callable[[], Awaitable[None]]

PATIENCE_SECONDS = 90.0
TERMINAL = ("run.completed", "run.failed", "run.cancelled")
BROKEN = (httpx.TransportError, SSEError, json.JSONDecodeError, TimeoutError)
ADDRESS = "ops@example.com"
NARROW = 2
BY_HAND = "name=by-hand tools=note words=3 pause=0.02"  # Said by many runs.
UNHEARD = ("hasty", "unheard")  # Agents whose questions nobody answers: they expire, or their runs do.


@dataclass(frozen=True)
class Promise:
    """What a client was told with a 2xx: this run exists. `kind` says which door it came through."""

    kind: str
    name: str
    run_id: UUID


@dataclass(frozen=True)
class Reading:
    """What a reader of a stream held at its end."""

    run_id: UUID
    text: str
    ids: list[int]
    connections: int


@dataclass
class Memory:
    """All that clients remember."""

    promises: list[Promise] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    decided: Counter[str] = field(default_factory=Counter)  # approval -> decisions acknowledged with 200
    delivered: dict[tuple[str, str], set[UUID]] = field(default_factory=dict)  # webhook, delivery id -> runs told
    repeats: dict[str, set[UUID]] = field(default_factory=dict)  # idempotency key -> runs told
    schedules: list[UUID] = field(default_factory=list)
    by_hand: list[UUID] = field(default_factory=list)
    wanted: set[str] = field(default_factory=set)  # What clients shall do now, so that a failpoint is reached.
    refused: Counter[str] = field(default_factory=Counter)
    given_up: list[str] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)


class Refused(Exception):
    """A 4xx: the client asked for something that can't be had."""


class Api:
    """Sends requests to either API process, again and again while they fail."""

    def __init__(self, stage: Stage, memory: Memory, chance: random.Random) -> None:
        self._urls = [f"http://127.0.0.1:{port}" for port in stage.ports]
        self.memory = memory
        self._chance = chance
        self.http = httpx.AsyncClient(timeout=httpx.Timeout(20, connect=2), trust_env=False)

    @property
    def url(self) -> str:
        return self._chance.choice(self._urls)

    async def post(self, path: str, body: Json, *, key: str | None = None, headers: Json | None = None) -> Any:
        sent = {**(headers or {}), **({"Idempotency-Key": key} if key else {})}
        return await self._insist("POST", path, json=body, headers=sent)

    async def get(self, path: str) -> Any:
        return await self._insist("GET", path)

    async def once(self, method: str, path: str, **options: Any) -> httpx.Response:
        response = await self.http.request(method, self.url + path, **options)
        self.memory.answers[response.status_code] += 1
        return response

    async def _insist(self, method: str, path: str, **options: Any) -> Any:
        async for _ in patience():
            try:
                response = await self.once(method, path, **options)
            except BROKEN:
                continue
            if response.status_code < 400:
                return response.json()
            if response.status_code not in (429, 500, 502, 503, 504):
                self.memory.refused[f"{method} {response.status_code} {response.json().get('code')}"] += 1
                raise Refused(response.text)
        self.memory.given_up.append(f"{method} {path}")
        raise Refused(path)


async def patience() -> AsyncIterator[None]:
    """Tries, further and further apart, while there is patience."""
    until = time.monotonic() + PATIENCE_SECONDS
    for pause in itertools.chain((0.05, 0.1, 0.2, 0.4), itertools.repeat(0.8)):
        if time.monotonic() > until:
            return
        yield
        await asyncio.sleep(pause)


@dataclass
class Person:
    """One client, doing one thing after another."""

    number: int
    stage: Stage
    memory: Memory
    seed: int
    hooks: list[str]
    _count: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.chance = seeded(self.seed, "person", self.number)
        self.api = Api(self.stage, self.memory, seeded(self.seed, "api", self.number))

    async def live(self, stop: asyncio.Event) -> None:
        deeds: list[tuple[Deed, int]] = [
            (self.chat, 4),
            (self.streamed_chat, 5),
            (self.three_tools, 4),
            (self.payment, 3),
            (self.code, 3),
            (self.delegation, 3),
            (self.unkeyed, 3),
            (self.webhook, 3),
            (self.question, 3),
            (self.cancelled, 3),
            (self.remote, 2),
            (self.steered, 2),
            (self.forked, 2),
            (self.retried, 2),
            (self.by_hand, 1),
            (self.detached, 2),
            (self.paused, 2),
            (self.flaky, 2),
            (self.narrow, 2),
            (self.chained, 2),
            (self.telling, 2),
            (self.expiring, 1),
            (self.overdue, 1),
        ]
        doings, weights = [deed for deed, _ in deeds], [weight for _, weight in deeds]
        while not stop.is_set():
            with suppress(Refused):
                await self._next(doings, weights)()
            await asyncio.sleep(self.chance.uniform(0.05, 0.4))
        await self.api.http.aclose()

    def _next(self, doings: list[Deed], weights: list[int]) -> Deed:
        """What is wanted most of the time, else whatever comes."""
        wanted = sorted(self.memory.wanted)
        if wanted and self.chance.random() < 0.6:
            return getattr(self, self.chance.choice(wanted))
        return self.chance.choices(doings, weights)[0]

    # --- what a client does ---------------------------------------------------------------------------

    async def chat(self) -> None:
        """Two or three turns in one conversation, answered inline."""
        conversation = await self._conversation("suite")
        for _ in range(self.chance.randint(1, 3)):
            await self._say(conversation, "chat", words=self.chance.randint(3, 15))

    async def streamed_chat(self) -> None:
        conversation = await self._conversation("suite")
        name, prompt = self._prompt("", words=self.chance.randint(20, 60))
        reading = await Stream(self.api, f"/conversations/{conversation}/messages", prompt).read()
        if reading:
            self.memory.promises.append(Promise("stream", name, reading.run_id))
            self.memory.readings.append(reading)

    async def three_tools(self) -> None:
        conversation = await self._conversation("suite")
        await self._say(conversation, "tools", tools="note,note,note", background=self.chance.random() < 0.5)

    async def payment(self) -> None:
        conversation = await self._conversation("suite")
        await self._say(conversation, "payment", tools="note,pay,note", background=self.chance.random() < 0.5)

    async def code(self) -> None:
        """Code that calls tools: what it had done is not done again when it runs anew."""
        conversation = await self._conversation("suite")
        await self._say(conversation, "code", tools="execute_code", background=self.chance.random() < 0.5)

    async def question(self) -> None:
        """A payment that is asked for first; whoever looks at the inbox decides."""
        conversation = await self._conversation("careful")
        await self._say(conversation, "question", tools="pay", background=True)

    async def delegation(self) -> None:
        await self._delegate("delegation", "note,note", notification_config={"email_address": ADDRESS})

    async def unkeyed(self) -> None:
        """A few requests at once that can't be repeated: what is acknowledged exists, the rest may or may not."""
        await asyncio.gather(*(self._once() for _ in range(self.chance.randint(1, 4))))

    async def _once(self) -> None:
        name, prompt = self._prompt("note", words=5)
        task = self.chance.random() < 0.5
        body = {"task_type": "delegation", "prompt": prompt} if task else {"message": prompt, "background": True}
        try:
            answer = await self.api.once("POST", "/tasks" if task else "/runs", json={**body, "agent": "suite"})
        except BROKEN:
            return
        if answer.is_success:
            run = answer.json()["latest_run"]["id"] if task else answer.json()["run_id"]
            self.memory.promises.append(Promise("unkeyed", name, UUID(run)))

    async def telling(self) -> None:
        """A task that reports on its way, to two channels at the end."""
        everywhere = {"channels": ["email", "slack"], "email_address": ADDRESS}
        await self._delegate("telling", "tell,notify", notification_config=everywhere)

    async def flaky(self) -> None:
        """A model that fails every other time."""
        retry = {"max_attempts": 6, "base_seconds": 0.2, "max_seconds": 1}
        await self._delegate("flaky", "note", agent="flaky", retry=retry)

    async def narrow(self) -> None:
        """Tasks of which two run at once."""
        await self._delegate("narrow", "note", concurrency={"key": "narrow", "limit": NARROW})

    async def chained(self) -> None:
        """Two tasks that do not wait for each other, and one that waits for both."""
        # Their titles are handed on: what a prompt says of itself must not stand in them.
        first = [await self._delegate("chained", "note", title="before") for _ in range(2)]
        depends_on = [{"task": task, "on": "any"} for task in first]
        await self._delegate("chained", "note,note", depends_on=depends_on)

    async def expiring(self) -> None:
        """A question that nobody answers in time."""
        conversation = await self._conversation("hasty")
        await self._say(conversation, "expiring", tools="pay", background=True)

    async def overdue(self) -> None:
        """A run that waits for an answer until its deadline."""
        deadline = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
        await self._delegate("overdue", "pay", agent="unheard", deadline=deadline)

    async def _delegate(self, kind: str, tools: str, *, agent: str = "suite", **fields: Any) -> str:
        name, prompt = self._prompt(tools, words=5)
        body = {"task_type": "delegation", "prompt": prompt, "agent": agent, **fields}
        task = await self.api.post("/tasks", body, key=str(uuid4()))
        self.memory.promises.append(Promise(kind, name, UUID(task["latest_run"]["id"])))
        return task["id"]

    async def webhook(self) -> None:
        """A delivery that is sent up to three times, once while the first is under way."""
        hook, delivery = self.chance.choice(self.hooks), str(uuid4())
        name, prompt = self._prompt("note", words=5)
        sent = [self._deliver(hook, delivery, {"say": prompt}) for _ in range(self.chance.randint(1, 3))]
        runs = {run for run in await asyncio.gather(*sent) if run}
        self.memory.delivered[hook, delivery] = runs
        self.memory.promises += [Promise("webhook", name, run) for run in runs]

    async def _deliver(self, hook: str, delivery: str, payload: Json) -> UUID:
        received = await self.api.post(f"/tasks/webhooks/{hook}", payload, headers={"X-Delivery-Id": delivery})
        return UUID(received["run_id"])

    async def cancelled(self) -> None:
        """A run that is cancelled at some moment of its life."""
        conversation = await self._conversation("suite")
        run = await self._say(conversation, "cancelled", tools="note,pay,note", words=30, background=True)
        await asyncio.sleep(self.chance.uniform(0, 1.5))
        await self.api.post(f"/runs/{run}/cancel", {})

    async def remote(self) -> None:
        """A model and a page behind a network that breaks."""
        conversation = await self._conversation("remote")
        await self._say(conversation, "remote", tools="fetch_url", words=20, background=self.chance.random() < 0.5)

    async def steered(self) -> None:
        """A message into a run under way; it is that run which answers both, or one of its own."""
        conversation = await self._conversation("suite")
        key, (_, prompt) = str(uuid4()), self._prompt("", words=4)
        await self._say(conversation, "steered", tools="note,note,note", background=True, answers=False)
        await asyncio.sleep(self.chance.uniform(0, 0.6))
        body = {"message": prompt, "on_message": "steer", "background": True}
        await self._start(f"/conversations/{conversation}/messages", body, key, "run_id", moves=True)

    async def forked(self) -> None:
        """Another first message, in a copy."""
        conversation = await self._conversation("suite")
        await self._say(conversation, "chat", words=3)
        name, prompt = self._prompt("", words=4)
        body = {"from_seq": 1, "message": prompt}
        run = await self._start(f"/conversations/{conversation}/fork", body, str(uuid4()), "run_id")
        self.memory.promises.append(Promise("fork", name, run))

    async def retried(self) -> None:
        """A cancelled run is tried again with other words."""
        conversation = await self._conversation("suite")
        run = await self._say(conversation, "retried", tools="note,note,note", background=True)
        await self.api.post(f"/runs/{run}/cancel", {})
        async for _ in patience():
            if (await self.api.get(f"/runs/{run}"))["state"] in ("completed", "failed", "cancelled"):
                break
        name, prompt = self._prompt("", words=4)
        again = await self._start(f"/runs/{run}/retry", {"from": "start", "input": prompt}, str(uuid4()), "id")
        self.memory.promises.append(Promise("retry", name, again))

    async def by_hand(self) -> None:
        """A scheduled task is started beside its schedule."""
        task = self.chance.choice(self.memory.by_hand)
        await self._start(f"/tasks/{task}/execute", {}, str(uuid4()), "id")

    async def detached(self) -> None:
        """A turn that its reader leaves before it is over."""
        conversation = await self._conversation("suite")
        run = await self._say(conversation, "detached", tools="note", words=40, wait=0)
        await self.api.post(f"/runs/{run}/background", {})

    async def paused(self) -> None:
        """An agent is held for a moment while it works."""
        conversation = await self._conversation("held")
        await self._say(conversation, "paused", tools="note,note,note", background=True)
        await asyncio.sleep(self.chance.uniform(0, 0.4))
        try:
            await self.api.post("/pause", {"scope": "agent", "ref": "held"})
            await asyncio.sleep(self.chance.uniform(0.6, 1.2))
        finally:
            await self.api.post("/resume", {"scope": "agent", "ref": "held"})

    async def _start(
        self, path: str, body: Json, key: str, where: str, wait: int | None = None, *, moves: bool = False
    ) -> UUID:
        """Something that begins a run, now and then asked for twice with one key.

        Args:
            path: Where.
            body: What.
            key: The idempotency key.
            where: The field of the answer that names the run.
            wait: Seconds to wait for its end.
            moves: A steering message gets a run of its own when the one under way ends before it: both are right.
        """
        headers = {} if wait is None else {"Prefer": f"wait={wait}"}
        times = 2 if self.chance.random() < 0.2 else 1
        answers = await asyncio.gather(*(self.api.post(path, body, key=key, headers=headers) for _ in range(times)))
        runs = {UUID(answer[where]) for answer in answers}
        if not moves:
            self.memory.repeats[key] = runs
        return next(iter(runs))

    # --- words ----------------------------------------------------------------------------------------

    def _prompt(self, tools: str, words: int = 5) -> tuple[str, str]:
        name = f"p{self.number}-{next(self._count)}"
        return name, f"name={name} tools={tools} words={words} pause=0.02"

    async def _conversation(self, agent: str) -> str:
        made = await self.api.post("/conversations", {"pattern_type": "chatbot", "agent": agent}, key=str(uuid4()))
        return made["id"]

    async def _say(
        self,
        conversation: str,
        kind: str,
        *,
        tools: str = "",
        words: int = 5,
        background: bool = False,
        wait: int | None = None,
        answers: bool = True,
    ) -> UUID:
        """Say something, now and then twice with one key: both must be answered with the same run.

        Args:
            conversation: Where.
            kind: What the promise is counted as.
            tools: Called one after the other.
            words: Of the answer.
            background: Answered at once.
            wait: Seconds to wait for the answer.
            answers: Whether the run's result answers this message.
        """
        name, prompt = self._prompt(tools, words)
        key, body = str(uuid4()), {"message": prompt, "background": background}
        run = await self._start(f"/conversations/{conversation}/messages", body, key, "run_id", wait)
        self.memory.promises.append(Promise(kind, name if answers else "", run))
        return run


class Stream:
    """A streamed turn, read as a browser would: by the client's rule, over as many connections as it takes."""

    def __init__(self, api: Api, path: str, prompt: str) -> None:
        self._api = api
        self._path = path
        self._body = {"message": prompt, "stream": True}
        self._key = str(uuid4())
        self._client = Client()
        self._run: str | None = None
        self._over = False

    async def read(self) -> Reading | None:
        """Read to the terminal event; None when patience was over before anything was acknowledged."""
        connections = 0
        async for _ in patience():
            connections += 1
            try:
                await self._connect()
            except BROKEN:
                continue
            if self._over:
                break
        if not self._over:
            self._api.memory.given_up.append(f"stream of {self._run}")
        if self._run is None:
            return None
        texts = [text for _, (role, text) in sorted(self._client.messages.items()) if role == "assistant"]
        return Reading(UUID(self._run), texts[-1] if texts else "", self._client.ids, connections)

    async def _connect(self) -> None:
        headers = {"Accept": "text/event-stream"}
        url = self._api.url
        if self._run is None:
            self._client = Client()
            sent = {"json": self._body, "headers": {**headers, "Idempotency-Key": self._key}}
            stream = self._api.http.stream("POST", url + self._path, **sent)
        else:
            headers |= {"Last-Event-ID": str(self._client.cursor)} if self._client.cursor else {}
            stream = self._api.http.stream("GET", f"{url}/runs/{self._run}/events", headers=headers)
        async with stream as response:
            if response.status_code == 204:
                self._over = True
            elif response.status_code == 200:
                await self._take(response)

    async def _take(self, response: httpx.Response) -> None:
        async with aclosing(EventSource(response).aiter_sse()) as events:  # type: ignore[type-var]
            async for sent in events:
                if sent.data:
                    self._hear(sent.event, json.loads(sent.data), sent.id)

    def _hear(self, name: str, data: Json, number: str) -> None:
        self._run = data.get("run_id") or self._run
        ephemeral = name in ("text.delta", "text.snapshot", "thinking.delta", "tool.progress")
        self._client.take(ServerEvent(name, data, None if ephemeral or not number else int(number)))
        self._over = self._over or name in TERMINAL


@dataclass
class Inbox:
    """The people who decide: two look at once and race for every question."""

    stage: Stage
    memory: Memory
    seed: int

    async def live(self, stop: asyncio.Event) -> None:
        api = Api(self.stage, self.memory, seeded(self.seed, "inbox"))
        chance = seeded(self.seed, "decisions")
        while not stop.is_set():
            try:
                page = await api.get("/approvals?state=pending&limit=50")
            except Refused:
                continue
            for each in page["items"]:
                if each["agent"] in UNHEARD:
                    continue
                await self._race(api, each["id"], _words(each["kind"], chance), _words(each["kind"], chance))
            await asyncio.sleep(0.3)
        await api.http.aclose()

    async def _race(self, api: Api, approval: str, one: Json, other: Json) -> None:
        path = f"/approvals/{approval}/decision"
        for answer in await asyncio.gather(
            *(api.once("POST", path, json=body) for body in (one, other)), return_exceptions=True
        ):
            if isinstance(answer, httpx.Response) and answer.status_code == 200:
                self.memory.decided[approval] += 1


def _words(kind: str, chance: random.Random) -> Json:
    """A decision that fits the kind."""
    if kind == "effect":
        outcome = chance.choice(("happened", "repeat", "fail"))
        return {"decision": "approve", "arguments": {"outcome": outcome, "result": "as told"}}
    return chance.choice(({"decision": "approve"}, {"decision": "deny", "reason": "not today"}))


# --- before the load --------------------------------------------------------------------------------------


async def prepare(stage: Stage, memory: Memory, seed: int, *, hooks: int = 4, schedules: int = 4) -> list[str]:
    """Store the tasks that webhooks and schedules start; answers the webhooks."""
    api = Api(stage, memory, seeded(seed, "prepare"))
    made: list[str] = []
    for number in range(hooks):
        body = {"prompt": "Do as the payload says.", "title": f"hook {number}", "agent": "suite"}
        given = {"task_type": "triggered", "trigger_config": {"verifier": "none", "trusted": True}}
        made.append((await api.post("/tasks", {**body, **given}))["id"])
    for number in range(schedules):
        body = {
            "task_type": "scheduled",
            "interval_seconds": 10,
            "agent": "suite",
            "prompt": f"name=s{number}-{{{{ fire_time }}}} tools=note words=3 pause=0.02",
            "notification_config": {"email_address": ADDRESS, "digest_after": 0} if number == 0 else None,
            "overlap": "allow" if number % 2 else "skip",
        }
        memory.schedules.append(UUID((await api.post("/tasks", body))["id"]))
    body = {"task_type": "scheduled", "schedule_expression": "0 0 1 1 *", "agent": "suite", "prompt": BY_HAND}
    memory.by_hand.append(UUID((await api.post("/tasks", body))["id"]))
    await api.http.aclose()
    return made
