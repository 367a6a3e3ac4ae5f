"""An agent that saves after every turn and, killed at any moment, goes on where it was.

python agent_loop.py DIRECTORY
"""

import asyncio
import sys

from phi_sessions import (
    Expect,
    FileSystemSessionStore,
    LoopRecord,
    LoopStatus,
    Session,
    Turn,
    TurnId,
)
from phi_sessions.messages import assistant_message, text_of, user_message

QUESTIONS = [f"What is {number} squared?" for number in range(1, 41)]


async def answer(question: str) -> str:
    await asyncio.sleep(0.005)  # the model thinks
    return f"{int(question.split()[2]) ** 2}"


async def run(store: FileSystemSessionStore) -> None:
    session = await store.find("squares")
    if session is None:
        session = Session("squares", "calculator")
        session.loops.append(LoopRecord("squares.1", "squares", "calculator"))
        await store.save(session, expect=Expect.ABSENT)
    loop = session.loops[-1]
    print(f"{loop.turn_count} turns are there", flush=True)

    for index, question in enumerate(QUESTIONS[loop.turn_count :], loop.turn_count):
        turn_id = TurnId(loop.loop_id, index)
        asked = user_message(question, turn_id=turn_id)
        text = await answer(question)
        said = assistant_message(text, model="square", provider="example", turn_id=turn_id)
        loop.turns.append(Turn(turn_id, said, [asked]))
        loop.status = LoopStatus.RUNNING
        await store.save(session)
        print(f"turn {index} is safe: {text_of(said)}", flush=True)

    loop.status = LoopStatus.COMPLETED
    await store.save(session)
    print(f"{loop.status}: {loop.turn_count} turns")


async def main() -> None:
    async with FileSystemSessionStore(sys.argv[1]) as store:
        await run(store)


if __name__ == "__main__":
    asyncio.run(main())
