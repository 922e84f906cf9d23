"""Files to which each process adds lines about its requests, and which outlive it, however it ends.

A process has a folder of its own and holds a lock on it while it lives. What it has written is with the operating
system when `add` returns: a killed process loses none of it, a power cut the last moments, unless `to_sync` was called.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from app.errors import ConfigError
from app.settings import Settings

SEGMENT_BYTES = 512 * 1024
_READ_AT_ONCE = 256 * 1024
_NOT_YET = "."
"""Names of folders that are not locked yet begin with it."""


def folder_of(settings: Settings) -> Path:
    return settings.instance_path.resolve() / "journal"


def check(parent: Path) -> None:
    """Raises ConfigError when nothing could be written there."""
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise ConfigError(
            f"INSTANCE_PATH: {parent}, the books' journal, cannot be written ({error.strerror}). Make it writable, or "
            "set INSTANCE_PATH."
        ) from None


class Journal:
    """Of this process. Lines are added to the last of its segments and read from the first. Raises OSError."""

    def __init__(self, parent: Path) -> None:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{time.time_ns():x}-{os.getpid()}"
        unlocked = parent / f"{_NOT_YET}{name}"
        unlocked.mkdir(mode=0o700)
        self._lock = _locked(unlocked)
        self.folder = unlocked.rename(parent / name)
        self._number = 1
        self._file = _new(self.folder / _name(1))
        self._segments = [(self.folder / _name(1), self._file)]
        self._written = self._begins_at = 0
        """In the last segment, and of it what it began with."""
        self._read_to = 0
        """In the first one."""
        self.unread_bytes = 0

    def add(self, line: bytes) -> None:
        """All of it or nothing."""
        if os.write(self._file, line) != len(line):
            os.ftruncate(self._file, self._written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
        self._written += len(line)
        self.unread_bytes += len(line)

    @property
    def is_full(self) -> bool:
        """Whether it is time for `turn_page`."""
        return self._written - self._begins_at >= SEGMENT_BYTES

    def turn_page(self, open_lines: Iterable[bytes]) -> None:
        """A new segment, which begins with those: the ones before can go once they are read."""
        path = self.folder / _name(self._number + 1)
        file = _new(path)
        lines = b"".join(open_lines)
        try:
            if os.write(file, lines) != len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            os.close(file)
            path.unlink()
            raise
        self._file, self._number = file, self._number + 1
        self._written = self._begins_at = len(lines)
        self._segments.append((path, file))
        self.unread_bytes += len(lines)

    def to_sync(self) -> Callable[[], None]:
        """What waits until the disk has what was added; it may be called in a thread, when the page was turned."""
        file = os.dup(self._file)

        def sync() -> None:
            try:
                os.fdatasync(file)
            finally:
                os.close(file)

        return sync

    def unread(self) -> list[bytes]:
        """Some of the lines that `done` was not called for; empty when there are none."""
        while True:
            path, file = self._segments[0]
            lines = os.pread(file, _READ_AT_ONCE, self._read_to).splitlines(keepends=True)
            if lines and not lines[-1].endswith(b"\n"):
                lines.pop()
            if lines or len(self._segments) == 1:
                return lines
            self._segments.pop(0)
            self._read_to = 0
            os.close(file)
            path.unlink(missing_ok=True)

    def done(self, lines: Iterable[bytes]) -> None:
        """They need not be read again."""
        size = sum(map(len, lines))
        self._read_to += size
        self.unread_bytes -= size

    def close(self, *, keeps_files: bool) -> None:
        for _, file in self._segments:
            os.close(file)
        if not keeps_files:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def left_behind(parent: Path) -> Iterator[Path]:
    """The folders of processes that are gone, each locked against others who look, until the next is asked for."""
    with suppress(FileNotFoundError):
        for name in sorted(name for name in os.listdir(parent) if not name.startswith(_NOT_YET)):
            with suppress(FileNotFoundError, NotADirectoryError, BlockingIOError):
                lock = _locked(parent / name)
                try:
                    if (parent / name).is_dir():  # somebody may have been through it meanwhile
                        yield parent / name
                finally:
                    os.close(lock)


def lines_of(folder: Path) -> Iterator[bytes]:
    """Of all segments, in order. Of a file that was cut in the middle of a line, that one does not count."""
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))


def _locked(folder: Path) -> int:
    """A descriptor that has the lock. Raises BlockingIOError where another has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _new(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _name(number: int) -> str:
    return f"{number:08}.jsonl"
