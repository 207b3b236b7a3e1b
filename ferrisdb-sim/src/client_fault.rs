//! What happens to clients: they lose their way to a machine, stand still, and are killed.

use std::time::Duration;

use ferrisdb_core::runtime;
use madsim::runtime::Handle;

use crate::{
    fault::{Fault, unclog_all},
    world::{Worker, World},
};

/// What happens to a client, if there is one that it can happen to.
pub(crate) async fn happen(world: &World, fault: &Fault, lasts: Duration) {
    let (network, clocks) = (world.network(), world.clocks());
    let handle = Handle::current();
    let is_kill = matches!(fault, Fault::ClientKill(_));
    let (Fault::ClientCut(number, _)
    | Fault::ClientHeld(number, _)
    | Fault::ClientSlow(number, ..)
    | Fault::ClientPause(number)
    | Fault::ClientFreeze(number)
    | Fault::ClientKill(number)) = fault
    else {
        return;
    };
    let Some(Worker { ip, id, .. }) = world.worker_of(*number, is_kill) else { return };
    world.trace().note(format_args!("client ~{number} is the one at {ip}"));
    let lasting = || runtime::sleep(lasts);
    match fault {
        Fault::ClientCut(_, nodes) => {
            let nodes = world.ips_of(nodes);
            network.partition(&[vec![ip], nodes.clone()]);
            lasting().await;
            unclog_all(network, &[ip], &nodes);
        }
        Fault::ClientHeld(_, node) => {
            network.clog(ip, world.ip_of(node));
            lasting().await;
            network.unclog(ip, world.ip_of(node));
        }
        Fault::ClientSlow(_, node, factor) => {
            let ends = ([ip], [world.ip_of(node)]);
            for factor in [f64::from(*factor), 1.0] {
                network.slow(&ends.0, &ends.1, factor);
                network.slow(&ends.1, &ends.0, factor);
                if factor != 1.0 {
                    lasting().await;
                }
            }
        }
        Fault::ClientPause(_) => {
            handle.pause(id);
            lasting().await;
            handle.resume(id);
        }
        Fault::ClientFreeze(_) => {
            clocks.freeze(id);
            lasting().await;
            clocks.thaw(id);
        }
        _ => handle.kill(id),
    }
}
