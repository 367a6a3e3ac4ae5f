"""Chats over HTTP, kept in the directory $CHATS: uvicorn --factory web_chat:main --workers 4."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import phi_sessions as phi
from phi_sessions.messages import text_of, user_message


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, phi.SessionStore]]:
    async with phi.FileSystemSessionStore(os.environ["CHATS"], lock_timeout=1.0) as store:
        yield {"store": store}


class _Chat(HTTPEndpoint):
    async def post(self, request: Request) -> Response:
        store, chat_id = request.state.store, request.path_params["id"]
        said = user_message((await request.body()).decode(errors="replace"))
        while True:
            chat = await store.find(chat_id) or phi.Session(chat_id, "web")
            chat.loops.append(phi.LoopRecord(str(len(chat.loops)), chat_id, "web", messages=[said]))
            with suppress(phi.SessionConflictError, phi.SessionExistsError):  # load and add again
                await store.save(chat, expect=chat.revision or phi.Expect.ABSENT)
                return JSONResponse(len(chat.loops), 201)

    async def get(self, request: Request) -> Response:
        chat = await request.state.store.load(request.path_params["id"])
        return JSONResponse([text_of(message) for message in chat.all_messages()])

    async def delete(self, request: Request) -> Response:
        await request.state.store.delete(request.path_params["id"])
        return Response(status_code=204)


async def chats(request: Request) -> Response:
    return JSONResponse(await request.state.store.list_ids())


async def refuse(status: int, _: Request, error: Exception) -> Response:
    return JSONResponse(str(error), status, {"Retry-After": "1"} if status == 503 else None)


def main() -> Starlette:
    routes = [Route("/chats", chats), Route("/chat/{id:path}", _Chat)]
    handlers = {
        phi.InvalidSessionIdError: partial(refuse, 400),
        phi.SessionNotFoundError: partial(refuse, 404),
        phi.SessionLockedError: partial(refuse, 503),
    }
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
