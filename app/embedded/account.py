"""The account the servers run as: ourselves, or `nobody` when we are root (PostgreSQL refuses root)."""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict


@dataclass(frozen=True)
class Account:
    """A user to drop to."""

    uid: int
    gid: int

    def reaches(self, path: Path) -> bool:
        """Whether this user may pass through every folder above `path`."""
        return all(self._may_enter(folder.stat()) for folder in path.resolve().parents if folder.exists())

    def _may_enter(self, folder: os.stat_result) -> bool:
        if folder.st_uid == self.uid:
            return bool(folder.st_mode & stat.S_IXUSR)
        if folder.st_gid == self.gid:
            return bool(folder.st_mode & stat.S_IXGRP)
        return bool(folder.st_mode & stat.S_IXOTH)


class Dropped(TypedDict, total=False):
    """The arguments of `Popen` that start a process as somebody else."""

    user: int
    group: int
    extra_groups: list[str | int]


def dropped(account: Account | None) -> Dropped:
    """What makes `Popen` drop to the account; nothing when we stay ourselves."""
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


def server_account(data: Path) -> Account | None:
    """Who runs the server of a data folder: None for ourselves, its owner or `nobody` when we are root."""
    if os.geteuid() != 0:
        return None
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


def private_folder(path: Path, account: Account | None) -> Path:
    """Make a folder that only the account (or we) can read."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    give(path, account)
    return path


def open_folder(path: Path) -> Path:
    """Make a folder everybody may pass through, whatever our umask; folders above it that are new, too."""
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            folder.chmod(0o711)
    return path


def private_file(path: Path, text: str, account: Account | None = None) -> Path:
    """Write a 0600 file in one step, so that nobody ever sees half of it or may read it."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    give(fresh, account)
    fresh.replace(path)
    return path


def give(path: Path, account: Account | None) -> None:
    """Hand a path over to the account."""
    if account is not None:
        os.chown(path, account.uid, account.gid)
