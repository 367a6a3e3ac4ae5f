"""The web chat example, through its HTTP interface."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from conftest import scaled
from example_runner import import_example


@asynccontextmanager
async def served() -> AsyncIterator[httpx.AsyncClient]:
    """Run one server's app from start-up to shutdown, with a client in front of it."""
    app = import_example("web_chat").main()
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: dict, receive: object, send: object) -> None:
            await app(scope | {"state": dict(state)}, receive, send)

        transport = httpx.ASGITransport(with_state, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://chat") as client:
            yield client


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the chats go; not made yet."""
    monkeypatch.setenv("CHATS", str(tmp_path / "outer" / "chats"))
    return tmp_path / "outer" / "chats"


@pytest.fixture
async def client(directory: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of one server."""
    async with served() as made:
        yield made


async def test_a_chat_is_kept_listed_and_deleted(client: httpx.AsyncClient) -> None:
    assert (await client.get("/chats")).json() == []
    first = await client.post("/chat/refund", content="Hello")
    assert (first.status_code, first.json()) == (201, 1)
    assert (await client.post("/chat/refund", content="Are you there? 🙂")).json() == 2
    assert (await client.post("/chat/delivery", content="Hi")).json() == 1
    assert (await client.get("/chat/refund")).json() == ["Hello", "Are you there? 🙂"]
    assert (await client.get("/chats")).json() == ["delivery", "refund"]
    assert (await client.delete("/chat/refund")).status_code == 204
    assert (await client.get("/chats")).json() == ["delivery"]


async def test_a_chat_outlives_the_server(directory: Path) -> None:
    async with served() as before:
        await before.post("/chat/refund", content="Hello")
    async with served() as after:
        assert (await after.get("/chat/refund")).json() == ["Hello"]


async def test_concurrent_posts_to_one_chat_are_all_kept(directory: Path) -> None:
    texts = [f"text {number}" for number in range(scaled(30))]
    async with served() as one, served() as other:
        answers = await asyncio.gather(
            *(server.post("/chat/busy", content=text) for text in texts for server in (one, other))
        )
        assert {answer.status_code for answer in answers} == {201}
        assert sorted(answer.json() for answer in answers) == list(range(1, 2 * len(texts) + 1))
        assert sorted((await one.get("/chat/busy")).json()) == sorted(texts * 2)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_unknown_chat_is_404(client: httpx.AsyncClient, method: str) -> None:
    assert (await client.request(method, "/chat/nobody")).status_code == 404


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("chat_id", ["", "x" * 201, "%00" * 100, "é" * 101])
async def test_an_impossible_id_is_400_and_touches_nothing(
    client: httpx.AsyncClient, directory: Path, method: str, chat_id: str
) -> None:
    assert (await client.request(method, f"/chat/{chat_id}")).status_code == 400
    assert not directory.parent.exists()


@pytest.mark.parametrize(
    "chat_id",
    ["..%2F..%2Fescape", "%2Fetc%2Fpasswd", "%2E%2E", "%00", "con", "a%1Bb", "x.json.lock"],
)
async def test_a_hostile_id_stays_inside_the_directory(
    client: httpx.AsyncClient, directory: Path, tmp_path: Path, chat_id: str
) -> None:
    url = httpx.URL("http://chat", raw_path=b"/chat/" + chat_id.encode())
    assert (await client.post(url, content="Hello")).status_code == 201
    assert (await client.get(url)).json() == ["Hello"]
    assert [
        path for path in tmp_path.rglob("*") if path.is_file() and path.parent != directory
    ] == []
    assert len(list(directory.iterdir())) == 2


async def test_a_chat_that_another_program_holds_is_503_until_it_lets_go(
    client: httpx.AsyncClient, directory: Path
) -> None:
    await client.post("/chat/held", content="Hello")
    descriptor = os.open(directory / "held.json.lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        refused = await client.post("/chat/held", content="Anybody?")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert (await client.post("/chat/other", content="Hi")).status_code == 201
    finally:
        os.close(descriptor)
    assert (await client.post("/chat/held", content="Anybody?")).status_code == 201
    assert (await client.get("/chat/held")).json() == ["Hello", "Anybody?"]


async def test_a_damaged_chat_is_500_and_never_replaced(
    client: httpx.AsyncClient, directory: Path
) -> None:
    await client.post("/chat/damaged", content="Hello")
    path = directory / "damaged.json"
    path.write_bytes(damaged := path.read_bytes()[:-40])
    for method in ("GET", "POST", "DELETE"):
        assert (await client.request(method, "/chat/damaged")).status_code == 500
    assert path.read_bytes() == damaged
