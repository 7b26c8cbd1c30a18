//! The journeys: the broker's process, real databases, and clients that others wrote.

mod access_rules;
mod clients;
mod delivery;
mod drills;
mod enhanced_authentication;
mod membership;
mod newcomer;
mod offline;
mod operation;
mod privacy;
mod proxy_protocol;
mod push;
mod refusals;
mod retained;
mod retention;
mod sessions;
mod sharing;
mod slow;
mod starting;
mod stock_clients;
mod store;
mod storms;
mod support;
mod upgrade;
mod websocket;
mod will;
