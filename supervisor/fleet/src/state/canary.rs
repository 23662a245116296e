//! A canary: on what terms the first workers of a generation are judged, and how far
//! that has come.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::PoolView;
use crate::interface::Time;
use crate::state::rollout::{Batch, Part};
use crate::state::trial::{Traffic, Trial};

/// How the first new workers of a pool are judged before the others follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// How many workers; one of the old generation stays beside them, where it can.
    pub workers: u32,
    /// How long they are judged where nothing speaks against them.
    pub duration: Duration,
    /// How many requests each generation has to serve meanwhile.
    pub min_requests: u64,
    /// How many times as long as the old generation's 99th percentile theirs may be; 0
    /// for any number of times.
    pub max_p99_ratio: f64,
    /// What is done where fewer requests were served.
    pub on_no_verdict: NoVerdict,
}

impl Default for Canary {
    fn default() -> Self {
        Self {
            workers: 1,
            duration: Duration::from_secs(120),
            min_requests: 500,
            max_p99_ratio: 2.0,
            on_no_verdict: NoVerdict::Undo,
        }
    }
}

/// What is done with a canary that has served too few requests to be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoVerdict {
    /// The others follow.
    Proceed,
    /// Everything goes back.
    Undo,
}

/// What came of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing spoke against it.
    Passed,
    /// It was worse than the old generation.
    Failed,
    /// It has served too few requests.
    None,
    /// An operator had it pass.
    Promoted,
    /// An operator had it undone.
    Aborted,
}

impl Verdict {
    /// Every one of them.
    pub const ALL: [Self; 5] = [
        Self::Passed,
        Self::Failed,
        Self::None,
        Self::Promoted,
        Self::Aborted,
    ];

    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::None => "no_verdict",
            Self::Promoted => "promoted",
            Self::Aborted => "aborted",
        }
    }
}

/// For people.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no verdict",
            Self::Promoted => "promoted by hand",
            Self::Aborted => "aborted by hand",
            Self::Passed | Self::Failed => self.as_str(),
        })
    }
}

/// A canary, until there is a verdict on it.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) terms: Canary,
    /// How many workers it has.
    pub(crate) workers: u32,
    /// How it is judged, since it has come up.
    pub(crate) hearing: Option<Hearing>,
}

/// A canary that is being judged.
#[derive(Debug)]
pub(crate) struct Hearing {
    pub(crate) trial: Trial,
    pub(crate) ends: Time,
    /// When it is looked at next.
    pub(crate) look: Time,
    /// When those who wait are told next how it stands.
    pub(crate) tell: Time,
}

impl Candidate {
    /// The canary of a pool of which so many slots are to be replaced. One worker of the
    /// old generation stays beside it, where there is one.
    pub(crate) fn of(terms: Canary, slots: u32) -> Option<Self> {
        let workers = terms.workers.min(slots.saturating_sub(1)).max(1);
        (slots > 0).then_some(Self {
            terms,
            workers,
            hearing: None,
        })
    }

    /// When something is to be done though nothing happens.
    pub(crate) fn due(&self) -> Option<Time> {
        self.hearing.as_ref().map(|hearing| hearing.look)
    }
}

impl Part {
    /// Whether the pool's first batch is its canary, which has not all started.
    pub(crate) fn canary_workers(&self) -> Option<u32> {
        let is_due = self.batch == Batch::First;
        self.canary.as_ref().filter(|_| is_due).map(|it| it.workers)
    }
}

/// A canary that is being judged.
#[derive(Debug, Clone, Copy)]
pub struct CanaryView<'a> {
    candidate: &'a Candidate,
    hearing: &'a Hearing,
}

impl<'a> CanaryView<'a> {
    /// How many workers it has.
    pub fn workers(self) -> u32 {
        self.candidate.workers
    }

    /// When there is a verdict at the latest.
    pub fn ends(self) -> Time {
        self.hearing.ends
    }

    /// What has been served since it is judged, by the old generation and by the new one.
    pub fn traffic(self) -> [&'a Traffic; 2] {
        self.hearing.trial.traffic()
    }

    /// The 99th percentiles of that; none where nothing was served, or it lies beyond
    /// the last bound.
    pub fn p99(self) -> [Option<Duration>; 2] {
        self.hearing.trial.p99()
    }
}

impl<'a> PoolView<'a> {
    /// Its canary, if one is being judged.
    pub fn canary(self) -> Option<CanaryView<'a>> {
        let candidate = self.part()?.canary.as_ref()?;
        Some(CanaryView {
            candidate,
            hearing: candidate.hearing.as_ref()?,
        })
    }
}
