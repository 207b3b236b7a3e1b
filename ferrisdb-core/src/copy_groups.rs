//! Which logs of a set have to answer: the arithmetic that recoveries, proxies and status share.
//!
//! ```text
//!   the ring        a1 b1 a2 b2          two copies, zones a and b
//!   copy groups     a1 b1 | b1 a2 | a2 b2 | b2 a1      k neighbours in the ring, in k zones; a tag has one of them
//!
//!   locked a1 a2    every group has a member among them: nobody else need answer     has_member_of_each
//!   confirmed a1 a2 no group is whole: they may all be locked that a recovery needs   has_whole_group
//!   confirmed a1 b1 one is: whatever a recovery locks, it meets a1 or b1
//! ```
//!
//! Counting members instead of groups is wrong in both directions: three of four locks are more than a recovery needs and more than
//! the loss of a zone leaves, and two of four confirmations may leave a recovery all that it needs. With a log in each
//! zone the two agree: of L logs with k copies L-k+1 locks suffice, and k confirmations that are neighbours.

/// The copy groups of a set of logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyGroups {
    logs: usize,
    copies: usize,
}

impl CopyGroups {
    /// The groups of so many logs, with so many copies of each message.
    pub fn new(logs: usize, copies: u32) -> CopyGroups {
        CopyGroups { logs, copies: (copies as usize).clamp(usize::from(logs > 0), logs) }
    }

    /// How many logs there are; there are as many groups.
    pub fn count(self) -> usize {
        self.logs
    }

    /// How many logs a group has.
    pub fn copies(self) -> usize {
        self.copies
    }

    /// The indexes of a group's logs. Groups are numbered like their first log; numbers past the last begin anew.
    pub fn members(self, group: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.copies).map(move |copy| (group + copy) % self.logs)
    }

    /// A group without any log of which `is_there` holds.
    pub fn without_member(self, is_there: impl Fn(usize) -> bool) -> Option<usize> {
        (0..self.logs).find(|group| !self.members(*group).any(&is_there))
    }

    /// Whether each group has a log of which `is_there` holds: then these have all messages together, and when they are
    /// locked no group can confirm.
    pub fn has_member_of_each(self, is_there: impl Fn(usize) -> bool) -> bool {
        self.logs > 0 && self.without_member(is_there).is_none()
    }

    /// Whether `is_there` holds of all logs of some group: then no recovery can have locked all that it needs.
    pub fn has_whole_group(self, is_there: impl Fn(usize) -> bool) -> bool {
        (0..self.logs).any(|group| self.members(group).all(&is_there))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(bits: u32) -> impl Fn(usize) -> bool {
        move |index| bits & (1 << index) != 0
    }

    #[test]
    fn enough_locks_and_enough_confirmations_always_share_a_log() {
        for logs in 1..=7 {
            for copies in 1..=logs {
                let groups = CopyGroups::new(logs, copies as u32);
                for locked in 0..1u32 << logs {
                    let others = !locked & ((1 << logs) - 1);
                    // Exactly one of the two: neither side waits for more than it needs.
                    assert_ne!(
                        groups.has_member_of_each(has(locked)),
                        groups.has_whole_group(has(others)),
                        "{groups:?}: locked {locked:b}"
                    );
                    let most = logs - copies < locked.count_ones() as usize;
                    assert!(!most || groups.has_member_of_each(has(locked)), "L-k+1 are enough");
                }
            }
        }
    }

    #[test]
    fn two_logs_of_one_zone_are_enough_to_lock_and_too_few_to_confirm() {
        // a1 b1 a2 b2
        let groups = CopyGroups::new(4, 2);
        let (zone_a, zone_b) = (0b0101, 0b1010);
        for zone in [zone_a, zone_b] {
            assert!(groups.has_member_of_each(has(zone)));
            assert!(!groups.has_whole_group(has(zone)));
        }
        assert!(!groups.has_member_of_each(has(0b0011)) && groups.has_whole_group(has(0b0011)));
        assert_eq!(groups.without_member(has(0b0011)), Some(2));
        assert_eq!(groups.members(3).collect::<Vec<_>>(), [3, 0]);
    }

    #[test]
    fn no_logs_are_never_enough() {
        let none = CopyGroups::new(0, 2);
        assert!(!none.has_member_of_each(|_| true) && !none.has_whole_group(|_| true));
        assert_eq!(CopyGroups::new(2, 0).copies(), 1);
    }
}
