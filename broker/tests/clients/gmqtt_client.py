"""gmqtt against a broker; argument and output as in paho_client.py. It has no WebSocket."""

import asyncio
import contextlib
import json
import ssl
import sys

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311

SOON = 20
SESSION_SECONDS = 3600


class Phone:
    def __init__(self, config, user, device="", lasting=False, will=None):
        self.config = config
        self.messages = asyncio.Queue()
        self.subscribed = asyncio.Queue()
        self.present = None
        options = {}
        if lasting and config["version"] == 5:
            options["session_expiry_interval"] = SESSION_SECONDS
        self.client = gmqtt.Client(
            f"{user}/{config['device']}{device}",
            clean_session=not lasting,
            will_message=gmqtt.Message(*will, qos=1) if will else None,
            **options,
        )
        self.client.set_auth_credentials(f"{user}@demo", config["passwords"][user])
        self.client.on_connect = self.on_connect
        self.client.on_message = self.on_message
        self.client.on_subscribe = self.on_subscribe

    def on_connect(self, client, flags, reason, properties):
        assert reason == 0, reason
        self.present = bool(flags & 1)

    def on_subscribe(self, client, packet_id, reasons, properties):
        self.subscribed.put_nowait(tuple(reasons))

    async def on_message(self, client, topic, payload, qos, properties):
        self.messages.put_nowait((payload.decode(), qos, bool(properties["retain"])))
        return 0

    async def connect(self):
        """Whether the session was there."""
        version = MQTTv311 if self.config["version"] == 4 else MQTTv50
        trust = ssl.create_default_context(cafile=self.config["ca"])
        connected = self.client.connect(
            self.config["host"], self.config["port"], ssl=trust, keepalive=30, version=version
        )
        await asyncio.wait_for(connected, SOON)
        return self.present

    async def subscribe(self, topic):
        self.client.subscribe(topic, qos=2)
        reasons = await asyncio.wait_for(self.subscribed.get(), SOON)
        assert reasons == (2,), reasons

    def publish(self, topic, payload, qos, retain=False):
        self.client.publish(topic, payload, qos=qos, retain=retain)

    async def expect(self, payload, qos, retain=False):
        heard = await asyncio.wait_for(self.messages.get(), SOON)
        assert heard == (payload, qos, retain), heard

    async def disconnect(self):
        # To Python's TLS it is an error that the broker was still sending when the client closed.
        with contextlib.suppress(ssl.SSLError):
            await asyncio.wait_for(self.client.disconnect(), SOON)


async def main(config):
    topic = f"c/{config['conversation']}/m"
    if config.get("dies"):
        tablet = Phone(config, "alice", "-tablet", will=(topic, "last will"))
        await tablet.connect()
        print("connected", flush=True)
        await asyncio.Event().wait()
    bob = Phone(config, "bob", lasting=True)
    assert not await bob.connect(), "no session is there"
    await bob.subscribe("c/+/m")
    alice = Phone(config, "alice")
    await alice.connect()
    for qos in (0, 1, 2):
        alice.publish(topic, f"of {qos}", qos)
        await bob.expect(f"of {qos}", qos)
        print("qos", qos)

    pinned = f"c/{config['conversation']}/pinned"
    alice.publish(pinned, "kept", 1, retain=True)
    # It does not say when a message is acknowledged, but one that follows on the same connection is later.
    alice.publish(topic, "after it", 1)
    await bob.expect("after it", 1)
    carol = Phone(config, "carol")
    await carol.connect()
    await carol.subscribe(pinned)
    await carol.expect("kept", 1, retain=True)
    alice.publish(pinned, "", 1, retain=True)
    await carol.expect("", 1)
    await carol.disconnect()
    print("retained")

    arguments = json.dumps({**config, "dies": True})
    dying = await asyncio.create_subprocess_exec(
        sys.executable, __file__, arguments, stdout=asyncio.subprocess.PIPE
    )
    assert await asyncio.wait_for(dying.stdout.readline(), SOON) == b"connected\n"
    dying.kill()
    await dying.wait()
    await bob.expect("last will", 1)
    print("will")

    # A second subscriber tells when what bob missed is there.
    carol = Phone(config, "carol")
    await carol.connect()
    await carol.subscribe(topic)
    await bob.disconnect()
    for number in range(3):
        alice.publish(topic, f"missed {number}", 1)
        await carol.expect(f"missed {number}", 1)
    bob = Phone(config, "bob", lasting=True)
    assert await bob.connect(), "the session is there"
    for number in range(3):
        await bob.expect(f"missed {number}", 1)
    alice.publish(topic, "and live again", 2)
    await bob.expect("and live again", 2)
    for phone in (alice, bob, carol):
        await phone.disconnect()
    print("missed")


asyncio.run(main(json.loads(sys.argv[1])))
