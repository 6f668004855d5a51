"""A machine whose power may fail at any call that changes a file, and what its disk may have by then.

POSIX promises what was given to `fsync`, and no more: of a file the content that it had then, of a directory
the names. Whatever changed later the disk may have or not have, page by page and name by name, in any order;
and where a file had become longer it may have zeros. One thing is kept, as every file system with a log keeps
it: what is given another name has one of the two.

What SQLite keeps is copied as it stands: it has its own way through a failure, and its own tests of that.

And a real file system that fails as it does when the power does, where the tests may make one.
"""

from __future__ import annotations

import fcntl
import os
import random
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CALLS = ("close", "fsync", "ftruncate", "link", "mkdir", "open", "pwrite", "rename", "replace", "unlink")
"""Where the power may fail: before and after each of these, and so between any two writes."""

PAGE = 512
"""What a disk writes whole."""

Name = tuple[int, int]
"""What tells a file from others."""


@dataclass
class Machine:
    """A directory, `root`, that is on the disk, and what is below it; `cut` is called where power may fail.

    Every file that the disk has is kept open, so that no other comes to have its number.
    """

    root: Path
    cut: Callable[[str], None] = lambda _: None
    contents: dict[Name, bytes] = field(default_factory=dict[Name, bytes])
    names: dict[Name, dict[str, Name]] = field(default_factory=dict[Name, dict[str, Name]])
    files: dict[Name, int] = field(default_factory=dict[Name, int])

    def take(self, fd: int) -> None:
        """What `fsync` does: the disk has this file as it is now, or the names in this directory."""
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if not path.is_relative_to(self.root):
            return
        name = self._kept(path)
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            self.names[name] = {each.name: self._kept(each) for each in path.iterdir()}
        else:
            self.contents[name] = os.pread(self.files[name], found.st_size, 0)

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """For as long as this lasts the power does not fail."""
        cut, self.cut = self.cut, _nothing
        yield
        self.cut = cut

    def after(self, to: Path, chance: random.Random) -> None:
        """Make what the disk may have if the power fails now."""
        self._build(self.root, to, self.names.get(_name(self.root.stat()), {}), chance)

    def forget(self) -> None:
        """Let go of the files."""
        for fd in self.files.values():
            _close(fd)

    def _kept(self, path: Path) -> Name:
        fd = _open(path, os.O_RDONLY)
        name = _name(os.fstat(fd))
        if name in self.files:
            _close(fd)
        else:
            self.files[name] = fd
        return name

    def _build(self, now: Path | None, to: Path, on_disk: dict[str, Name], chance: random.Random) -> None:
        to.mkdir(mode=0o700)
        there = {} if now is None else {each.name: _name(each.lstat()) for each in now.iterdir()}
        on_disk = {each: name for each, name in on_disk.items() if not _is_sqlites(each)}
        on_disk |= {each: name for each, name in there.items() if _is_sqlites(each)}
        has: dict[Name, bool] = {}  # whether the disk has what became of it
        for each in sorted({*there, *on_disk}):
            was, became = on_disk.get(each), there.get(each)
            moved = became if was is None or became in on_disk.values() else was
            assert moved is not None
            name = became if was == became or has.setdefault(moved, chance.random() < 0.5) else was
            if name is not None:
                path = now / each if now is not None and name == became else None
                self._make(name, path, to / each, chance)

    def _make(self, name: Name, path: Path | None, to: Path, chance: random.Random) -> None:
        fd = self.files[name] if path is None else _open(path, os.O_RDONLY)
        try:
            found = os.fstat(fd)
            if stat.S_ISDIR(found.st_mode):
                self._build(path, to, self.names.get(name, {}), chance)
                return
            now = os.pread(fd, found.st_size, 0)
            to.write_bytes(now if _is_sqlites(to.name) else _mixed(self.contents.get(name, b""), now, chance))
        finally:
            if path is not None:
                _close(fd)


def _is_sqlites(name: str) -> bool:
    return name.startswith(("usage.db", "seen.db"))


def _mixed(was: bytes, now: bytes, chance: random.Random) -> bytes:
    """Some pages of the one and some of the other."""
    if was == now:
        return now
    size = chance.choice((len(was), len(now), chance.randint(*sorted((len(was), len(now))))))
    likely = chance.choice((0.0, 0.5, 0.9, 1.0))
    pages: list[bytes] = []
    for start in range(0, size, PAGE):
        page = now if chance.random() < likely else was
        pages.append(page[start : start + PAGE].ljust(PAGE, b"\0"))
    return b"".join(pages)[:size]


def _name(found: os.stat_result) -> Name:
    return found.st_dev, found.st_ino


@dataclass(frozen=True, slots=True)
class RealDisk:
    """A file system, ext4, in a file; `fail` does to it what a failure of power does."""

    image: Path
    place: Path

    def make(self, size: str = "64M") -> None:
        """Raises `OSError` or `CalledProcessError` where nobody can."""
        _do("truncate", "-s", size, str(self.image))
        _do("mkfs.ext4", "-q", str(self.image))
        self.place.mkdir()

    @contextmanager
    def mounted(self, options: str) -> Iterator[Path]:
        """Where it is, for as long as this lasts. Raises what `make` raises."""
        _do("mount", "-o", f"loop,{options}", str(self.image), str(self.place))
        try:
            yield self.place
        finally:
            _do("umount", str(self.place))

    def fail(self) -> None:
        """From now on it takes nothing any more, and what it has not written is lost."""
        fd = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _EXT4_IOC_SHUTDOWN, struct.pack("I", _WITHOUT_ITS_LOG))
        finally:
            os.close(fd)


_EXT4_IOC_SHUTDOWN = 0x8004587D
_WITHOUT_ITS_LOG = 2


def _do(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def _nothing(_call: str) -> None:
    """It does not fail."""


_open, _close = os.open, os.close


@contextmanager
def machine(root: Path) -> Iterator[Machine]:
    """One that notices what this process does. The disk has `root`, and nothing in it."""
    made = Machine(root)

    def noticing(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            made.cut(name)
            done = call(*arguments, **named)
            made.cut(name)
            return done

        return called

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, noticing(name, made.take if name == "fsync" else getattr(os, name)))
        yield made
    made.forget()
