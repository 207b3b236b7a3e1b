//! temporary
use super::{Client, Workload, bank::*, recorded_bank::*};
use anyhow::Result;
use futures::future::BoxFuture;
use serde::Deserialize;

/// x
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum WorkloadSpec {
    /// b
    Bank,
    /// c
    RecordedBank,
}

impl WorkloadSpec {
    /// y
    pub fn build(&self) -> Box<dyn Workload> {
        match self {
            WorkloadSpec::Bank => {
                Box::new(B(Bank { accounts: 10, balance: 100 }, SharedJournal::default()))
            }
            WorkloadSpec::RecordedBank => Box::new(R(
                RecordedBank::new(Bank { accounts: 8, balance: 100 }),
                SharedJournal::default(),
            )),
        }
    }
}

struct B(Bank, SharedJournal);
struct R(RecordedBank, SharedJournal);
impl Workload for B {
    fn name(&self) -> &str {
        "bank"
    }
    fn cuts(&self) -> Vec<ferrisdb_core::Key> {
        (1..4).map(|i| format!("bank/account/{:04}", i * 3).into()).collect()
    }
    fn clients(&self) -> u32 {
        4
    }
    fn set_up(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.0.set_up(&client.database).await })
    }
    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let c = client.clone();
            if client.number == 0 {
                return self.0.watch_until(&client.database, &self.1, move || c.is_stopped()).await;
            }
            self.0
                .transfer_until(
                    &client.database,
                    &format!("c{}", client.number),
                    &self.1,
                    move || c.is_stopped(),
                    |e| client.note(e),
                )
                .await
        })
    }
    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            let j = std::mem::take(&mut *self.1.lock());
            Ok(format!("{:?}", self.0.check(&client.database, &j).await?))
        })
    }
}
impl Workload for R {
    fn name(&self) -> &str {
        "bank"
    }
    fn cuts(&self) -> Vec<ferrisdb_core::Key> {
        (1..4).map(|i| format!("bank/account/{:04}", i * 3).into()).collect()
    }
    fn clients(&self) -> u32 {
        6
    }
    fn set_up(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.0.set_up(&client.database).await })
    }
    fn run(&self, client: Client) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let c = client.clone();
            let n = format!("c{}", client.number);
            if client.number < 2 {
                return self
                    .0
                    .watch_until(&client.database, &n, &self.1, move || c.is_stopped())
                    .await;
            }
            self.0.transfer_until(&client.database, &n, &self.1, move || c.is_stopped()).await
        })
    }
    fn check(&self, client: Client) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            let (a, b) = self.0.check(&client.database, &self.1).await?;
            Ok(format!("{a:?} {b:?}"))
        })
    }
}
