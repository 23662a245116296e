//! What the operator looks at, and what the keys make of it. Pure: no terminal.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::figures::{Figures, WorkerFigures};

/// What rows are sorted by, the most interesting first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// Those that are not well first.
    Worst,
    Name,
    Requests,
    Failed,
    P99,
    InFlight,
    Cpu,
    Memory,
}

impl Sort {
    const ALL: [Self; 8] = [
        Self::Worst,
        Self::Name,
        Self::Requests,
        Self::Failed,
        Self::P99,
        Self::InFlight,
        Self::Cpu,
        Self::Memory,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Worst => "worst first",
            Self::Name => "name",
            Self::Requests => "requests/s",
            Self::Failed => "5xx/s",
            Self::P99 => "p99",
            Self::InFlight => "in flight",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }

    fn next(self) -> Self {
        let index = Self::ALL.iter().position(|it| *it == self).unwrap_or(0);
        Self::ALL[(index + 1) % Self::ALL.len()]
    }

    /// The number that this sorts by; the smallest is first.
    fn key(self, worker: &WorkerFigures) -> f64 {
        let rates = &worker.rates;
        let largest_first = |number: Option<f64>| -number.unwrap_or(-1.0);
        match self {
            Self::Worst => f64::from(worker.rank()),
            Self::Name => 0.0,
            Self::Requests => largest_first(rates.requests_per_second),
            Self::Failed => largest_first(rates.failed_per_second),
            Self::P99 => largest_first(p99(worker)),
            Self::InFlight => largest_first(Some(worker.status.in_flight as f64)),
            Self::Cpu => largest_first(Some(rates.cpu_percent)),
            Self::Memory => largest_first(worker.status.resident_bytes.map(|it| it as f64)),
        }
    }
}

/// What lies beyond the last bucket is longer than anything.
fn p99(worker: &WorkerFigures) -> Option<f64> {
    let rates = &worker.rates;
    let served = rates.requests_per_second.is_some_and(|rate| rate > 0.0);
    rates.p99_seconds.or(served.then_some(f64::INFINITY))
}

/// What is looked at.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) sort: Sort,
    pub(super) reversed: bool,
    /// Rows whose name or state has none of it are left out.
    pub(super) filter: String,
    /// Whether keys are letters of the filter.
    pub(super) typing: bool,
    /// The worker in the focus, by name, so that it stays whatever moves.
    pub(super) selected: Option<String>,
    /// Whether only that worker is shown.
    pub(super) looks_into: bool,
    /// The first row that is shown.
    pub(super) scrolled: usize,
    /// Why what is shown is old.
    pub(super) trouble: Option<String>,
    pub(super) color: bool,
    /// Whether there are keys at all.
    pub(super) is_live: bool,
}

/// What a key asks for beyond another view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    Quit,
}

impl View {
    pub(super) fn live(color: bool) -> Self {
        Self {
            sort: Sort::Worst,
            reversed: false,
            filter: String::new(),
            typing: false,
            selected: None,
            looks_into: false,
            scrolled: 0,
            trouble: None,
            color,
            is_live: true,
        }
    }

    /// A view that no key changes.
    pub(super) fn still() -> Self {
        Self {
            is_live: false,
            ..Self::live(false)
        }
    }

    /// The workers that are shown, in their order.
    pub(super) fn rows<'a>(&self, figures: &'a Figures) -> Vec<&'a WorkerFigures> {
        let filter = self.filter.to_lowercase();
        let is_wanted = |worker: &&WorkerFigures| {
            worker.name().to_lowercase().contains(&filter)
                || worker.status.state.as_str().contains(&filter)
        };
        let mut rows: Vec<_> = figures.workers.iter().filter(is_wanted).collect();
        // Stable: what is equal stays in the configuration's order.
        rows.sort_by(|a, b| self.sort.key(a).total_cmp(&self.sort.key(b)));
        if self.reversed {
            rows.reverse();
        }
        rows
    }

    /// The worker in the focus.
    pub(super) fn chosen<'a>(&self, figures: &'a Figures) -> Option<&'a WorkerFigures> {
        let name = self.selected.as_deref()?;
        figures.workers.iter().find(|worker| worker.name() == name)
    }

    /// Does what a key says.
    pub(super) fn press(&mut self, key: KeyEvent, figures: &Figures) -> Asked {
        if key.kind == KeyEventKind::Release {
            return Asked::Nothing;
        }
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return Asked::Quit;
        }
        match self.typing {
            true => self.write(key.code),
            false => return self.command(key.code, figures),
        }
        Asked::Nothing
    }

    /// A key while the filter is written.
    fn write(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) if self.filter.len() < 40 => self.filter.push(letter),
            _ => {}
        }
    }

    fn command(&mut self, code: KeyCode, figures: &Figures) -> Asked {
        match code {
            KeyCode::Char('q') => return Asked::Quit,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('/') => {
                self.typing = true;
                self.looks_into = false;
            }
            KeyCode::Down | KeyCode::Char('j') => self.go(figures, 1),
            KeyCode::Up | KeyCode::Char('k') => self.go(figures, -1),
            KeyCode::PageDown => self.go(figures, 10),
            KeyCode::PageUp => self.go(figures, -10),
            KeyCode::Home => self.go(figures, isize::MIN),
            KeyCode::End => self.go(figures, isize::MAX),
            KeyCode::Enter => {
                if self.chosen(figures).is_none() {
                    self.go(figures, 0);
                }
                self.looks_into = self.chosen(figures).is_some();
            }
            KeyCode::Esc if self.looks_into => self.looks_into = false,
            KeyCode::Esc => self.filter.clear(),
            _ => {}
        }
        Asked::Nothing
    }

    /// Moves the focus by so many rows; the first move puts it on the first row.
    fn go(&mut self, figures: &Figures, by: isize) {
        let rows = self.rows(figures);
        let Some(last) = rows.len().checked_sub(1) else {
            self.selected = None;
            return;
        };
        let place = rows
            .iter()
            .position(|row| Some(row.name()) == self.selected);
        let place = match place {
            None => 0,
            Some(place) => place.saturating_add_signed(by).min(last),
        };
        self.selected = Some(rows[place].name());
    }
}
