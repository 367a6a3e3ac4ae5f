"""Sessions as files in a directory.

- `store`: `FileSystemSessionStore`, the asyncio side: whose turn it is, and one hop for each call.
- `functions`: phi-core's older synchronous functions, on the same path.
- `directory`: what happens in that hop, from the lock to the unlock.  `reader`: its reading half.
- `committer`: writers that wait for the disk together.  `flush`: what a writer waits for.
- `known`: what was written last, so that it need not be read again.
- `check`: looking a directory over and mending it.  `leasing`: holding a session for a run.
- `tail`: what an append writes.  `tailfile`: where it writes it.
- `scan`: listings.  `retry`: when to try again.
- `document`: the layout of a file.  `layout`: the names of the files.
- `publish`: replacing a file.  `disk`: what differs between systems.
"""

from .check import Finding, FindingKind
from .store import FileSystemSessionStore

__all__ = ["FileSystemSessionStore", "Finding", "FindingKind"]
