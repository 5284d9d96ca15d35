"""A node of a chat server that speaks the part of Rookery's protocol which a load test needs: ready,
ping, message.send, message.ack, message.new, error. Several nodes find each other through Redis."""

import asyncio
import logging
import os
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import jwt
import orjson
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from rooms import Rooms
from store import Store

PROTOCOL = "rookery.v1.json"
HEARTBEAT_SECONDS = 25
# Frames that wait for one who does not read; then they are cut off.
QUEUE_FRAMES = 1_000
SECRET = os.environ["JWT_SECRET"]
LIMITS = {
    "frame_bytes": 64 * 1024,
    "content_chars": 16_000,
    "in_flight": 1_000,
    "presence_watch": 0,
}
log = logging.getLogger("uvicorn.error")


@asynccontextmanager
async def lifespan(app):
    app.state.store = await Store.open(os.environ["DATABASE_URL"])
    app.state.rooms = Rooms(os.environ["REDIS_URL"])
    reader = asyncio.create_task(app.state.rooms.run())
    reader.add_done_callback(ended)
    yield
    reader.cancel()
    await app.state.rooms.close()
    await app.state.store.close()


def ended(reader):
    # Without it nobody hears anything more: a node that is down is better than one that is deaf.
    if not reader.cancelled():
        log.error("the Redis reader ended: %s", reader.exception())
        os._exit(1)


app = FastAPI(lifespan=lifespan)


class Connection:
    """One socket: what it is to get waits in a queue that a task of its own empties."""

    def __init__(self, socket, claims):
        self.socket = socket
        self.user = claims["sub"]
        self.name = claims["username"]
        self.expires = claims["exp"]
        self.id = str(uuid.uuid4()).encode()
        self.queue = asyncio.Queue(QUEUE_FRAMES)
        self.writer = asyncio.create_task(self.write())

    def push(self, frame):
        try:
            self.queue.put_nowait(frame)
        except asyncio.QueueFull:
            self.writer.cancel()

    def send(self, event):
        self.push(orjson.dumps(event).decode())

    def refuse(self, code, message, message_id=None):
        error = {"type": "error", "code": code, "message": message, "message_id": message_id}
        self.send(error | {"retryable": False, "details": []})

    async def write(self):
        try:
            while True:
                await self.socket.send_text(await self.queue.get())
        except (WebSocketDisconnect, RuntimeError):
            # The reading side learns of it too.
            pass


@app.websocket("/ws")
async def chat(socket: WebSocket):
    try:
        token = socket.headers.get("authorization", "").removeprefix("Bearer ")
        claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    except jwt.InvalidTokenError:
        await socket.close(4001)
        return
    store, rooms = app.state.store, app.state.rooms
    conversations = await store.conversations_of(claims["sub"])
    await socket.accept(subprotocol=PROTOCOL)
    connection = Connection(socket, claims)
    try:
        await rooms.join(connection, conversations)
        connection.send(ready(connection))
        while True:
            # One command after the other: they are stored in the order in which they came.
            await command(connection, await socket.receive_text())
    except WebSocketDisconnect:
        pass
    finally:
        connection.writer.cancel()
        await rooms.leave(connection, conversations)


async def command(connection, data):
    try:
        frame = orjson.loads(data)
    except orjson.JSONDecodeError:
        return connection.refuse("BAD_FRAME", "not JSON")
    match frame.get("type"):
        case "ping":
            connection.send({"type": "pong", "ref": frame.get("ref")})
        case "message.send":
            await message(connection, frame)
        case _:
            connection.refuse("UNKNOWN_TYPE", "no such command")


async def message(connection, frame):
    conversation_id, message_id = frame.get("conversation_id"), frame.get("message_id")
    content = frame.get("content")
    if not isinstance(content, str) or not 1 <= len(content) <= LIMITS["content_chars"]:
        return connection.refuse("INVALID", "content: 1 to 16,000 characters", message_id)
    store, rooms = app.state.store, app.state.rooms
    try:
        stored = await store.append(conversation_id, message_id, content, connection.user)
    except Exception as error:
        log.error("a message failed: %s", error)
        return connection.refuse("INTERNAL", "the message failed", message_id)
    if not stored:
        return connection.refuse("NOT_FOUND", "no such conversation", message_id)
    seq, created_at, duplicate = stored
    place = {
        "message_id": message_id,
        "conversation_id": conversation_id,
        "seq": seq,
        "created_at": created_at,
    }
    connection.send({"type": "message.ack", **place, "status": "sent", "duplicate": duplicate})
    if not duplicate:
        message = {**place, "sender_id": connection.user, "kind": "text", "content": content}
        event = orjson.dumps({"type": "message.new", "message": message})
        await rooms.publish(conversation_id, connection.id, event)


def ready(connection):
    now = datetime.now(UTC)
    user = {
        "user_id": connection.user,
        "username": connection.name,
        "role": "user",
        "created_at": now,
    }
    return {
        "type": "ready",
        "user": user,
        "session_id": connection.id.decode(),
        "node_id": os.environ["NODE_NAME"],
        "epoch": "peer",
        "server_time": now,
        "heartbeat_seconds": HEARTBEAT_SECONDS,
        "token_expires_at": datetime.fromtimestamp(connection.expires, UTC),
        "limits": LIMITS,
    }
