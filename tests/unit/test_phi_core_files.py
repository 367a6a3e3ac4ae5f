"""phi-core's files load, save and read back as the same JSON value."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from phi_sessions import FileSystemSessionStore, MemorySessionStore, Session

DATA = Path(__file__).parent.parent / "data"
GOLDEN = os.environ.get("PHI_GOLDEN_DIR")
FILES = sorted(DATA.glob("*.json")) + (sorted(Path(GOLDEN).glob("*.json")) if GOLDEN else [])

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def read(file: Path) -> dict[str, Any]:
    """Read JSON strictly: no key twice in one object, nothing that is not JSON."""

    def no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), f"a key occurs twice in {file}"
        return dict(pairs)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in {file}")

    text = file.read_text(encoding="utf-8")
    return json.loads(text, object_pairs_hook=no_twins, parse_constant=refuse)


def typed(value: Any) -> Any:
    """Return `value` so that `==` tells 1, 1.0, True, 0.0 and -0.0 apart."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return type(value).__name__, repr(value)


def stored_value(store: FileSystemSessionStore) -> dict[str, Any]:
    """Return the one session file's JSON, less the revision that the store adds."""
    (file,) = store.dir.glob("*.json")
    value = read(file)
    value.pop("revision", None)
    return value


def touch(session: Session) -> int:
    """Look at everything, so that nothing is written back as mere bytes; count the records."""
    for record in session.loops:
        repr(record)
        assert record.turn_count == len(record.turns)
        for turn in record.turns:
            assert turn.all_messages()
        for event in record.events:
            assert event.event["type"]
        assert record.usage + record.usage
    session.all_messages()
    session.total_usage()
    assert all(entry.record is not None for entry in session.loops.entries)
    return len(session.loops)


@pytest.fixture
async def holding(
    file: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> tuple[FileSystemSessionStore, str, dict[str, Any]]:
    """A store that holds the file under its session's id, the id, and the file's value."""
    value = read(file)
    session_id = value["session_id"]
    store = FileSystemSessionStore(tmp_path / "sessions")
    async with store:
        await store.save(Session(session_id, "placeholder"))
        (target,) = store.dir.glob("*.json")
    shutil.copyfile(file, target)
    return FileSystemSessionStore(store.dir), session_id, value


@each_file
async def test_a_file_that_nobody_looked_into_saves_as_the_same_value(
    holding: tuple[FileSystemSessionStore, str, dict[str, Any]],
) -> None:
    store, session_id, before = holding
    async with store:
        session = await store.load(session_id)
        old = session.revision
        new = await store.save(session)
        assert new != old
        assert typed(stored_value(store)) == typed(before)


@each_file
async def test_a_file_whose_every_record_was_decoded_saves_as_the_same_value(
    holding: tuple[FileSystemSessionStore, str, dict[str, Any]],
) -> None:
    store, session_id, before = holding
    async with store:
        session = await store.load(session_id)
        assert touch(session) == len(before["loops"])
        await store.save(session)
        assert typed(stored_value(store)) == typed(before)
        again = await store.load(session_id)
        touch(again)
        assert again == session
        await store.save(again)
        assert typed(stored_value(store)) == typed(before)


@each_file
async def test_a_file_passes_through_phi_cores_layout_and_memory_as_the_same_value(
    holding: tuple[FileSystemSessionStore, str, dict[str, Any]],
) -> None:
    store, session_id, before = holding
    memory = MemorySessionStore()
    async with store, memory, FileSystemSessionStore(store.dir, indent=2) as pretty:
        session = await store.load(session_id)
        touch(session)
        session.revision = None
        await memory.save(session)
        session = await memory.load(session_id)
        touch(session)
        session.revision = None
        await pretty.save(session)
        assert typed(stored_value(pretty)) == typed(before)
        (file,) = store.dir.glob("*.json")
        assert file.read_text(encoding="utf-8").startswith('{\n  "session_id": ')
        session = await pretty.load(session_id)
        touch(session)
        await store.save(session)
        assert typed(stored_value(store)) == typed(before)


@each_file
@pytest.mark.parametrize("form", ["compact", "ascii", "sorted", "with white space"])
async def test_layout_and_order_of_keys_do_not_matter(
    form: str,
    file: Path,
    holding: tuple[FileSystemSessionStore, str, dict[str, Any]],
) -> None:
    store, session_id, before = holding
    (path,) = store.dir.glob("*.json")
    if form == "compact":
        text = json.dumps(before, ensure_ascii=False, separators=(",", ":"))
    elif form == "ascii":
        text = json.dumps(before)
    elif form == "sorted":
        text = json.dumps(before, ensure_ascii=False, sort_keys=True)
    else:
        text = f" \r\n\t{json.dumps(before, indent=3)}\n \n"
    path.write_text(text, encoding="utf-8")
    async with store:
        session = await store.load(session_id)
        touch(session)
        await store.save(session)
        assert typed(stored_value(store)) == typed(before)


# What the fixtures hold ---------------------------------------------------------------------------


def load_maker() -> Any:
    spec = importlib.util.spec_from_file_location("fixture_maker", DATA / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_files_are_what_their_script_makes() -> None:
    made = load_maker().documents()
    kept = {file.name: file.read_bytes().decode() for file in DATA.glob("*.json")}
    assert sorted(made) == sorted(kept)
    for name, text in made.items():
        assert kept[name] == text, f"run tests/data/make.py: {name} differs"


def objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from objects(item)


ALL = [found for file in DATA.glob("*.json") for found in objects(read(file))]


def words(key: str) -> set[str]:
    return {found[key] for found in ALL if isinstance(found.get(key), str)}


EVENTS = (
    "AgentStart AgentEnd TurnStart TurnRequest TurnEnd MessageStart MessageUpdate MessageEnd "
    "ToolExecutionStart ToolExecutionUpdate ToolExecutionEnd ProgressMessage InputRejected "
    "ParallelLoopStart ParallelLoopEnd CompactionStarted PrunApplied RevertApplied CompactionEnded"
)
KINDS = (
    "system-prompt identity-block memory-tier loop-turn steering follow-up unknown lesson finding "
    "outcome checkpoint text json-object json-schema"
)
STOPS = (
    "stop length toolUse error aborted maxTurns userStop handoff guardRail contextCompacted paused"
)
PROTOCOLS = (
    "anthropic_messages open_ai_completions open_ai_responses azure_open_ai_responses "
    "google_generative_ai google_vertex bedrock_converse_stream"
)


@pytest.mark.parametrize(
    ("key", "variants"),
    [
        ("type", EVENTS),
        ("type", "text image thinking toolCall"),
        ("kind", KINDS),
        ("role", "user assistant toolResult extension"),
        ("role", "user-message assistant-response tool-call-request tool-call-result"),
        ("stopReason", STOPS),
        ("scope", "ephemeral persistent"),
        ("status", "Pending Running Completed Rejected Aborted"),
        ("continuation_kind", "Initial Default Compaction"),
        ("triggered_by", "User SubAgent Continuation FollowUp Branch"),
        ("category", "failure tangent completion step-summary"),
        ("thinking_level", "off minimal low medium high"),
        ("api", PROTOCOLS),
    ],
)
def test_the_files_hold_every_variant(key: str, variants: str) -> None:
    assert set(variants.split()) <= words(key)


def test_the_files_hold_every_variant_that_is_an_object() -> None:
    keys = set().union(*ALL)
    assert {"Explicit", "FirstLoop", "InactivityTimeout", "Rerun", "Branch"} <= keys
    assert {"Text", "Thinking", "ToolCallDelta"} <= keys


# Behind each key that tells an object from others: its keys that may be omitted, or be null.
OMITTED = {
    "provider": "name api base_url reasoning context_window max_tokens thinking_level temperature",
    "createdAt": "keep_first keep_recent keep_compacted",
    "role": "turnId nodeId parentId tags provenanceHint",
    "loop_id": "compaction_block",
    "turn_id": "request_payload",
    "stopReason": "error_message",
    "thinking": "signature",
    "details": "child_loop_id",
    "continuation_kind": "config_snapshot",
}
NULL = {
    "created_at": "parent_spawn_ref",
    "child_loop_refs": "parent_loop_id ended_at rejection config metadata parallel_group",
    "response_format": "max_tokens temperature",
    "applied": "target summary reason",
    "threshold_secs": "previous_session_id",
    "provider": "config_id",
    "pruned_timestamps": "memo",
    "result": "child_loop_id",
    "messages": "rejection",
}


def pairs(keys: dict[str, str]) -> list[tuple[str, str]]:
    return [(beside, key) for beside, found in keys.items() for key in found.split()]


@pytest.mark.parametrize(("beside", "key"), pairs(OMITTED))
def test_the_files_hold_each_optional_key_present_and_absent(beside: str, key: str) -> None:
    assert {key in found for found in ALL if beside in found} == {True, False}


@pytest.mark.parametrize(("beside", "key"), pairs(NULL))
def test_the_files_hold_each_nullable_key_null_and_set(beside: str, key: str) -> None:
    found = [found for found in ALL if beside in found]
    assert {found[key] is None for found in found if key in found} == {True, False}
