"""Logs: one line per event, JSON or colours, with the request, run and conversation it belongs to."""

import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from app.redaction import remember, without_known
from app.settings import Settings

# Spoken by libraries at INFO for every request or statement.
QUIET = ("httpx", "httpcore", "httpx2", "httpcore2", "asyncio", "apscheduler", "arq", "aiosmtplib", "markdown_it")


def configure(settings: Settings) -> None:
    """Send all logs of this process, ours and the libraries', to standard error in one form."""
    remember(settings.secrets)
    json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    shared = _shared()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_rendering(json=json))
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = name != "uvicorn.access"  # Requests are logged by the API itself.


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        _uncoloured,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def _uncoloured(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Without uvicorn's second copy of a message, made for terminals."""
    event.pop("color_message", None)
    return event


def _rendering(*, json: bool) -> list[Processor]:
    clean = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if json:
        return [clean, structlog.processors.format_exc_info, _plain, structlog.processors.JSONRenderer(), _redacted]
    # Plain tracebacks: the pretty ones show local variables, and those hold secrets.
    plain = structlog.dev.plain_traceback
    return [clean, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain), _redacted]


def _plain(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Ids as text, whatever a caller passed."""
    return {key: value if isinstance(value, str | int | float | bool | None | dict | list) else str(value)
            for key, value in event.items()}  # fmt: skip


def _redacted(_: WrappedLogger, __: str, line: Any) -> str:
    """The finished line, traceback and all, without the secrets this process knows."""
    return without_known(str(line))


@contextmanager
def bound(**values: Any) -> Generator[None]:
    """Put these values on every line logged inside, such as `run_id` and `conversation_id`."""
    shown = {name: str(value) for name, value in values.items() if value is not None}
    with structlog.contextvars.bound_contextvars(**shown):
        yield
