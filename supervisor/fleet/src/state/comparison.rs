//! Whether one group's requests go wrong more often than another's: a sequential test
//! that may be looked at as often as one likes.
//!
//! The two groups are the generations of a pool, and what is counted of each comes in
//! intervals in which both served side by side. Where they are equal, the requests that
//! went wrong in an interval fall on the new one as by lot: the hypergeometric
//! distribution, whatever the rate is and however it changes from one interval to the
//! next. Where the odds of the new one are a multiple of the old one's, they fall as
//! Fisher's noncentral hypergeometric distribution has it. The ratio of the two
//! likelihoods is on average 1 where the groups are equal, and so are the product over
//! all intervals and the mean over several multiples: a martingale. By Ville's inequality
//! it reaches 1/α, at whatever time it is looked at, with a probability of α at most.

/// The multiples of the odds that are looked for. Between two of them either is good
/// enough, and below the first one there is nothing to be found.
const ODDS: [f64; 4] = [1.5, 2.0, 4.0, 10.0];

/// So many requests have to go wrong before anything is decided: fewer may be one
/// client's bad minute, which is no lot that is drawn for each request.
const FEWEST: u64 = 10;

/// So many requests that went wrong are reckoned with in an interval. Where there were
/// more, every number is taken for a part of itself: that finds what it would later, and
/// a look takes no longer for an outage, nor for a worker that lies in its counts.
const MOST: u64 = 1 << 16;

/// One group's requests of an interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// How many there were.
    pub(crate) requests: u64,
    /// How many of them went wrong.
    pub(crate) wrong: u64,
}

impl Count {
    /// The share that went wrong.
    pub(crate) fn rate(self) -> f64 {
        match self.requests {
            0 => 0.0,
            requests => self.wrong as f64 / requests as f64,
        }
    }

    fn add(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.wrong = self.wrong.saturating_add(other.wrong);
    }

    /// One of so many equal parts.
    fn part(self, parts: u64) -> Self {
        Self {
            requests: self.requests / parts,
            wrong: self.wrong / parts,
        }
    }
}

/// A comparison of a new group with an old one, in progress.
#[derive(Debug, Clone, Default)]
pub(crate) struct Comparison {
    /// What was counted of the old group.
    pub(crate) old: Count,
    /// What was counted of the new one.
    pub(crate) new: Count,
    /// The logarithm of the likelihood ratio for each of [`ODDS`].
    ratios: [f64; ODDS.len()],
}

impl Comparison {
    /// Takes the counts of another interval.
    pub(crate) fn observe(&mut self, old: Count, new: Count) {
        self.old.add(old);
        self.new.add(new);
        let Some(lots) = Lots::of(old, new) else {
            return;
        };
        for (ratio, odds) in self.ratios.iter_mut().zip(ODDS) {
            *ratio += lots.likelihood_ratio(odds.ln());
        }
    }

    /// Whether the new group is worse, where it is to be called so wrongly with a
    /// probability of `error` at most, however often this is asked.
    pub(crate) fn is_worse(&self, error: f64) -> bool {
        self.new.wrong >= FEWEST && self.evidence() >= -error.ln()
    }

    /// The logarithm of the mean likelihood ratio.
    fn evidence(&self) -> f64 {
        ln_sum_exp(self.ratios.iter().copied()) - (ODDS.len() as f64).ln()
    }
}

/// How many of the requests that went wrong in an interval may fall on the new group.
struct Lots {
    /// How many more did than had to.
    fell: usize,
    /// The logarithm of the number of ways for each such number from 0 on, up to a
    /// constant.
    ways: Vec<f64>,
}

impl Lots {
    /// Those of an interval; none where it says nothing, since only one number was
    /// possible.
    fn of(old: Count, new: Count) -> Option<Self> {
        let parts = old.wrong.saturating_add(new.wrong).div_ceil(MOST).max(1);
        let [old, new] = [old, new].map(|count| count.part(parts));
        let wrong = old.wrong + new.wrong;
        let fewest = wrong.saturating_sub(old.requests);
        let most = wrong.min(new.requests);
        let is_sound = old.wrong <= old.requests && new.wrong <= new.requests;
        if !is_sound || fewest == most {
            return None;
        }
        let mut ways = Vec::new();
        let mut way = 0.0;
        for number in fewest..=most {
            ways.push(way);
            // From a number to the next one: one more of the new group's requests, one
            // fewer of the old one's.
            let more = (new.requests - number) as f64 * (wrong - number) as f64;
            let fewer = (number + 1) as f64 * (old.requests + number + 1 - wrong) as f64;
            way += (more / fewer).ln();
        }
        let fell = usize::try_from(new.wrong - fewest).ok()?;
        Some(Self { fell, ways })
    }

    /// The logarithm of how much likelier what fell is where the new group's odds are
    /// `exp(ln_odds)` times the old one's than where they are the same.
    fn likelihood_ratio(&self, ln_odds: f64) -> f64 {
        let tilted = |(step, way): (usize, &f64)| way + ln_odds * step as f64;
        let all = ln_sum_exp(self.ways.iter().copied());
        let all_tilted = ln_sum_exp(self.ways.iter().enumerate().map(tilted));
        ln_odds * self.fell as f64 - (all_tilted - all)
    }
}

/// The logarithm of a sum whose terms are given by their logarithms.
fn ln_sum_exp(terms: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = terms.clone().fold(f64::NEG_INFINITY, f64::max);
    most + terms.map(|term| (term - most).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(requests: u64, wrong: u64) -> Count {
        Count { requests, wrong }
    }

    fn compared(old: Count, new: Count) -> Comparison {
        let mut comparison = Comparison::default();
        comparison.observe(old, new);
        comparison
    }

    #[test]
    fn where_both_are_equal_the_ratio_is_1_on_average() {
        for (old, new, wrong) in [(10, 10, 4), (90, 10, 7), (3, 30, 12), (5, 5, 9)] {
            let lots = |fell| Lots::of(count(old, wrong - fell), count(new, fell));
            let range = wrong.saturating_sub(old)..=wrong.min(new);
            let ways = lots(*range.start()).unwrap().ways;
            let all = ln_sum_exp(ways.iter().copied());
            for odds in ODDS {
                let mean: f64 = range
                    .clone()
                    .zip(&ways)
                    .map(|(fell, way)| {
                        (way - all + lots(fell).unwrap().likelihood_ratio(odds.ln())).exp()
                    })
                    .sum();
                assert!((mean - 1.0).abs() < 1e-9, "{old} {new} {wrong}: {mean}");
            }
        }
    }

    #[test]
    fn a_few_failures_decide_nothing_and_many_do() {
        for old in [count(10, 0), count(100, 0), count(10_000, 0)] {
            assert!(!compared(old, count(10, 3)).is_worse(0.01), "{old:?}");
            assert!(!compared(old, count(9, 9)).is_worse(0.01), "{old:?}");
        }
        assert!(compared(count(100, 0), count(50, 15)).is_worse(0.01));
        assert!(!compared(count(100, 30), count(50, 15)).is_worse(0.01));
        // A canary that fails less is no reason to go back.
        assert!(!compared(count(100, 90), count(50, 1)).is_worse(0.01));
    }

    #[test]
    fn an_outage_that_both_suffer_speaks_against_neither() {
        let mut comparison = Comparison::default();
        for _ in 0..50 {
            comparison.observe(count(300, 1), count(100, 0));
        }
        for _ in 0..50 {
            comparison.observe(count(300, 300), count(100, 100));
            comparison.observe(count(300, 150), count(100, 50));
        }
        assert!(!comparison.is_worse(0.01));
        assert_eq!(comparison.new, count(15_000, 7_500));
    }

    #[test]
    fn what_cannot_be_counted_says_nothing() {
        let nonsense = compared(count(10, 20), count(0, 30));
        assert!(!nonsense.is_worse(0.01));
        assert!(!compared(count(0, 0), count(500, 500)).is_worse(0.01));
    }

    #[test]
    fn a_worker_that_lies_in_its_counts_costs_no_time() {
        let all = count(u64::MAX, u64::MAX);
        let lie = compared(all, all);
        assert!(!lie.is_worse(0.01), "{lie:?}");
        for (old, new) in [
            (count(u64::MAX, 0), all),
            (count(100, 1), all),
            (all, count(100, 1)),
        ] {
            let mut comparison = compared(old, new);
            comparison.observe(old, new);
            assert!(!comparison.evidence().is_nan(), "{old:?} {new:?}");
        }
    }

    #[test]
    fn large_numbers_are_no_trouble() {
        let million = count(1_000_000, 100_000);
        let worse = compared(million, count(1_000_000, 120_000));
        assert!(worse.is_worse(0.01) && worse.evidence().is_finite());
        assert!(!compared(million, million).is_worse(0.01));
    }
}
