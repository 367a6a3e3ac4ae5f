"""`Session.loops` behaves as a list and decodes a record only when it is looked at."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from phi_sessions import (
    FileSystemSessionStore,
    LoopRecord,
    Session,
    SessionStore,
)
from phi_sessions.loops import Loops


def record(name: str) -> LoopRecord:
    return LoopRecord(name, "s", "a", metadata={"name": name})


def session(names: str = "abcde") -> Session:
    return Session("s", "a", loops=[record(name) for name in names])


def names(loops: Any) -> str:
    return "".join(item.loop_id for item in loops)


def decoded(loops: Loops[LoopRecord]) -> str:
    """Name the records that were decoded."""
    return "".join(entry.loop_id for entry in loops.entries if entry.record is not None)


async def stored(store: SessionStore, what: Session) -> Session:
    await store.save(what)
    return await store.load(what.session_id)


# A list -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [False, True])
async def test_it_behaves_as_a_list(lazy: bool, store: SessionStore) -> None:
    made = session()
    loops = (await stored(store, made)).loops if lazy else made.loops
    assert len(loops) == 5
    assert loops
    assert not Session("s", "a").loops
    assert names(loops) == "abcde"
    assert names(reversed(loops)) == "edcba"
    assert loops[0].loop_id == "a"
    assert loops[-1].loop_id == "e"
    assert isinstance(loops[1:3], list)
    assert names(loops[1:3]) == "bc"
    assert names(loops[::-2]) == "eca"
    assert loops[0] is loops[0]
    assert loops[2] in loops
    assert record("zz") not in loops
    assert loops.index(loops[3]) == 3
    assert loops.count(loops[3]) == 1
    first, *_, last = loops
    assert (first.loop_id, last.loop_id) == ("a", "e")
    assert loops.ids() == list("abcde")
    for index in (5, -6):
        with pytest.raises(IndexError):
            loops[index]
    with pytest.raises(TypeError):
        loops["a"]  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        hash(loops)
    assert "5" in repr(loops)


@pytest.mark.parametrize("lazy", [False, True])
async def test_it_changes_as_a_list(lazy: bool, store: SessionStore) -> None:
    made = session()
    held = await stored(store, made) if lazy else made
    loops = held.loops
    loops.append(record("f"))
    loops.insert(0, record("x"))
    loops.insert(-1, record("y"))
    assert names(loops) == "xabcdeyf"
    del loops[0]
    del loops[-2:]
    assert names(loops) == "abcde"
    loops[1] = record("B")
    loops[2:4] = [record("C"), record("D"), record("+")]
    assert names(loops) == "aBCD+e"
    loops.extend(record(name) for name in "gh")
    loops += [record("i")]
    assert names(loops) == "aBCD+eghi"
    assert loops.pop().loop_id == "i"
    assert loops.pop(0).loop_id == "a"
    loops.remove(loops[0])
    loops.reverse()
    assert names(loops) == "hge+DC"
    held = await stored(store, held)
    assert names(held.loops) == "hge+DC"
    held.loops.clear()
    assert len((await stored(store, held)).loops) == 0


def test_it_equals_any_sequence_of_equal_records() -> None:
    made = session("ab")
    other = copy.deepcopy(made)
    assert made.loops == other.loops
    assert made.loops == list(other.loops)
    assert list(other.loops) == made.loops
    assert made.loops == tuple(other.loops)
    other.loops[1].rejection = "no"
    assert made.loops != other.loops
    assert made.loops != other.loops[:1]
    assert made.loops != "ab"
    assert Loops() == []


@pytest.mark.parametrize("copied", [Loops, Loops.copy, copy.copy])
def test_a_copy_has_its_own_order_and_the_same_records(
    copied: Callable[[Loops[LoopRecord]], Loops[LoopRecord]],
) -> None:
    made = session("abc")
    twin = copied(made.loops)
    twin.pop()
    twin.insert(0, record("x"))
    assert names(twin) == "xab"
    assert names(made.loops) == "abc"
    assert twin[1] is made.loops[0]


async def test_the_whole_list_can_be_replaced_by_a_plain_one(store: SessionStore) -> None:
    held = await stored(store, session())
    held.loops = [item for item in held.loops if item.loop_id in "bd"]  # type: ignore[assignment]
    assert [item.loop_id for item in held.root_loops()] == ["b", "d"]
    found = held.get_loop("d")
    assert found is not None
    assert found.loop_id == "d"
    assert held.loop_chain_to("d") == ["d"]
    assert "loops=2" in repr(held)
    assert names((await stored(store, held)).loops) == "bd"


async def test_copies_and_pickles_of_undecoded_records_are_sessions_like_any_other(
    store: SessionStore,
) -> None:
    held = await stored(store, session())
    assert held.loops[1].loop_id == "b"
    for twin in (copy.copy(held), copy.deepcopy(held), pickle.loads(pickle.dumps(held))):
        assert names(twin.loops) == "abcde"
        assert twin == held
        assert twin.revision == held.revision


async def test_a_deep_copy_shares_nothing(store: SessionStore) -> None:
    held = await stored(store, session())
    assert held.loops[0].metadata
    twin = copy.deepcopy(held)
    twin.loops[0].metadata["name"] = "changed"
    twin.loops[1].metadata["name"] = "changed"
    twin.loops.pop()
    assert held.loops[0].metadata == {"name": "a"}
    assert held.loops[1].metadata == {"name": "b"}
    assert len(held.loops) == 5


# Laziness -----------------------------------------------------------------------------------------


async def test_nothing_is_decoded_by_loading_counting_naming_and_saving(
    store: SessionStore,
) -> None:
    held = await stored(store, session())
    assert decoded(held.loops) == ""
    assert len(held.loops) == 5
    assert held.loops.ids() == list("abcde")
    assert repr(held)
    await store.save(held)
    assert decoded(held.loops) == ""


async def test_only_the_records_that_are_looked_at_are_decoded(store: SessionStore) -> None:
    held = await stored(store, session())
    assert held.loops[1].loop_id == "b"
    assert held.get_loop("d") is held.loops[3]
    assert decoded(held.loops) == "bd"
    held.loops.append(record("f"))
    del held.loops[0]
    held.loops.insert(0, record("z"))
    assert decoded(held.loops) == "zbdf"
    assert held.loop_chain_to("e") == ["e"]
    assert decoded(held.loops) == "zbdef"


async def test_a_record_that_nobody_looked_at_keeps_its_bytes(
    file_store: FileSystemSessionStore,
) -> None:
    """Spacing, order of keys, spelling of numbers and escapes inside it stay as they were."""
    await file_store.save(session("abc"))
    path = file_store.dir / "s.json"
    odd = path.read_bytes().replace(
        b'{"name":"b"}', b'{"name" : "\\u0062" , "n":[1.10,1E2,-0, 1e0],"n2":123456789012345678901}'
    )
    assert odd != path.read_bytes()
    path.write_bytes(odd)
    held = await file_store.load("s")
    held.loops[0].rejection = "changed"
    await file_store.save(held)
    before, after = odd.split(b"\n"), path.read_bytes().split(b"\n")
    assert after[2] == before[2]
    assert after[3] == before[3]
    assert after[1] != before[1]
    assert b'"rejection":"changed"' in after[1]
    again = await file_store.load("s")
    assert again.loops[1].metadata["name"] == "b"


async def test_looking_without_changing_writes_the_same_bytes(
    file_store: FileSystemSessionStore,
) -> None:
    await file_store.save(session("abc"))
    path = file_store.dir / "s.json"
    before = path.read_bytes().split(b"\n")[1:]
    held = await file_store.load("s")
    assert names(held.loops) == "abc"
    await file_store.save(held)
    assert path.read_bytes().split(b"\n")[1:] == before


async def test_a_change_deep_inside_a_record_is_saved(store: SessionStore) -> None:
    held = await stored(store, session())
    held.loops[2].metadata["name"] = {"new": [1]}
    held = await stored(store, held)
    held.loops[2].metadata["name"]["new"].append(2)
    held.loops[2].messages.append({"role": "x"})
    held = await stored(store, held)
    assert held.loops[2].metadata == {"name": {"new": [1, 2]}}
    assert held.loops[2].messages == [{"role": "x"}]


async def test_a_record_renamed_in_place_is_known_by_its_new_name(store: SessionStore) -> None:
    held = await stored(store, session("ab"))
    held.loops[0].loop_id = "renamed"
    assert held.loops.ids() == ["renamed", "b"]
    assert held.get_loop("a") is None
    held = await stored(store, held)
    assert held.loops.ids() == ["renamed", "b"]


async def test_one_record_may_be_in_two_sessions(store: SessionStore) -> None:
    one = await stored(store, session("ab"))
    other = Session("other", "a", loops=one.loops)
    other = await stored(store, other)
    assert names(other.loops) == "ab"
    other.loops[0].rejection = "changed"
    await store.save(other)
    assert (await store.load("s")).loops[0].rejection is None
