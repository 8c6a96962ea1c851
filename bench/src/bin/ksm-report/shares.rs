// SPDX-License-Identifier: GPL-2.0

//! The share of all duplicates that is merged, after each scan.

use std::path::Path;

use anyhow::{Context, Result};
use plotters::{
    coord::{types::RangedCoordf64, Shift},
    prelude::{
        Cartesian2d, ChartBuilder, ChartContext, DrawingArea, IntoDrawingArea, IntoFont,
        LabelAreaPosition, LineSeries, RGBColor, SVGBackend, Text, WHITE,
    },
    style::{text_anchor::HPos, Color},
};

use crate::{
    results::Results,
    style::{letters, tick, C, GRID, INK, RUST, TEXT, TITLE, WIDTH},
};

const HEIGHT: u32 = 340;

const WORKLOAD: &str = "mixed";

/// What is drawn, from left to right.
const PANELS: [(&str, &str); 2] = [
    ("of all duplicates, merged", "merged_percent"),
    ("of those that came up late", "merged_percent_of_late"),
];

type Chart<'a, 'b> = ChartContext<'b, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Draws nothing where there is nothing to be drawn.
pub fn shares(file: &Path, results: &Results, mib: usize) -> Result<()> {
    let panels: Vec<_> = PANELS
        .into_iter()
        .filter_map(|(title, name)| Some((title, results.curves(WORKLOAD, mib, name)?)))
        .collect();
    if panels.is_empty() {
        return Ok(());
    }
    let canvas = SVGBackend::new(file, (WIDTH, HEIGHT)).into_drawing_area();
    canvas.fill(&WHITE)?;
    let areas = canvas.split_evenly((1, panels.len()));
    for (area, (title, curves)) in areas.iter().zip(&panels) {
        panel(area, title, curves)?;
    }
    canvas.present().context("cannot write the drawing")
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    (c, rust): &(Vec<f64>, Vec<f64>),
) -> Result<()> {
    let scans = c.len().max(rust.len()) as f64;
    let least = least(c).min(least(rust));
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .caption(title, ("sans-serif", TITLE).into_font().color(&INK))
        .set_label_area_size(LabelAreaPosition::Left, 58)
        .set_label_area_size(LabelAreaPosition::Bottom, 42)
        .build_cartesian_2d(0.0..scans * 1.15, least..102.0)?;
    chart
        .configure_mesh()
        .x_desc("full scans")
        .y_desc("percent of what is possible")
        .x_label_formatter(&|scan| tick(*scan))
        .y_label_formatter(&|percent| tick(*percent))
        .x_labels(7)
        .y_labels(6)
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .label_style(("sans-serif", TEXT).into_font().color(&INK))
        .draw()?;
    let c_is_above = c.last() > rust.last();
    curve(&mut chart, c, "C", C, c_is_above)?;
    curve(&mut chart, rust, "Rust", RUST, !c_is_above)
}

/// Scans in which nearly all is merged for the first time.
const BEGINNING: usize = 5;

/// Where the scale begins: somewhat below all values but those of the beginning.
fn least(percents: &[f64]) -> f64 {
    let later = percents.iter().skip(BEGINNING);
    let least = later.fold(100.0, |least: f64, percent| least.min(*percent));
    (least / 10.0).floor() * 10.0
}

/// Its name stands behind its end, a little higher if `is_above`, or a little lower.
fn curve(
    chart: &mut Chart<'_, '_>,
    percents: &[f64],
    name: &str,
    color: RGBColor,
    is_above: bool,
) -> Result<()> {
    let places = (1..)
        .zip(percents)
        .map(|(scan, percent)| (f64::from(scan), *percent));
    let places: Vec<_> = places.collect();
    let Some(&(x, y)) = places.last() else {
        return Ok(());
    };
    chart.draw_series(LineSeries::new(places, color.stroke_width(2)))?;
    let y = if is_above { y + 1.0 } else { y - 1.0 };
    chart.draw_series([Text::new(
        name.to_owned(),
        (x + 2.0, y),
        letters(HPos::Left),
    )])?;
    Ok(())
}
