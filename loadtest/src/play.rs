//! The scripts there are.

use serde::{Deserialize, Serialize};

use crate::churner::ChurnPlan;
use crate::holder::Holding;
use crate::stormer::StormPlan;
use crate::traffic::TrafficPlan;

/// As one process sends it to another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Play {
    Hold(Holding),
    Traffic(Box<TrafficPlan>),
    Storm(StormPlan),
    Churn(ChurnPlan),
}

impl From<Holding> for Play {
    fn from(script: Holding) -> Self {
        Self::Hold(script)
    }
}

impl From<TrafficPlan> for Play {
    fn from(script: TrafficPlan) -> Self {
        Self::Traffic(Box::new(script))
    }
}

impl From<StormPlan> for Play {
    fn from(script: StormPlan) -> Self {
        Self::Storm(script)
    }
}

impl From<ChurnPlan> for Play {
    fn from(script: ChurnPlan) -> Self {
        Self::Churn(script)
    }
}
