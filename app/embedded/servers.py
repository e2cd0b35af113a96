"""The two embedded servers of a home, held together: lock, reclaim, reaper, start, stop."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from app.embedded.home import Home
from app.embedded.postgres import PostgresServer, start_postgres
from app.embedded.processes import Process, Reaper
from app.embedded.reaper import reap
from app.embedded.valkey import ValkeyServer, start_valkey


class Servers:
    """PostgreSQL and Valkey of one home.

    A context manager: entering takes the home, ends what a killed predecessor left and starts the
    servers that are asked for; leaving stops them. Killed with -9, nothing stays behind either.
    """

    def __init__(
        self,
        path: Path,
        *,
        postgres: bool = True,
        valkey: bool = True,
        pg_bin: Path | None = None,
        valkey_bin: Path | None = None,
        options: Mapping[str, str] | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Say which servers; nothing is started yet.

        Args:
            path: The home.
            postgres: Whether to start PostgreSQL.
            valkey: Whether to start Valkey.
            pg_bin: The folder of PostgreSQL's binaries when the operator names one.
            valkey_bin: Valkey's binary when the operator names one.
            options: PostgreSQL options on top of ours.
            pause: How waiting sleeps; it may raise to give up.
        """
        self.home = Home(path, pause)
        self.postgres: PostgresServer | None = None
        self.valkey: ValkeyServer | None = None
        self.reaper: Reaper | None = None
        self._lock: int | None = None
        self._wanted = (postgres, valkey)
        self._binaries = (pg_bin, valkey_bin)
        self._options = options

    def __enter__(self) -> Self:
        """Take the home and start; a failure half-way takes everything down again."""
        self.home.make()
        self._lock = self.home.lock()
        try:
            reap(self.home.pids)
            self.home.run_file.unlink(missing_ok=True)
            self.reaper = Reaper(self.home, self._lock)
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        if self._wanted[0]:
            self.postgres = start_postgres(self.home, bin_dir=self._binaries[0], options=self._options)
        if self._wanted[1]:
            self.valkey = start_valkey(self.home, binary=self._binaries[1])

    @property
    def processes(self) -> list[Process]:
        """The processes that run, for whoever keeps them running."""
        return [server.process for server in (self.postgres, self.valkey) if server is not None]

    def keep_reaper(self) -> None:
        """Start the reaper again if somebody killed it."""
        if self._lock is not None and self.reaper is not None and self.reaper.dead():
            self.reaper = Reaper(self.home, self._lock)

    def stop(self) -> None:
        """Stop Valkey, then PostgreSQL, and give the home back. Bears a half-made start and a second call."""
        if self._lock is None:
            return
        for process in reversed(self.processes):
            process.stop()
        reap(self.home.pids)  # what an interrupted start did not hand over
        self.home.run_file.unlink(missing_ok=True)
        if self.reaper is not None:
            self.reaper.close()
        os.close(self._lock)
        self._lock = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()
