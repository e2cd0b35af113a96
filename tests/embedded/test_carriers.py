import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded import Servers
from app.embedded.account import Account, dropped, server_account
from app.embedded.carriers import Carrier, find_postgres, find_valkey, major_version
from app.errors import ConfigurationError

NOBODY = Account(65534, 65534)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop to another account")


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A stand-in for /var/lib/parley."""
    folder = Path(tempfile.mkdtemp(prefix="parley-shared-"))
    folder.chmod(0o711)
    for module in ("home", "carriers"):
        monkeypatch.setattr(f"app.embedded.{module}.SHARED_ROOT", folder / "parley")
    yield folder / "parley"
    shutil.rmtree(folder)


def test_wheels_carry_both_servers() -> None:
    assert major_version(find_postgres().binary) >= 17
    assert find_valkey().binary.name == "valkey-server"


def test_a_named_folder_without_a_server_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="PARLEY_PG_BIN") as refused:
        find_postgres(tmp_path)
    assert refused.value.field == "PARLEY_PG_BIN"
    with pytest.raises(ConfigurationError, match="PARLEY_VALKEY_BIN"):
        find_valkey(tmp_path)


def test_a_server_that_is_too_old_is_passed_by(tmp_path: Path) -> None:
    old = tmp_path / "postgres"
    old.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 14.9'\n")
    old.chmod(0o755)
    assert major_version(old) == 14
    with pytest.raises(ConfigurationError, match="no PostgreSQL 15 or newer"):
        find_postgres(tmp_path)


@pytest.mark.parametrize(
    "bin_dir", sorted(Path("/usr/lib/postgresql").glob("*/bin")), ids=lambda path: path.parent.name
)
def test_an_installed_server_can_be_named(home: Path, bin_dir: Path) -> None:
    with Servers(home, valkey=False, pg_bin=bin_dir) as servers:
        assert servers.postgres
    assert (home / "pg" / "PG_VERSION").read_text().strip() == str(major_version(bin_dir / "postgres"))


def test_reach_follows_the_permissions_of_every_folder_above(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    stranger = Account(os.getuid() + 1, os.getgid() + 1)
    assert not stranger.reaches(closed / "file")
    assert Account(os.getuid(), os.getgid()).reaches(closed / "file")


@as_root
def test_a_carrier_out_of_reach_is_copied_without_opening_its_folder(shared: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "package" / "bin").mkdir(parents=True)
    (tmp_path / "package.libs").mkdir()
    shutil.copy("/bin/true", tmp_path / "package" / "bin" / "server")
    parts = (tmp_path / "package", tmp_path / "package.libs")
    carrier = Carrier(tmp_path / "package" / "bin" / "server", tmp_path, parts)
    umask = os.umask(0o077)
    try:
        copied = carrier.for_account(NOBODY)
    finally:
        os.umask(umask)
    assert copied.is_relative_to(shared)
    assert subprocess.run([copied], **dropped(NOBODY), cwd="/").returncode == 0
    assert (copied.parents[2] / "package.libs").is_dir()
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    assert carrier.for_account(NOBODY) == copied


@as_root
def test_a_home_out_of_reach_keeps_its_data_in_the_shared_folder(shared: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    for _ in range(2):
        with Servers(tmp_path / "home") as servers:
            assert servers.home.data_root().parent == shared
    assert not (tmp_path / "home" / "pg").exists()
    assert (servers.home.data_root() / "pg" / "PG_VERSION").exists()


@as_root
def test_servers_of_a_users_data_run_as_that_user(tmp_path: Path) -> None:
    (tmp_path / "pg").mkdir()
    os.chown(tmp_path / "pg", 1234, 1235)
    assert server_account(tmp_path / "pg") == Account(1234, 1235)
