"""What others may do to a session's files behind a store's back."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from phi_sessions import Expect, FileSystemSessionStore, LoopRecord, Session

Store = FileSystemSessionStore
Foreign = Callable[[Path, Store], Awaitable[None]]

ID = "s"


def session(*loop_ids: str, size: int = 3000) -> Session:
    made = Session(ID, "agent", metadata={"pad": "x" * size})
    made.loops += [loop(loop_id) for loop_id in loop_ids]
    return made


def loop(loop_id: str) -> LoopRecord:
    return LoopRecord(loop_id, ID, "agent", metadata={"loop": loop_id})


def path(directory: Path) -> Path:
    return directory / f"{ID}.json"


def tail_path(directory: Path) -> Path:
    return directory / f"{ID}.json.log"


def as_phi_core(data: bytes, size: int | None = None) -> bytes:
    """Return what phi-core would write that renames a loop: it knows no revisions."""
    value = json.loads(data)
    value.pop("revision")
    value.pop("supersedes", None)
    value["loops"][0]["loop_id"] = "foreign"
    text = json.dumps(value, indent=2)
    if size is not None:
        pad = value["metadata"]["pad"]
        value["metadata"]["pad"] = pad[: len(pad) - (len(text) - size)]
        text = json.dumps(value, indent=2)
        assert len(text) == size
    return text.encode()


def keep_times(of: Path, change: Callable[[], Any]) -> None:
    """Make a change, and give the file the times that it had."""
    status = of.stat()
    change()
    os.utime(of, ns=(status.st_atime_ns, status.st_mtime_ns))


async def replaces_it(directory: Path, other: Store) -> None:
    await other.save(session("foreign"), expect=Expect.ANYTHING)


async def loads_and_saves_it(directory: Path, other: Store) -> None:
    found = await other.load(ID)
    found.loops.append(loop("foreign"))
    await other.save(found)


async def replaces_it_as_phi_core_does(directory: Path, other: Store) -> None:
    temporary = directory / f"{ID}.json.tmp.1.1"
    temporary.write_bytes(as_phi_core(path(directory).read_bytes()))
    temporary.replace(path(directory))


async def rewrites_it_in_place_with_its_size(directory: Path, other: Store) -> None:
    data, before = path(directory).read_bytes(), path(directory).stat()
    path(directory).write_bytes(as_phi_core(data, len(data)))
    after = path(directory).stat()
    assert (before.st_ino, before.st_size) == (after.st_ino, after.st_size)


async def rewrites_it_in_place_with_its_times(directory: Path, other: Store) -> None:
    data = as_phi_core(path(directory).read_bytes())
    keep_times(path(directory), lambda: path(directory).write_bytes(data))


async def restores_another_with_its_size_and_times(directory: Path, other: Store) -> None:
    data, copy = path(directory).read_bytes(), directory / "copy"
    shutil.copy2(path(directory), copy)
    keep_times(copy, lambda: copy.write_bytes(as_phi_core(data, len(data))))
    before = path(directory).stat()
    copy.replace(path(directory))
    after = path(directory).stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    assert before.st_ino != after.st_ino


async def restores_a_whole_copy(directory: Path, other: Store) -> None:
    shutil.copytree(directory, directory.with_name("copy"))
    await other.append(ID, loop("lost"))
    await other.compact(ID)
    shutil.rmtree(directory)
    directory.with_name("copy").rename(directory)


async def appends_to_it(directory: Path, other: Store) -> None:
    await other.append(ID, loop("foreign"))


async def appends_to_it_and_keeps_the_times(directory: Path, other: Store) -> None:
    if not tail_path(directory).exists():
        await other.append(ID, loop("foreign"))
        return
    status = tail_path(directory).stat()
    await other.append(ID, loop("foreign"))
    os.utime(tail_path(directory), ns=(status.st_atime_ns, status.st_mtime_ns))


async def removes_the_tail(directory: Path, other: Store) -> None:
    tail_path(directory).unlink(missing_ok=True)
    os.utime(path(directory))


async def takes_the_tail_in(directory: Path, other: Store) -> None:
    await other.compact(ID)
    os.utime(path(directory))  # also where there was none


async def takes_the_tail_in_and_begins_another(directory: Path, other: Store) -> None:
    await other.compact(ID)
    await other.append(ID, loop("foreign"))


async def is_killed_while_it_appends(directory: Path, other: Store) -> None:
    whole = tail_path(directory).stat().st_size if tail_path(directory).exists() else 0
    await other.append(ID, loop("never"))
    os.truncate(tail_path(directory), (whole + tail_path(directory).stat().st_size) // 2)


async def deletes_it(directory: Path, other: Store) -> None:
    await other.delete(ID)


async def deletes_and_recreates_it(directory: Path, other: Store) -> None:
    await other.delete(ID)
    await other.save(session("foreign"))


async def removes_the_directory(directory: Path, other: Store) -> None:
    shutil.rmtree(directory)


async def removes_and_recreates_the_directory(directory: Path, other: Store) -> None:
    shutil.rmtree(directory)
    async with FileSystemSessionStore(directory, fsync=False) as another:
        await another.save(session("foreign"))


async def damages_it(directory: Path, other: Store) -> None:
    path(directory).write_bytes(b"\0" * path(directory).stat().st_size)


async def damages_the_tail(directory: Path, other: Store) -> None:
    tail_path(directory).write_bytes(b"\0" * 400 + b"\n{}\n")


async def puts_a_link_in_its_place(directory: Path, other: Store) -> None:
    path(directory).rename(directory / "elsewhere")
    path(directory).symlink_to("elsewhere")


async def touches_it(directory: Path, other: Store) -> None:
    os.utime(path(directory))


FOREIGN = [
    replaces_it,
    loads_and_saves_it,
    replaces_it_as_phi_core_does,
    rewrites_it_in_place_with_its_size,
    rewrites_it_in_place_with_its_times,
    restores_another_with_its_size_and_times,
    restores_a_whole_copy,
    appends_to_it,
    appends_to_it_and_keeps_the_times,
    removes_the_tail,
    takes_the_tail_in,
    takes_the_tail_in_and_begins_another,
    is_killed_while_it_appends,
    deletes_it,
    deletes_and_recreates_it,
    removes_the_directory,
    removes_and_recreates_the_directory,
    damages_it,
    damages_the_tail,
    puts_a_link_in_its_place,
    touches_it,
]
