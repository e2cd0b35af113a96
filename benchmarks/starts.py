"""Cold and warm start of `python3 dev.py`, until `/readyz` answers 200. Downloads are not part of it."""

import os
import sys
import tempfile
import time
from pathlib import Path

from app.settings import Settings
from benchmarks.processes import free_port, process, ready

COLD_SECONDS = 60.0


async def starts(warm: int = 2) -> dict[str, list[float]]:
    """Seconds of a first start in a fresh home, and of starts after it."""
    with tempfile.TemporaryDirectory(prefix="parley-start-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o711)  # the servers' account passes through when we are root
        cold = await _one(home)
        return {"cold start s": [cold], "warm start s": [await _one(home) for _ in range(warm)]}


async def _one(home: Path) -> float:
    port, log = free_port(), home / "start.log"
    ours = {name.upper() for name in Settings.model_fields}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    environment = kept | {"PARLEY_HOME": str(home / "home"), "PARLEY_PORT": str(port)}
    began = time.perf_counter()
    with process([sys.executable, "dev.py"], environment, log, inherit=False):
        await ready(port, log, COLD_SECONDS)
        return time.perf_counter() - began
