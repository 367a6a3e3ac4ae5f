"""A chat of 500 turns, each added by `append`: it writes the turn, not the chat.

What was appended stands in a file beside the session's own until the two are made one.
"""

import asyncio
import tempfile
from pathlib import Path

from phi_sessions import FileSystemSessionStore, LoopRecord, LoopStatus, Session
from phi_sessions.messages import assistant_message, text_of, user_message

TURNS = 500


def turn(chat_id: str, number: int) -> LoopRecord:
    loop = LoopRecord(f"{chat_id}.{number}", chat_id, "calculator", status=LoopStatus.COMPLETED)
    loop.messages.append(user_message(f"What is {number} squared?"))
    answer = f"{number} squared is {number**2}."
    loop.messages.append(assistant_message(answer, model="square", provider="example"))
    return loop


def show(when: str, directory: Path) -> None:
    print(f"{when}: " + ", ".join(sorted(path.name for path in directory.iterdir())))


async def chat(directory: Path) -> None:
    async with FileSystemSessionStore(directory) as store:
        await store.save(Session("chat", "calculator"))
        for number in range(TURNS):
            await store.append("chat", turn("chat", number))
        await store.append("chat", turn("chat", 7))  # again: it takes the place of the first
        show("after the last turn", directory)

        session = await store.load("chat")
        print(f"{len(session.loops)} turns, the last: {text_of(session.loops[-1].messages[1])}")

        held = session  # who holds the session can add to it too, and is told if it was stale
        await store.append(held, turn("chat", TURNS))
        print(f"the holder is up to date: {held == await store.load('chat')}")

        await store.compact("chat")
        show("made one", directory)
        print(f"still the same: {held == await store.load('chat')}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(chat(Path(name)))


if __name__ == "__main__":
    main()
