//! The private listener: metrics and health for whoever can reach it, administration for whoever holds the
//! token.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Deserialize;
use serde_json::{Value, json};
use sotto_model::{AclAction, AclEffect, AclRuleId, ConversationId, DeviceId};
use sotto_storage::Store;
use sotto_storage::directory::DirectoryError;
use sotto_wakeup::TestPushError;
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::drain::{Departure, DrainPlan};
use crate::metrics::flush_hot;
use crate::operation::{NewTarget, Operation};
use crate::operations::{OperationError, Operations};
use crate::tls::LiveTls;

/// A store that does not answer within this is not ready.
const PING_MAX: Duration = Duration::from_secs(2);
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Names and ports of some servers.
const SERVER_REFERENCE_BYTES_MAX: usize = 1024;
const AUDIT_ROWS_DEFAULT: usize = 100;

#[derive(Clone)]
pub(crate) struct Private {
    pub(crate) metrics: PrometheusHandle,
    pub(crate) store: Arc<dyn Store>,
    /// The store took the last commit: one that answers and takes none is not ready either.
    pub(crate) commits_healthy: watch::Receiver<bool>,
    pub(crate) operations: Arc<Operations>,
    pub(crate) token: Arc<Zeroizing<String>>,
    pub(crate) departure: Departure,
    /// How the node is left unless it is said.
    pub(crate) drain: DrainPlan,
    pub(crate) tls: Arc<LiveTls>,
}

pub(crate) async fn serve(
    listener: TcpListener,
    private: Private,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let app = app(private);
    axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn app(private: Private) -> Router {
    let administration = Router::new()
        .route("/tenants", get(tenants).post(add_tenant))
        .route("/tenants/{tenant}/retention", put(set_retention))
        .route("/tenants/{tenant}/hold", put(set_hold))
        .route("/tenants/{tenant}/users", get(users).post(add_user))
        .route("/tenants/{tenant}/users/{user}", delete(remove_user))
        .route("/tenants/{tenant}/users/{user}/password", put(set_password))
        .route("/tenants/{tenant}/users/{user}/devices/{device}/push", put(register).delete(unregister))
        .route("/tenants/{tenant}/users/{user}/devices/{device}/push/test", post(test_push))
        .route("/tenants/{tenant}/users/{user}/devices", get(devices))
        .route("/tenants/{tenant}/users/{user}/devices/{device}", delete(remove_device))
        .route("/tenants/{tenant}/push", get(registrations))
        .route("/push", get(push_status))
        .route("/tenants/{tenant}/conversations", get(conversations).post(add_conversation))
        .route("/tenants/{tenant}/conversations/{conversation}", delete(remove_conversation))
        .route("/tenants/{tenant}/conversations/{conversation}/members", get(members))
        .route(
            "/tenants/{tenant}/conversations/{conversation}/members/{user}",
            put(add_member).delete(remove_member),
        )
        .route("/tenants/{tenant}/acl", get(acl_rules).post(add_acl_rule))
        .route("/tenants/{tenant}/acl/{rule}", delete(remove_acl_rule))
        .route(
            "/tenants/{tenant}/conversations/{conversation}/members/{user}/muted",
            put(mute).delete(unmute),
        )
        .route("/dead-letters", get(dead_letters))
        .route("/dead-letters/replay", post(replay))
        .route("/audit", get(audit))
        .route("/operations", post(any))
        .route("/tls/reload", post(reload_tls))
        .route("/drain", post(drain))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(private.clone(), authorize));
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready))
        .nest("/v1", administration)
        .with_state(private)
}

async fn metrics(State(private): State<Private>) -> String {
    flush_hot();
    private.metrics.run_upkeep();
    private.metrics.render()
}

async fn ready(State(private): State<Private>) -> (StatusCode, &'static str) {
    let reason = if private.departure.is_asked() {
        Some("shutting down\n")
    } else {
        match tokio::time::timeout(PING_MAX, private.store.ping()).await {
            Ok(Ok(())) if *private.commits_healthy.borrow() => None,
            Ok(Ok(())) => Some("store takes no commits\n"),
            Ok(Err(_)) | Err(_) => Some("store unavailable\n"),
        }
    };
    gauge!("sotto_ready").set(if reason.is_none() { 1.0 } else { 0.0 });
    reason.map_or((StatusCode::OK, "ready\n"), |reason| (StatusCode::SERVICE_UNAVAILABLE, reason))
}

async fn authorize(State(private): State<Private>, request: axum::extract::Request, next: Next) -> Response {
    let shown = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default();
    if bool::from(shown.as_bytes().ct_eq(private.token.as_bytes())) {
        next.run(request).await
    } else {
        let body = Json(json!({"error": "the token in the data folder's admin.token is expected"}));
        (StatusCode::UNAUTHORIZED, body).into_response()
    }
}

type Answer = Result<Json<Value>, OperationError>;
type Has = State<Private>;

impl Private {
    async fn run(&self, operation: Operation) -> Answer {
        self.operations.run(operation).await.map(Json)
    }
}

impl IntoResponse for OperationError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Name(_)
            | Self::Password(_)
            | Self::Target(_)
            | Self::TestPush(TestPushError::NotConfigured(_))
            | Self::AclFilter(_)
            | Self::RetentionTooShort { .. } => StatusCode::BAD_REQUEST,
            Self::Missing(_) | Self::Directory(DirectoryError::Missing(_)) => StatusCode::NOT_FOUND,
            Self::Directory(DirectoryError::Exists(_) | DirectoryError::Full(_)) => StatusCode::CONFLICT,
            Self::Directory(DirectoryError::Store(_)) | Self::Store(_) | Self::Key => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Internal | Self::NotRunning | Self::TestPush(TestPushError::Token(_)) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        (status, Json(json!({"error": self.to_string()}))).into_response()
    }
}

/// What the command line sends.
async fn any(private: Has, Json(operation): Json<Operation>) -> Answer {
    private.run(operation).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewDrain {
    per_second: Option<u32>,
    grace_seconds: Option<u32>,
    to: Option<String>,
}

/// Answers when everybody is gone; then the process ends.
async fn drain(State(private): Has, Json(new): Json<NewDrain>) -> Response {
    let plan = DrainPlan {
        per_second: new.per_second.unwrap_or(private.drain.per_second),
        grace_seconds: new.grace_seconds.unwrap_or(private.drain.grace_seconds),
        to: new.to.or(private.drain.to),
    };
    if plan.to.as_ref().is_some_and(|to| to.is_empty() || to.len() > SERVER_REFERENCE_BYTES_MAX) {
        let error = format!("to: 1 to {SERVER_REFERENCE_BYTES_MAX} bytes are expected");
        return (StatusCode::BAD_REQUEST, Json(json!({"error": error}))).into_response();
    }
    private.departure.ask(plan);
    Json(private.departure.done().await).into_response()
}

/// The whole of the files, or nothing of them.
async fn reload_tls(State(private): Has) -> Response {
    // Files are read, which may be on a network.
    let reloaded = tokio::task::spawn_blocking(move || private.tls.reload()).await;
    match reloaded {
        Ok(Ok(not_after)) => {
            Json(json!({"reloaded": true, "certificate_expires_at": not_after})).into_response()
        }
        Ok(Err(error)) => {
            (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"error": error.to_string()}))).into_response()
        }
        Err(_) => OperationError::Internal.into_response(),
    }
}

async fn tenants(private: Has) -> Answer {
    private.run(Operation::TenantList {}).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewTenant {
    tenant: String,
}

async fn add_tenant(private: Has, Json(new): Json<NewTenant>) -> Answer {
    private.run(Operation::TenantAdd { tenant: new.tenant }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRetention {
    days: Option<u32>,
    bytes: Option<u64>,
    #[serde(default)]
    default: bool,
}

async fn set_retention(private: Has, Path(tenant): Path<String>, Json(new): Json<NewRetention>) -> Answer {
    let NewRetention { days, bytes, default } = new;
    private.run(Operation::TenantRetention { tenant, days, bytes, default }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewHold {
    hold: bool,
}

async fn set_hold(private: Has, Path(tenant): Path<String>, Json(new): Json<NewHold>) -> Answer {
    private.run(Operation::TenantHold { tenant, hold: new.hold }).await
}

async fn users(private: Has, Path(tenant): Path<String>) -> Answer {
    private.run(Operation::UserList { tenant }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewUser {
    user: String,
    password: String,
}

async fn add_user(private: Has, Path(tenant): Path<String>, Json(new): Json<NewUser>) -> Answer {
    private.run(Operation::UserAdd { tenant, user: new.user, password: new.password }).await
}

async fn remove_user(private: Has, Path((tenant, user)): Path<(String, String)>) -> Answer {
    private.run(Operation::UserRemove { tenant, user }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    password: String,
}

async fn set_password(
    private: Has,
    Path((tenant, user)): Path<(String, String)>,
    Json(new): Json<NewPassword>,
) -> Answer {
    private.run(Operation::UserPassword { tenant, user, password: new.password }).await
}

async fn register(
    private: Has,
    Path((tenant, user, device)): Path<(String, String, String)>,
    Json(target): Json<NewTarget>,
) -> Answer {
    private.run(Operation::PushRegister { tenant, user, device, target }).await
}

async fn unregister(private: Has, Path((tenant, user, device)): Path<(String, String, String)>) -> Answer {
    private.run(Operation::PushUnregister { tenant, user, device }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestPush {
    #[serde(default)]
    low: bool,
}

async fn test_push(
    private: Has,
    Path((tenant, user, device)): Path<(String, String, String)>,
    Json(TestPush { low }): Json<TestPush>,
) -> Answer {
    private.run(Operation::PushTest { tenant, user, device, low }).await
}

async fn push_status(private: Has) -> Answer {
    private.run(Operation::PushStatus {}).await
}

async fn devices(private: Has, Path((tenant, user)): Path<(String, String)>) -> Answer {
    private.run(Operation::DeviceList { tenant, user }).await
}

async fn remove_device(private: Has, Path((tenant, user, device)): Path<(String, String, String)>) -> Answer {
    private.run(Operation::DeviceRemove { tenant, user, device }).await
}

async fn mute(private: Has, Path(member): Path<(String, ConversationId, String)>) -> Answer {
    private.run(muted(member, true)).await
}

async fn unmute(private: Has, Path(member): Path<(String, ConversationId, String)>) -> Answer {
    private.run(muted(member, false)).await
}

fn muted((tenant, conversation, user): (String, ConversationId, String), muted: bool) -> Operation {
    Operation::MemberMute { tenant, conversation, user, muted }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Replay {
    tenant: Option<String>,
    device: Option<DeviceId>,
}

async fn replay(private: Has, Json(Replay { tenant, device }): Json<Replay>) -> Answer {
    private.run(Operation::PushReplay { tenant, device }).await
}

async fn registrations(private: Has, Path(tenant): Path<String>) -> Answer {
    private.run(Operation::PushList { tenant }).await
}

async fn conversations(private: Has, Path(tenant): Path<String>) -> Answer {
    private.run(Operation::ConversationList { tenant }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewConversation {
    id: Option<ConversationId>,
}

async fn add_conversation(
    private: Has,
    Path(tenant): Path<String>,
    Json(new): Json<NewConversation>,
) -> Answer {
    private.run(Operation::ConversationAdd { tenant, id: new.id }).await
}

async fn remove_conversation(
    private: Has,
    Path((tenant, conversation)): Path<(String, ConversationId)>,
) -> Answer {
    private.run(Operation::ConversationRemove { tenant, conversation }).await
}

async fn members(private: Has, Path((tenant, conversation)): Path<(String, ConversationId)>) -> Answer {
    private.run(Operation::MemberList { tenant, conversation }).await
}

async fn add_member(
    private: Has,
    Path((tenant, conversation, user)): Path<(String, ConversationId, String)>,
) -> Answer {
    private.run(Operation::MemberAdd { tenant, conversation, user }).await
}

async fn remove_member(
    private: Has,
    Path((tenant, conversation, user)): Path<(String, ConversationId, String)>,
) -> Answer {
    private.run(Operation::MemberRemove { tenant, conversation, user }).await
}

async fn acl_rules(private: Has, Path(tenant): Path<String>) -> Answer {
    private.run(Operation::AclList { tenant }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAclRule {
    effect: AclEffect,
    action: AclAction,
    filter: String,
    position: Option<usize>,
}

async fn add_acl_rule(private: Has, Path(tenant): Path<String>, Json(new): Json<NewAclRule>) -> Answer {
    let NewAclRule { effect, action, filter, position } = new;
    private.run(Operation::AclAdd { tenant, effect, action, filter, position }).await
}

async fn remove_acl_rule(private: Has, Path((tenant, rule)): Path<(String, AclRuleId)>) -> Answer {
    private.run(Operation::AclRemove { tenant, rule }).await
}

async fn dead_letters(private: Has) -> Answer {
    private.run(Operation::PushDeadLetters {}).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    tenant: Option<String>,
    limit: Option<usize>,
}

async fn audit(private: Has, Query(query): Query<AuditQuery>) -> Answer {
    let limit = query.limit.unwrap_or(AUDIT_ROWS_DEFAULT);
    private.run(Operation::AuditList { tenant: query.tenant, limit }).await
}
