"""Whether a history can be told as one call after the other, each at a moment while it ran.

The search of Wing and Gong, with the states that it has seen remembered as Lowe proposed: put some
call next whose begin is not later than the end of every call that is left, and see whether its
answer is the one that the session as it then is would give.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lin_history import Operation

__all__ = ["State", "unexplained"]


class State(NamedTuple):
    """A session: its loops in order, and its revision, None if nobody was told of that yet."""

    loops: tuple[str, ...]
    revision: str | None


_Place = tuple[int, State | None]


def unexplained(history: list[Operation], start: State | None = None) -> list[Operation]:
    """Return the calls among which no order explains the answers; none if all is well.

    Args:
        history: The calls, in any order.
        start: The session before the first of them.
    """
    calls = sorted(history, key=lambda call: call.start)
    ends = [call.end for call in calls]
    everything = (1 << len(calls)) - 1
    first: _Place = (0, start)
    seen: set[_Place] = {first}
    furthest = 0
    stack = [_next_places(calls, ends, first)]
    if everything == 0:
        return []
    while stack:
        place = next(stack[-1], None)
        if place is None:
            stack.pop()
            continue
        if place in seen:
            continue
        seen.add(place)
        if place[0].bit_count() > furthest.bit_count():
            furthest = place[0]
        if place[0] == everything:
            return []
        stack.append(_next_places(calls, ends, place))
    return [call for n, call in enumerate(calls) if not furthest >> n & 1]


def _next_places(calls: list[Operation], ends: list[int], place: _Place) -> Iterator[_Place]:
    done, state = place
    left: list[int] = []
    soonest: int | None = None
    for n in range((~done & (done + 1)).bit_length() - 1, len(calls)):  # from the first not done
        if soonest is not None and calls[n].start > soonest:
            break
        if not done >> n & 1:
            left.append(n)
            soonest = ends[n] if soonest is None else min(soonest, ends[n])
    left = [n for n in left if soonest is not None and calls[n].start <= soonest]
    for n in sorted(left, key=ends.__getitem__):
        for after in _after(calls[n], state):
            yield done | 1 << n, after


def _after(call: Operation, state: State | None) -> Iterator[State | None]:
    """Yield the states that the call may lead to, none if its answer would be another."""
    told = call.result
    if told is None:
        yield from _unknown(call, state)
    elif told[0] == "absent":
        if state is None:
            yield None
    elif told[0] == "conflict":
        yield from _refused(call, told[1], state)
    elif call.kind == "save":
        expected, loops = call.argument
        if _is_expected(state, expected):
            yield State(tuple(loops), told[1])
    elif state is not None and call.kind == "delete":
        yield None
    elif state is not None and call.kind == "load":
        if state.revision in (None, told[1]) and state.loops == tuple(told[2]):
            yield State(state.loops, told[1])
    elif state is not None:
        loops = (*state.loops, call.argument)
        if len(told) < 3 or tuple(told[2]) == loops:
            yield State(loops, told[1])


def _unknown(call: Operation, state: State | None) -> Iterator[State | None]:
    yield state
    if call.kind == "append" and state is not None:
        yield State((*state.loops, call.argument), None)
    elif call.kind == "delete" and state is not None:
        yield None
    elif call.kind == "save" and _is_expected(state, call.argument[0]):
        yield State(tuple(call.argument[1]), None)


def _refused(call: Operation, found: str | None, state: State | None) -> Iterator[State | None]:
    if call.kind != "save":
        return  # nothing else names a revision here
    expected, _ = call.argument
    if expected is None:
        if state is not None:
            yield state
    elif state is None:
        if found is None:
            yield None
    elif found is not None and state.revision in (None, found) and found != expected:
        yield State(state.loops, found)


def _is_expected(state: State | None, expected: str | None) -> bool:
    # A state of an unknown revision can be nobody's expectation: a revision is learnt by a call
    # that tells it, and that call made it known.
    if expected is None:
        return state is None
    return state is not None and state.revision == expected
