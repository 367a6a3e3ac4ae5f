"""File systems of a test's own: small, and at hand to be filled or cut off."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN
_WITHOUT_LOG_FLUSH = 2


@contextmanager
def mounted(path: Path, *arguments: str) -> Iterator[Path]:
    """Mount something on `path`, which is made; skip the test where that cannot be done."""
    path.mkdir(exist_ok=True)
    _require("mount")
    done = subprocess.run(
        ["mount", *arguments, str(path)], capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield path
    finally:
        try:
            subprocess.run(["umount", str(path)], timeout=30, check=True)
        except subprocess.CalledProcessError:  # something in it is open still: a failure, but gone
            subprocess.run(["umount", "--lazy", str(path)], timeout=30, check=True)
            raise


@contextmanager
def tmpfs(path: Path, options: str) -> Iterator[Path]:
    """Yield a small file system in memory."""
    with mounted(path, "-t", "tmpfs", "-o", options, "phi-sessions-test") as place:
        yield place


def make_image(path: Path, *arguments: str) -> None:
    """Make a file that holds an ext4 file system."""
    _require("mkfs.ext4")
    with open(path, "wb") as file:
        file.truncate(32 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", "-F", *arguments, str(path)], timeout=60, check=True)


@contextmanager
def disk(image: Path, path: Path) -> Iterator[Path]:
    """Yield the file system of an image; it writes nothing back of its own accord for an hour."""
    with mounted(path, "-o", "loop,commit=3600", str(image)) as place:
        yield place


def cut_the_power(place: Path) -> None:
    """Stop the file system as a power cut does: what did not reach the disk never will."""
    fd = os.open(place, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _WITHOUT_LOG_FLUSH))
    finally:
        os.close(fd)


def _require(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
