"""Eight processes and one session."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from conftest import scaled
from redis_checks import a_session, ids_of_a_sound_server

from benchmarks.servers.redis import RedisServer
from phi_sessions.stores.redis import RedisSessionStore

PROGRAMS = str(Path(__file__).with_name("redis_programs.py"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


async def test_no_update_of_eight_processes_is_lost(
    redis_server: RedisServer, redis_store: RedisSessionStore
) -> None:
    await redis_store.save(a_session())
    times = scaled(100)
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            PROGRAMS,
            "count",
            redis_server.url,
            str(times),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=ENVIRONMENT,
        )
        for _ in range(8)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
        async with asyncio.timeout(60 + times):
            assert [await process.wait() for process in processes] == [0] * 8
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert (await redis_store.load("s-1")).metadata["count"] == 8 * times
    assert await ids_of_a_sound_server(redis_server) == ["s-1"]
