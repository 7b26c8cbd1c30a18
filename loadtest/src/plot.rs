//! A plot as SVG, drawn here: no script, no font, nothing fetched.
//!
//! Colours are classes that the page's style sheet knows for light and for dark; a series also has a dash of its
//! own, so that they stay apart in print and for whoever does not see the colours.

use std::fmt::Write as _;

use crate::html_text::{escape, number};
use crate::limits::{PLOT_HOVERS_MAX, PLOT_TABLE_ROWS_MAX, PLOT_TICKS_MAX};

#[derive(Debug)]
pub(crate) struct Plot {
    pub(crate) title: &'static str,
    /// What to see in it, in a sentence; read out in its stead.
    pub(crate) description: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
    /// Vertical lines with a word.
    pub(crate) marks: Vec<(f64, &'static str)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub(crate) label: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) scale: Scale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From zero.
    Linear,
    Log,
    /// Of shares below 1, stretched so that each further nine takes as much room as the last.
    Nines,
    /// Seconds, written as minutes and hours where there are many.
    Time,
}

#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    /// Ascending in x; a gap where there is no value.
    pub(crate) points: Vec<(f64, Option<f64>)>,
    /// Filled down to zero.
    pub(crate) filled: bool,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 56.0;

/// From values to places in the drawing.
#[derive(Clone, Copy)]
struct Frame {
    x: (Scale, f64, f64),
    y: (Scale, f64, f64),
}

impl Plot {
    /// `None` where nothing was seen.
    pub(crate) fn render(&self, id: &str) -> Option<String> {
        let frame = Frame::around(self)?;
        let mut svg = String::new();
        let _ = write!(
            svg,
            "<figure class=\"plot\"><h3>{title}</h3>{legend}<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{}</desc>",
            escape(&self.description),
            title = escape(self.title),
            legend = self.legend(),
        );
        self.draw_axes(frame, &mut svg);
        self.draw_marks(frame, &mut svg);
        for (k, series) in self.series.iter().enumerate() {
            draw_series(frame, k, series, &mut svg);
        }
        self.draw_hovers(frame, &mut svg);
        let _ = write!(svg, "</svg>{}</figure>", self.table());
        Some(svg)
    }

    fn legend(&self) -> String {
        let mut html = "<p class=\"legend\">".to_owned();
        for (k, series) in self.series.iter().enumerate() {
            let _ = write!(
                html,
                "<span><svg class=\"key\" viewBox=\"0 0 26 8\" aria-hidden=\"true\"><path class=\"line s{k}\" \
                 d=\"M1 4H25\"/></svg>{}</span>",
                escape(series.name)
            );
        }
        html + "</p>"
    }

    fn draw_axes(&self, frame: Frame, svg: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, label) in ticks(frame.y) {
            let y = frame.y(value);
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/><text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{label}</text>",
                LEFT - 8.0,
                y + 5.0
            );
        }
        for (value, label) in ticks(frame.x) {
            let x = frame.x(value);
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/><text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\">{label}</text>",
                bottom + 21.0
            );
        }
        let _ = write!(
            svg,
            "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/><text class=\"axis-label\" x=\"{:.1}\" \
             y=\"{:.1}\" text-anchor=\"middle\">{}</text><text class=\"axis-label\" text-anchor=\"middle\" \
             transform=\"translate(15 {:.1}) rotate(-90)\">{}</text>",
            f64::midpoint(LEFT, right),
            HEIGHT - 8.0,
            escape(&self.x.caption()),
            f64::midpoint(TOP, bottom),
            escape(&self.y.caption()),
        );
    }

    fn draw_marks(&self, frame: Frame, svg: &mut String) {
        let mut rows = [f64::NEG_INFINITY; 3];
        for (at, what) in self.marks.iter().filter(|(at, _)| *at <= frame.x.2) {
            let x = frame.x(*at);
            // Words that would run into each other stand below one another; what finds no room has a title.
            let row = rows.iter().position(|taken| *taken < x);
            let _ = write!(
                svg,
                "<g class=\"mark\"><title>{what} from {at:.1} s</title><path d=\"M{x:.1} {TOP}V{:.1}\"/>",
                HEIGHT - BOTTOM
            );
            #[expect(clippy::cast_precision_loss, reason = "a row and the letters of a word")]
            if let Some(row) = row {
                let width = what.len() as f64 * 9.0 + 12.0;
                rows[row] = x + width;
                let (anchor, x) = if x + width > WIDTH { ("end", x - 4.0) } else { ("start", x + 4.0) };
                let y = TOP + 12.0 + 18.0 * row as f64;
                let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{what}</text>");
            }
            svg.push_str("</g>");
        }
    }

    /// A strip for each step of x, with what all series say there.
    fn draw_hovers(&self, frame: Frame, svg: &mut String) {
        let rows = self.rows(PLOT_HOVERS_MAX);
        let places: Vec<_> = rows.iter().map(|(x, _)| frame.x(*x)).collect();
        for (k, (x, values)) in rows.iter().enumerate() {
            let place = places[k];
            let left = k.checked_sub(1).map_or(LEFT, |before| f64::midpoint(places[before], place));
            let right = places.get(k + 1).map_or(WIDTH - RIGHT, |after| f64::midpoint(place, *after));
            let said: Vec<_> = self
                .series
                .iter()
                .zip(values)
                .filter_map(|(series, value)| {
                    value.map(|value| format!("{} {}{}", series.name, number(value), self.y.suffix()))
                })
                .collect();
            if said.is_empty() {
                continue;
            }
            let _ = write!(
                svg,
                "<rect class=\"hover\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}: \
                 {}</title></rect>",
                (right - left).max(0.1),
                HEIGHT - TOP - BOTTOM,
                self.x.text(*x),
                escape(&said.join(" · "))
            );
        }
    }

    fn table(&self) -> String {
        let rows = self.rows(PLOT_TABLE_ROWS_MAX);
        let mut html =
            "<details><summary>Numbers</summary><div class=\"scroll\"><table><thead><tr>".to_owned();
        let _ = write!(html, "<th scope=\"col\">{}</th>", escape(&self.x.caption()));
        for series in &self.series {
            let unit = if self.y.unit.is_empty() { String::new() } else { format!(", {}", self.y.unit) };
            let _ = write!(html, "<th scope=\"col\">{}{unit}</th>", escape(series.name));
        }
        html.push_str("</tr></thead><tbody>");
        for (x, values) in rows {
            let _ = write!(html, "<tr><th scope=\"row\">{}</th>", self.x.text(x));
            for value in values {
                let _ = write!(html, "<td>{}</td>", value.map_or_else(|| "–".into(), number));
            }
            html.push_str("</tr>");
        }
        html + "</tbody></table></div></details>"
    }

    /// Every x that a series has, and what each says there; at most so many of them, evenly chosen.
    fn rows(&self, max: usize) -> Vec<(f64, Vec<Option<f64>>)> {
        let mut steps: Vec<f64> =
            self.series.iter().flat_map(|series| series.points.iter().map(|(x, _)| *x)).collect();
        steps.sort_unstable_by(f64::total_cmp);
        steps.dedup();
        let stride = steps.len().div_ceil(max).max(1);
        let last = steps.last().copied();
        let mut chosen: Vec<f64> = steps.into_iter().step_by(stride).collect();
        if chosen.last().copied() != last {
            chosen.extend(last);
        }
        let value_at = |series: &Series, x: f64| {
            let at = series.points.partition_point(|(other, _)| *other < x);
            // A percentile curve has values between its points; a timeline has a point at each.
            let near = series.points.get(at).or_else(|| series.points.last())?;
            if near.0.total_cmp(&x).is_eq() || self.x.scale == Scale::Nines { near.1 } else { None }
        };
        chosen
            .into_iter()
            .map(|x| (x, self.series.iter().map(|series| value_at(series, x)).collect()))
            .collect()
    }
}

impl Axis {
    fn caption(&self) -> String {
        if self.unit.is_empty() { self.label.to_owned() } else { format!("{}, {}", self.label, self.unit) }
    }

    fn suffix(&self) -> String {
        if self.unit.is_empty() { String::new() } else { format!(" {}", self.unit) }
    }

    fn text(&self, value: f64) -> String {
        match self.scale {
            Scale::Nines => format!("{} %", percent(value)),
            Scale::Time => clock(value),
            Scale::Linear | Scale::Log => number(value),
        }
    }
}

impl Frame {
    fn around(plot: &Plot) -> Option<Self> {
        let points = || plot.series.iter().flat_map(|series| &series.points);
        let xs = points().map(|(x, _)| *x);
        let ys = || points().filter_map(|(_, y)| *y);
        let x_max = xs.reduce(f64::max)?;
        let (y_min, y_max) = (ys().reduce(f64::min)?, ys().reduce(f64::max)?);
        let y = match plot.y.scale {
            Scale::Log => {
                // Nothing on a logarithmic axis is zero; what is shorter than a microsecond is one.
                let low = 10_f64.powf(y_min.max(1e-3).log10().floor());
                (Scale::Log, low, 10_f64.powf((y_max * 1.05).max(low * 1.01).log10().ceil()))
            }
            scale => (scale, 0.0, if y_max > 0.0 { y_max * 1.08 } else { 1.0 }),
        };
        Some(Self { x: (plot.x.scale, 0.0, x_max.max(1e-3)), y })
    }

    fn x(self, value: f64) -> f64 {
        let (_, low, high) = self.x;
        LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)
    }

    fn y(self, value: f64) -> f64 {
        let (scale, low, high) = self.y;
        let share = match scale {
            Scale::Log => (value.max(low) / low).log10() / (high / low).log10(),
            _ => (value - low) / (high - low),
        };
        HEIGHT - BOTTOM - share.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
    }
}

fn draw_series(frame: Frame, k: usize, series: &Series, svg: &mut String) {
    let base = HEIGHT - BOTTOM;
    let (mut line, mut area) = (String::new(), String::new());
    for stretch in series.points.split(|(_, y)| y.is_none()).filter(|stretch| !stretch.is_empty()) {
        let places: Vec<_> =
            stretch.iter().filter_map(|(x, y)| Some((frame.x(*x), frame.y((*y)?)))).collect();
        for (at, (x, y)) in places.iter().enumerate() {
            let _ = write!(line, "{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
        }
        if let [(first, y)] = places.as_slice() {
            // A lone value is a short dash.
            let _ = write!(line, "M{:.1} {y:.1}H{:.1}", first - 2.0, first + 2.0);
        }
        if let (true, Some(first), Some(last)) = (series.filled, places.first(), places.last()) {
            let _ = write!(area, "M{:.1} {base}", first.0);
            for (x, y) in &places {
                let _ = write!(area, "L{x:.1} {y:.1}");
            }
            let _ = write!(area, "L{:.1} {base}Z", last.0);
        }
    }
    if !area.is_empty() {
        let _ = write!(svg, "<path class=\"area s{k}\" d=\"{area}\"/>");
    }
    if !line.is_empty() {
        let _ = write!(svg, "<path class=\"line s{k}\" d=\"{line}\"/>");
    }
}

fn ticks((scale, low, high): (Scale, f64, f64)) -> Vec<(f64, String)> {
    match scale {
        Scale::Linear => linear_ticks(low, high, 5.0).map(|value| (value, number(value))).collect(),
        Scale::Time => time_ticks(high),
        Scale::Log => {
            #[expect(clippy::cast_possible_truncation, reason = "an exponent is small")]
            let (first, last) = (low.log10().round() as i32, high.log10().round() as i32);
            let within: &[f64] = if last - first <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
            (first..=last)
                .flat_map(|exponent| within.iter().map(move |step| step * 10_f64.powi(exponent)))
                .filter(|value| *value <= high * 1.001)
                .map(|value| (value, number(value)))
                .collect()
        }
        Scale::Nines => {
            #[expect(clippy::cast_possible_truncation, reason = "fewer than twenty nines")]
            let nines = high.floor() as i32;
            // Of many nines the first takes no room.
            let first = (high < 3.5).then_some(0.0);
            first
                .into_iter()
                .chain(std::iter::once(0.5_f64.log10().abs()))
                .chain((1..=nines).map(f64::from))
                .map(|value| (value, format!("{} %", percent(value))))
                .collect()
        }
    }
}

fn linear_ticks(low: f64, high: f64, wanted: f64) -> impl Iterator<Item = f64> {
    let rough = (high - low) / wanted;
    let magnitude = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .map(|factor| factor * magnitude)
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    (0..=PLOT_TICKS_MAX).map(move |k| low + f64::from(k) * step).take_while(move |value| *value <= high)
}

fn time_ticks(high: f64) -> Vec<(f64, String)> {
    const STEPS: [f64; 17] = [
        0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0,
        14_400.0, 43_200.0,
    ];
    let rough = high / 8.0;
    let step = STEPS.into_iter().find(|step| *step >= rough).unwrap_or(86_400.0);
    (0..=PLOT_TICKS_MAX)
        .map(|k| f64::from(k) * step)
        .take_while(|value| *value <= high)
        .map(|value| (value, clock(value)))
        .collect()
}

/// 75 is 1:15.
fn clock(seconds: f64) -> String {
    if seconds < 60.0 {
        return number(seconds);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "less than ten days")]
    let whole = seconds.round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Of so many nines: 2 is 99.
fn percent(nines: f64) -> String {
    let share = 100.0 - 100.0 * 10_f64.powf(-nines);
    let decimals = if nines < 2.5 { 0.0 } else { (nines - 1.5).ceil().min(9.0) };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 9")]
    let text = format!("{share:.*}", decimals as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, Option<f64>)>) -> Plot {
        Plot {
            title: "Throughput",
            description: "a <description>".into(),
            x: Axis { label: "time", unit: "s", scale: Scale::Time },
            y: Axis { label: "messages", unit: "/s", scale: Scale::Linear },
            series: vec![Series { name: "sent & seen", points, filled: true }],
            marks: vec![(1.0, "publishing"), (1.1, "draining")],
        }
    }

    #[test]
    fn nothing_seen_draws_nothing() {
        assert!(plot(Vec::new()).render("a").is_none());
        assert!(plot(vec![(0.0, None)]).render("a").is_none());
    }

    #[test]
    fn a_gap_breaks_the_line() {
        let svg =
            plot(vec![(0.0, Some(1.0)), (1.0, Some(2.0)), (2.0, None), (3.0, Some(2.0)), (4.0, Some(1.0))])
                .render("a")
                .expect("a plot");
        let line = svg.split("class=\"line s0\" d=\"").last().expect("a line");
        let line = line.split('"').next().expect("its end");
        assert_eq!(line.matches('M').count(), 2, "{line}");
    }

    #[test]
    fn every_value_stays_inside_the_frame() {
        let frame = Frame { x: (Scale::Linear, 0.0, 10.0), y: (Scale::Log, 0.1, 100.0) };
        assert!((frame.y(100.0) - TOP).abs() < 1e-9);
        assert!((frame.y(0.1) - (HEIGHT - BOTTOM)).abs() < 1e-9);
        assert!((frame.y(0.0) - (HEIGHT - BOTTOM)).abs() < 1e-9);
        assert!((frame.x(10.0) - (WIDTH - RIGHT)).abs() < 1e-9);
    }

    #[test]
    fn shares_are_written_with_as_many_nines_as_they_have() {
        let written: Vec<_> = [0.0, 0.5_f64.log10().abs(), 1.0, 2.0, 3.0, 4.0].map(percent).to_vec();
        assert_eq!(written, ["0", "50", "90", "99", "99.9", "99.99"]);
    }

    #[test]
    fn a_long_time_is_written_in_minutes_and_hours() {
        assert_eq!([5.0, 59.5, 75.0, 7325.0].map(clock), ["5", "59.5", "1:15", "2:02:05"]);
        assert!(time_ticks(30.0).len() <= 9);
        assert!(time_ticks(864_000.0).len() <= 11);
    }

    #[test]
    fn a_table_of_a_long_run_ends_with_its_last_value() {
        let points: Vec<_> = (0..5000).map(|at| (f64::from(at), Some(f64::from(at)))).collect();
        let rows = plot(points).rows(PLOT_TABLE_ROWS_MAX);
        assert!(rows.len() <= PLOT_TABLE_ROWS_MAX + 1);
        assert_eq!(rows.last(), Some(&(4999.0, vec![Some(4999.0)])));
    }
}
