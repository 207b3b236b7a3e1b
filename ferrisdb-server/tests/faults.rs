//! Real processes under faults: killed, stopped, cut off. Clients keep working, and what they saw is in order.

#![cfg(not(madsim))]
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "clients of real processes run on tokio itself")]

mod support;

use support::{
    cluster::Shape,
    relay::AfterHeal,
    scene::{Cast, OUTAGE, Scene, redundant},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_each_role_is_killed_under_recorded_load() {
    let mut scene = Scene::begin(&redundant()).await;
    let cast = scene.cast().await;
    let logs = scene.cast().await.logs;
    for name in ["storage-0", &logs[0], &cast.sequencer, &cast.proxy, &cast.follower, &cast.leader]
    {
        scene.kill_and_restart(name).await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_each_role_is_stopped_under_recorded_load() {
    let mut scene = Scene::begin(&redundant()).await;
    scene.stop_and_resume("storage-1").await;
    for role in 0..5 {
        let cast = scene.cast().await;
        let victims = [&cast.logs[1], &cast.sequencer, &cast.proxy, &cast.follower, &cast.leader];
        scene.stop_and_resume(victims[role]).await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_each_role_is_isolated_under_recorded_load() {
    let mut scene = Scene::begin(&redundant()).await;
    scene.isolate("storage-1").await;
    for role in 0..5 {
        let cast = scene.cast().await;
        let victims = [&cast.logs[1], &cast.sequencer, &cast.proxy, &cast.follower, &cast.leader];
        scene.isolate(victims[role]).await;
        scene.cluster.relays().set_after_heal(AfterHeal::Break);
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_fail_under_recorded_load_also_in_one_direction_only() {
    let mut scene = Scene::begin(&redundant()).await;
    for direction in 0..3 {
        let Cast { sequencer, logs, proxy, .. } = scene.cast().await;
        // A generation that began while a log could not be reached does without it.
        let log = logs.last().unwrap();
        let what = ["both directions between", "the way to", "the way back from"][direction];
        let what = format!("cut of {what} {proxy} and {log} (sequencer {sequencer})");
        scene
            .cut_and_heal(&what, |relays| match direction {
                0 => relays.cut(&proxy, log),
                1 => relays.cut_one_way(&proxy, log),
                // What is acknowledged is not heard of: the batch is durable there, and nobody knows.
                _ => relays.cut_one_way(log, &proxy),
            })
            .await;
    }
    let Cast { leader, logs, .. } = scene.cast().await;
    let what = format!("cut of the way from {leader}, which leads, to {}", logs[0]);
    scene.cut_and_heal(&what, |relays| relays.cut_one_way(&leader, &logs[0])).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_fail_at_once_under_recorded_load() {
    let mut scene = Scene::begin(&redundant()).await;
    for pair in 0..4 {
        let cast = scene.cast().await;
        let storage = "storage-2".to_owned();
        let pairs = [
            [&cast.leader, &cast.logs[0]],
            [&cast.leader, &cast.sequencer],
            [&cast.logs[1], &cast.proxy],
            [&cast.sequencer, &storage],
        ];
        let [one, other] = pairs[pair];
        let both = [one.clone(), other.clone()];
        let what = format!("SIGKILL of {one} and {other}");
        scene
            .fault(
                &what,
                |cluster| both.iter().for_each(|name| cluster.kill(name)),
                OUTAGE,
                |cluster| both.iter().for_each(|name| cluster.restart(name)),
            )
            .await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_has_space_again_and_nobody_restarts_anything() {
    let shape = Shape { disks_can_fill: true, ..redundant() };
    let mut scene = Scene::begin(&shape).await;
    scene.fill_and_free_disk("storage-1").await;
    let cast = scene.cast().await;
    scene.fill_and_free_disk(&cast.logs[1]).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_a_process_of_each_role_refuses_writes_under_recorded_load() {
    let mut scene = Scene::begin(&redundant()).await;
    scene.refuse_writes("storage-1").await;
    for role in 0..3 {
        let cast = scene.cast().await;
        let victims = [&cast.logs[1], &cast.follower, &cast.leader];
        scene.refuse_writes(victims[role]).await;
    }
    scene.end().await;
}
