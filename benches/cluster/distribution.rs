//! Which row an operation is about.
//!
//! ```text
//!   uniform    every row alike
//!   zipf       the r-th favourite is 1/r^0.99 as likely as the first; with 100,000 rows the first gets 8 % of all.
//!              Favourites lie scattered over the keys, so that no part of them is hot as a whole.
//!   latest     as zipf, but the favourites are the rows that were inserted last
//! ```

use clap::ValueEnum;

use crate::random::Random;

/// The exponent that YCSB uses.
const EXPONENT: f64 = 0.99;

/// A prime above any number of rows: multiplying by it scatters the ranks over the rows, one to one.
const SCATTER: u128 = 1_000_000_000_039;

/// How rows are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Distribution {
    /// Every row is as likely as any other
    Uniform,
    /// Few rows get most of the operations (exponent 0.99), as in YCSB
    Zipf,
    /// As zipf, with the newest rows as the favourites
    Latest,
}

impl Distribution {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Distribution::Uniform => "uniform",
            Distribution::Zipf => "zipf",
            Distribution::Latest => "latest",
        }
    }
}

/// Draws rows out of a fixed number of them.
#[derive(Clone, Debug)]
pub(crate) struct Draw {
    distribution: Distribution,
    rows: u64,
    zipf: Zipf,
}

impl Draw {
    /// For so many rows, at least one. Takes a while for very many: about 20 ns a row, except for `Uniform`.
    pub(crate) fn new(distribution: Distribution, rows: u64) -> Draw {
        let ranks = if distribution == Distribution::Uniform { 1 } else { rows };
        Draw { distribution, rows, zipf: Zipf::new(ranks) }
    }

    /// One of the rows; `newest` is the number of rows there are by now, those inserted included.
    pub(crate) fn row(&self, random: &mut Random, newest: u64) -> u64 {
        match self.distribution {
            Distribution::Uniform => random.below(self.rows),
            Distribution::Zipf => scattered(self.zipf.rank(random), self.rows),
            Distribution::Latest => {
                let rank = self.zipf.rank(random);
                newest.saturating_sub(1).saturating_sub(rank)
            }
        }
    }
}

/// The row of a rank: another one for each.
fn scattered(rank: u64, rows: u64) -> u64 {
    (u128::from(rank) * SCATTER % u128::from(rows)) as u64
}

/// Draws ranks by Zipf's law, with the closed approximation of Gray and others ("Quickly generating billion-record
/// synthetic databases", 1994), which YCSB uses as well: exact for the first two ranks, close for the rest.
#[derive(Clone, Debug)]
struct Zipf {
    ranks: u64,
    /// The sum of 1/r^0.99 over all ranks.
    total: f64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    fn new(ranks: u64) -> Zipf {
        let weight = |rank: u64| (rank as f64).powf(-EXPONENT);
        let total = (1..=ranks).map(weight).sum::<f64>();
        let first_two = weight(1) + weight(2);
        let eta = (1.0 - (2.0 / ranks as f64).powf(1.0 - EXPONENT)) / (1.0 - first_two / total);
        Zipf { ranks, total, alpha: 1.0 / (1.0 - EXPONENT), eta }
    }

    /// A rank, 0 for the favourite.
    fn rank(&self, random: &mut Random) -> u64 {
        let unit = random.unit();
        let scaled = unit * self.total;
        if scaled < 1.0 || self.ranks <= 1 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(EXPONENT) || self.ranks == 2 {
            return 1;
        }
        let rank = self.ranks as f64 * (self.eta * unit - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.ranks - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const DRAWS: u64 = 200_000;

    fn shares(draw: &Draw, newest: u64) -> BTreeMap<u64, f64> {
        let mut random = Random::new(42);
        let mut counts = BTreeMap::new();
        for _ in 0..DRAWS {
            *counts.entry(draw.row(&mut random, newest)).or_insert(0_u64) += 1;
        }
        counts.into_iter().map(|(row, count)| (row, count as f64 / DRAWS as f64)).collect()
    }

    #[test]
    fn the_first_ranks_of_zipf_have_the_shares_of_the_law() {
        let rows = 1_000;
        let total: f64 = (1..=rows).map(|rank| (rank as f64).powf(-EXPONENT)).sum();
        let draw = Draw::new(Distribution::Zipf, rows);
        let shares = shares(&draw, rows);
        for rank in 0..2 {
            let row = scattered(rank, rows);
            let expected = ((rank + 1) as f64).powf(-EXPONENT) / total;
            assert!((shares[&row] / expected - 1.0).abs() < 0.03, "{rank}: {}", shares[&row]);
        }
        // The law gives the first hundred of a thousand 69 %.
        let mut sorted: Vec<f64> = shares.values().copied().collect();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let hundred: f64 = sorted[..100].iter().sum();
        let expected: f64 =
            (1..=100).map(|rank| (rank as f64).powf(-EXPONENT)).sum::<f64>() / total;
        assert!((hundred - expected).abs() < 0.02, "{hundred} {expected}");
    }

    #[test]
    fn scattering_loses_no_row() {
        for rows in [1, 2, 3, 100, 4_096, 100_000] {
            let mut seen = vec![false; rows as usize];
            for rank in 0..rows {
                seen[scattered(rank, rows) as usize] = true;
            }
            assert!(seen.into_iter().all(|row| row), "{rows}");
        }
    }

    #[test]
    fn every_distribution_stays_within_the_rows() {
        let mut random = Random::new(1);
        for distribution in [Distribution::Uniform, Distribution::Zipf, Distribution::Latest] {
            for rows in [1, 2, 3, 10, 5_000] {
                let draw = Draw::new(distribution, rows);
                assert!((0..1_000).all(|_| draw.row(&mut random, rows) < rows), "{distribution:?}");
            }
        }
    }

    #[test]
    fn the_latest_rows_are_the_favourites() {
        let shares = shares(&Draw::new(Distribution::Latest, 100), 5_000);
        let favourite = shares.iter().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
        assert_eq!(*favourite.0, 4_999);
        assert!(shares.keys().all(|row| (4_900..5_000).contains(row)));
    }
}
