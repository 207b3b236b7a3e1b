//! An application of FerrisDB, tested in the simulation: a shop that must not sell what it does not have.
//!
//! The code under test knows nothing of a simulation: it is given a [`Database`], as in production.

#![cfg(madsim)]

use anyhow::{Result, ensure};
use ferrisdb_client::{Database, Error};
use ferrisdb_core::KeyRange;
use ferrisdb_sim::testing::Simulation;

const STOCK: u32 = 40;
const CUSTOMERS: u32 = 3;

/// Sells one item to a customer, if there is one left. Returns whether it did.
async fn buy(database: &Database, customer: u32, order: u32) -> Result<bool, Error> {
    database
        .run_transaction(|transaction| async move {
            let stock = transaction.get("shop/stock").await?;
            let stock: u32 =
                stock.and_then(|text| String::from_utf8_lossy(&text).parse().ok()).unwrap_or(0);
            if stock == 0 {
                return Ok(false);
            }
            transaction.set("shop/stock", (stock - 1).to_string())?;
            transaction.set(format!("shop/order/{customer}/{order:04}"), "1 item")?;
            Ok(true)
        })
        .await
}

#[test]
fn nothing_is_sold_twice() {
    Simulation::new("nothing_is_sold_twice").seeds(0..5).run(|world| async move {
        world
            .client(|database| async move {
                database
                    .run_transaction(
                        |shop| async move { shop.set("shop/stock", STOCK.to_string()) },
                    )
                    .await
            })
            .await?;
        let customers = (0..CUSTOMERS).map(|customer| {
            world.client(move |database| async move {
                let mut bought = 0;
                while buy(&database, customer, bought).await? {
                    bought += 1;
                }
                Ok::<u32, Error>(bought)
            })
        });
        let bought: u32 = futures::future::try_join_all(customers).await?.iter().sum();
        ensure!(bought == STOCK, "{bought} items were sold, there were {STOCK}");
        let orders = world.client(|database| async move {
            database.transaction().get_range(KeyRange::prefix(b"shop/order/")).await
        });
        let orders = orders.await?.len();
        ensure!(orders == STOCK as usize, "{orders} orders of {STOCK} items");
        Ok(())
    });
}

#[test]
fn a_mistake_of_the_application_is_found() {
    let test = Simulation::new("a_mistake_of_the_application_is_found").seeds(0..1);
    let found = std::panic::catch_unwind(|| {
        test.run(|_| async move {
            ensure!(2 + 2 == 5, "sums are wrong");
            Ok(())
        });
    });
    // Within the run of one seed this is where it fails; around it, the seed is named.
    let said = found.expect_err("a body that fails makes the test fail");
    let said = said.downcast_ref::<String>().cloned().unwrap_or_default();
    if std::env::var("FERRISDB_SIM_SEED").is_ok() {
        assert!(said.contains("sums are wrong"), "{said}");
        std::process::exit(101);
    }
    assert!(said.contains("fails with seed 0"), "{said}");
}
