//! The tasks behind watches: one for the handle, and one for each server that watches for it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use ferrisdb_core::{
    Error, ErrorCode, Result, Stage, Version,
    digest::ValueDigest,
    runtime::{self, TaskGroup},
    service::{
        Client,
        storage::{StorageService, WatchNews, WatchSessionId},
    },
    transport,
};
use futures::{StreamExt as _, stream::FuturesUnordered};

use super::{
    Shared,
    book::{Doubt, NewSession},
};
use crate::{cluster::Cluster, options::Priority};

/// How long a server waits for news before it says that there are none: then it is asked again. As long takes it to
/// notice that it cannot be reached any more.
const NEWS_WAIT: Duration = Duration::from_secs(5);
/// How much longer its answer may take.
const NEWS_GRACE: Duration = Duration::from_millis(1_500);
/// How long a server may take to begin and end watches.
const CHANGE_LIMIT: Duration = Duration::from_secs(2);
/// How many keys are read at once.
const LOOKS_MAX: usize = 1_000;
/// How long the first pause is until a change that a server has told of is committed, or not; doubles.
const COMMIT_PAUSE: Duration = Duration::from_millis(2);
/// How often that is waited for before the key is read all the same.
const COMMIT_PAUSES_MAX: u32 = 6;

/// Sees to all watches of a handle, for as long as it lives.
pub(super) async fn drive(shared: Arc<Shared>) {
    let sessions = TaskGroup::default();
    let mut looks = FuturesUnordered::new();
    let mut revision = 0;
    // Sessions of a driver before this one ended with it.
    shared.book.lock().on_all_sessions_failed(runtime::now());
    loop {
        let woken = shared.woken.notified();
        let due = begin_due(&shared, &sessions, &mut revision);
        let doubts = shared.book.lock().take_doubts(LOOKS_MAX - looks.len().min(LOOKS_MAX));
        for doubt in doubts {
            let cluster = Arc::clone(&shared.cluster);
            looks.push(async move {
                let found = look(&cluster, &doubt).await;
                (doubt.number, found)
            });
        }
        let is_due = async {
            match due {
                Some(due) => runtime::sleep(due.saturating_duration_since(runtime::now())).await,
                None => futures::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some((number, found)) = looks.next() => {
                let changed = shared.book.lock().on_looked(number, found, runtime::now());
                changed.into_iter().for_each(|signal| signal.give(Ok(())));
            }
            () = woken => {}
            () = shared.cluster.newer_locations(revision) => {}
            () = is_due => {}
        }
    }
}

/// Lets watches begin and move; returns when to come back at the latest.
fn begin_due(
    shared: &Arc<Shared>,
    sessions: &TaskGroup,
    revision: &mut u64,
) -> Option<runtime::Instant> {
    let locations = shared.cluster.known_locations();
    let now = runtime::now();
    let mut book = shared.book.lock();
    if let Some(locations) = &locations
        && locations.revision != *revision
    {
        *revision = locations.revision;
        book.on_locations(locations, now);
    }
    let in_order = |team: &[_]| shared.cluster.in_order(team);
    let new = book.begin_due(now, locations.as_deref(), in_order, runtime::random_u64);
    let due = book.next_due();
    drop(book);
    for session in new {
        sessions.spawn(hold(Arc::clone(shared), session));
    }
    due
}

/// What a key is at a version given out now: no earlier than the one at which a server has seen it change, if that
/// comes to be committed soon.
async fn look(cluster: &Cluster, doubt: &Doubt) -> Result<(Version, Option<ValueDigest>)> {
    let mut version = cluster.read_version(Priority::Default).await?;
    let mut pause = COMMIT_PAUSE;
    for _ in 0..COMMIT_PAUSES_MAX {
        if version >= doubt.changed_at {
            break;
        }
        runtime::sleep(runtime::jitter(pause)).await;
        pause *= 2;
        version = cluster.read_version(Priority::Default).await?;
    }
    let found = cluster.get(&doubt.key, version).await?;
    Ok((version, found.map(|found| ValueDigest::of(&found.value))))
}

/// Holds a session with a server, until it fails or is of no use any more.
async fn hold(shared: Arc<Shared>, session: NewSession) {
    if let Err(error) = converse(&shared, &session).await {
        tracing::debug!(%error, server = %session.server, "watches begin again");
        // A server that knows nothing of the session is well.
        if error.code() != ErrorCode::NoSuchEndpoint {
            shared.cluster.storage_failed(&session.server);
        }
        shared.book.lock().on_session_failed(session.id, runtime::now());
        let says_so = error.code() == ErrorCode::WrongCluster;
        if let Some(foreign) = shared.cluster.is_replaced(says_so) {
            // Wiped and made anew, it will never have those keys again.
            let waiting = shared.book.lock().fail_all();
            waiting.into_iter().for_each(|signal| signal.give(Err(foreign.clone())));
        }
        shared.woken.notify_one();
    }
}

async fn converse(shared: &Shared, session: &NewSession) -> Result<()> {
    let client = shared.cluster.storage(&session.server).await?;
    let mut asking = None;
    loop {
        loop {
            let Some(changes) = shared.book.lock().take_changes(session.id) else { break };
            transport::call(CHANGE_LIMIT, Stage::Read, |context| {
                client.change_watches(context, changes)
            })
            .await??;
        }
        if asking.is_none() {
            if shared.book.lock().end_if_empty(session.id) {
                return Ok(());
            }
            asking = Some(Box::pin(news(&shared.cluster, &client, session.id)));
        }
        let answer = async {
            match &mut asking {
                Some(asking) => asking.await,
                None => futures::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            news = answer => {
                asking = None;
                let news = news?;
                if !news.ended.is_empty() {
                    shared.book.lock().on_news(session.id, news.ended, runtime::now());
                    shared.woken.notify_one();
                }
            }
            () = session.changed.notified() => {}
        }
    }
}

/// The next news of a session.
///
/// # Errors
///
/// Those of the call, and [`ErrorCode::FutureVersion`] if there are none because the server lags behind.
async fn news(
    cluster: &Cluster,
    client: &Client<StorageService>,
    session: WatchSessionId,
) -> Result<WatchNews> {
    let wait_ms = NEWS_WAIT.as_millis() as u32;
    let asked = transport::call(NEWS_WAIT + NEWS_GRACE, Stage::Read, |context| {
        client.watch_news(context, session, wait_ms)
    });
    // Whoever hears of nothing should know that the server does: what was committed before it was asked, it must
    // have seen when it answers.
    let mut committed = None;
    let covered = async {
        committed = cluster.read_version(Priority::Default).await.ok();
        futures::future::pending::<Infallible>().await
    };
    let news = tokio::select! {
        biased;
        news = asked => news??,
        never = covered => match never {},
    };
    match committed {
        Some(version) if news.ended.is_empty() && news.applied_version < version => {
            let detail =
                format!("version {version} was committed, applied {}", news.applied_version);
            Err(Error::new(ErrorCode::FutureVersion, Stage::Read, detail))
        }
        _ => Ok(news),
    }
}
