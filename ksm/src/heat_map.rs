// SPDX-License-Identifier: GPL-2.0

//! A drawing of who shares with whom.

use std::{collections::HashMap, path::Path};

use anyhow::Result;
use plotters::{
    chart::ChartBuilder,
    drawing::IntoDrawingArea,
    element::{Rectangle, Text},
    style::{Color, IntoFont, RGBColor, BLACK, WHITE},
};
use plotters_svg::SVGBackend;

use crate::{pages::PAGE_SIZE, sharing::Sharing};

/// Processes in a drawing: those that share most.
const MOST: usize = 32;

/// Pixels of a field, and of the room for names.
const FIELD: u32 = 48;
const NAMES: u32 = 180;

/// The colour of the field that shares most; others are paler.
const DARKEST: RGBColor = RGBColor(8, 81, 156);

/// Draws the processes that share most against each other, in SVG.
pub fn draw(sharing: &Sharing, path: &Path) -> Result<()> {
    let processes = &sharing.processes[..sharing.processes.len().min(MOST)];
    let places: HashMap<i32, i32> = processes.iter().map(|of| of.process.pid).zip(0..).collect();
    let count = processes.len() as i32;
    let size = NAMES + FIELD * count.max(1) as u32;
    let area = SVGBackend::new(path, (size, size)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .set_left_and_bottom_label_area_size(0)
        .margin_left(NAMES)
        .margin_bottom(NAMES)
        .build_cartesian_2d(0..count, 0..count)?;
    let most = sharing.pairs.first().map_or(1, |pair| pair.common.max(1));
    let pairs = sharing.pairs.iter().filter_map(|pair| {
        let (one, other) = (places.get(&pair.one)?, places.get(&pair.other)?);
        Some((*one, *other, pair.common))
    });
    for (one, other, common) in pairs {
        let colour = DARKEST.mix(common as f64 / most as f64).filled();
        let fields = [(one, other), (other, one)];
        chart.draw_series(fields.map(|(x, y)| Rectangle::new([(x, y), (x + 1, y + 1)], colour)))?;
    }
    for (of, place) in processes.iter().zip(0..) {
        let label = format!("{} ({})", of.process.name, of.process.pid);
        let font = ("sans-serif", 12).into_font().color(&BLACK);
        let y = size - NAMES - FIELD * place as u32 - FIELD / 2;
        area.draw(&Text::new(label.clone(), (4, y as i32), font.clone()))?;
        let turned = font.transform(plotters::style::FontTransform::Rotate90);
        let x = NAMES + FIELD * place as u32 + FIELD / 2;
        area.draw(&Text::new(
            label,
            (x as i32, (size - NAMES + 4) as i32),
            turned,
        ))?;
    }
    let mib = (most * PAGE_SIZE) >> 20;
    let legend = format!("darkest: {mib} MiB in common");
    area.draw(&Text::new(
        legend,
        (4, size as i32 - 16),
        ("sans-serif", 12),
    ))?;
    area.present()?;
    Ok(())
}
