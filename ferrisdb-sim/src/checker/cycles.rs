//! Strict serializability of a history of lists, without asking the database for any version.
//!
//! ```text
//!   c1#1  read 3: []       append 3 <- 5          acknowledged
//!   c2#2  read 3: []       append 3 <- 6          acknowledged
//!   c1#9  read 3: [5, 6]                          acknowledged
//!
//!   c1#9 shows in which order list 3 was written: first 5, then 6
//!     c1#1 -> c2#2   ww   6 stands behind 5
//!     c2#2 -> c1#1   rw   c2#2 has read the list without 5
//!   each before the other, with one rw: G-single, a lost update (I-4)
//! ```
//!
//! A second opinion: [`super::serializability`] believes the database's own versions, this one believes nothing
//! but what clients have read. Each transaction appends elements that are unique to lists, and reads lists. A
//! list shows all its elements in the order in which they were appended, so the longest read gives the order of
//! versions, and every other read has to be a beginning of it. That gives three kinds of edges between
//! transactions: ww (wrote before), wr (read what was written), rw (read what was there before the write); real
//! time and sessions give two more. Whatever lies on a cycle cannot have happened in any order.
//!
//! The method is that of list-append histories in Kingsbury & Alvaro, "Elle: Inferring Isolation Anomalies from
//! Experimental Observations" (VLDB 2020), with the names of Adya, Liskov & O'Neil (2000).
//!
//! | found | name | invariant |
//! |---|---|---|
//! | an element twice in a list | duplicate | I-6 |
//! | an element that nobody appended, or to another list | garbage | I-2 |
//! | an element of a refused transaction | G1a | I-6 |
//! | a transaction's last-but-one element at the end of a read | G1b | I-2 |
//! | a read that does not agree with the transaction's own ones | internal | I-2 |
//! | two reads of a list, neither the beginning of the other | incompatible-order | I-2 |
//! | an acknowledged element that a later reader does not find, and nobody else either | lost | I-5 |
//! | a cycle of ww; of ww and wr; with one rw; with several | G0, G1c, G-single, G2 | I-4 |
//! | the same with an edge of a session, or of real time | ...-session, ...-realtime | I-1 |
//!
//! Cost: linear in the elements that were read, but for sorts and for as many edges of real time as clients work
//! at once. Start with [`check`].

mod graph;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use graph::{Cycle, Edge, Graph, Kind};

/// One transaction that reads lists and appends to them.
#[derive(Clone, Debug)]
pub struct ListTransaction {
    /// Who made it.
    pub client: Arc<str>,
    /// Its number, unique in the history.
    pub number: u64,
    /// When it began: nothing had been sent before.
    pub invoked: Duration,
    /// When its client knew how it ended; of no meaning if that is unknown.
    pub responded: Duration,
    /// How it ended.
    pub outcome: ListOutcome,
    /// What it did, in order. Only appends, if it is not known what was read.
    pub operations: Vec<ListOperation>,
}

/// How a transaction ended, as far as its client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListOutcome {
    /// It was acknowledged.
    Committed,
    /// It did not take effect and never will.
    Refused,
    /// Nobody told.
    Unknown,
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListOperation {
    /// An element was added to the end of a list.
    Append {
        /// Which list.
        list: u32,
        /// What; no element is appended twice in a history.
        element: u64,
    },
    /// A list was read.
    Read {
        /// Which list.
        list: u32,
        /// All its elements.
        found: Vec<u64>,
    },
}

/// Which order besides that of the data has to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarantees {
    /// Who begins after another's answer comes after it: strict serializability.
    pub real_time: bool,
    /// Transactions of one client come in the order in which it made them.
    pub sessions: bool,
}

impl Guarantees {
    /// Serializability alone: any order will do.
    pub const SERIALIZABLE: Guarantees = Guarantees { real_time: false, sessions: false };
    /// What FerrisDB promises. Real time covers sessions.
    pub const STRICT: Guarantees = Guarantees { real_time: true, sessions: false };
}

/// What a history without anomalies consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Transactions that were acknowledged.
    pub committed: usize,
    /// Transactions that did not take effect.
    pub refused: usize,
    /// Transactions of which nobody told.
    pub unknown: usize,
    /// How many of those took effect.
    pub unknown_effective: usize,
    /// Reads of lists that were compared.
    pub reads: usize,
    /// Elements whose place in their list is known.
    pub elements: usize,
    /// Edges between transactions, among which there is no cycle.
    pub edges: usize,
}

/// Something that no order of the transactions explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// Its name in the literature, such as `G-single-realtime`.
    pub name: String,
    /// The invariant that is broken.
    pub invariant: &'static str,
    /// What has happened, a sentence a line; the transactions concerned come last.
    pub explanation: Vec<String>,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is broken: {}", self.invariant, self.name)?;
        self.explanation.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl std::error::Error for Anomaly {}

/// Most elements of a list that are printed.
const PRINTED_MAX: usize = 6;

fn print(elements: &[u64]) -> String {
    let tail = elements.len().saturating_sub(PRINTED_MAX);
    let shown: Vec<String> = elements[tail..].iter().map(u64::to_string).collect();
    let cut = if tail > 0 { format!("({} more), ", tail) } else { String::new() };
    format!("[{cut}{}]", shown.join(", "))
}

impl fmt::Display for ListTransaction {
    /// `c1#7`: the client and the number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.client, self.number)
    }
}

impl ListTransaction {
    /// Everything about it, in a line.
    fn describe(&self) -> String {
        let steps: Vec<String> = self
            .operations
            .iter()
            .map(|operation| match operation {
                ListOperation::Append { list, element } => format!("append {list} <- {element}"),
                ListOperation::Read { list, found } => format!("read {list}: {}", print(found)),
            })
            .collect();
        let responded = match self.outcome {
            ListOutcome::Unknown => "?".into(),
            _ => format!("{:?}", self.responded),
        };
        let outcome = format!("{:?}", self.outcome).to_lowercase();
        format!("{self} {outcome} {:?}..{responded}: {}", self.invoked, steps.join("; "))
    }
}

/// Checks a history.
///
/// # Errors
///
/// The first anomaly that is found; of several cycles one of the worst kind, as short as there is one.
///
/// # Panics
///
/// If two appends have the same element: nothing could be told apart.
pub fn check(
    transactions: &[ListTransaction],
    guarantees: Guarantees,
) -> Result<Verdict, Box<Anomaly>> {
    let history = History::read(transactions)?;
    history.check_elements()?;
    history.check_lost()?;
    history.check_intermediate()?;
    let graph = history.graph(guarantees);
    if let Some(cycle) = graph.find_cycle(guarantees) {
        return Err(history.explain(&cycle));
    }
    Ok(history.verdict(&graph))
}

/// What one transaction has seen of one list.
struct View<'a> {
    reader: usize,
    list: u32,
    /// What others had appended.
    base: &'a [u64],
    /// With its own elements behind.
    whole: &'a [u64],
}

/// Where an element comes from.
#[derive(Clone, Copy)]
struct Origin {
    writer: usize,
    list: u32,
    /// Which step of the writer appended it.
    step: usize,
    /// Whether the writer appended another one to the same list afterwards.
    is_intermediate: bool,
}

/// A history, with what can be concluded from its reads.
struct History<'a> {
    transactions: &'a [ListTransaction],
    origins: BTreeMap<u64, Origin>,
    views: Vec<View<'a>>,
    /// The order of each list that was read.
    orders: BTreeMap<u32, &'a [u64]>,
    /// The elements that are in an order.
    placed: BTreeSet<u64>,
    /// Which transactions took effect.
    effective: Vec<bool>,
}

impl<'a> History<'a> {
    fn read(transactions: &'a [ListTransaction]) -> Result<History<'a>, Box<Anomaly>> {
        let mut history = History {
            transactions,
            origins: origins(transactions),
            views: Vec::new(),
            orders: BTreeMap::new(),
            placed: BTreeSet::new(),
            effective: transactions
                .iter()
                .map(|transaction| transaction.outcome == ListOutcome::Committed)
                .collect(),
        };
        for (index, transaction) in transactions.iter().enumerate() {
            // What refused transactions have read is the other checker's business.
            if transaction.outcome != ListOutcome::Refused {
                history.read_views(index)?;
            }
        }
        // Whose elements were read took effect, and so what it has read counts as well: until nothing changes.
        while history.conclude() {}
        let effective = &history.effective;
        history.views.retain(|view| effective[view.reader]);
        Ok(history)
    }

    /// Orders the lists by what transactions have read that took effect. Returns whether that shows more such.
    fn conclude(&mut self) -> bool {
        for view in &self.views {
            if self.effective[view.reader] {
                let order = self.orders.entry(view.list).or_default();
                if view.whole.len() > order.len() {
                    *order = view.whole;
                }
            }
        }
        self.placed = self.orders.values().flat_map(|order| order.iter().copied()).collect();
        let mut has_changed = false;
        for element in &self.placed {
            if let Some(origin) = self.origins.get(element)
                && self.transactions[origin.writer].outcome == ListOutcome::Unknown
                && !self.effective[origin.writer]
            {
                self.effective[origin.writer] = true;
                has_changed = true;
            }
        }
        has_changed
    }

    /// The views of a transaction, if its own reads agree with each other and with its own appends.
    fn read_views(&mut self, reader: usize) -> Result<(), Box<Anomaly>> {
        let transaction = &self.transactions[reader];
        let mut own: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let mut bases: BTreeMap<u32, &[u64]> = BTreeMap::new();
        for operation in &transaction.operations {
            let (list, found) = match operation {
                ListOperation::Append { list, element } => {
                    own.entry(*list).or_default().push(*element);
                    continue;
                }
                ListOperation::Read { list, found } => (*list, found.as_slice()),
            };
            let own = own.get(&list).map_or(&[][..], Vec::as_slice);
            let Some(base) = found.strip_suffix(own) else {
                let what = format!("it has appended {} to list {list} itself", print(own));
                return Err(self.anomaly("internal", "I-2", what, &[reader]));
            };
            if let Some(earlier) = bases.insert(list, base)
                && earlier != base
            {
                let what = format!("list {list} was {} before, for the same", print(earlier));
                return Err(self.anomaly("internal", "I-2", what, &[reader]));
            }
            let of_own = |element: &&u64| {
                self.origins.get(element).is_some_and(|origin| origin.writer == reader)
            };
            if let Some(element) = base.iter().find(of_own) {
                let what = format!("it sees its own {element} where that cannot be yet");
                return Err(self.anomaly("internal", "I-2", what, &[reader]));
            }
            self.views.push(View { reader, list, base, whole: found });
        }
        Ok(())
    }

    /// Whether all that was read was written, in one order.
    fn check_elements(&self) -> Result<(), Box<Anomaly>> {
        for view in &self.views {
            let order = self.orders.get(&view.list).copied().unwrap_or_default();
            if view.whole.len() == order.len() || !order.starts_with(view.whole) {
                self.check_view(view)?;
            }
            if !order.starts_with(view.whole) {
                let at = view.whole.iter().zip(order).take_while(|(one, other)| one == other);
                let what = format!(
                    "list {} differs from its element {} on: {} and {}",
                    view.list,
                    at.count(),
                    print(view.whole),
                    print(order)
                );
                let other = self
                    .views
                    .iter()
                    .find(|other| other.list == view.list && std::ptr::eq(other.whole, order));
                let mut concerned = vec![view.reader];
                concerned.extend(other.map(|view| view.reader));
                return Err(self.anomaly("incompatible-order", "I-2", what, &concerned));
            }
        }
        for (list, order) in &self.orders {
            let mut steps: BTreeMap<usize, usize> = BTreeMap::new();
            for element in *order {
                let origin = self.origins[element];
                if steps.insert(origin.writer, origin.step).is_some_and(|step| step > origin.step) {
                    let what = format!("in list {list} {element} is behind later ones of its own");
                    return Err(self.anomaly("incompatible-order", "I-2", what, &[origin.writer]));
                }
            }
        }
        Ok(())
    }

    fn check_view(&self, view: &View<'_>) -> Result<(), Box<Anomaly>> {
        let mut seen = BTreeSet::new();
        for &element in view.whole {
            let origin = self.origins.get(&element).filter(|origin| origin.list == view.list);
            let Some(origin) = origin else {
                let what = format!("nobody has appended {element} to list {}", view.list);
                return Err(self.anomaly("garbage", "I-2", what, &[view.reader]));
            };
            let concerned = [view.reader, origin.writer];
            if !seen.insert(element) {
                let what = format!("{element} is in list {} twice", view.list);
                return Err(self.anomaly("duplicate", "I-6", what, &concerned));
            }
            if self.transactions[origin.writer].outcome == ListOutcome::Refused {
                let what = format!("{element} in list {} is of a refused one", view.list);
                return Err(self.anomaly("G1a", "I-6", what, &concerned));
            }
        }
        Ok(())
    }

    /// Whether all that was acknowledged is there.
    fn check_lost(&self) -> Result<(), Box<Anomaly>> {
        let mut last_views: BTreeMap<u32, &View<'_>> = BTreeMap::new();
        let invoked = |view: &View<'_>| self.transactions[view.reader].invoked;
        for view in &self.views {
            let last = last_views.entry(view.list).or_insert(view);
            if invoked(view) > invoked(last) {
                *last = view;
            }
        }
        for (element, origin) in &self.origins {
            let writer = &self.transactions[origin.writer];
            if writer.outcome != ListOutcome::Committed || self.placed.contains(element) {
                continue;
            }
            if let Some(view) = last_views.get(&origin.list)
                && invoked(view) > writer.responded
            {
                let what = format!("{element} was acknowledged and is not in list {}", origin.list);
                let concerned = [origin.writer, view.reader];
                return Err(self.anomaly("lost", "I-5", what, &concerned));
            }
        }
        Ok(())
    }

    /// Whether nobody has seen a list in the middle of a transaction.
    fn check_intermediate(&self) -> Result<(), Box<Anomaly>> {
        for view in &self.views {
            let Some(last) = view.base.last() else { continue };
            let origin = self.origins[last];
            if origin.is_intermediate {
                let what = format!("list {} ends with {last}, where its writer went on", view.list);
                let concerned = [view.reader, origin.writer];
                return Err(self.anomaly("G1b", "I-2", what, &concerned));
            }
        }
        Ok(())
    }

    /// Who comes before whom.
    fn graph(&self, guarantees: Guarantees) -> Graph {
        let mut graph = Graph::new(self.transactions.len());
        let writer = |element: u64| self.origins[&element].writer;
        for (&list, order) in &self.orders {
            for pair in order.windows(2) {
                let edge = Edge { list, element: pair[1], ..Edge::new(Kind::WriteWrite) };
                graph.add(writer(pair[0]), writer(pair[1]), edge);
            }
        }
        let mut unplaced: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for (&element, origin) in &self.origins {
            if self.effective[origin.writer] && !self.placed.contains(&element) {
                unplaced.entry(origin.list).or_default().push(element);
                let order = self.orders.get(&origin.list).copied().unwrap_or_default();
                if let Some(&last) = order.last() {
                    let edge = Edge { list: origin.list, element, ..Edge::new(Kind::WriteWrite) };
                    graph.add(writer(last), origin.writer, edge);
                }
            }
        }
        for &View { reader, list, base, .. } in &self.views {
            if let Some(&element) = base.last() {
                let edge = Edge { list, element, ..Edge::new(Kind::WriteRead) };
                graph.add(writer(element), reader, edge);
            }
            let order = self.orders.get(&list).copied().unwrap_or_default();
            let next = order.get(base.len()).map(std::slice::from_ref);
            // What nobody has seen comes after everything that somebody has.
            let unseen = unplaced.get(&list).map(Vec::as_slice);
            for &element in next.or(unseen).unwrap_or_default() {
                let edge = Edge { list, element, ..Edge::new(Kind::ReadWrite) };
                graph.add(reader, writer(element), edge);
            }
        }
        if guarantees.sessions {
            self.add_sessions(&mut graph);
        }
        if guarantees.real_time {
            self.add_real_time(&mut graph);
        }
        graph
    }

    fn add_sessions(&self, graph: &mut Graph) {
        let mut order: Vec<usize> = self.effective_ones().collect();
        order.sort_by_key(|&index| self.transactions[index].invoked);
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        for index in order {
            let transaction = &self.transactions[index];
            // One of unknown fate may take effect after its client went on.
            if transaction.outcome == ListOutcome::Committed
                && let Some(before) = last.insert(&transaction.client, index)
            {
                graph.add(before, index, Edge::new(Kind::Session));
            }
        }
    }

    /// An edge from whoever ended last before a transaction began; earlier ones come before those.
    fn add_real_time(&self, graph: &mut Graph) {
        // At one and the same time beginnings come first: an answer has to be there before.
        let mut events: Vec<(Duration, bool, usize)> = Vec::new();
        for index in self.effective_ones() {
            let transaction = &self.transactions[index];
            events.push((transaction.invoked, false, index));
            if transaction.outcome == ListOutcome::Committed {
                events.push((transaction.responded, true, index));
            }
        }
        events.sort_unstable();
        let mut frontier: Vec<usize> = Vec::new();
        for (_, has_ended, index) in events {
            if has_ended {
                let invoked = self.transactions[index].invoked;
                frontier.retain(|&before| self.transactions[before].responded >= invoked);
                frontier.push(index);
            } else {
                for &before in &frontier {
                    graph.add(before, index, Edge::new(Kind::RealTime));
                }
            }
        }
    }

    fn effective_ones(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.transactions.len()).filter(|&index| self.effective[index])
    }

    fn verdict(&self, graph: &Graph) -> Verdict {
        let count = |outcome| {
            self.transactions.iter().filter(|transaction| transaction.outcome == outcome).count()
        };
        let committed = count(ListOutcome::Committed);
        Verdict {
            committed,
            refused: count(ListOutcome::Refused),
            unknown: count(ListOutcome::Unknown),
            unknown_effective: self.effective_ones().count() - committed,
            reads: self.views.len(),
            elements: self.placed.len(),
            edges: graph.edge_count(),
        }
    }

    fn anomaly(
        &self,
        name: &str,
        invariant: &'static str,
        what: String,
        concerned: &[usize],
    ) -> Box<Anomaly> {
        let mut explanation = vec![what];
        explanation.extend(concerned.iter().map(|&index| self.transactions[index].describe()));
        Box::new(Anomaly { name: name.into(), invariant, explanation })
    }

    fn explain(&self, cycle: &Cycle) -> Box<Anomaly> {
        let name = |index: usize| &self.transactions[index];
        let step = |&(from, to, edge): &(usize, usize, Edge)| {
            let (from, to) = (name(from), name(to));
            let Edge { kind, list, element } = edge;
            let why = match kind {
                Kind::WriteWrite => {
                    format!("in list {list} its {element} stands behind what {from} appended")
                }
                Kind::WriteRead => format!("it has read list {list} up to {from}'s {element}"),
                Kind::ReadWrite => {
                    format!("{from} has read list {list} without {element}, which {to} appended")
                }
                Kind::Session => format!("{} made it after {from}", to.client),
                Kind::RealTime => format!(
                    "it began at {:?}, after {from} was answered at {:?}",
                    to.invoked, from.responded
                ),
            };
            format!("{from} -> {to} ({kind}): {why}")
        };
        let mut explanation: Vec<String> = cycle.steps.iter().map(step).collect();
        explanation.extend(cycle.steps.iter().map(|&(from, _, _)| name(from).describe()));
        Box::new(Anomaly { name: cycle.name(), invariant: cycle.invariant(), explanation })
    }
}

fn origins(transactions: &[ListTransaction]) -> BTreeMap<u64, Origin> {
    let mut origins = BTreeMap::new();
    for (writer, transaction) in transactions.iter().enumerate() {
        let mut later = BTreeSet::new();
        for (step, operation) in transaction.operations.iter().enumerate().rev() {
            let &ListOperation::Append { list, element } = operation else { continue };
            let is_intermediate = !later.insert(list);
            let origin = Origin { writer, list, step, is_intermediate };
            let taken = origins.insert(element, origin);
            assert!(taken.is_none(), "element {element} is appended twice in the history");
        }
    }
    origins
}
