//! The name under which a group is stored: a Client Identifier that no client may have.

use aws_lc_rs::digest::{SHA256, digest};
use sotto_model::{ClientId, Principal, TopicFilter};

/// Clients with a Client Identifier that begins so are refused.
const RESERVED: &str = "$share/";

pub(crate) fn is_reserved(client_id: &str) -> bool {
    client_id.starts_with(RESERVED)
}

/// Is it a group, and not a client?
pub(crate) fn is_group(principal: &Principal) -> bool {
    is_reserved(principal.client_id.as_str())
}

/// A filter may be longer than a Client Identifier, and hold what that may not: a hash stands for it.
pub(crate) fn client_id(filter: &TopicFilter) -> ClientId {
    let hash = digest(&SHA256, filter.as_subscribed().as_bytes());
    let first = hash.as_ref().first_chunk().expect("a hash has 32 bytes");
    let name = format!("{RESERVED}{:032x}", u128::from_be_bytes(*first));
    ClientId::parse(&name).expect("39 bytes, none of them a control character")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_a_name_of_its_own_that_is_reserved() {
        let name = |raw: &str| client_id(&TopicFilter::parse(raw).expect("a filter"));
        assert!(is_reserved(name("$share/a/t").as_str()));
        assert_ne!(name("$share/a/t"), name("$share/b/t"));
        assert_eq!(name(&format!("$share/a/{}", "x".repeat(1000))).as_str().len(), 39);
        assert!(!is_reserved("share/a"));
    }
}
