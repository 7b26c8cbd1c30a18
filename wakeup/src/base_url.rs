//! Where a push service is: configured by the operator.

use std::str::FromStr;

use reqwest::Url;

/// `https`, a host, perhaps a port, and nothing else. Made from it are the URLs of single requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(Url);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not of the form https://host or https://host:port")]
pub struct BaseUrlError;

impl BaseUrl {
    /// `path` begins with a slash, and is safe in a URL as it stands.
    pub(crate) fn join(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(path);
        url
    }
}

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(raw: &str) -> Result<Self, BaseUrlError> {
        let url = Url::parse(raw).map_err(|_| BaseUrlError)?;
        let origin = url.origin().ascii_serialization();
        // The rest is empty when the origin is all that is said.
        let is_origin = url.scheme() == "https" && url.as_str() == format!("{origin}/");
        if is_origin { Ok(Self(url)) } else { Err(BaseUrlError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_an_origin_over_https() {
        for good in ["https://api.push.apple.com", "https://127.0.0.1:8443/", "https://[::1]:8443"] {
            assert!(good.parse::<BaseUrl>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "api.push.apple.com",
            "http://api.push.apple.com",
            "https://a/b",
            "https://a/?b",
            "https://u@a",
            "https://a/#b",
        ] {
            assert_eq!(bad.parse::<BaseUrl>(), Err(BaseUrlError), "{bad}");
        }
    }
}
