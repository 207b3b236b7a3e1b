//! Clients append unique elements to lists and read lists; what they saw has to fit into one order.
//!
//! ```text
//!   list_append/00000003    000000000000000a 000000000000000c ...   list 3: elements 10, 12, ...
//!
//!   a transaction, some steps of:
//!     read one list  |  read all lists in use by one range read
//!     append by reading the list and writing it  |  append by AppendIfFits, without reading
//! ```
//!
//! Some transactions are one attempt only, so that their fate may stay unknown; others run as `run_transaction`
//! does, and their appends must still be there once. [`cycles`] then looks whether any order of the transactions
//! explains all reads: it does not ask the database for a single version.
//!
//! A list that is long enough is not used any more, but stays where it is: the last read, of all of them, shows
//! whether something acknowledged was lost (I-5).
//!
//! Start with [`ListAppend::one`].

use std::{sync::OnceLock, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ferrisdb_client::{Database, Transaction};
use ferrisdb_core::{Key, KeyRange, Value, atomic::AtomicOp, runtime};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    Client, Workload,
    common::{draw, explained, once_in, patiently, pause},
};
use crate::checker::cycles::{self, Guarantees, ListOperation, ListOutcome, ListTransaction};

/// The size of a [`ListAppend`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListAppendSettings {
    /// How many clients there are.
    pub clients: u32,
    /// How many lists are in use at once. The fewer, the more conflicts.
    pub lists: u32,
    /// After so many appends another list takes the place of one.
    pub appends_max: u32,
    /// Most steps of a transaction.
    pub steps_max: u32,
    /// Most transactions of the history, which stays in memory.
    pub transactions_max: usize,
}

impl Default for ListAppendSettings {
    fn default() -> ListAppendSettings {
        ListAppendSettings {
            clients: 6,
            lists: 5,
            appends_max: 40,
            steps_max: 5,
            transactions_max: 200_000,
        }
    }
}

/// Lists and a history of them: see the module.
pub struct ListAppend {
    settings: ListAppendSettings,
    began: OnceLock<runtime::Instant>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The lists in use, with the appends to each that were begun.
    lists: Vec<(u32, u32)>,
    lists_begun: u32,
    elements: u64,
    history: Vec<ListTransaction>,
}

/// One step of a transaction that is to be made.
#[derive(Clone, Copy, Debug)]
enum Step {
    Read { list: u32 },
    ReadRange { from: u32, through: u32 },
    AppendByWriting { list: u32, element: u64 },
    AppendBlindly { list: u32, element: u64 },
}

const NAME: &str = "list_append";
const ELEMENT_BYTES: usize = 8;

fn list_key(list: u32) -> Key {
    Key::from(format!("{NAME}/{list:08}"))
}

fn decode(list: u32, value: &Value) -> Result<Vec<u64>> {
    let chunks = value.chunks_exact(ELEMENT_BYTES);
    ensure!(chunks.remainder().is_empty(), "list {list} is torn: {} bytes (I-2)", value.len());
    let element = |chunk: &[u8]| chunk.iter().fold(0, |all, &byte| all << 8 | u64::from(byte));
    Ok(chunks.map(element).collect())
}

impl ListAppend {
    /// Lists without an element.
    pub fn new(settings: ListAppendSettings) -> ListAppend {
        let state = State::default();
        ListAppend { settings, began: OnceLock::new(), state: Mutex::new(state) }
    }

    fn elapsed(&self) -> Duration {
        let began = *self.began.get_or_init(runtime::now);
        runtime::now().duration_since(began)
    }

    /// Draws a transaction, and writes down that it has begun and may take effect from now on.
    fn begin(&self, client: &str) -> (usize, Vec<Step>) {
        let invoked = self.elapsed();
        let mut state = self.state.lock();
        let count = 1 + draw(self.settings.steps_max);
        let steps: Vec<Step> = (0..count).map(|_| state.draw_step(&self.settings)).collect();
        let index = state.history.len();
        state.history.push(ListTransaction {
            client: client.into(),
            number: index as u64,
            invoked,
            responded: Duration::MAX,
            outcome: ListOutcome::Unknown,
            operations: steps.iter().filter_map(Step::append).collect(),
        });
        (index, steps)
    }

    fn end(&self, index: usize, outcome: ListOutcome, operations: Option<Vec<ListOperation>>) {
        let responded = self.elapsed();
        let noted = &mut self.state.lock().history[index];
        noted.outcome = outcome;
        noted.responded = responded;
        if let Some(operations) = operations {
            noted.operations = operations;
        }
    }

    /// One transaction, from drawing it to knowing how it ended.
    async fn one(&self, database: &Database, name: &str) -> Result<()> {
        let (index, steps) = self.begin(name);
        let outcome = if once_in(2) {
            let steps = &steps;
            database
                .run_transaction(|transaction| async move { perform(&transaction, steps).await })
                .await
        } else {
            attempt(database, &steps).await
        };
        match outcome {
            Ok(operations) => self.end(index, ListOutcome::Committed, Some(operations)),
            Err(error) => {
                let error = explained(error)?;
                let outcome = match error.is_maybe_committed() {
                    true => ListOutcome::Unknown,
                    false => ListOutcome::Refused,
                };
                self.end(index, outcome, None);
                if !error.is_retryable() {
                    pause().await;
                }
                // A conflict is no reason to wait: others have work to do as well.
                runtime::sleep(runtime::jitter(Duration::from_millis(5))).await;
            }
        }
        Ok(())
    }
}

impl State {
    fn draw_step(&mut self, settings: &ListAppendSettings) -> Step {
        while self.lists.len() < settings.lists.max(1) as usize {
            self.lists.push((self.lists_begun, 0));
            self.lists_begun += 1;
        }
        let position = draw(settings.lists) as usize;
        let list = self.lists[position].0;
        let kind = draw(8);
        match kind {
            0..=2 => return Step::Read { list },
            3 => {
                let numbers = self.lists.iter().map(|&(list, _)| list);
                let from = numbers.clone().min().unwrap_or(list);
                return Step::ReadRange { from, through: numbers.max().unwrap_or(list) };
            }
            _ => {}
        }
        self.elements += 1;
        let element = self.elements;
        self.lists[position].1 += 1;
        if self.lists[position].1 >= settings.appends_max {
            self.lists[position] = (self.lists_begun, 0);
            self.lists_begun += 1;
        }
        match kind {
            4 | 5 => Step::AppendByWriting { list, element },
            _ => Step::AppendBlindly { list, element },
        }
    }
}

impl Step {
    fn append(&self) -> Option<ListOperation> {
        match *self {
            Step::AppendByWriting { list, element } | Step::AppendBlindly { list, element } => {
                Some(ListOperation::Append { list, element })
            }
            Step::Read { .. } | Step::ReadRange { .. } => None,
        }
    }
}

/// One attempt, without anything that finds out what became of it.
async fn attempt(database: &Database, steps: &[Step]) -> Result<Vec<ListOperation>> {
    let transaction = database.transaction();
    let operations = perform(&transaction, steps).await?;
    transaction.commit().await?;
    Ok(operations)
}

/// Makes all steps, and says what was read.
async fn perform(transaction: &Transaction, steps: &[Step]) -> Result<Vec<ListOperation>> {
    let read = async |list| -> Result<Vec<u64>> {
        let value = transaction.get(list_key(list)).await?;
        value.map_or(Ok(Vec::new()), |value| decode(list, &value))
    };
    let mut operations = Vec::new();
    for step in steps {
        match *step {
            Step::Read { list } => {
                operations.push(ListOperation::Read { list, found: read(list).await? });
            }
            Step::ReadRange { from, through } => {
                operations.extend(read_range(transaction, from, through).await?);
            }
            Step::AppendByWriting { list, element } => {
                let found = read(list).await?;
                let all = found.iter().chain([&element]);
                let value: Vec<u8> = all.flat_map(|element| element.to_be_bytes()).collect();
                transaction.set(list_key(list), value)?;
                operations.push(ListOperation::Read { list, found });
            }
            Step::AppendBlindly { list, element } => {
                let operand = Value::from(&element.to_be_bytes());
                transaction.atomic(AtomicOp::AppendIfFits, list_key(list), operand)?;
            }
        }
        operations.extend(step.append());
    }
    Ok(operations)
}

/// Reads some lists at once. A list that is not there has no element.
async fn read_range(
    transaction: &Transaction,
    from: u32,
    through: u32,
) -> Result<Vec<ListOperation>> {
    let range = KeyRange::new(list_key(from), list_key(through + 1));
    let rows = transaction.get_range(range).await?;
    let mut lists = vec![Vec::new(); (through - from + 1) as usize];
    for row in rows {
        let list: u32 = super::bank::number(&row.key[NAME.len() + 1..])?;
        let found = list.checked_sub(from).and_then(|at| lists.get_mut(at as usize));
        *found.with_context(|| format!("list {list} is out of range (I-2)"))? =
            decode(list, &row.value)?;
    }
    Ok((from..).zip(lists).map(|(list, found)| ListOperation::Read { list, found }).collect())
}

impl Workload for ListAppend {
    fn name(&self) -> &str {
        NAME
    }

    fn cuts(&self) -> Vec<Key> {
        [2, 4, 8].map(list_key).to_vec()
    }

    fn clients(&self) -> u32 {
        self.settings.clients
    }

    fn set_up(&self, _client: Client) -> BoxFuture<'_, Result<()>> {
        self.elapsed();
        Box::pin(async { Ok(()) })
    }

    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let name = format!("c{}", client.number);
            let is_full = || self.state.lock().history.len() >= self.settings.transactions_max;
            while !client.is_stopped() && !is_full() {
                self.one(&client.database, &name).await?;
            }
            Ok(())
        })
    }

    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            let lists_begun = self.state.lock().lists_begun.max(1);
            let invoked = self.elapsed();
            let operations = patiently(&client.database, |transaction| async move {
                read_range(&transaction, 0, lists_begun - 1).await
            })
            .await?;
            let mut history = std::mem::take(&mut self.state.lock().history);
            history.push(ListTransaction {
                client: "conclusion".into(),
                number: history.len() as u64,
                invoked,
                responded: self.elapsed(),
                outcome: ListOutcome::Committed,
                operations,
            });
            let verdict = cycles::check(&history, Guarantees::STRICT)?;
            Ok(format!("{lists_begun} lists, {verdict:?}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_elements_of_eight_bytes() {
        let value = Value::from([1u64.to_be_bytes(), 513u64.to_be_bytes()].concat());
        assert_eq!(decode(0, &value).unwrap(), [1, 513]);
        decode(0, &Value::from("torn")).unwrap_err();
    }

    #[tokio::test]
    async fn elements_are_unique_and_lists_do_not_grow_for_ever() {
        let settings = ListAppendSettings::default();
        let mut state = State::default();
        let steps: Vec<Step> = (0..2_000).map(|_| state.draw_step(&settings)).collect();
        let mut appends = std::collections::BTreeMap::<u32, Vec<u64>>::new();
        for operation in steps.iter().filter_map(Step::append) {
            let ListOperation::Append { list, element } = operation else { continue };
            appends.entry(list).or_default().push(element);
        }
        assert!(appends.values().all(|elements| elements.len() <= 40));
        let mut all: Vec<u64> = appends.into_values().flatten().collect();
        all.sort_unstable();
        assert_eq!(all, (1..=state.elements).collect::<Vec<_>>());
    }
}
