"""File systems of a test's own, as the tests of the file store have them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "crash"))

from crash_mounts import cut_the_power, disk, make_image, tmpfs

__all__ = ["cut_the_power", "disk", "make_image", "tmpfs"]
