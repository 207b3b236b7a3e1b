//! The bank: money moves between two accounts, and none is made or lost.

use std::sync::Arc;

use anyhow::ensure;
use ferrisdb_client::{Database, Result};
use futures::{future::BoxFuture, try_join};

use super::{Sizes, Totals, Workload};
use crate::{
    clients::Client,
    load,
    rows::{Rows, Table, counter},
    tally::Work,
};

/// What each account has at first.
pub(super) const FIRST_BALANCE: i64 = 1_000;

/// Transfers between accounts that are drawn alike.
pub(super) struct Transfer {
    accounts: u64,
    rows: Arc<Rows>,
}

impl Transfer {
    pub(super) fn new(sizes: &Sizes, rows: &Arc<Rows>) -> anyhow::Result<Transfer> {
        let accounts = sizes.accounts;
        ensure!(accounts >= 2, "--accounts {accounts}: a transfer takes two");
        Ok(Transfer { accounts, rows: Arc::clone(rows) })
    }
}

impl Workload for Transfer {
    fn operate<'a>(&'a self, client: &'a mut Client) -> BoxFuture<'a, Result<Work>> {
        Box::pin(async move {
            let from = client.random.below(self.accounts);
            let to = (from + 1 + client.random.below(self.accounts - 1)) % self.accounts;
            let amount = 1 + client.random.below(10) as i64;
            let [from, to] = &[from, to].map(|number| client.rows.key(Table::Accounts, number));
            let values = &[client.value(), client.value()];
            let expect = &client.expect_row();
            client
                .transact(|transaction| async move {
                    let (payer, payee) = try_join!(
                        expect.get(&transaction, from.clone()),
                        expect.get(&transaction, to.clone())
                    )?;
                    let [payer_value, payee_value] = values;
                    let balance = |value: &[u8], template: &[u8], change: i64| {
                        let mut value_after = template.to_vec();
                        let after = counter(value).wrapping_add(change).to_be_bytes();
                        value_after[..after.len()].copy_from_slice(&after);
                        value_after
                    };
                    transaction.set(from, balance(&payer, payer_value, -amount))?;
                    transaction.set(to, balance(&payee, payee_value, amount))
                })
                .await?;
            Ok(Work::rows(2, 2))
        })
    }

    fn check<'a>(
        &'a self,
        database: &'a Database,
        _totals: Totals,
    ) -> BoxFuture<'a, anyhow::Result<Option<String>>> {
        Box::pin(async move {
            let (mut accounts, mut sum) = (0_u64, 0_i64);
            load::for_each_row(database, self.rows.all(Table::Accounts), |row| {
                accounts += 1;
                sum = sum.wrapping_add(counter(&row.value));
            })
            .await?;
            let expected = self.accounts as i64 * FIRST_BALANCE;
            ensure!(
                (accounts, sum) == (self.accounts, expected),
                "{accounts} accounts hold {sum}: there must be {} with {expected}",
                self.accounts
            );
            Ok(Some(format!("{accounts} accounts still hold {sum}")))
        })
    }
}
