//! Inputs made of good ones by small changes, the same for the same seed.

/// Numbers where lengths and signs turn over.
const EDGES: [u8; 8] = [0, 1, 0x09, 0x0a, 0x7f, 0x80, 0xfe, 0xff];

/// How many changes one input has at most.
const MOST_CHANGES: usize = 8;

/// Runs `check` on each of the inputs of a corpus as it is, and then on as many that
/// were made of them. One that panics is printed, with what it was made by.
pub fn mutate(seed: u64, rounds: u32, corpus: &[Vec<u8>], mut check: impl FnMut(&[u8])) {
    for input in corpus {
        run(seed, input, &mut check);
    }
    let mut chance = Chance(seed);
    for _ in 0..rounds {
        let input = chance.change(corpus);
        run(seed, &input, &mut check);
    }
}

fn run(seed: u64, input: &[u8], check: &mut impl FnMut(&[u8])) {
    let printed = PrintOnPanic { seed, input };
    check(input);
    drop(printed);
}

struct PrintOnPanic<'a> {
    seed: u64,
    input: &'a [u8],
}

impl Drop for PrintOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("of seed {}: b\"{}\"", self.seed, self.input.escape_ascii());
        }
    }
}

/// splitmix64.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// One of so many; 0 of none.
    fn below(&mut self, count: usize) -> usize {
        (self.next() % count.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// A part of these bytes, mostly a short one.
    fn part<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let from = self.below(bytes.len() + 1);
        let longest = bytes.len() - from;
        let longest = if self.below(4) > 0 {
            longest.min(16)
        } else {
            longest
        };
        &bytes[from..from + self.below(longest + 1)]
    }

    fn one<'a>(&mut self, corpus: &'a [Vec<u8>]) -> &'a [u8] {
        &corpus[self.below(corpus.len())]
    }

    /// One of the corpus with some changes.
    fn change(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.one(corpus).to_vec();
        for _ in 0..=self.below(MOST_CHANGES) {
            let at = self.below(input.len() + 1);
            let until = (at + self.below(16)).min(input.len());
            match self.below(8) {
                0 if at < input.len() => input[at] ^= 1 << self.below(8),
                1 if at < input.len() => input[at] = EDGES[self.below(EDGES.len())],
                2 => input.insert(at, self.byte()),
                3 => drop(input.drain(at..until)),
                4 => input.truncate(at),
                5 => {
                    let again = self.part(&input).to_vec();
                    drop(input.splice(at..at, again));
                }
                6 => {
                    let other = self.one(corpus);
                    let other = self.part(other).to_vec();
                    drop(input.splice(at..at, other));
                }
                _ => {
                    let other = self.one(corpus);
                    let other = self.part(other).to_vec();
                    drop(input.splice(at..until, other));
                }
            }
        }
        input
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(seed: u64) -> Vec<Vec<u8>> {
        let mut inputs = Vec::new();
        let corpus = [b"one".to_vec(), b"{\"two\": 2}".to_vec()];
        mutate(seed, 200, &corpus, |input| inputs.push(input.to_vec()));
        assert_eq!(inputs[..2], corpus);
        inputs
    }

    #[test]
    fn a_seed_gives_the_same_inputs_again_and_another_one_others() {
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        let new = inputs(1).iter().skip(2).filter(|it| *it != b"one").count();
        assert!(new > 150, "{new}");
    }
}
