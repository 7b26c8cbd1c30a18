//! Text in HTML: what comes from outside is escaped, numbers are written for people.

/// Safe in elements and in quoted attributes, and well-formed as XML: control characters are left out.
pub(crate) fn escape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => {}
            c if c.is_control() => text.push(' '),
            c => text.push(c),
        }
    }
    text
}

/// Four significant digits below a thousand, thousands set apart above.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let size = value.abs();
    let decimals = match size {
        size if size >= 100.0 => usize::from(size < 1000.0 && size.fract() > 0.05),
        size if size >= 10.0 => 2,
        size if size >= 0.1 => 3,
        _ => 4,
    };
    let text = format!("{size:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let fraction = fraction.trim_end_matches('0');
    let mut grouped = String::new();
    for (k, digit) in whole.chars().enumerate() {
        if k > 0 && (whole.len() - k).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if value < 0.0 { "−" } else { "" };
    if fraction.is_empty() { format!("{sign}{grouped}") } else { format!("{sign}{grouped}.{fraction}") }
}

/// Three significant digits, where there are that many.
pub(crate) fn headline(value: f64) -> String {
    let digits = value.abs().max(1e-3).log10().floor();
    let unit = 10_f64.powf((digits - 2.0).min(0.0));
    number((value / unit).round() * unit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_as_long_as_they_need_to_be() {
        for (value, text) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (1.5, "1.5"),
            (12.345, "12.35"),
            (123.46, "123.5"),
            (1234.5, "1,234"),
            (1_234_567.0, "1,234,567"),
            (-20.0, "−20"),
            (f64::INFINITY, "–"),
        ] {
            assert_eq!(number(value), text, "{value}");
        }
    }

    #[test]
    fn headlines_are_short() {
        let short = [0.0, 0.5344, 4.339, 12.63, 800.58, 1234.5].map(headline);
        assert_eq!(short, ["0", "0.534", "4.34", "12.6", "801", "1,235"]);
    }

    proptest! {
        #[test]
        fn nothing_from_outside_becomes_markup(raw: String) {
            let text = escape(&raw);
            prop_assert!(!text.contains(['<', '>', '"', '\'']));
            prop_assert!(!text.chars().any(char::is_control));
            let entities = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
            let rest = entities.iter().fold(text, |text, entity| text.replace(entity, ""));
            prop_assert!(!rest.contains('&'));
        }
    }
}
