//! Who comes before whom, and whether that goes round in a circle.
//!
//! ```text
//!   kinds      ww          ww wr        ww wr, one rw     ww wr rw      ... and the same with sessions, real time
//!   name       G0          G1c          G-single          G2
//!
//!   per name:  strongly connected components (Tarjan) --> none: no cycle of these kinds
//!                                                    \--> breadth first inside one: a shortest cycle
//! ```
//!
//! A name is looked for only when there was no cycle of those before it, so a G2 has two rw edges at least.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use super::Guarantees;

/// Why one transaction comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It wrote what the other one overwrote.
    WriteWrite,
    /// It wrote what the other one read.
    WriteRead,
    /// It read what the other one overwrote.
    ReadWrite,
    /// Their client made it first.
    Session,
    /// It was answered before the other one began.
    RealTime,
}

impl Kind {
    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::WriteWrite => "ww",
            Kind::WriteRead => "wr",
            Kind::ReadWrite => "rw",
            Kind::Session => "session",
            Kind::RealTime => "real time",
        })
    }
}

/// An edge, and by which element of which list it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) kind: Kind,
    pub(super) list: u32,
    pub(super) element: u64,
}

impl Edge {
    pub(super) fn new(kind: Kind) -> Edge {
        Edge { kind, list: 0, element: 0 }
    }
}

/// Edges from each transaction.
pub(super) struct Graph {
    edges: Vec<Vec<(usize, Edge)>>,
}

/// A cycle: each step leads to the next one, the last one to the first.
pub(super) struct Cycle {
    pub(super) steps: Vec<(usize, usize, Edge)>,
}

impl Cycle {
    fn count(&self, kind: Kind) -> usize {
        self.steps.iter().filter(|(_, _, edge)| edge.kind == kind).count()
    }

    pub(super) fn name(&self) -> String {
        let name = match (self.count(Kind::ReadWrite), self.count(Kind::WriteRead)) {
            (0, 0) => "G0",
            (0, _) => "G1c",
            (1, _) => "G-single",
            _ => "G2",
        };
        let suffix = match (self.count(Kind::RealTime), self.count(Kind::Session)) {
            (0, 0) => "",
            (0, _) => "-session",
            _ => "-realtime",
        };
        format!("{name}{suffix}")
    }

    pub(super) fn invariant(&self) -> &'static str {
        if self.count(Kind::RealTime) + self.count(Kind::Session) > 0 { "I-1" } else { "I-4" }
    }
}

/// Most searches for a shortest cycle of one name: a history that is wrong everywhere need not be searched all.
const SEARCHES_MAX: usize = 2_000;

impl Graph {
    pub(super) fn new(nodes: usize) -> Graph {
        Graph { edges: vec![Vec::new(); nodes] }
    }

    pub(super) fn add(&mut self, from: usize, to: usize, edge: Edge) {
        if from != to {
            self.edges[from].push((to, edge));
        }
    }

    pub(super) fn edge_count(&self) -> usize {
        self.edges.iter().map(Vec::len).sum()
    }

    /// A cycle of the first name of which there is one.
    pub(super) fn find_cycle(&self, guarantees: Guarantees) -> Option<Cycle> {
        let orders = [
            Some(0),
            guarantees.sessions.then(|| Kind::Session.bit()),
            guarantees.real_time.then(|| Kind::RealTime.bit() | Kind::Session.bit()),
        ];
        let writes = Kind::WriteWrite.bit();
        let data = writes | Kind::WriteRead.bit();
        for order in orders.into_iter().flatten() {
            let found = self
                .shortest_cycle(writes | order)
                .or_else(|| self.shortest_cycle(data | order))
                .or_else(|| self.shortest_with_one_rw(data | order))
                .or_else(|| self.shortest_cycle(data | Kind::ReadWrite.bit() | order));
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// A shortest cycle of edges of these kinds.
    fn shortest_cycle(&self, kinds: u8) -> Option<Cycle> {
        let components = self.components(kinds);
        let nodes = (0..self.edges.len()).filter(|&node| components.is_cyclic(node));
        shortest(
            nodes
                .take(SEARCHES_MAX)
                .filter_map(|node| self.shortest_path(node, node, kinds, &components)),
        )
    }

    /// A shortest cycle with one rw edge, and else edges of these kinds.
    fn shortest_with_one_rw(&self, kinds: u8) -> Option<Cycle> {
        let components = self.components(kinds | Kind::ReadWrite.bit());
        let closing = (0..self.edges.len())
            .filter(|&node| components.is_cyclic(node))
            .flat_map(|from| self.edges[from].iter().map(move |&(to, edge)| (from, to, edge)))
            .filter(|&(from, to, edge)| {
                edge.kind == Kind::ReadWrite && components.are_together(from, to)
            });
        shortest(closing.take(SEARCHES_MAX).filter_map(|(from, to, edge)| {
            let mut steps = vec![(from, to, edge)];
            steps.extend(self.shortest_path(to, from, kinds, &components)?);
            Some(steps)
        }))
    }

    /// A shortest way of one edge at least, within a component.
    fn shortest_path(
        &self,
        from: usize,
        to: usize,
        kinds: u8,
        components: &Components,
    ) -> Option<Vec<(usize, usize, Edge)>> {
        let mut came_by: BTreeMap<usize, (usize, Edge)> = BTreeMap::new();
        let mut waiting = VecDeque::from([from]);
        while let Some(node) = waiting.pop_front() {
            for &(next, edge) in &self.edges[node] {
                if edge.kind.bit() & kinds == 0
                    || !components.are_together(node, next)
                    || came_by.contains_key(&next)
                {
                    continue;
                }
                came_by.insert(next, (node, edge));
                if next != to {
                    waiting.push_back(next);
                    continue;
                }
                let mut steps = Vec::new();
                let mut at = to;
                loop {
                    let (before, edge) = came_by[&at];
                    steps.push((before, at, edge));
                    at = before;
                    if at == from {
                        break;
                    }
                }
                steps.reverse();
                return Some(steps);
            }
        }
        None
    }

    /// The strongly connected components of the edges of these kinds: Tarjan's algorithm, with a stack of its own
    /// instead of a recursion, because a history is longer than a stack is deep.
    fn components(&self, kinds: u8) -> Components {
        const UNSEEN: usize = usize::MAX;
        let count = self.edges.len();
        let mut index = vec![UNSEEN; count];
        let mut low = vec![0; count];
        let mut components = Components { of: vec![UNSEEN; count], sizes: Vec::new() };
        let mut open: Vec<usize> = Vec::new();
        let mut seen = 0;
        for root in 0..count {
            if index[root] != UNSEEN {
                continue;
            }
            let mut path = vec![(root, 0)];
            while let Some(&mut (node, ref mut position)) = path.last_mut() {
                if *position == 0 {
                    index[node] = seen;
                    low[node] = seen;
                    seen += 1;
                    open.push(node);
                }
                let rest = self.edges[node][*position..].iter();
                let mut skipped = 0;
                let mut child = None;
                for &(next, edge) in rest {
                    skipped += 1;
                    if edge.kind.bit() & kinds == 0 {
                        continue;
                    }
                    if index[next] == UNSEEN {
                        child = Some(next);
                        break;
                    }
                    if components.of[next] == UNSEEN {
                        low[node] = low[node].min(index[next]);
                    }
                }
                *position += skipped;
                if let Some(child) = child {
                    path.push((child, 0));
                    continue;
                }
                path.pop();
                if let Some(&(parent, _)) = path.last() {
                    low[parent] = low[parent].min(low[node]);
                }
                if low[node] == index[node] {
                    let number = components.sizes.len();
                    let mut size = 0;
                    while let Some(member) = open.pop() {
                        components.of[member] = number;
                        size += 1;
                        if member == node {
                            break;
                        }
                    }
                    components.sizes.push(size);
                }
            }
        }
        components
    }
}

/// The shortest of some cycles; none is shorter than two steps.
fn shortest(cycles: impl Iterator<Item = Vec<(usize, usize, Edge)>>) -> Option<Cycle> {
    let mut best: Option<Vec<_>> = None;
    for steps in cycles {
        if best.as_ref().is_none_or(|best| steps.len() < best.len()) {
            best = Some(steps);
        }
        if best.as_ref().is_some_and(|best| best.len() == 2) {
            break;
        }
    }
    best.map(|steps| Cycle { steps })
}

/// Sets of transactions each of which leads to each other.
struct Components {
    of: Vec<usize>,
    sizes: Vec<usize>,
}

impl Components {
    fn is_cyclic(&self, node: usize) -> bool {
        self.sizes[self.of[node]] > 1
    }

    fn are_together(&self, one: usize, other: usize) -> bool {
        self.of[one] == self.of[other]
    }
}
