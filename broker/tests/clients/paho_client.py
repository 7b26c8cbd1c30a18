"""Eclipse Paho for Python against a broker: what it shows, it prints, a line each.

Its one argument is JSON, as every script here takes it: host, port, path (of a WebSocket, or null), ca, version (4 or
5), conversation, device (a name that no other run uses), passwords (of alice, bob, carol), and dies: true makes it
alice's tablet alone, which says "connected" and waits to be killed.
"""

import json
import queue
import subprocess
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

SOON = 20
SESSION_SECONDS = 3600


class Phone:
    def __init__(self, config, user, device="", lasting=False, will=None):
        self.config = config
        self.lasting = lasting
        self.messages = queue.Queue()
        self.presents = queue.Queue()
        self.subscribed = queue.Queue()
        self.ended = threading.Event()
        options = {}
        if config["version"] == 4:
            options["clean_session"] = not lasting
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=f"{user}/{config['device']}{device}",
            protocol=mqtt.MQTTv311 if config["version"] == 4 else mqtt.MQTTv5,
            transport="websockets" if config["path"] else "tcp",
            **options,
        )
        self.client.tls_set(ca_certs=config["ca"])
        self.client.username_pw_set(f"{user}@demo", config["passwords"][user])
        if config["path"]:
            self.client.ws_set_options(path=config["path"])
        if will:
            self.client.will_set(*will, qos=1)
        self.client.on_connect = self.on_connect
        self.client.on_subscribe = lambda *arguments: self.subscribed.put(arguments[3])
        self.client.on_message = lambda client, data, message: self.messages.put(message)
        self.client.on_disconnect = lambda *arguments: self.ended.set()

    def on_connect(self, client, data, flags, reason, properties):
        assert not reason.is_failure, reason
        self.presents.put(flags.session_present)

    def connect(self):
        """Whether the session was there."""
        options = {}
        if self.config["version"] == 5:
            options["clean_start"] = not self.lasting
            if self.lasting:
                options["properties"] = Properties(PacketTypes.CONNECT)
                options["properties"].SessionExpiryInterval = SESSION_SECONDS
        self.client.connect(self.config["host"], self.config["port"], keepalive=30, **options)
        self.client.loop_start()
        return self.presents.get(timeout=SOON)

    def subscribe(self, topic):
        self.client.subscribe(topic, qos=2)
        reasons = self.subscribed.get(timeout=SOON)
        assert [reason.value for reason in reasons] == [2], reasons

    def publish(self, topic, payload, qos, retain=False):
        published = self.client.publish(topic, payload, qos, retain)
        published.wait_for_publish(SOON)
        assert published.is_published(), payload

    def expect(self, payload, qos, retain=False):
        message = self.messages.get(timeout=SOON)
        heard = (message.payload.decode(), message.qos, message.retain)
        assert heard == (payload, qos, retain), heard

    def disconnect(self):
        self.client.disconnect()
        assert self.ended.wait(SOON), "the end of the connection"
        self.client.loop_stop()


def main(config):
    topic = f"c/{config['conversation']}/m"
    if config.get("dies"):
        tablet = Phone(config, "alice", "-tablet", will=(topic, "last will"))
        tablet.connect()
        print("connected", flush=True)
        threading.Event().wait()
    bob = Phone(config, "bob", lasting=True)
    assert not bob.connect(), "no session is there"
    bob.subscribe("c/+/m")
    alice = Phone(config, "alice")
    alice.connect()
    for qos in (0, 1, 2):
        alice.publish(topic, f"of {qos}", qos)
        bob.expect(f"of {qos}", qos)
        print("qos", qos)

    pinned = f"c/{config['conversation']}/pinned"
    alice.publish(pinned, "kept", 1, retain=True)
    carol = Phone(config, "carol")
    carol.connect()
    carol.subscribe(pinned)
    carol.expect("kept", 1, retain=True)
    alice.publish(pinned, "", 1, retain=True)
    carol.disconnect()
    print("retained")

    arguments = json.dumps({**config, "dies": True})
    dying = subprocess.Popen([sys.executable, __file__, arguments], stdout=subprocess.PIPE, text=True)
    assert dying.stdout.readline() == "connected\n"
    dying.kill()
    bob.expect("last will", 1)
    print("will")

    bob.disconnect()
    for number in range(3):
        alice.publish(topic, f"missed {number}", 1)
    bob = Phone(config, "bob", lasting=True)
    assert bob.connect(), "the session is there"
    for number in range(3):
        bob.expect(f"missed {number}", 1)
    alice.publish(topic, "and live again", 2)
    bob.expect("and live again", 2)
    bob.disconnect()
    alice.disconnect()
    print("missed")


main(json.loads(sys.argv[1]))
