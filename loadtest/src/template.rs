//! Text with a place for a number.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// `%i` stands for a number, `%r` for the run's id, `%%` for a percent sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(String);

/// Told apart from other runs: on topics, in client identifiers, in every payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunId(pub(crate) u32);

impl Template {
    pub(crate) fn expand(&self, number: u32, run: RunId) -> String {
        let mut text = String::with_capacity(self.0.len() + 8);
        let mut rest = self.0.chars();
        while let Some(c) = rest.next() {
            let place = (c == '%').then(|| rest.clone().next()).flatten();
            match place {
                Some('i') => text.push_str(&number.to_string()),
                Some('r') => text.push_str(&run.to_string()),
                Some('%') => text.push('%'),
                _ => {
                    text.push(c);
                    continue;
                }
            }
            rest.next();
        }
        text
    }
}

impl FromStr for Template {
    type Err = Infallible;

    fn from_str(raw: &str) -> Result<Self, Infallible> {
        Ok(Self(raw.to_owned()))
    }
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
        Template(template.to_owned()).expand(7, RunId(0xab))
    }

    #[test]
    fn a_template_takes_the_number_and_the_run_wherever_they_stand() {
        assert_eq!(expand("c/%i/m"), "c/7/m");
        assert_eq!(expand("%r-%i-%i"), "000000ab-7-7");
        assert_eq!(expand("plain"), "plain");
        assert_eq!(expand("ü%iß"), "ü7ß");
    }

    #[test]
    fn a_percent_sign_that_means_nothing_stays() {
        assert_eq!(expand("100%"), "100%");
        assert_eq!(expand("%x%i"), "%x7");
        assert_eq!(expand("%%i"), "%i");
    }
}
