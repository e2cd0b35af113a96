"""The nursery: a process that has loaded everything once and forks the processes under test, in milliseconds each.

It alone signals and collects them. A child that has ended stays a zombie until its end was told, so its pid can't have
become somebody else's. When the suite goes, however it goes, the pipe closes and the nursery ends its children.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


class Nursery:
    """The suite's end of the pipe."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._turn = asyncio.Lock()

    def open(self) -> None:
        """Begin; returns once everything is loaded."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.suite.nursery"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
            )
        self._ask({})

    def close(self) -> None:
        """End all children."""
        if self._process and self._process.stdin and self._process.stdout:
            self._process.stdin.close()
            self._process.wait(20)
            self._process.stdout.close()

    async def start(self, role: str, settings: dict[str, Any]) -> int:
        """Fork one; its pid."""
        return await self._asked({"role": role, "settings": settings})

    async def signal(self, pid: int, number: int) -> bool:
        """Signal a child that still runs; False when it has ended."""
        return await self._asked({"pid": pid, "number": number})

    async def ended(self, pid: int) -> bool:
        """Whether a child has ended; it is collected then."""
        return await self._asked({"pid": pid})

    async def _asked(self, request: dict[str, Any]) -> Any:
        async with self._turn:
            return await asyncio.to_thread(self._ask, request)

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the nursery has ended; see {self._log}")
        return json.loads(answer)


class Children:
    """The nursery's end."""

    def __init__(self) -> None:
        self._living: set[int] = set()

    def serve(self) -> None:
        """Answer requests until the pipe closes, then end what is left."""
        from tests.faults.suite import program  # Loaded here once, for all children.

        for line in sys.stdin:
            request = json.loads(line)
            if "role" in request:
                answer: Any = self._start(program, request)
            elif "number" in request:
                answer = self._signal(request["pid"], request["number"])
            else:
                answer = "pid" not in request or self._ended(request["pid"])
            print(json.dumps(answer), flush=True)
        for pid in self._living:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _start(self, program: Any, request: dict[str, Any]) -> int:
        pid = os.fork()
        if pid == 0:
            self._be(program, request)
        self._living.add(pid)
        return pid

    def _be(self, program: Any, request: dict[str, Any]) -> None:
        """The child: nothing of the nursery's pipes is its own."""
        code = 1
        try:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, 0)
            os.dup2(2, 1)
            program.run(request["role"], request["settings"])
            code = 0
        except KeyboardInterrupt:
            code = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)

    def _signal(self, pid: int, number: int) -> bool:
        if self._ended(pid):
            return False
        os.kill(pid, number)
        return True

    def _ended(self, pid: int) -> bool:
        if pid in self._living and os.waitpid(pid, os.WNOHANG)[0]:
            self._living.discard(pid)
        return pid not in self._living


if __name__ == "__main__":
    Children().serve()
