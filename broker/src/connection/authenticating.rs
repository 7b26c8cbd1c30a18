//! Enhanced authentication: what goes to and fro between CONNECT and CONNACK, and once more on a live
//! connection when its client asks for it.

use sotto_auth::{Refusal, SCRAM_SHA_256, ScramLogin, ServerNonce, UserName};
use sotto_mqtt::handshake::{Authentication, ConnectRequest, authenticate};
use sotto_mqtt::packet::Auth;
use sotto_mqtt::reason::ReasonCode;
use sotto_mqtt::session::Violation;

use crate::connection::ending::Farewell;
use crate::connection::live::Live;
use crate::connection::opening::{ChosenClientId, Shown};
use crate::services::Services;

/// A client that has named a method and has yet to show who it is. Each message is followed by at most one
/// more, so the exchange ends.
pub(crate) struct Authenticating {
    request: ConnectRequest,
    /// `None` until its first message has come.
    login: Option<ScramLogin>,
}

/// What an AUTH led to.
pub(crate) enum Step {
    /// The next one is waited for.
    On(Authenticating),
    Shown(ConnectRequest, Shown),
}

impl Authenticating {
    /// Answers with AUTH in `out`.
    pub(crate) fn begin(
        mut request: ConnectRequest,
        authentication: &Authentication,
        services: &Services,
        out: &mut Vec<u8>,
    ) -> Result<Self, ReasonCode> {
        if authentication.method != SCRAM_SHA_256 {
            // [MQTT-4.12.0-1]
            return Err(ReasonCode::BadAuthenticationMethod);
        }
        request.negotiated.authentication_method = Some(SCRAM_SHA_256);
        let login = match authentication.data.as_slice() {
            // The method begins with the client, who has yet to be asked.
            [] => {
                authenticate(SCRAM_SHA_256, ReasonCode::ContinueAuthentication, &[], out);
                None
            }
            client_first => Some(begin(services, client_first, out)?),
        };
        Ok(Self { request, login })
    }

    pub(crate) fn receive(
        self,
        auth: &Auth<'_>,
        services: &Services,
        out: &mut Vec<u8>,
    ) -> Result<Step, ReasonCode> {
        let Self { request, login } = self;
        let same_method = auth.properties.authentication_method() == Some(SCRAM_SHA_256);
        // [MQTT-4.12.0-3]
        if auth.reason != ReasonCode::ContinueAuthentication || !same_method {
            return Err(ReasonCode::ProtocolError);
        }
        let data = auth.properties.authentication_data().unwrap_or_default();
        let Some(login) = login else {
            let login = Some(begin(services, data, out)?);
            return Ok(Step::On(Self { request, login }));
        };
        let user_name = login.user_name().map(UserName::as_str);
        let client_id = ChosenClientId::of(&request.client_id, user_name);
        let finished = login.finish(data, &client_id.client_id);
        let (identity, authentication_data) =
            finished.map_err(|refusal| services.refuse_authentication(refusal))?;
        let shown = Shown { identity, client_id, authentication_data };
        Ok(Step::Shown(request, shown))
    }
}

impl Live {
    /// The same user, by the same method, or the connection ends. [MQTT-4.12.1-1] [MQTT-4.12.1-2]
    pub(super) fn authenticate_again(
        &mut self,
        begins: bool,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Farewell> {
        let services = &self.services;
        match (begins, self.login.take()) {
            (true, None) => {
                let login = begin(services, data, out).map_err(not_again)?;
                self.login = Some(Box::new(login));
                Ok(())
            }
            (false, Some(login)) => {
                let principal = &self.owned.entry.principal;
                let finished = login.finish(data, principal.client_id.as_str());
                let (identity, data) =
                    finished.map_err(|refusal| not_again(services.refuse_authentication(refusal)))?;
                if (identity.tenant, identity.user) != (principal.tenant, principal.user) {
                    return Err(not_again(services.refuse_authentication(Refusal::NotAuthorized)));
                }
                authenticate(SCRAM_SHA_256, ReasonCode::Success, &data, out);
                Ok(())
            }
            (true, Some(_)) | (false, None) => Err(Farewell::Violation(Violation {
                reason: ReasonCode::ProtocolError,
                what: "AUTH out of order",
            })),
        }
    }
}

/// Takes the client's first message and answers it with AUTH in `out`.
fn begin(services: &Services, client_first: &[u8], out: &mut Vec<u8>) -> Result<ScramLogin, ReasonCode> {
    let begun = services.authenticator.begin_scram(client_first, &ServerNonce::draw());
    let (login, server_first) = begun.map_err(|refusal| services.refuse_authentication(refusal))?;
    authenticate(SCRAM_SHA_256, ReasonCode::ContinueAuthentication, &server_first, out);
    Ok(login)
}

/// What DISCONNECT has a word for.
fn not_again(reason: ReasonCode) -> Farewell {
    Farewell::Refused(match reason {
        ReasonCode::BadAuthenticationMethod => reason,
        _ => ReasonCode::NotAuthorized,
    })
}
