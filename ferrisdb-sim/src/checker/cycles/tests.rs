//! Histories that must pass, and each anomaly planted into one.

use proptest::prelude::*;

use super::*;

/// Transaction n of client c, from begin to end.
fn transaction(
    client: &str,
    number: u64,
    times: (u64, u64),
    operations: Vec<ListOperation>,
) -> ListTransaction {
    ListTransaction {
        client: client.into(),
        number,
        invoked: Duration::from_millis(times.0),
        responded: Duration::from_millis(times.1),
        outcome: ListOutcome::Committed,
        operations,
    }
}

fn append(list: u32, element: u64) -> ListOperation {
    ListOperation::Append { list, element }
}

fn read(list: u32, found: &[u64]) -> ListOperation {
    ListOperation::Read { list, found: found.to_vec() }
}

/// All at once, so that real time says nothing.
fn concurrent(operations: Vec<Vec<ListOperation>>) -> Vec<ListTransaction> {
    let numbered = (1..).zip(operations);
    numbered
        .map(|(number, operations)| {
            transaction(&format!("c{number}"), number, (0, 100), operations)
        })
        .collect()
}

/// One after the other.
fn sequential(operations: Vec<Vec<ListOperation>>) -> Vec<ListTransaction> {
    let mut history = concurrent(operations);
    for (position, transaction) in (0u32..).zip(&mut history) {
        transaction.invoked = Duration::from_millis(10) * position;
        transaction.responded = transaction.invoked + Duration::from_millis(5);
    }
    history
}

fn anomaly(history: &[ListTransaction]) -> Anomaly {
    *check(history, Guarantees::STRICT).expect_err("the anomaly has to be found")
}

#[track_caller]
fn assert_anomaly(history: &[ListTransaction], name: &str, invariant: &str) {
    let found = anomaly(history);
    assert_eq!((found.name.as_str(), found.invariant), (name, invariant), "{found}");
}

#[test]
fn what_happened_one_after_the_other_passes() {
    let history = sequential(vec![
        vec![read(1, &[]), append(1, 5), read(1, &[5])],
        vec![append(1, 6), append(2, 7)],
        vec![read(1, &[5, 6]), read(2, &[7]), append(1, 8)],
        vec![read(1, &[5, 6, 8]), read(3, &[])],
    ]);
    let verdict = check(&history, Guarantees::STRICT).unwrap();
    assert_eq!((verdict.committed, verdict.elements, verdict.reads), (4, 4, 6));
    // In any order that the data allows, too, when all is concurrent.
    let mut shuffled = concurrent(history.iter().map(|t| t.operations.clone()).collect());
    shuffled.reverse();
    check(&shuffled, Guarantees::STRICT).unwrap();
}

#[test]
fn unknown_fates_pass_either_way() {
    let mut history = sequential(vec![
        vec![append(1, 5)],
        vec![append(1, 6)],
        vec![read(1, &[5, 6])],
        vec![append(1, 7), append(2, 8)],
        vec![read(1, &[5, 6]), read(2, &[])],
        vec![read(1, &[5, 6, 7]), read(2, &[8])],
    ]);
    // 6 was seen; 7 and 8 took effect long after their client gave up waiting.
    history[1].outcome = ListOutcome::Unknown;
    history[3].outcome = ListOutcome::Unknown;
    let verdict = check(&history, Guarantees::STRICT).unwrap();
    assert_eq!((verdict.unknown, verdict.unknown_effective), (2, 2));
    history.pop();
    let verdict = check(&history, Guarantees::STRICT).unwrap();
    assert_eq!((verdict.unknown, verdict.unknown_effective), (2, 1));
    history[1].outcome = ListOutcome::Refused;
    history[2].operations = vec![read(1, &[5])];
    history[4].operations = vec![read(1, &[5]), read(2, &[])];
    assert_eq!(check(&history, Guarantees::STRICT).unwrap().refused, 1);
}

#[test]
fn what_one_of_unknown_fate_has_read_counts_if_it_took_effect() {
    let mut history = concurrent(vec![
        vec![append(1, 5)],
        vec![read(1, &[5]), append(2, 6), read(2, &[6])],
        vec![read(2, &[6])],
        vec![read(1, &[])],
    ]);
    history[0].outcome = ListOutcome::Unknown;
    history[1].outcome = ListOutcome::Unknown;
    assert_eq!(check(&history, Guarantees::STRICT).unwrap().unknown_effective, 2);
    history[3].operations.push(read(2, &[6]));
    assert_anomaly(&history, "G-single", "I-4");
}

#[test]
fn an_acknowledged_append_may_not_be_lost() {
    let history = sequential(vec![vec![append(1, 5)], vec![append(1, 6)], vec![read(1, &[5])]]);
    let found = anomaly(&history);
    assert_eq!((found.name.as_str(), found.invariant), ("lost", "I-5"));
    assert!(found.to_string().contains("6 was acknowledged and is not in list 1"), "{found}");
    assert!(found.to_string().contains("c3#3 committed 20ms..25ms: read 1: [5]"), "{found}");
    // Nobody has looked later: it may come.
    check(&concurrent(history.into_iter().map(|t| t.operations).collect()), Guarantees::STRICT)
        .unwrap();
}

#[test]
fn refused_transactions_leave_nothing() {
    let mut history = sequential(vec![vec![append(1, 5)], vec![read(1, &[5])]]);
    history[0].outcome = ListOutcome::Refused;
    assert_anomaly(&history, "G1a", "I-6");
}

#[test]
fn no_list_is_seen_in_the_middle_of_a_transaction() {
    let history = concurrent(vec![
        vec![append(1, 5), append(1, 6)],
        vec![read(1, &[5])],
        vec![read(1, &[5, 6])],
    ]);
    assert_anomaly(&history, "G1b", "I-2");
}

#[test]
fn elements_come_from_somebody_and_once() {
    let garbage = concurrent(vec![vec![append(1, 5)], vec![read(1, &[5, 9])]]);
    assert_anomaly(&garbage, "garbage", "I-2");
    let elsewhere = concurrent(vec![vec![append(1, 5)], vec![read(2, &[5])]]);
    assert_anomaly(&elsewhere, "garbage", "I-2");
    let twice = concurrent(vec![vec![append(1, 5)], vec![read(1, &[5, 5])]]);
    assert_anomaly(&twice, "duplicate", "I-6");
}

#[test]
fn a_transaction_sees_its_own_appends_and_nothing_else_change() {
    let forgotten = concurrent(vec![vec![append(1, 5), read(1, &[])]]);
    assert_anomaly(&forgotten, "internal", "I-2");
    let future = concurrent(vec![vec![read(1, &[5]), append(1, 5)]]);
    assert_anomaly(&future, "internal", "I-2");
    let moving = concurrent(vec![vec![append(1, 5)], vec![read(1, &[]), read(1, &[5])]]);
    assert_anomaly(&moving, "internal", "I-2");
}

#[test]
fn all_readers_see_one_order() {
    let swapped = concurrent(vec![
        vec![append(1, 5)],
        vec![append(1, 6)],
        vec![read(1, &[5, 6])],
        vec![read(1, &[6])],
    ]);
    assert_anomaly(&swapped, "incompatible-order", "I-2");
    let within = concurrent(vec![
        vec![append(1, 5), append(1, 6)],
        vec![append(1, 7)],
        vec![read(1, &[6, 5, 7])],
    ]);
    assert_anomaly(&within, "incompatible-order", "I-2");
}

#[test]
fn dirty_writes_are_cycles_of_writes() {
    let history = concurrent(vec![
        vec![append(1, 5), append(2, 7)],
        vec![append(1, 6), append(2, 8)],
        vec![read(1, &[5, 6])],
        vec![read(2, &[8, 7])],
    ]);
    assert_anomaly(&history, "G0", "I-4");
    // Between two appends of one transaction.
    let torn = concurrent(vec![
        vec![append(1, 5), append(1, 6)],
        vec![append(1, 7)],
        vec![read(1, &[5, 7, 6])],
    ]);
    assert_anomaly(&torn, "G0", "I-4");
}

#[test]
fn circular_information_is_found() {
    let history =
        concurrent(vec![vec![append(1, 5), read(2, &[6])], vec![append(2, 6), read(1, &[5])]]);
    assert_anomaly(&history, "G1c", "I-4");
}

#[test]
fn lost_updates_and_skewed_reads_have_one_rw() {
    let lost_update = concurrent(vec![
        vec![read(3, &[]), append(3, 5)],
        vec![read(3, &[]), append(3, 6)],
        vec![read(3, &[5, 6])],
    ]);
    let found = anomaly(&lost_update);
    assert_eq!((found.name.as_str(), found.invariant), ("G-single", "I-4"));
    assert_eq!(
        found.to_string(),
        "I-4 is broken: G-single\n  \
         c2#2 -> c1#1 (rw): c2#2 has read list 3 without 5, which c1#1 appended\n  \
         c1#1 -> c2#2 (ww): in list 3 its 6 stands behind what c1#1 appended\n  \
         c2#2 committed 0ns..100ms: read 3: []; append 3 <- 6\n  \
         c1#1 committed 0ns..100ms: read 3: []; append 3 <- 5"
    );
    let read_skew = concurrent(vec![
        vec![append(1, 5), append(2, 6)],
        vec![read(1, &[5]), read(2, &[])],
        vec![read(2, &[6])],
    ]);
    assert_anomaly(&read_skew, "G-single", "I-4");
    // Also if nobody ever saw the other half.
    assert_anomaly(&read_skew[..2], "G-single", "I-4");
}

#[test]
fn write_skew_has_two_rw() {
    let history = concurrent(vec![
        vec![read(1, &[]), read(2, &[]), append(1, 5)],
        vec![read(1, &[]), read(2, &[]), append(2, 6)],
        vec![read(1, &[5]), read(2, &[6])],
    ]);
    assert_anomaly(&history, "G2", "I-4");
}

#[test]
fn stale_reads_are_cycles_with_real_time() {
    let mut history = sequential(vec![
        vec![append(1, 5)],
        vec![append(1, 6)],
        vec![read(1, &[5, 6])],
        vec![read(1, &[5])],
    ]);
    assert_anomaly(&history, "G-single-realtime", "I-1");
    check(&history, Guarantees::SERIALIZABLE).unwrap();
    // For one client it breaks the session as well.
    history.iter_mut().for_each(|transaction| transaction.client = "c1".into());
    let sessions = Guarantees { real_time: false, sessions: true };
    assert_eq!(check(&history, sessions).unwrap_err().name, "G-single-session");
    // Whoever began before the answer may miss it.
    history[3].invoked = Duration::from_millis(14);
    check(&history, Guarantees::STRICT).unwrap();
}

#[test]
fn reads_of_the_future_are_cycles_with_real_time() {
    let history = sequential(vec![vec![read(1, &[5])], vec![append(1, 5)]]);
    assert_anomaly(&history, "G1c-realtime", "I-1");
    let order = sequential(vec![vec![append(1, 5)], vec![append(1, 6)], vec![read(1, &[6, 5])]]);
    assert_anomaly(&order, "G0-realtime", "I-1");
}

#[test]
fn real_time_is_known_over_many_transactions() {
    // A long one beside many short ones: what ended before it began is still before what follows.
    let mut steps = vec![vec![append(1, 5)], vec![append(2, 6)]];
    steps.extend((0..50).map(|_| vec![read(2, &[6])]));
    steps.push(vec![read(1, &[])]);
    let mut history = sequential(steps);
    history[1].responded = Duration::from_secs(10);
    history.push(transaction("late", 99, (20_000, 20_001), vec![read(1, &[5])]));
    assert_anomaly(&history, "G-single-realtime", "I-1");
}

#[test]
fn a_long_history_takes_no_deep_recursion() {
    // On a stack that has no room for a call for each transaction.
    let check = std::thread::Builder::new().stack_size(192 << 10).spawn(check_a_long_history);
    check.unwrap().join().unwrap();
}

fn check_a_long_history() {
    let length = 5_000;
    let steps = (0..length).map(|element| {
        let list = u32::try_from(element / 50).unwrap();
        let before: Vec<u64> = (element / 50 * 50..element).collect();
        vec![read(list, &before), append(list, element)]
    });
    let mut history = sequential(steps.collect());
    let verdict = check(&history, Guarantees::STRICT).unwrap();
    assert_eq!(verdict.committed, 5_000);
    // The first reads what the last appends.
    history[0].operations.insert(0, read(99, &(4_950..5_000).collect::<Vec<_>>()));
    assert_anomaly(&history, "G1c-realtime", "I-1");
}

/// What a serial database does with some steps.
#[derive(Clone, Debug)]
struct Step {
    client: u8,
    accesses: Vec<(u32, u8)>,
    outcome: u8,
    overlap: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let accesses = prop::collection::vec((0u32..4, 0u8..3), 1..5);
    let step = (0u8..4, accesses, 0u8..10, any::<bool>()).prop_map(
        |(client, accesses, outcome, overlap)| Step { client, accesses, outcome, overlap },
    );
    prop::collection::vec(step, 1..60)
}

fn run(steps: &[Step]) -> Vec<ListTransaction> {
    let mut lists: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let mut history = Vec::new();
    let mut element = 0;
    for (position, step) in (1u64..).zip(steps) {
        let mut inside = lists.clone();
        let operations = step.accesses.iter().map(|&(list, access)| {
            let present = inside.entry(list).or_default();
            if access == 0 {
                return read(list, present);
            }
            element += 1;
            present.push(element);
            append(list, element)
        });
        let operations: Vec<_> = operations.collect();
        let begin = position * 10 - if step.overlap { 9 } else { 0 };
        let client = format!("c{}", step.client);
        let mut done = transaction(&client, position, (begin, position * 10 + 5), operations);
        match step.outcome {
            0 => done.outcome = ListOutcome::Refused,
            1 => done.outcome = ListOutcome::Unknown,
            2 => {
                done.outcome = ListOutcome::Unknown;
                lists = inside;
            }
            _ => lists = inside,
        }
        history.push(done);
    }
    let all = (0..4).map(|list| read(list, lists.get(&list).map_or(&[], Vec::as_slice)));
    let end = steps.len() as u64 * 10 + 100;
    history.push(transaction("end", 0, (end, end + 1), all.collect()));
    history
}

fn appended(transaction: &ListTransaction) -> Vec<u64> {
    let element = |operation: &ListOperation| match operation {
        ListOperation::Append { element, .. } => Some(*element),
        ListOperation::Read { .. } => None,
    };
    transaction.operations.iter().filter_map(element).collect()
}

/// The reads of acknowledged transactions that have found something.
fn reads(history: &mut [ListTransaction]) -> Vec<&mut Vec<u64>> {
    let committed =
        history.iter_mut().filter(|transaction| transaction.outcome == ListOutcome::Committed);
    let operations = committed.flat_map(|transaction| &mut transaction.operations);
    operations
        .filter_map(|operation| match operation {
            ListOperation::Read { found, .. } if !found.is_empty() => Some(found),
            _ => None,
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_a_serial_database_does_passes(steps in steps()) {
        let history = run(&steps);
        if let Err(anomaly) = check(&history, Guarantees { real_time: true, sessions: true }) {
            panic!("{anomaly}\n{history:#?}");
        }
    }

    #[test]
    fn nothing_acknowledged_can_be_missing(steps in steps(), choice in any::<usize>()) {
        let mut history = run(&steps);
        let committed = history.iter().filter(|t| t.outcome == ListOutcome::Committed);
        let elements: Vec<u64> = committed.flat_map(appended).collect();
        if let Some(index) = choice.checked_rem(elements.len()) {
            // From all reads but the writer's own.
            let element = elements[index];
            for transaction in &mut history {
                let is_writer = appended(transaction).contains(&element);
                for operation in &mut transaction.operations {
                    if let ListOperation::Read { found, .. } = operation && !is_writer {
                        found.retain(|&other| other != element);
                    }
                }
            }
            prop_assert!(check(&history, Guarantees::STRICT).is_err());
        }
    }

    #[test]
    fn no_reader_can_be_shown_less_than_was_acknowledged(
        steps in steps(),
        choice in any::<usize>(),
    ) {
        // One after the other, so that every reader has to see all that came before.
        let certain = |step: Step| Step { outcome: 9, overlap: false, ..step };
        let mut history = run(&steps.into_iter().map(certain).collect::<Vec<_>>());
        let mut reads = reads(&mut history);
        if let Some(index) = choice.checked_rem(reads.len()) {
            reads[index].pop();
            prop_assert!(check(&history, Guarantees::STRICT).is_err());
        }
    }

    #[test]
    fn no_two_elements_can_change_places(steps in steps(), choice in any::<usize>()) {
        let certain = |step: Step| Step { outcome: 9, overlap: false, ..step };
        let mut history = run(&steps.into_iter().map(certain).collect::<Vec<_>>());
        let mut reads: Vec<_> = reads(&mut history).into_iter().filter(|r| r.len() > 1).collect();
        if let Some(index) = choice.checked_rem(reads.len()) {
            let at = choice % (reads[index].len() - 1);
            reads[index].swap(at, at + 1);
            prop_assert!(check(&history, Guarantees::STRICT).is_err());
        }
    }

    #[test]
    fn no_element_can_appear_twice(steps in steps(), choice in any::<usize>()) {
        let mut history = run(&steps);
        let mut reads = reads(&mut history);
        if let Some(index) = choice.checked_rem(reads.len()) {
            let element = reads[index][choice % reads[index].len()];
            reads[index].push(element);
            prop_assert!(check(&history, Guarantees::STRICT).is_err());
        }
    }

    #[test]
    fn no_element_of_a_refused_transaction_can_be_read(steps in steps(), choice in any::<usize>()) {
        let mut history = run(&steps);
        let refused: Vec<(u32, u64)> = history
            .iter()
            .filter(|transaction| transaction.outcome == ListOutcome::Refused)
            .flat_map(|transaction| &transaction.operations)
            .filter_map(|operation| match operation {
                ListOperation::Append { list, element } => Some((*list, *element)),
                ListOperation::Read { .. } => None,
            })
            .collect();
        if let Some(index) = choice.checked_rem(refused.len()) {
            let (list, element) = refused[index];
            let last = history.last_mut().unwrap();
            let ListOperation::Read { found, .. } = &mut last.operations[list as usize] else {
                panic!("the last transaction reads all lists")
            };
            found.push(element);
            prop_assert!(check(&history, Guarantees::STRICT).is_err());
        }
    }
}
