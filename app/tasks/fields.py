"""What a task may say: the request bodies, checked so that every refusal names its field."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self, cast
from uuid import UUID

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from app import cron
from app.artifacts import MAX_ATTACHED
from app.db import dump_json
from app.errors import InvalidRequest, InvalidSchedule, NotAvailable, UnknownField
from app.notifications import NotificationConfig
from app.tasks.say import check_prompt
from app.tasks.trigger import TriggerConfig, Whole
from app.wording import INSTANT, said

TaskType = Literal["delegation", "scheduled", "triggered", "research"]
Overlap = Literal["skip", "queue", "interrupt", "allow"]
CatchUp = Literal["latest", "none", "all"]
Talk = Literal["new", "same"]

LONGEST_SECONDS = 366 * 86_400
MAX_DATA = 200_000
MAX_DEPENDENCIES = 20
LATER_FIELDS = ("budget",)
WHEN = ("schedule_expression", "interval_seconds", "run_at")
# Fields that say something only about tasks of one type.
SCHEDULE_FIELDS = (
    "schedule_expression",
    "interval_seconds",
    "timezone",
    "overlap",
    "catch_up",
    "catch_up_window_seconds",
    "jitter_seconds",
)
FITTING: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(SCHEDULE_FIELDS, ("scheduled",)),
    "run_at": ("scheduled", "delegation", "research"),
    "trigger_config": ("triggered",),
    "auto_pause_after": ("scheduled", "triggered"),
}


def _instant(value: object) -> object:
    if not isinstance(value, str | datetime | None):
        raise ValueError(INSTANT)
    return value


def _utc(value: datetime) -> datetime:
    if not 1970 <= value.year < 2400:
        raise ValueError("must lie in the years 1970 to 2399")
    return value.astimezone(UTC)


Instant = Annotated[AwareDatetime, BeforeValidator(_instant)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=LONGEST_SECONDS, allow_inf_nan=False)]


class Retry(BaseModel):
    """How often a run is tried again after an error that may pass, and how long between."""

    model_config = ConfigDict(extra="forbid")

    max_attempts: Whole = Field(4, ge=1, le=20, description="Attempts in all.")
    base_seconds: Seconds = Field(2.0, description="Wait after the first; doubled each time.")
    max_seconds: Seconds = Field(300.0, description="Longest wait.")


class Concurrency(BaseModel):
    """How many runs with the same key may run at once, over all tasks of the workspace."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(min_length=1, max_length=200, description="What they have in common, such as a customer.")
    limit: Whole = Field(ge=1, le=10_000, description="How many run at once; the others wait.")


class Dependency(BaseModel):
    """A task to wait for: until its latest run has completed, or has ended in whatever way."""

    model_config = ConfigDict(extra="forbid")

    task: UUID = Field(description="Its id.")
    on: Literal["success", "any"] = Field("success", description="Which endings count; any other fails the run.")


class _Fields(BaseModel):
    """The fields that a new task and a changed one share."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_later_fields(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        values = cast("dict[str, Any]", data)
        for name in LATER_FIELDS:
            if values.get(name) is not None:
                raise NotAvailable(f"{name} is not offered yet", field=name)
        return {name: value for name, value in values.items() if name not in LATER_FIELDS}


class TaskBody(_Fields):
    """A task about to be stored."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"task_type": "delegation", "prompt": "Summarize the attached numbers.", "input": {"numbers": [1, 2]}},
                {
                    "task_type": "scheduled",
                    "prompt": "Write the morning report.",
                    "schedule_expression": "0 9 * * MON-FRI",
                    "timezone": "Europe/Berlin",
                    "notification_config": {"channels": ["email"], "email_address": "user@example.com"},
                },
                {"task_type": "triggered", "prompt": "Say what happened.", "trigger_config": {}},
            ]
        },
    )

    task_type: TaskType = Field(description="How it starts: at once, by a schedule, by a webhook call; or research.")
    prompt: str = Field(
        min_length=1,
        max_length=50_000,
        description="What to do. For scheduled tasks a template that may name "
        "`fire_time`, `timezone`, `last.outcome`, `last.result`, `last.finished_at`, `input` and `context`.",
    )
    title: str | None = Field(None, min_length=1, max_length=200, description="Cut from the prompt when left out.")
    agent: str = Field("assistant", min_length=1, max_length=200, description="Name or id.")
    input: Any = Field(None, description="Structured data for the agent.")
    context_data: dict[str, Any] = Field(default_factory=dict[str, Any], description="More data for the agent.")
    attachments: list[UUID] = Field(
        default_factory=list[UUID], max_length=MAX_ATTACHED, description="Artifacts that each of its runs gets, by id."
    )
    notification_config: NotificationConfig | None = Field(None, description="Who is told what.")
    run_at: Instant | None = Field(None, description="Not before this instant; for scheduled tasks the only one.")
    conversation: Talk = Field("new", description="Whether each start begins a conversation or goes on in one.")
    priority: Whole = Field(0, ge=-1000, le=1000, description="Higher first.")
    concurrency: Concurrency | None = Field(None, description="How many of its kind may run at once.")
    depends_on: list[Dependency] = Field(
        default_factory=list[Dependency], max_length=MAX_DEPENDENCIES, description="Tasks that its runs wait for."
    )
    retry: Retry | None = Field(None, description="How often a run is tried again.")
    timeout_seconds: Seconds | None = Field(None, description="Running time of one run.")
    queue_timeout_seconds: Seconds | None = Field(None, description="Longest wait for its start.")
    deadline: Instant | None = Field(None, description="When its runs must have ended.")
    schedule_expression: str | None = Field(None, description="Crontab expression, or @daily and its like.")
    interval_seconds: Whole | None = Field(None, ge=10, le=LONGEST_SECONDS, description="Every so many seconds.")
    timezone: str = Field("UTC", min_length=1, max_length=100, description="IANA time zone of the expression.")
    overlap: Overlap = Field("skip", description="When the run before has not ended.")
    catch_up: CatchUp = Field("latest", description="Which missed instants are made up for.")
    catch_up_window_seconds: Whole = Field(86_400, ge=0, le=LONGEST_SECONDS, description="How old they may be.")
    jitter_seconds: Whole = Field(0, ge=0, le=86_400, description="Each run starts up to this much later, at random.")
    auto_pause_after: Whole | None = Field(None, ge=1, le=1000, description="Failures in a row that disable the task.")
    trigger_config: TriggerConfig | None = Field(None, description="Who may call the webhook.")

    @model_validator(mode="after")
    def _fit(self) -> Self:
        self._refuse_foreign_fields()
        if not self.prompt.strip():
            raise InvalidRequest("the prompt is empty", field="prompt")
        self._check_instants()
        self._check_sizes()
        if len({each.task for each in self.depends_on}) < len(self.depends_on):
            raise InvalidRequest("names a task twice", field="depends_on")
        if self.task_type == "scheduled":
            self._check_schedule()
        elif self.task_type == "triggered" and self.trigger_config is None:
            self.trigger_config = TriggerConfig.model_validate({})
        return self

    def _refuse_foreign_fields(self) -> None:
        for name, types in FITTING.items():
            if name in self.model_fields_set and getattr(self, name) is not None and self.task_type not in types:
                raise InvalidRequest(f"is for {' and '.join(types)} tasks, not for {self.task_type}", field=name)

    def _check_instants(self) -> None:
        for name in ("run_at", "deadline"):
            value = getattr(self, name)
            if value is not None:
                try:
                    setattr(self, name, _utc(value))
                except (ValueError, OverflowError) as error:
                    raise InvalidRequest(str(error), field=name) from error

    def _check_sizes(self) -> None:
        for name in ("input", "context_data"):
            if len(dump_json(getattr(self, name))) > MAX_DATA:
                raise InvalidRequest(f"may have {MAX_DATA} characters as JSON", field=name)

    def _check_schedule(self) -> None:
        given = [name for name in WHEN if getattr(self, name) is not None]
        if not given:
            raise InvalidSchedule(
                "a scheduled task needs schedule_expression, interval_seconds or run_at", field="schedule_expression"
            )
        if len(given) > 1:
            raise InvalidSchedule(f"{given[0]} and {given[1]} exclude each other", field=given[1])
        if self.catch_up == "none" and self.overlap == "queue":
            raise InvalidRequest("a queued start comes late, which catch_up none forbids; use latest", field="catch_up")
        cron.zone(self.timezone)
        if self.schedule_expression is not None:
            cron.parse(self.schedule_expression)
        check_prompt(self.prompt)

    @property
    def interval(self) -> timedelta | None:
        """The interval, of a task that has one."""
        return timedelta(seconds=self.interval_seconds) if self.interval_seconds else None


class TaskPatch(_Fields):
    """Changes of a task: what is left out stays, null brings the default back."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"schedule_expression": "0 8 * * *"}]})

    prompt: str | None = None
    title: str | None = None
    agent: str | None = None
    input: Any = None
    context_data: dict[str, Any] | None = None
    attachments: list[UUID] | None = Field(None, max_length=MAX_ATTACHED)
    notification_config: NotificationConfig | None = None
    run_at: Instant | None = None
    conversation: Talk | None = None
    priority: Whole | None = None
    concurrency: Concurrency | None = None
    depends_on: list[Dependency] | None = Field(None, max_length=MAX_DEPENDENCIES)
    retry: Retry | None = None
    timeout_seconds: Seconds | None = None
    queue_timeout_seconds: Seconds | None = None
    deadline: Instant | None = None
    schedule_expression: str | None = None
    interval_seconds: Whole | None = None
    timezone: str | None = None
    overlap: Overlap | None = None
    catch_up: CatchUp | None = None
    catch_up_window_seconds: Whole | None = None
    jitter_seconds: Whole | None = None
    auto_pause_after: Whole | None = None
    trigger_config: TriggerConfig | None = None
    enabled: bool | None = Field(None, strict=True, description="As by /enable and /disable.")

    @model_validator(mode="before")
    @classmethod
    def _keep_the_type(cls, data: Any) -> Any:
        if isinstance(data, dict) and "task_type" in data:
            raise UnknownField("a task keeps its type; make another task", field="task_type")
        return cast("Any", data)

    def merged(self, stored: Mapping[str, Any]) -> TaskBody:
        """The whole task with these changes, checked like a new one.

        Args:
            stored: The fields of the task as it is, secrets masked.
        """
        changes = {name: getattr(self, name) for name in self.model_fields_set if name != "enabled"}
        values = dict(stored)
        if any(changes.get(name) is not None for name in WHEN):
            values = {name: value for name, value in values.items() if name not in WHEN}
        values.update(changes)
        try:
            return TaskBody.model_validate({name: value for name, value in values.items() if value is not None})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise InvalidRequest(f"{field}: {said(first)}", field=field) from error
