//! Text with places for a client's number and names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `%i` stands for a number, `%r` for the run's id, `%c` for the client's identifier, `%u` for its user name,
/// `%{i/10}` and `%{i%10}` for the number divided and what the division leaves, `%%` for a percent sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Number,
    Quotient(u32),
    Remainder(u32),
    Run,
    ClientId,
    User,
}

/// Told apart from other runs: on topics, in client identifiers, in every payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunId(pub(crate) u32);

/// Whom a template is expanded for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place<'a> {
    pub(crate) number: u32,
    pub(crate) run: RunId,
    /// Empty where it is not known, as in a topic that several clients share.
    pub(crate) client_id: &'a str,
    pub(crate) user: &'a str,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("`%{{{0}}}` is neither %{{i/N}} nor %{{i%N}} with N at least 1")]
    Arithmetic(String),
    #[error("`%{{` is not closed")]
    Unclosed,
}

impl Template {
    pub(crate) fn expand(&self, place: Place<'_>) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Number => text.push_str(&place.number.to_string()),
                Part::Quotient(by) => text.push_str(&(place.number / by).to_string()),
                Part::Remainder(by) => text.push_str(&(place.number % by).to_string()),
                Part::Run => text.push_str(&place.run.to_string()),
                Part::ClientId => text.push_str(place.client_id),
                Part::User => text.push_str(place.user),
            }
        }
        text
    }

    /// A filter that matches what it expands to for everyone: `+` for each level that differs.
    pub(crate) fn expand_to_filter(&self, run: RunId) -> String {
        const MARK: char = '\u{0}';
        let mut marked = String::new();
        for part in &self.0 {
            match part {
                Part::Text(part) => marked.push_str(part),
                Part::Run => marked.push_str(&run.to_string()),
                _ => marked.push(MARK),
            }
        }
        let levels: Vec<_> =
            marked.split('/').map(|level| if level.contains(MARK) { "+" } else { level }).collect();
        levels.join("/")
    }

    /// The same for every client.
    pub(crate) fn is_constant(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Text(_) | Part::Run))
    }

    /// Says who the client is, not only which.
    pub(crate) fn names_client(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::ClientId | Part::User))
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(raw: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = raw;
        while let Some(at) = rest.find('%') {
            text.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let part = match rest.chars().next() {
                Some('i') => Part::Number,
                Some('r') => Part::Run,
                Some('c') => Part::ClientId,
                Some('u') => Part::User,
                Some('{') => {
                    let end = rest.find('}').ok_or(TemplateError::Unclosed)?;
                    let part = arithmetic(&rest[1..end])?;
                    rest = &rest[end..];
                    part
                }
                // A percent sign that means nothing stays.
                next => {
                    text.push('%');
                    rest = if next == Some('%') { &rest[1..] } else { rest };
                    continue;
                }
            };
            rest = &rest[1..];
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text).into()));
            }
            parts.push(part);
        }
        text.push_str(rest);
        if !text.is_empty() {
            parts.push(Part::Text(text.into()));
        }
        Ok(Self(parts))
    }
}

/// As it may be parsed again.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(&text.replace('%', "%%")),
            Part::Number => f.write_str("%i"),
            Part::Quotient(by) => write!(f, "%{{i/{by}}}"),
            Part::Remainder(by) => write!(f, "%{{i%{by}}}"),
            Part::Run => f.write_str("%r"),
            Part::ClientId => f.write_str("%c"),
            Part::User => f.write_str("%u"),
        })
    }
}

impl TryFrom<String> for Template {
    type Error = TemplateError;

    fn try_from(raw: String) -> Result<Self, TemplateError> {
        raw.parse()
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.to_string()
    }
}

fn arithmetic(raw: &str) -> Result<Part, TemplateError> {
    let parsed = raw.strip_prefix('i').and_then(|rest| {
        let (quotient, by) = match rest.as_bytes().first()? {
            b'/' => (true, &rest[1..]),
            b'%' => (false, &rest[1..]),
            _ => return None,
        };
        let by = by.parse().ok().filter(|by| *by > 0)?;
        Some(if quotient { Part::Quotient(by) } else { Part::Remainder(by) })
    });
    parsed.ok_or_else(|| TemplateError::Arithmetic(raw.to_owned()))
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(template: &str) -> String {
        let place = Place { number: 27, run: RunId(0xab), client_id: "phone", user: "ann" };
        template.parse::<Template>().expect("a template").expand(place)
    }

    #[test]
    fn a_template_takes_numbers_and_names_wherever_they_stand() {
        assert_eq!(expand("c/%i/m"), "c/27/m");
        assert_eq!(expand("%r-%i-%i"), "000000ab-27-27");
        assert_eq!(expand("u/%u/%c"), "u/ann/phone");
        assert_eq!(expand("plain"), "plain");
        assert_eq!(expand("ü%iß"), "ü27ß");
    }

    #[test]
    fn clients_fall_into_groups_by_division_and_by_remainder() {
        assert_eq!(expand("g/%{i/10}/%{i%10}"), "g/2/7");
        // Without braces it is a number and a level.
        assert_eq!(expand("g/%i/10"), "g/27/10");
    }

    #[test]
    fn a_percent_sign_that_means_nothing_stays() {
        assert_eq!(expand("100%"), "100%");
        assert_eq!(expand("%x%i"), "%x27");
        assert_eq!(expand("%%i"), "%i");
        assert_eq!(expand("%ü"), "%ü");
    }

    #[test]
    fn a_template_that_is_written_and_read_again_is_the_same() {
        for raw in ["c/%i/m", "%r-%c/%u", "g/%{i/10}/%{i%10}", "100%", "%%i", "%x%i", "ü%ß", ""] {
            let template: Template = raw.parse().expect("a template");
            let sent = serde_json::to_string(&template).expect("text");
            assert_eq!(serde_json::from_str::<Template>(&sent).expect("a template"), template, "{sent}");
        }
    }

    #[test]
    fn a_group_of_none_is_refused() {
        for bad in ["%{i/0}", "%{i*2}", "%{}", "%{j/2}", "%{i/x}"] {
            assert!(matches!(bad.parse::<Template>(), Err(TemplateError::Arithmetic(_))), "{bad}");
        }
        assert_eq!("%{i/2".parse::<Template>(), Err(TemplateError::Unclosed));
    }

    #[test]
    fn a_filter_for_everyone_has_a_plus_where_they_differ() {
        let filter = |raw: &str| raw.parse::<Template>().expect("a template").expand_to_filter(RunId(0xab));
        assert_eq!(filter("load/%r/%i"), "load/000000ab/+");
        assert_eq!(filter("u-%u/%{i/2}/x"), "+/+/x");
        assert_eq!(filter("one"), "one");
    }

    #[test]
    fn only_what_differs_from_client_to_client_is_not_constant() {
        let constant = |raw: &str| raw.parse::<Template>().expect("a template").is_constant();
        assert!(constant("client.pem") && constant("%r.pem"));
        assert!(!constant("%i.pem") && !constant("%{i/2}.pem") && !constant("%c.pem"));
    }
}
