//! What an operator can do, as data: the command line makes it, the store carries it out, HTTP carries it
//! between the two when a broker runs.

use serde::{Deserialize, Serialize};
use sotto_model::{AclAction, AclEffect, AclRuleId, ConversationId, DeviceId};
use sotto_storage::push_registry::Platform;
use zeroize::Zeroizing;

#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Operation {
    TenantAdd { tenant: String },
    TenantList {},
    TenantRetention { tenant: String, days: Option<u32>, bytes: Option<u64>, default: bool },
    TenantHold { tenant: String, hold: bool },
    UserAdd { tenant: String, user: String, password: String },
    UserList { tenant: String },
    UserRemove { tenant: String, user: String },
    UserPassword { tenant: String, user: String, password: String },
    ConversationAdd { tenant: String, id: Option<ConversationId> },
    ConversationList { tenant: String },
    ConversationRemove { tenant: String, conversation: ConversationId },
    MemberAdd { tenant: String, conversation: ConversationId, user: String },
    MemberList { tenant: String, conversation: ConversationId },
    MemberRemove { tenant: String, conversation: ConversationId, user: String },
    MemberMute { tenant: String, conversation: ConversationId, user: String, muted: bool },
    DeviceList { tenant: String, user: String },
    DeviceRemove { tenant: String, user: String, device: String },
    PushRegister { tenant: String, user: String, device: String, target: NewTarget },
    PushUnregister { tenant: String, user: String, device: String },
    PushList { tenant: String },
    PushStatus {},
    PushTest { tenant: String, user: String, device: String, low: bool },
    PushDeadLetters {},
    PushReplay { tenant: Option<String>, device: Option<DeviceId> },
    AclAdd { tenant: String, effect: AclEffect, action: AclAction, filter: String, position: Option<usize> },
    AclList { tenant: String },
    AclRemove { tenant: String, rule: AclRuleId },
    AuditList { tenant: Option<String>, limit: usize },
}

/// How a device is to be woken: a token of a push service, or an endpoint.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTarget {
    #[serde(default = "unified_push")]
    pub(crate) platform: String,
    pub(crate) app: Option<String>,
    pub(crate) token: Option<Zeroizing<String>>,
    pub(crate) endpoint: Option<Zeroizing<String>>,
}

fn unified_push() -> String {
    Platform::UnifiedPush.as_str().to_owned()
}
