// SPDX-License-Identifier: GPL-2.0

//! The live table.

use std::time::{Duration, Instant};

use anyhow::Result;
use ratatui::{
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout},
    style::{Style, Stylize},
    text::Line,
    widgets::{Cell, Paragraph, Row, Table, TableState},
    DefaultTerminal, Frame,
};

use crate::cli::Order;

use super::{
    lines::{rows, summary, COLUMNS},
    Look, Watch,
};

/// Columns that stand to the left.
const TEXTS: usize = 4;

const KEYS: &str = "q quit   m merged   p profit   z zeros   n name   d domain   ↑ ↓ move";

/// The wish that a key stands for.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Quit,
    Sort(Order),
    Down,
    Up,
    Nothing,
}

/// Shows the table until q is pressed.
pub fn run(watch: &mut Watch, interval: Duration, order: Order) -> Result<()> {
    let mut terminal = ratatui::init();
    let result = show(&mut terminal, watch, interval, order);
    ratatui::restore();
    result
}

fn show(
    terminal: &mut DefaultTerminal,
    watch: &mut Watch,
    interval: Duration,
    mut order: Order,
) -> Result<()> {
    let mut state = TableState::default();
    loop {
        let mut look = watch.look(order)?;
        let next = Instant::now() + interval;
        loop {
            terminal.draw(|frame| draw(frame, &look, order, &mut state))?;
            if !event::poll(next.saturating_duration_since(Instant::now()))? {
                break;
            }
            match wish(&event::read()?) {
                Wish::Quit => return Ok(()),
                Wish::Sort(wanted) => {
                    order = wanted;
                    super::sort(&mut look.processes, order);
                }
                Wish::Down => state.scroll_down_by(1),
                Wish::Up => state.scroll_up_by(1),
                Wish::Nothing => {}
            }
        }
    }
}

fn wish(event: &Event) -> Wish {
    let Event::Key(KeyEvent {
        code,
        modifiers,
        kind: KeyEventKind::Press,
        ..
    }) = event
    else {
        return Wish::Nothing;
    };
    match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Wish::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Wish::Quit,
        KeyCode::Char('m') => Wish::Sort(Order::Merged),
        KeyCode::Char('p') => Wish::Sort(Order::Profit),
        KeyCode::Char('z') => Wish::Sort(Order::Zero),
        KeyCode::Char('n') => Wish::Sort(Order::Name),
        KeyCode::Char('d') => Wish::Sort(Order::Domain),
        KeyCode::Down => Wish::Down,
        KeyCode::Up => Wish::Up,
        _ => Wish::Nothing,
    }
}

fn draw(frame: &mut Frame, look: &Look, order: Order, state: &mut TableState) {
    let areas = Layout::vertical([
        Constraint::Length(3),
        Constraint::Min(1),
        Constraint::Length(1),
    ]);
    let [top, middle, bottom] = areas.areas(frame.area());
    frame.render_widget(Paragraph::new(summary(look).map(Line::from).to_vec()), top);
    let widths = [
        Constraint::Length(8),
        Constraint::Fill(2),
        Constraint::Fill(3),
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Length(14),
    ];
    let table = Table::new(rows(look).map(|row| Row::new(aligned(row))), widths)
        .header(Row::new(aligned(COLUMNS.map(String::from))).style(Style::new().bold().reversed()))
        .row_highlight_style(Style::new().reversed());
    frame.render_stateful_widget(table, middle, state);
    let keys = format!("{KEYS}   (by {order:?})").to_lowercase();
    frame.render_widget(Paragraph::new(keys).dim(), bottom);
}

fn aligned(row: [String; 7]) -> Vec<Cell<'static>> {
    let cells = row
        .into_iter()
        .enumerate()
        .map(|(column, text)| match column < TEXTS {
            true => Cell::from(text),
            false => Cell::from(Line::from(text).right_aligned()),
        });
    cells.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: KeyCode, modifiers: KeyModifiers) -> Event {
        Event::Key(KeyEvent::new(code, modifiers))
    }

    #[test]
    fn keys_mean_something() {
        let none = KeyModifiers::NONE;
        assert_eq!(wish(&key(KeyCode::Char('q'), none)), Wish::Quit);
        assert_eq!(
            wish(&key(KeyCode::Char('c'), KeyModifiers::CONTROL)),
            Wish::Quit
        );
        assert_eq!(wish(&key(KeyCode::Char('c'), none)), Wish::Nothing);
        assert_eq!(
            wish(&key(KeyCode::Char('z'), none)),
            Wish::Sort(Order::Zero)
        );
        assert_eq!(wish(&Event::FocusGained), Wish::Nothing);
    }
}
