"""Parley's own processes, as `parley serve`, `worker` and `scheduler` run them, with the model under test registered.

BENCHMARK_SETTINGS={...} python -m benchmarks.ours serve | worker | scheduler
"""

import json
import os
import sys

import uvicorn
import uvloop

from app import telemetry
from app.main import create_app
from app.providers import Providers
from app.settings import Settings
from benchmarks import leash, sampler
from benchmarks.model import zero_model
from workers import scheduler, worker

MODEL = "scripted:zero"


def main(role: str) -> None:
    """Run one process until it is told to stop."""
    settings = Settings.of(**json.loads(os.environ["BENCHMARK_SETTINGS"]))
    Providers.register("zero", zero_model)
    telemetry.configure(settings)
    leash.hold()
    sampler.install()
    if role == "worker":
        uvloop.run(worker.main(settings))
    elif role == "scheduler":
        uvloop.run(scheduler.main(settings))
    else:
        uvicorn.run(
            create_app(settings),
            host=settings.parley_host,
            port=settings.parley_port or 0,
            loop="uvloop",
            http="httptools",
            log_config=None,
            access_log=False,
        )


if __name__ == "__main__":
    main(sys.argv[1])
