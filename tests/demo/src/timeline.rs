//! The timeline as SVG: for each run, requests a second with failures, and latency below them.

use std::{fmt::Write, time::Duration};

use crate::{
    screen::{Outcome, thousands},
    stats::{SLICE, Slice},
};

const WIDTH: f64 = 840.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 12.0;
/// Heights: of the title above a run, its two charts, and the space around them.
const TITLE: f64 = 26.0;
const RATE: f64 = 90.0;
const LATENCY: f64 = 50.0;
const GAP: f64 = 12.0;
const AXIS: f64 = 34.0;
const RUN: f64 = TITLE + RATE + GAP + LATENCY + AXIS;

const STYLE: &str = "\
text{font:12px sans-serif;fill:#333}.t{font-weight:bold}.e{text-anchor:end}.m{text-anchor:middle}\
.a{fill:#9ecae1}.p{fill:none;stroke:#d9822b;stroke-width:1.5}.f{fill:#d62728}\
.r{stroke:#555;stroke-dasharray:3 3}.x{stroke:#999}";

/// All runs have the same scales, so that they can be compared.
struct Scales {
    seconds: f64,
    rate: f64,
    latency: f64,
}

pub(crate) fn svg(runs: &[(String, Outcome)]) -> String {
    let height = RUN * runs.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\">\n\
         <style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let slices = || runs.iter().flat_map(|(_, outcome)| whole_slices(outcome));
    let scales = Scales {
        seconds: runs.iter().map(|(_, run)| run.elapsed.as_secs_f64()).fold(1.0, f64::max),
        rate: round_up(slices().map(|slice| per_second(slice.answered)).fold(1.0, f64::max)),
        latency: round_up(slices().map(|slice| millis(slice.quantile(0.99))).fold(1.0, f64::max)),
    };
    for (number, (name, outcome)) in runs.iter().enumerate() {
        let _ = writeln!(svg, "<g transform=\"translate(0 {})\">", RUN * number as f64);
        run(&mut svg, name, outcome, &scales);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

/// The last slice is not over.
fn whole_slices(outcome: &Outcome) -> &[Slice] {
    outcome.stats.slices.split_last().map_or(&[], |(_, whole)| whole)
}

fn run(svg: &mut String, name: &str, outcome: &Outcome, scales: &Scales) {
    let stats = &outcome.stats;
    let x = |time: Duration| LEFT + time.as_secs_f64() / scales.seconds * (WIDTH - LEFT - RIGHT);
    let rate_floor = TITLE + RATE;
    let latency_floor = rate_floor + GAP + LATENCY;
    let rate = |value: f64| rate_floor - value.min(scales.rate) / scales.rate * RATE;
    let latency = |value: f64| latency_floor - value.min(scales.latency) / scales.latency * LATENCY;
    let time = |number: usize| SLICE * number as u32;

    let (requests, failed) = (stats.answered() + stats.failed(), stats.failed());
    let _ = writeln!(
        svg,
        "<text class=\"t\" x=\"{LEFT}\" y=\"17\">{name}: {} requests, {} failed</text>",
        thousands(requests),
        thousands(failed)
    );

    let (mut area, mut line, mut failures) = (String::new(), String::new(), String::new());
    for (number, slice) in whole_slices(outcome).iter().enumerate() {
        let (from, to) = (x(time(number)), x(time(number + 1)));
        let top = rate(per_second(slice.answered));
        let _ = write!(area, "L{from:.1} {top:.1}H{to:.1}");
        if slice.answered > 0 {
            let middle = (from + to) / 2.0;
            let command = if line.is_empty() { 'M' } else { 'L' };
            let _ =
                write!(line, "{command}{middle:.1} {:.1}", latency(millis(slice.quantile(0.99))));
        }
        if slice.failed > 0 {
            // A single failure is to be seen as well.
            let top = rate(per_second(slice.failed)).min(rate_floor - 4.0);
            let width = (to - from).max(3.0);
            let _ = write!(failures, "M{from:.1} {rate_floor}V{top:.1}h{width:.1}V{rate_floor}z");
        }
    }
    let _ = writeln!(svg, "<path class=\"a\" d=\"M{LEFT} {rate_floor}{area}V{rate_floor}z\"/>");
    if !failures.is_empty() {
        let _ = writeln!(svg, "<path class=\"f\" d=\"{failures}\"/>");
    }
    let _ = writeln!(svg, "<path class=\"p\" d=\"{line}\"/>");
    for (begin, _) in &stats.restarts {
        let x = x(*begin);
        let _ = writeln!(
            svg,
            "<path class=\"r\" d=\"M{x:.1} {TITLE}V{latency_floor}\"><title>restart</title></path>"
        );
    }

    let edge = LEFT - 6.0;
    for (y, text) in [
        (TITLE + 10.0, thousands(scales.rate as u64)),
        (TITLE + 25.0, "requests/s".to_owned()),
        (rate_floor, "0".to_owned()),
        (rate_floor + GAP + 10.0, format!("{:.0} ms", scales.latency)),
        (rate_floor + GAP + 25.0, "p99".to_owned()),
        (latency_floor, "0".to_owned()),
    ] {
        let _ = writeln!(svg, "<text class=\"e\" x=\"{edge}\" y=\"{y}\">{text}</text>");
    }
    for floor in [rate_floor, latency_floor] {
        let _ = writeln!(svg, "<path class=\"x\" d=\"M{LEFT} {floor}H{}\"/>", WIDTH - RIGHT);
    }
    let step = if scales.seconds > 6.0 { 2 } else { 1 };
    for second in (0..scales.seconds as u64 + 1).step_by(step) {
        let x = x(Duration::from_secs(second));
        let y = latency_floor + 15.0;
        let _ = writeln!(svg, "<text class=\"m\" x=\"{x:.1}\" y=\"{y}\">{second} s</text>");
    }
}

fn per_second(count: u64) -> f64 {
    count as f64 / SLICE.as_secs_f64()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// To a number that reads well: 1, 2, 3, 4, 5, 6 or 8 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let digits = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    digits.into_iter().map(|digit| digit * power).find(|rounded| *rounded >= value).unwrap_or(value)
}
