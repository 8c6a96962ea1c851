// SPDX-License-Identifier: GPL-2.0

//! Colours and letters.

use plotters::{
    prelude::{FontFamily, IntoFont, RGBColor, TextStyle},
    style::text_anchor::{HPos, Pos, VPos},
};

pub const C: RGBColor = RGBColor(0x8a, 0x8f, 0x98);
pub const RUST: RGBColor = RGBColor(0xc2, 0x56, 0x1a);
pub const BETTER: RGBColor = RGBColor(0x2f, 0x6f, 0xb3);
pub const WORSE: RGBColor = RGBColor(0xc5, 0x30, 0x30);
pub const INK: RGBColor = RGBColor(0x22, 0x26, 0x2c);
pub const GRID: RGBColor = RGBColor(0xdd, 0xe0, 0xe4);

pub const WIDTH: u32 = 820;

/// Pixels.
pub const TITLE: i32 = 17;
pub const TEXT: i32 = 13;

/// Letters that stand to the side `horizontal` of the place that they are drawn at.
pub fn letters(horizontal: HPos) -> TextStyle<'static> {
    (FontFamily::SansSerif, TEXT)
        .into_font()
        .color(&INK)
        .pos(Pos::new(horizontal, VPos::Center))
}

/// A number with three digits that count.
pub fn number(value: f64) -> String {
    match value {
        v if v >= 99.95 => with_commas(v.round() as u64),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// A number beside a scale.
pub fn tick(value: f64) -> String {
    match value {
        v if v.fract() == 0.0 => with_commas(v as u64),
        v => format!("{v}"),
    }
}

fn with_commas(value: u64) -> String {
    match value {
        0..1000 => value.to_string(),
        _ => format!("{},{:03}", with_commas(value / 1000), value % 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_or_more() {
        for (value, text) in [
            (0.5, "0.50"),
            (9.99, "9.99"),
            (9.999, "10.0"),
            (99.94, "99.9"),
            (100.4, "100"),
            (1234.5, "1,235"),
            (1_000_007.0, "1,000,007"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn scales_show_no_needless_digits() {
        assert_eq!(tick(0.0), "0");
        assert_eq!(tick(0.5), "0.5");
        assert_eq!(tick(10_000.0), "10,000");
    }
}
