"""All SQL that reads and writes sessions: one statement for each call, one round trip.

A statement of READ COMMITTED sees what was committed when it began, except that a row which it
changes is the newest one, waited for if need be. So each change first looks at the session's row
(`seen`), and then changes that row only if it is still the same; what it finds out about the
records is then true as well, as nobody changes records without giving their session a new
revision. A change that comes too late changes nothing and says so; it is made again with the row
locked before the statement begins.

Lists are sent as one value of bytes and the lengths of its parts, `bytea` and `oid[]`: of arrays
asyncpg knows but `oid[]` and `text[]`; of others it asks the server, on each new connection.

The time limit for locks, and commits that wait for the disk, are set within the statement and end
with it: nothing is left behind on a connection that others use, through a proxy perhaps.
"""

from __future__ import annotations

from typing import Final

from .tables import Tables

__all__ = ["FIRST_BYTES", "Statements"]

FIRST_BYTES: Final = 16 * 1024 * 1024
"""Bytes of sessions that one statement of a listing returns."""

# The time limit that a role may have for statements would end them before that for locks does, and
# as if they had failed.
_WAIT: Final = """set_config('lock_timeout', ceil(1000 * extract(epoch FROM least(
        {limit}::text::interval, nullif(current_setting('statement_timeout')::interval, '0') / 2
    )))::bigint || 'ms', true) AS patience"""

# $1 session, $2 expected revision or NULL, $3 lock timeout, $4 durable
_BEGIN: Final = """
WITH limits AS MATERIALIZED (
    SELECT {wait_3},
        CASE WHEN $4::boolean AND current_setting('synchronous_commit') = 'off'
            THEN set_config('synchronous_commit', 'on', true) ELSE '' END AS durability
), seen AS MATERIALIZED (
    SELECT s.revision FROM limits LEFT JOIN {sessions} s
        ON s.session_id = $1 AND patience IS NOT NULL AND durability IS NOT NULL
)"""

_NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000000000)::bigint"

# $6 loop ids and $7 their lengths, $8 texts and $9 their lengths, $10 hashes of the ids
_NEWS: Final = """
    SELECT place, hash::bigint AS loop_hash,
        substring($6::bytea, (sum(id_size::bigint) OVER w - id_size::bigint)::integer + 1,
            id_size::integer) AS loop_id,
        substring($8::bytea, (sum(text_size::bigint) OVER w - text_size::bigint)::integer + 1,
            text_size::integer) AS text
    FROM unnest($7::oid[], $9::oid[], $10::oid[]) WITH ORDINALITY
        AS part (id_size, text_size, hash, place)
    WINDOW w AS (ORDER BY place ROWS UNBOUNDED PRECEDING)"""

# $5 new revision, $11 expected to be absent, $12 agent, $13 head, $14 size
_REPLACE: Final = """{begin}, news AS MATERIALIZED ({news}
), made AS (
    INSERT INTO {sessions}
        (session_id, agent_id, revision, head, size, next_position, saved, saved_at)
    SELECT $1, $12::bytea, $5, $13::bytea, $14::bigint, (SELECT count(*) FROM news),
        nextval({saves}), {now}
    FROM seen WHERE seen.revision IS NULL AND $2::bytea IS NULL
    ON CONFLICT (session_id) DO NOTHING RETURNING 1
), changed AS (
    UPDATE {sessions} s SET agent_id = $12, revision = $5, head = $13, size = $14,
        next_position = (SELECT count(*) FROM news), saved = nextval({saves}), saved_at = {now}
    FROM seen WHERE s.session_id = $1 AND s.revision = seen.revision
        AND ($2 IS NULL OR s.revision = $2) AND NOT $11::boolean
    RETURNING 1
), done AS (
    SELECT FROM made UNION ALL SELECT FROM changed
), gone AS (
    DELETE FROM {records} r USING done WHERE r.session_id = $1 RETURNING 1
), added AS (
    INSERT INTO {records} (session_id, loop_hash, position, loop_id, text)
    SELECT $1, n.loop_hash, n.place - 1, n.loop_id, n.text FROM done, news n
    WHERE (SELECT count(*) FROM gone) >= 0 -- the old ones first
)
SELECT seen.revision, EXISTS (SELECT FROM done) FROM seen
"""

# $5 new revision, $11 agent or NULL, $12 head or NULL
_PUT: Final = """{begin}, parts AS MATERIALIZED ({news}
), news AS MATERIALIZED (
    SELECT n.*, r.position, r.size,
        count(*) FILTER (WHERE r.position IS NULL) OVER (ORDER BY n.place) AS number
    FROM parts n LEFT JOIN LATERAL (
        SELECT old.position, octet_length(old.text) AS size FROM {records} old
        WHERE old.session_id = $1 AND old.loop_hash = n.loop_hash AND old.loop_id = n.loop_id
        ORDER BY old.position DESC LIMIT 1
    ) r ON true
), sums AS MATERIALIZED (
    SELECT count(*) FILTER (WHERE position IS NULL) AS added,
        coalesce(sum(octet_length(text) - coalesce(size, 0)), 0) AS growth FROM news
), changed AS (
    UPDATE {sessions} s SET revision = $5,
        agent_id = coalesce($11::bytea, s.agent_id), head = coalesce($12::bytea, s.head),
        size = s.size + (SELECT growth FROM sums)
            + coalesce(octet_length($12::bytea) - octet_length(s.head), 0),
        next_position = s.next_position + (SELECT added FROM sums),
        saved = nextval({saves}), saved_at = {now}
    FROM seen WHERE s.session_id = $1 AND s.revision = seen.revision
        AND ($2::bytea IS NULL OR s.revision = $2)
    RETURNING s.next_position - (SELECT added FROM sums) AS next_position
), put AS (
    INSERT INTO {records} (session_id, loop_hash, position, loop_id, text)
    SELECT $1, n.loop_hash, coalesce(n.position, c.next_position + n.number - 1), n.loop_id, n.text
    FROM changed c, news n
    ON CONFLICT (session_id, loop_hash, position) DO UPDATE SET text = excluded.text
)
SELECT seen.revision, EXISTS (SELECT FROM changed) FROM seen
"""

_DELETE: Final = """{begin}, changed AS (
    DELETE FROM {sessions} s USING seen WHERE s.session_id = $1 AND s.revision = seen.revision
        AND s.revision = $2
    RETURNING 1
), gone AS (
    DELETE FROM {records} r USING changed WHERE r.session_id = $1
)
SELECT seen.revision, EXISTS (SELECT FROM changed) FROM seen
"""

_LOCK: Final = """
WITH limits AS MATERIALIZED (SELECT {wait_2})
SELECT FROM limits, {sessions} s WHERE s.session_id = $1 AND patience IS NOT NULL FOR UPDATE OF s
"""

# The next position is the number of records, as only a save of all removes any, and numbers those
# that it puts anew.
_HEAD: Final = """
SELECT s.revision, s.head, s.size, s.next_position, r.size + octet_length(s.head), r.number
FROM {sessions} s CROSS JOIN LATERAL (
    SELECT count(*) AS number, coalesce(sum(octet_length(text)), 0) AS size
    FROM {records} WHERE session_id = s.session_id
) r WHERE s.session_id = $1
"""

# A row for the head, whose position is NULL, and one for each record.
_READ: Final = """
SELECT s.session_id, NULL::bigint AS position, s.revision AS name, s.head AS text, s.agent_id,
    s.size, s.next_position
FROM {sessions} s WHERE s.session_id = $1
UNION ALL
SELECT r.session_id, r.position, r.loop_id, r.text, NULL, NULL, NULL
FROM {records} r WHERE r.session_id = $1
"""

# $1 session ids and $2 their lengths
_WANTED: Final = """
WITH wanted AS MATERIALIZED (
    SELECT substring($1::bytea, (sum(size::bigint) OVER w - size::bigint)::integer + 1,
        size::integer) AS session_id
    FROM unnest($2::oid[]) WITH ORDINALITY AS part (size, place)
    WINDOW w AS (ORDER BY place ROWS UNBOUNDED PRECEDING)
)"""

_READ_MANY: Final = """{wanted}
SELECT s.session_id, NULL::bigint AS position, s.revision AS name, s.head AS text, s.agent_id,
    s.size, s.next_position
FROM wanted JOIN {sessions} s USING (session_id)
UNION ALL
SELECT r.session_id, r.position, r.loop_id, r.text, NULL, NULL, NULL
FROM wanted JOIN {records} r USING (session_id)
"""

_OF_AGENT: Final = """
WITH mine AS MATERIALIZED (
    SELECT session_id, revision, head, agent_id, size, next_position, saved,
        sum(size) OVER (ORDER BY saved DESC ROWS UNBOUNDED PRECEDING) - size < {first_bytes}
            AS is_first
    FROM {sessions} WHERE sha256(agent_id) = sha256($1) AND agent_id = $1
)
SELECT session_id, NULL::bigint AS position, revision AS name, head AS text, agent_id, size,
    next_position, saved, is_first FROM mine
UNION ALL
SELECT r.session_id, r.position, r.loop_id, r.text, NULL, NULL, NULL, NULL, NULL
FROM mine m JOIN {records} r ON r.session_id = m.session_id WHERE m.is_first
"""

_CARD: Final = "session_id, revision, head, saved_at, size, agent_id"
_IDS: Final = "SELECT session_id FROM {sessions} ORDER BY saved DESC"
_EXISTS: Final = "SELECT EXISTS (SELECT FROM {sessions} WHERE session_id = $1)"
_IDS_OF_AGENT: Final = """
SELECT session_id FROM {sessions}
WHERE sha256(agent_id) = sha256($1) AND agent_id = $1 ORDER BY saved DESC
"""
_CARDS: Final = "SELECT {card} FROM {sessions} ORDER BY saved DESC LIMIT $1"
_CARDS_OF_AGENT: Final = """
SELECT {card} FROM {sessions}
WHERE sha256(agent_id) = sha256($2) AND agent_id = $2 ORDER BY saved DESC LIMIT $1
"""
_CARDS_BY_ID: Final = "{wanted} SELECT {card} FROM wanted JOIN {sessions} USING (session_id)"

# A call whose connection broke: its statement may still run, or be about to. Only a backend of
# our own role that runs a statement of ours is ended; behind a proxy the number means nothing.
_END: Final = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE pid = $1 AND pid <> pg_backend_pid() AND usename = current_user
    AND datname = current_database() AND query LIKE '/* phi\\_sessions %'
"""

# Waits for whoever changes the session just now.
_REVISION: Final = """
WITH limits AS MATERIALIZED (SELECT {wait_2})
SELECT s.revision FROM limits, {sessions} s
WHERE s.session_id = $1 AND patience IS NOT NULL FOR SHARE OF s
"""


class Statements:
    """The statements for one set of tables."""

    def __init__(self, tables: Tables) -> None:
        names = tables.names | {
            "saves": "'" + tables.names["saves"].replace("'", "''") + "'::regclass",
            "now": _NOW,
            "card": _CARD,
            "first_bytes": str(FIRST_BYTES),
            "news": _NEWS,
            "wanted": _WANTED.strip(),
            "wait_2": _WAIT.format(limit="$2"),
            "wait_3": _WAIT.format(limit="$3"),
        }

        names["begin"] = _BEGIN.strip().format_map(names)

        def made(name: str, text: str) -> str:
            return f"/* phi_sessions {name} */ " + text.strip().format_map(names)

        self.replace = made("replace", _REPLACE)
        self.put = made("put", _PUT)
        self.delete = made("delete", _DELETE)
        self.lock = made("lock", _LOCK)
        self.head = made("head", _HEAD)
        self.read = made("read", _READ)
        self.read_many = made("read_many", _READ_MANY)
        self.of_agent = made("of_agent", _OF_AGENT)
        self.ids = made("ids", _IDS)
        self.ids_of_agent = made("ids_of_agent", _IDS_OF_AGENT)
        self.exists = made("exists", _EXISTS)
        self.cards = made("cards", _CARDS)
        self.cards_of_agent = made("cards_of_agent", _CARDS_OF_AGENT)
        self.cards_by_id = made("cards_by_id", _CARDS_BY_ID)
        self.end = made("end", _END)
        self.revision = made("revision", _REVISION)
