"""Which statement a save, an append or a deletion is."""

from __future__ import annotations

from contextlib import suppress

from ... import codec
from ...codec import Parcel, StoredRecord
from ...errors import SessionConflictError, SessionExistsError
from ...model import Revision
from ...store import Expect, Expectation
from ..base import Outcome, new_revision, not_found, require
from ..patience import Patience
from .attempts import Attempts, Change
from .rows import as_bytes, as_columns, as_revision, check_head
from .server import Server
from .statements import Statements

__all__ = ["Changes"]


class Changes:
    """Changes sessions, each by one statement once it is known that no damaged one gets lost.

    Args:
        server: Where.
        attempts: Makes the changes there.
        statements: The statements for its tables.
        place: What errors call the table.
    """

    def __init__(
        self, server: Server, attempts: Attempts, statements: Statements, place: str
    ) -> None:
        self._server = server
        self._attempts = attempts
        self._statements = statements
        self._place = place

    async def save(
        self, parcel: Parcel, expect: Expectation, outcome: Outcome, patience: Patience
    ) -> None:
        """Store a parcel: what changed of it, where that is known, else all.

        Raises:
            SessionCorruptError: `Expect.UNCHANGED`, and what is stored is damaged.
            As `Attempts.make`.
        """
        origin = parcel.origin
        # Who expects anything writes all: what is stored may be damaged where nothing changed.
        if origin is not None and expect == origin.revision:
            changes = codec.changes(parcel)
            if changes is not None:
                head, records = changes
                agent_id = None if head is None else as_bytes(parcel.agent_id)
                args = (agent_id, head)
                await self._put(parcel.session_id, expect, args, records, outcome, patience)
                return
        if expect is Expect.UNCHANGED:
            await self._replace_sound(parcel, outcome, patience)
        else:
            await self._replace(parcel, expect, outcome, patience)

    async def append(
        self,
        session_id: str,
        records: list[StoredRecord],
        expect: Expectation,
        outcome: Outcome,
        patience: Patience,
    ) -> None:
        """Add records, or put them in the place of those with their `loop_id`.

        Raises:
            SessionNotFoundError: There is no session.
            As `Attempts.make`.
        """
        await self._put(session_id, expect, (None, None), records, outcome, patience)

    async def delete(self, session_id: str, expect: Expectation, patience: Patience) -> bool:
        """Remove a session; False if there is none.

        Raises:
            SessionCorruptError: It is damaged.
            As `Attempts.make`.
        """
        while (found := await self._find_sound(session_id, expect)) is not None:
            change = Change(
                self._statements.delete,
                session_id,
                found,
                revision=None,
                known=found,
                makes=False,
                args=(),
            )
            try:
                return await self._attempts.make(change, patience)
            except SessionConflictError as error:  # changed since
                if patience.left <= 0:
                    raise patience.locked() from error
        return False

    async def _find_sound(self, session_id: str, expect: Expectation) -> Revision | None:
        """Return the stored state if it is as expected and, but for its records' texts, sound.

        Raises:
            SessionCorruptError: It is damaged.
            As `require`.
        """
        rows = await self._server.fetch(self._statements.head, as_bytes(session_id))
        if not rows:
            return None
        [row] = rows
        found = as_revision(row[0])
        require(expect, found, session_id)
        await check_head(row, session_id, self._place)
        return found

    async def _replace_sound(self, parcel: Parcel, outcome: Outcome, patience: Patience) -> None:
        with suppress(SessionExistsError):  # most that were built by hand are new
            await self._replace(parcel, Expect.ABSENT, outcome, patience)
            return
        while True:
            found = await self._find_sound(parcel.session_id, Expect.UNCHANGED)
            try:
                await self._replace(parcel, found or Expect.ABSENT, outcome, patience)
            except (SessionConflictError, SessionExistsError) as error:  # changed since
                if patience.left <= 0:
                    raise patience.locked() from error
            else:
                return

    async def _replace(
        self, parcel: Parcel, expect: Expectation, outcome: Outcome, patience: Patience
    ) -> None:
        revision, head = new_revision(), parcel.head
        size = len(head) + sum(len(record.text) for record in parcel.records)
        name, columns = as_bytes(revision), as_columns(parcel.records)
        change = Change(
            self._statements.replace,
            parcel.session_id,
            expect,
            revision,
            known=_known(expect) or (parcel.origin.revision if parcel.origin else None),
            makes=True,
            args=(name, *columns, expect is Expect.ABSENT, as_bytes(parcel.agent_id), head, size),
        )
        await self._attempts.make(change, patience)
        outcome.revision = revision

    async def _put(
        self,
        session_id: str,
        expect: Expectation,
        args: tuple[bytes | None, bytes | None],
        records: list[StoredRecord],
        outcome: Outcome,
        patience: Patience,
    ) -> None:
        revision = new_revision()
        change = Change(
            self._statements.put,
            session_id,
            expect,
            revision,
            known=_known(expect),
            makes=False,
            args=(as_bytes(revision), *as_columns(records), *args),
        )
        if not await self._attempts.make(change, patience):
            require(expect, None, session_id)
            raise not_found(session_id)
        outcome.revision = revision


def _known(expect: Expectation) -> Revision | None:
    return None if isinstance(expect, Expect) else expect
