"""Sessions as files in a directory.

- `store`: `FileSystemSessionStore`, the asyncio side: whose turn it is, and one hop for each call.
- `functions`: phi-core's older synchronous functions, on the same path.
- `directory`: what happens in that hop, from the lock to the unlock.  `reader`: its reading half.
- `scan`: listings.  `retry`: when to try again.
- `document`: the layout of a file.  `layout`: the names of the files.
- `publish`: replacing a file.  `lock`: the sidecar.  `disk`: what differs between systems.
"""

from .store import FileSystemSessionStore

__all__ = ["FileSystemSessionStore"]
