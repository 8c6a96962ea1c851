// SPDX-License-Identifier: GPL-2.0

//! Workloads one below the other, with bars on a logarithmic scale.

use std::{ops::Range, path::Path};

use anyhow::{Context, Result};
use plotters::{
    coord::{combinators::LogCoord, types::RangedCoordf64, Shift},
    prelude::{
        Cartesian2d, ChartBuilder, ChartContext, DrawingArea, IntoDrawingArea, IntoFont,
        IntoLogRange, PathElement, RGBColor, Rectangle, SVGBackend, Text, WHITE,
    },
    style::{text_anchor::HPos, Color},
};

use crate::{
    results::{Finding, Results},
    rows::{Row, ROWS},
    style::{letters, number, tick, BETTER, C, GRID, INK, RUST, TEXT, TITLE, WIDTH, WORSE},
};

/// Pixels for each row, for what is above and below all rows, and for the names beside them.
const ROW: u32 = 24;
const MARGIN: u32 = 90;
const NAMES: u32 = 175;

/// Part of a row's height that its bars leave free, above and below.
const GAP: f64 = 0.14;

/// On a scale of ratios: where a number ends, over where it begins.
const NUMBER_WIDTH: f64 = 1.4;

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'b, SVGBackend<'a>, Cartesian2d<LogCoord<f64>, RangedCoordf64>>;
type Found = (&'static Row, Finding);

/// How many times cheaper Rust is.
pub fn ratios(file: &Path, results: &Results, mib: usize) -> Result<()> {
    let found: Vec<_> = found(results, mib)
        .into_iter()
        .filter(|(_, finding)| finding.ratio.is_some())
        .collect();
    let ends = found.iter().flat_map(|(_, finding)| {
        let ratio = finding.ratio.map(|ratio| [ratio.lowest, ratio.highest]);
        ratio.into_iter().flatten().chain(finding.goal)
    });
    let range = range_of(ends.chain([1.0]));
    let title = format!("Cost of mm/ksm.c / cost of ksm_rs, {mib} MiB (upright stroke: goal)");
    draw(file, &title, "times", &found, range, ratio_bar)
}

fn ratio_bar(chart: &mut Chart<'_, '_>, top: f64, finding: &Finding) -> Result<()> {
    let Some(ratio) = finding.ratio else {
        return Ok(());
    };
    let color = if ratio.median >= 1.0 { BETTER } else { WORSE };
    bar(chart, top + GAP..top + 1.0 - GAP, 1.0..ratio.median, color)?;
    let middle = top + 0.5;
    line(chart, [(ratio.lowest, middle), (ratio.highest, middle)])?;
    let mut end = ratio.highest.max(1.0);
    if let Some(goal) = finding.goal.filter(|goal| *goal != 1.0) {
        line(chart, [(goal, top + 0.05), (goal, top + 0.95)])?;
        // The number does not stand across the stroke.
        if (end..end * NUMBER_WIDTH).contains(&goal) {
            end = goal;
        }
    }
    label(chart, end, middle, &number(ratio.median))
}

/// What either costs.
pub fn costs(file: &Path, results: &Results, mib: usize, unit: &str) -> Result<()> {
    let found: Vec<_> = found(results, mib)
        .into_iter()
        .filter(|(_, finding)| finding.c > 0.0 && finding.rs > 0.0)
        .collect();
    let ends = found
        .iter()
        .flat_map(|(_, finding)| [finding.c, finding.rs]);
    let range = range_of(ends);
    let least = range.start;
    let title = format!("Cost in {unit}, {mib} MiB (grey: mm/ksm.c, brown: ksm_rs)");
    let unit = format!("{unit} a page, mapping, scan or call");
    draw(file, &title, &unit, &found, range, |chart, top, finding| {
        bar(chart, top + GAP..top + 0.5, least..finding.c, C)?;
        bar(chart, top + 0.5..top + 1.0 - GAP, least..finding.rs, RUST)?;
        let text = format!("{} / {}", number(finding.c), number(finding.rs));
        label(chart, finding.c.max(finding.rs), top + 0.5, &text)
    })
}

fn found(results: &Results, mib: usize) -> Vec<Found> {
    let find = |row: &'static Row| Some((row, results.find(row.workload, mib, row.measure)?));
    ROWS.iter().filter_map(find).collect()
}

/// Somewhat more than what is to be shown, to have room for a number behind the longest bar.
fn range_of(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (least, most) = values.fold((f64::MAX, f64::MIN), |(least, most), value| {
        (value.min(least), value.max(most))
    });
    least / 1.3..most * (most / least).powf(0.17).max(1.5)
}

fn draw(
    file: &Path,
    title: &str,
    unit: &str,
    found: &[Found],
    range: Range<f64>,
    mut draw_row: impl FnMut(&mut Chart<'_, '_>, f64, &Finding) -> Result<()>,
) -> Result<()> {
    let height = ROW * found.len() as u32 + MARGIN;
    let canvas = SVGBackend::new(file, (WIDTH, height)).into_drawing_area();
    canvas.fill(&WHITE)?;
    let rows = found.len() as f64;
    let mut chart = ChartBuilder::on(&canvas)
        .margin(8)
        .margin_right(16)
        .caption(title, ("sans-serif", TITLE).into_font().color(&INK))
        .set_label_area_size(plotters::prelude::LabelAreaPosition::Left, NAMES)
        .set_label_area_size(plotters::prelude::LabelAreaPosition::Bottom, 42)
        .build_cartesian_2d(range.log_scale(), rows..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_desc(unit)
        .x_label_formatter(&|value| tick(*value))
        .light_line_style(GRID.mix(0.5))
        .bold_line_style(GRID)
        .label_style(("sans-serif", TEXT).into_font().color(&INK))
        .draw()?;
    for (index, (row, finding)) in found.iter().enumerate() {
        name(&canvas, &chart, index as f64 + 0.5, row.label)?;
        draw_row(&mut chart, index as f64, finding)?;
    }
    canvas.present().context("cannot write the drawing")
}

fn name(canvas: &Canvas<'_>, chart: &Chart<'_, '_>, middle: f64, text: &str) -> Result<()> {
    let (x, y) = chart.backend_coord(&(chart.x_range().start, middle));
    canvas.draw(&Text::new(
        text.to_owned(),
        (x - 8, y),
        letters(HPos::Right),
    ))?;
    Ok(())
}

fn bar(
    chart: &mut Chart<'_, '_>,
    height: Range<f64>,
    length: Range<f64>,
    color: RGBColor,
) -> Result<()> {
    let corners = [(length.start, height.start), (length.end, height.end)];
    chart.draw_series([Rectangle::new(corners, color.filled())])?;
    Ok(())
}

fn line(chart: &mut Chart<'_, '_>, ends: [(f64, f64); 2]) -> Result<()> {
    chart.draw_series([PathElement::new(ends, INK.stroke_width(2))])?;
    Ok(())
}

/// A number behind a bar.
fn label(chart: &mut Chart<'_, '_>, end: f64, middle: f64, text: &str) -> Result<()> {
    let place = (end * 1.04, middle);
    chart.draw_series([Text::new(text.to_owned(), place, letters(HPos::Left))])?;
    Ok(())
}
