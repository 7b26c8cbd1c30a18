//! What a client subscribes to that only listens.

use serde::{Deserialize, Serialize};
use sotto_model::QoS;

use crate::qos_number;
use crate::template::Template;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Subscription {
    pub(crate) filter: Template,
    #[serde(with = "qos_number")]
    pub(crate) qos: QoS,
}
