"""What machine a measurement was made on."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version

import msgspec

__all__ = ["Machine", "describe"]

_PACKAGES = ("phi-sessions", "msgspec", "aiofiles", "portalocker")


class Machine(msgspec.Struct, kw_only=True):
    """Where a measurement was made.

    Attributes:
        cores: Cores that this process may use.
        file_system: Kind of the file system of the directory measured.
        mount: Its mount point, device and options.
        load_average: Of the last minute, when the run began: what else the machine was doing.
    """

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    packages: dict[str, str]
    directory: str
    file_system: str
    mount: str
    load_average: float

    def lines(self) -> list[str]:
        """Return the description for people."""
        packages = ", ".join(f"{name} {number}" for name, number in self.packages.items())
        return [
            f"{self.cpu}, {self.cores} cores, {self.memory_gib:.1f} GiB, {self.kernel}",
            f"Python {self.python}, {packages}",
            f"{self.directory}: {self.file_system} on {self.mount}",
            f"load average at the start: {self.load_average:.2f}",
        ]


def describe(directory: str) -> Machine:
    """Return what machine this is and what file system `directory` is on."""
    kind, mount = _mount(os.path.realpath(directory))
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=f"{platform.python_implementation()} {sys.version.split()[0]}",
        packages={name: version(name) for name in _PACKAGES},
        directory=os.path.realpath(directory),
        file_system=kind,
        mount=mount,
        load_average=os.getloadavg()[0],
    )


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except FileNotFoundError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _mount(path: str) -> tuple[str, str]:
    best = ("unknown", "unknown")
    longest = -1
    try:
        with open("/proc/self/mountinfo") as file:
            for line in file:
                left, _, right = line.partition(" - ")
                point, options = left.split()[4:6]
                kind, device = right.split()[:2]
                inside = point == "/" or path == point or path.startswith(point + "/")
                if inside and len(point) >= longest:
                    longest = len(point)
                    best = (kind, f"{point} ({device}, {options})")
    except FileNotFoundError:
        pass  # not Linux
    return best
