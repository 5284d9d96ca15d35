"""Who of this node takes part in which conversation. A conversation has a Redis channel of its own,
to which a node is subscribed while any of its members is connected here."""

import asyncio

import redis.asyncio

# A published frame begins with the connection that it came from, which does not want it back.
ORIGIN_BYTES = 36
PUBLISHERS = 20


class Rooms:
    def __init__(self, url):
        pool = redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=PUBLISHERS)
        self.publisher = redis.asyncio.Redis(connection_pool=pool)
        self.subscriber = redis.asyncio.Redis.from_url(url).pubsub()
        # One at a time: the first makes the connection.
        self.subscribing = asyncio.Lock()
        self.members = {}
        # Channels that Redis has not confirmed yet, or has.
        self.subscribed = {}

    async def join(self, connection, conversations):
        """Takes part in these from now on, on this node and on others."""
        loop = asyncio.get_running_loop()
        fresh = []
        for conversation in conversations:
            members = self.members.get(conversation)
            if members is None:
                self.members[conversation] = {connection}
                self.subscribed[conversation] = loop.create_future()
                fresh.append(conversation)
            else:
                members.add(connection)
        waiting = [self.subscribed[conversation] for conversation in conversations]
        if fresh:
            async with self.subscribing:
                await self.subscriber.subscribe(*fresh)
        for future in waiting:
            await future

    async def leave(self, connection, conversations):
        empty = []
        for conversation in conversations:
            members = self.members.get(conversation)
            if members is None:
                continue
            members.discard(connection)
            if not members:
                del self.members[conversation]
                del self.subscribed[conversation]
                empty.append(conversation)
        async with self.subscribing:
            # Somebody may have come meanwhile.
            gone = [conversation for conversation in empty if conversation not in self.members]
            if gone:
                await self.subscriber.unsubscribe(*gone)

    async def publish(self, conversation, origin, frame):
        await self.publisher.publish(conversation, origin + frame)

    async def run(self):
        """Hands out what other nodes and this one publish."""
        while True:
            if not self.subscriber.subscribed:
                # Nobody is here yet: there is no connection to read from.
                await asyncio.sleep(0.01)
                continue
            async for event in self.subscriber.listen():
                channel = event["channel"].decode()
                if event["type"] == "message":
                    self.deliver(channel, event["data"])
                elif event["type"] == "subscribe":
                    future = self.subscribed.get(channel)
                    if future and not future.done():
                        future.set_result(None)

    def deliver(self, channel, data):
        origin, frame = data[:ORIGIN_BYTES], data[ORIGIN_BYTES:].decode()
        for connection in self.members.get(channel, ()):
            if connection.id != origin:
                connection.push(frame)

    async def close(self):
        await self.subscriber.aclose()
        await self.publisher.aclose()
