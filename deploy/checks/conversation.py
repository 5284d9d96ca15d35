"""Two people talk through a cluster while somebody breaks it: everything acknowledged arrives, once
and in order, and everything sent is acknowledged in the end.

usage: conversation.py URL SECONDS [TOUCH]    TOUCH: a file made when the conversation is under way
"""

import asyncio
import json
import pathlib
import secrets
import ssl
import sys
import time
import uuid

import aiohttp

# Of both the sends and the connecting: a node that goes away costs some of these.
PATIENCE = 5


def insecure() -> ssl.SSLContext:
    """The certificate for trying out is signed by nobody."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Person:
    def __init__(self, http: aiohttp.ClientSession, url: str, name: str):
        self.http, self.url = http, url
        self.name = f"{name}-{secrets.token_hex(4)}"
        self.id = self.token = ""
        self.nodes: list[str] = []  # of each connection, in order
        self.acked: dict[str, int] = {}
        self.received: list[tuple[int, str]] = []
        self.cursors: dict[str, int] = {}

    async def register(self) -> None:
        body = {
            "username": self.name,
            "email": f"{self.name}@example.com",
            "password": secrets.token_urlsafe(16),
        }
        async with self.http.post(f"{self.url}/api/v1/auth/register", json=body) as answer:
            assert answer.status == 201, (answer.status, await answer.text())
            tokens = (await answer.json())["data"]
        self.id, self.token = tokens["user"]["user_id"], tokens["access_token"]

    async def connect(self) -> aiohttp.ClientWebSocketResponse:
        headers = {"Authorization": f"Bearer {self.token}"}
        socket = await self.http.ws_connect(f"{self.url}/ws?resume=1", headers=headers, heartbeat=2)
        ready = await socket.receive_json(timeout=PATIENCE)
        assert ready["type"] == "ready", ready
        self.nodes.append(ready["node_id"])
        await socket.send_json({"type": "sync", "cursors": self.cursors})
        return socket

    def take(self, frame: dict) -> None:
        # Whatever else comes is for clients with more to show.
        if frame["type"] == "message.ack":
            self.acked[frame["message_id"]] = frame["seq"]
        elif frame["type"] == "message.new":
            self.note(frame["message"])
        elif frame["type"] == "message.batch":
            for message in frame["messages"]:
                self.note(message)
            self.cursors[frame["conversation_id"]] = frame["to_seq"]

    def note(self, message: dict) -> None:
        self.received.append((message["seq"], message["content"]))
        self.cursors[message["conversation_id"]] = message["seq"]

    async def live(self, stop: asyncio.Event, outbox: dict[str, dict]) -> None:
        """Connects again and again; sends what is in `outbox` until it is acknowledged."""
        while not stop.is_set():
            try:
                socket = await self.connect()
                try:
                    await self.talk(socket, stop, outbox)
                finally:
                    await socket.close()
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError, TypeError, ConnectionError):
                await asyncio.sleep(0.2)

    async def talk(self, socket, stop: asyncio.Event, outbox: dict[str, dict]) -> None:
        sent: dict[str, float] = {}
        while not stop.is_set():
            now = time.monotonic()
            for message_id, send in list(outbox.items()):
                if message_id in self.acked:
                    del outbox[message_id]
                elif now - sent.get(message_id, -PATIENCE) >= PATIENCE:
                    sent[message_id] = now
                    await socket.send_json(send)
            try:
                frame = await socket.receive(timeout=0.1)
            except asyncio.TimeoutError:
                continue
            if frame.type is not aiohttp.WSMsgType.TEXT:
                return
            self.take(json.loads(frame.data))


async def main(url: str, seconds: float, touch: str | None) -> None:
    connector = aiohttp.TCPConnector(ssl=insecure())
    async with aiohttp.ClientSession(connector=connector) as http:
        alice, bob = Person(http, url, "alice"), Person(http, url, "bob")
        await alice.register()
        await bob.register()
        stop = asyncio.Event()
        outbox: dict[str, dict] = {}
        tasks = [asyncio.create_task(alice.live(stop, outbox)), asyncio.create_task(bob.live(stop, {}))]
        sent = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            message_id, content = str(uuid.uuid4()), f"message {len(sent)}"
            sent.append(content)
            outbox[message_id] = {
                "type": "message.send",
                "message_id": message_id,
                "recipient_id": bob.id,
                "content": content,
            }
            if touch and len(bob.received) >= 20:
                pathlib.Path(touch).touch()
            await asyncio.sleep(0.1)
        for _ in range(300):
            if len(alice.acked) == len(sent) and len(bob.received) >= len(sent):
                break
            await asyncio.sleep(0.1)
        stop.set()
        await asyncio.gather(*tasks)
    seqs = [seq for seq, _ in bob.received]
    print(f"sent {len(sent)}, acknowledged {len(alice.acked)}, received {len(bob.received)}")
    print(f"nodes: alice {alice.nodes}, bob {bob.nodes}")
    assert len(alice.acked) == len(sent), "some were never acknowledged"
    assert sorted(content for _, content in bob.received) == sorted(sent), "lost or doubled"
    assert seqs == list(range(1, len(sent) + 1)), "not in order"


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1].rstrip("/"), float(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None))
