//! CONNECT, field by field.

use std::net::SocketAddr;

use crate::support::broker;
use crate::support::client::Client;
use crate::support::packet::{Packet, Version};
use crate::support::write::{
    SESSION_EXPIRY_INTERVAL, binary, four_bytes, packet, properties, string, two_bytes,
};

#[derive(Clone)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) clean: bool,
    /// Seconds.
    pub(crate) keep_alive: u16,
    pub(crate) properties: Vec<u8>,
    pub(crate) will: Option<Will>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
    pub(crate) address: SocketAddr,
}

#[derive(Clone)]
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) properties: Vec<u8>,
}

impl Will {
    pub(crate) fn new(topic: &str, payload: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            payload: payload.as_bytes().to_vec(),
            qos: 0,
            retain: false,
            properties: Vec::new(),
        }
    }
}

impl Connect {
    /// To the broker that tests share, with a session that ends with its connection.
    pub(crate) fn new(version: Version, client_id: &str) -> Self {
        Self {
            version,
            client_id: client_id.to_owned(),
            clean: true,
            keep_alive: 60,
            properties: Vec::new(),
            will: None,
            username: None,
            password: None,
            address: broker::address(),
        }
    }

    pub(crate) fn to(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Takes up the session that there is, and leaves one.
    pub(crate) fn lasting(mut self) -> Self {
        self.clean = false;
        match self.version {
            Version::V3 => self,
            Version::V5 => self.expiry(3600),
        }
    }

    /// Session Expiry Interval, seconds. Version 5 only.
    pub(crate) fn expiry(self, seconds: u32) -> Self {
        self.property(&four_bytes(SESSION_EXPIRY_INTERVAL, seconds))
    }

    pub(crate) fn receive_maximum(self, packets: u16) -> Self {
        self.property(&two_bytes(crate::support::write::RECEIVE_MAXIMUM, packets))
    }

    pub(crate) fn property(mut self, property: &[u8]) -> Self {
        self.properties.extend(property);
        self
    }

    pub(crate) fn will(mut self, will: Will) -> Self {
        self.will = Some(will);
        self
    }

    pub(crate) fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean) << 1;
        let mut payload = string(&self.client_id);
        if let Some(will) = &self.will {
            flags |= 0x04 | will.qos << 3 | u8::from(will.retain) << 5;
            payload.extend(properties(self.version, &will.properties));
            payload.extend(string(&will.topic));
            payload.extend(binary(&will.payload));
        }
        if let Some(username) = &self.username {
            flags |= 0x80;
            payload.extend(string(username));
        }
        if let Some(password) = &self.password {
            flags |= 0x40;
            payload.extend(binary(password));
        }
        self.bytes_of(flags, &payload)
    }

    /// With flags and a payload that need not fit each other.
    pub(crate) fn bytes_of(&self, flags: u8, payload: &[u8]) -> Vec<u8> {
        let level = match self.version {
            Version::V3 => 4,
            Version::V5 => 5,
        };
        let [high, low] = self.keep_alive.to_be_bytes();
        let properties = properties(self.version, &self.properties);
        packet(0x10, &[string("MQTT"), vec![level, flags, high, low], properties, payload.to_vec()].concat())
    }

    /// Connects and is accepted.
    pub(crate) fn open(&self) -> Client {
        let (mut client, connack) = self.attempt();
        let Packet::ConnAck { present, code: 0, .. } = connack else { panic!("{connack:?}") };
        client.present = present;
        client
    }

    /// Connects; what comes first.
    pub(crate) fn attempt(&self) -> (Client, Packet) {
        let mut client = Client::raw(self.version, self.address);
        client.send(&self.bytes());
        let first = client.next();
        (client, first)
    }
}
