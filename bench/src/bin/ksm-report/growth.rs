// SPDX-License-Identifier: GPL-2.0

//! Cost of a page over the amount of memory.

use std::path::Path;

use anyhow::{Context, Result};
use plotters::{
    coord::{combinators::LogCoord, types::RangedCoordf64, Shift},
    prelude::{
        Cartesian2d, ChartBuilder, ChartContext, Circle, DrawingArea, IntoDrawingArea, IntoFont,
        IntoLogRange, LabelAreaPosition, LineSeries, RGBColor, SVGBackend, Text, WHITE,
    },
    style::{text_anchor::HPos, Color},
};

use crate::{
    results::Results,
    style::{letters, tick, C, GRID, INK, RUST, TEXT, TITLE, WIDTH},
};

/// Pixels for each row of panels.
const HEIGHT: usize = 340;

/// What is drawn, from left to right, two in a row.
const PANELS: [(&str, &str, &str); 4] = [
    ("unique pages", "unique", "scan_ns_per_page"),
    ("all merged, all the same", "same", "steady_ns_per_page"),
    ("defaults: unique", "default-unique", "steady_ns_per_page"),
    (
        "defaults: pairs, first page changes",
        "default-pairs",
        "first_ns_per_page",
    ),
];
const IN_A_ROW: usize = 2;

type Chart<'a, 'b> = ChartContext<'b, SVGBackend<'a>, Cartesian2d<LogCoord<f64>, RangedCoordf64>>;

/// At one amount of memory: what a page costs.
struct Point {
    mib: f64,
    c: f64,
    rs: f64,
}

/// Draws nothing where there is only one size.
pub fn growth(file: &Path, results: &Results) -> Result<()> {
    let panels: Vec<_> = PANELS
        .into_iter()
        .map(|(title, workload, measure)| (title, points(results, workload, measure)))
        .filter(|(_, points)| points.len() > 1)
        .collect();
    if panels.is_empty() {
        return Ok(());
    }
    let rows = panels.len().div_ceil(IN_A_ROW);
    let size = (WIDTH, (rows * HEIGHT) as u32);
    let canvas = SVGBackend::new(file, size).into_drawing_area();
    canvas.fill(&WHITE)?;
    let areas = canvas.split_evenly((rows, panels.len().min(IN_A_ROW)));
    for (area, (title, points)) in areas.iter().zip(&panels) {
        panel(area, title, points)?;
    }
    canvas.present().context("cannot write the drawing")
}

fn points(results: &Results, workload: &str, measure: &str) -> Vec<Point> {
    let point = |mib| {
        let finding = results.find(workload, mib, measure)?;
        Some(Point {
            mib: mib as f64,
            c: finding.c,
            rs: finding.rs,
        })
    };
    results
        .sizes(workload)
        .into_iter()
        .filter_map(point)
        .collect()
}

fn panel(area: &DrawingArea<SVGBackend<'_>, Shift>, title: &str, points: &[Point]) -> Result<()> {
    let (first, last) = (points[0].mib, points[points.len() - 1].mib);
    let most = points
        .iter()
        .fold(0.0, |most: f64, point| most.max(point.c).max(point.rs));
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .caption(title, ("sans-serif", TITLE).into_font().color(&INK))
        .set_label_area_size(LabelAreaPosition::Left, 58)
        .set_label_area_size(LabelAreaPosition::Bottom, 42)
        .build_cartesian_2d(
            (first / 1.4..last * 2.2).log_scale().base(2.0),
            0.0..most * 1.12,
        )?;
    chart
        .configure_mesh()
        .x_desc("MiB")
        .y_desc("ns a page and scan")
        .x_label_formatter(&|mib| tick(*mib))
        .y_label_formatter(&|value| tick(*value))
        .x_labels(8)
        .y_labels(6)
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .label_style(("sans-serif", TEXT).into_font().color(&INK))
        .draw()?;
    curve(&mut chart, points, "C", C, |point| point.c)?;
    curve(&mut chart, points, "Rust", RUST, |point| point.rs)
}

fn curve(
    chart: &mut Chart<'_, '_>,
    points: &[Point],
    name: &str,
    color: RGBColor,
    value: impl Fn(&Point) -> f64,
) -> Result<()> {
    let places: Vec<_> = points
        .iter()
        .map(|point| (point.mib, value(point)))
        .collect();
    let (x, y) = places[places.len() - 1];
    let dots = places.clone().into_iter();
    chart.draw_series(dots.map(|place| Circle::new(place, 4, color.filled())))?;
    chart.draw_series(LineSeries::new(places, color.stroke_width(3)))?;
    chart.draw_series([Text::new(
        name.to_owned(),
        (x * 1.15, y),
        letters(HPos::Left),
    )])?;
    Ok(())
}
