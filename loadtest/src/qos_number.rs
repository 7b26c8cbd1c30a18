//! QoS as the number that MQTT gives it, for serde.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};
use sotto_model::QoS;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(crate) fn serialize<S: Serializer>(qos: &QoS, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(*qos as u8)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<QoS, D::Error> {
    let bits = u8::deserialize(deserializer)?;
    QoS::from_bits(bits).ok_or_else(|| D::Error::custom("QoS is 0, 1 or 2"))
}
