"""Sessions in Redis or Valkey: chats of visitors, which vanish when they were idle for long.

Start a server:  redis-server --appendonly yes --appendfsync always
Run this:        python examples/store_redis.py redis://localhost:6379/0

The URL may stand in SESSIONS_URL, too; by default it is the server above. It prints

    chatted  20 visitors, 3 questions each: 60 answers kept
    idle     10 chats are there, the others have vanished
"""

import asyncio
import os
import sys
import uuid

from phi_sessions import LoopRecord, Session, open_store
from phi_sessions.messages import user_message

VISITORS, QUESTIONS = 20, 3
TIME_TO_LIVE = 3.0
DEFAULT = "redis://localhost:6379/0"


def question(chat_id: str, number: int) -> LoopRecord:
    loop = LoopRecord(f"{chat_id}.{number}", chat_id, "helper")
    loop.messages.append(user_message(f"question {number}"))
    return loop


async def run(url: str) -> None:
    chats = [f"visitor {uuid.uuid4()}" for _ in range(VISITORS)]
    async with open_store(url, ttl=TIME_TO_LIVE) as store:

        async def chat(chat_id: str) -> int:
            await store.save(Session(chat_id, "helper"))
            for number in range(QUESTIONS):
                await store.append(chat_id, question(chat_id, number))
            return len((await store.load(chat_id)).loops)

        kept = sum(await asyncio.gather(*map(chat, chats)))
        print(f"chatted  {VISITORS} visitors, {QUESTIONS} questions each: {kept} answers kept")
        for number in range(6):  # half of them go on for longer than an idle chat lives
            await asyncio.sleep(TIME_TO_LIVE / 5)
            busy = chats[: VISITORS // 2]
            await asyncio.gather(*(store.append(c, question(c, QUESTIONS + number)) for c in busy))
        there = sum(await asyncio.gather(*map(store.exists, chats)))
        print(f"idle     {there} chats are there, the others have vanished")


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SESSIONS_URL", DEFAULT)
    asyncio.run(run(url))


if __name__ == "__main__":
    main()
