//! The roles of one generation that this process hosts: made, offered, and ended together.

use std::sync::Arc;

use ferrisdb_core::{
    Endpoint, Error, ErrorCode, Generation, Key, KeyRange, Result, Stage, handler,
    id::Address,
    limits,
    metrics::{MetricSet, Registration},
    runtime,
    service::{
        Service, ServiceKind,
        log::LogService,
        proxy::ProxyService,
        resolver::ResolverService,
        sequencer::SequencerService,
        worker::{RecruitProxy, RecruitResolver, RecruitSequencer},
    },
    transport::{Handler, Network, Router},
};
use parking_lot::Mutex;

use super::{
    failure::Failure,
    proxy::{ProxyMembers, ProxyServer, ProxySettings, Ways, link::Link, routing::Routing},
    resolver::{ResolverServer, ResolverSettings},
    sequencer::{Sequencer, SequencerServer},
};

/// How a coordinator works.
#[derive(Clone, Debug)]
pub struct CoordinatorSettings {
    /// For each proxy.
    pub proxy: ProxySettings,
    /// For each resolver.
    pub resolver: ResolverSettings,
    /// How far versions may be ahead of the newest committed one.
    pub versions_ahead_max: u64,
}

impl Default for CoordinatorSettings {
    fn default() -> CoordinatorSettings {
        CoordinatorSettings {
            proxy: ProxySettings::default(),
            resolver: ResolverSettings::default(),
            versions_ahead_max: limits::VERSIONS_AHEAD_MAX,
        }
    }
}

/// Sequencer, resolvers and proxies of one generation, as far as they are in this process. Dropping it ends them.
pub struct Coordinator {
    generation: Generation,
    address: Address,
    network: Network,
    router: Router,
    settings: CoordinatorSettings,
    failure: Failure,
    hosted: Mutex<Hosted>,
}

#[derive(Default)]
struct Hosted {
    proxies: Vec<ProxyServer>,
    offered: Vec<(ServiceKind, u64)>,
    metrics: Vec<Registration>,
}

impl Coordinator {
    /// Nothing yet, for a process that offers its roles on `router`, reached at `address`.
    pub fn new(
        generation: Generation,
        address: Address,
        network: Network,
        router: Router,
        settings: CoordinatorSettings,
    ) -> Coordinator {
        let (failure, hosted) = (Failure::default(), Mutex::default());
        Coordinator { generation, address, network, router, settings, failure, hosted }
    }

    /// Hosts the sequencer.
    pub fn host_sequencer(&self, request: &RecruitSequencer) -> Endpoint {
        let (generation, first_version) = (self.generation, request.first_version);
        let recovery_version = request.recruitment.recovery_version;
        let ahead_max = self.settings.versions_ahead_max;
        let machine = Sequencer::new(generation, recovery_version, first_version, ahead_max);
        tracing::info!(%generation, %recovery_version, %first_version, "hosting the sequencer");
        let server = SequencerServer::new(machine);
        self.measure(None, server.metrics());
        self.offer::<SequencerService>(handler!(
            ferrisdb_core::service::sequencer::Sequencer,
            server
        ))
    }

    /// Hosts a resolver.
    pub fn host_resolver(&self, request: &RecruitResolver) -> Endpoint {
        let recovery_version = request.recruitment.recovery_version;
        let (proxies, settings) = (request.proxies, self.settings.resolver);
        let server =
            ResolverServer::with_settings(self.generation, recovery_version, proxies, settings);
        self.measure(Some(request.index), server.metrics());
        self.offer::<ResolverService>(handler!(ferrisdb_core::service::resolver::Resolver, server))
    }

    /// Hosts a proxy. The first one opens the generation with an empty commit.
    ///
    /// # Errors
    ///
    /// If a member cannot be reached or refuses.
    pub async fn host_proxy(&self, request: RecruitProxy) -> Result<Endpoint> {
        let number = request.number;
        let members = self.connect(request).await?;
        let settings = self.settings.proxy.clone();
        let proxy = ProxyServer::start(members, settings, self.failure.clone()).await?;
        self.measure(Some(number), proxy.metrics());
        let server = proxy.clone();
        self.hosted.lock().proxies.push(proxy);
        Ok(self.offer::<ProxyService>(handler!(ferrisdb_core::service::proxy::Proxy, server)))
    }

    /// Shows a role's metrics as long as the generation is hosted.
    fn measure(&self, number: Option<u32>, metrics: Arc<dyn MetricSet>) {
        let number = number.map(|number| ("number", number.to_string()));
        let generation = ("generation", self.generation.to_string());
        let labels: Vec<_> = [generation].into_iter().chain(number).collect();
        let registration = self.router.metrics().register(&labels, metrics);
        self.hosted.lock().metrics.push(registration);
    }

    fn offer<S: Service>(&self, handler: Handler<S>) -> Endpoint {
        let instance = runtime::random_u64() | 1;
        self.router.add::<S>(instance, handler);
        self.hosted.lock().offered.push((S::KIND, instance));
        Endpoint { address: self.address.clone(), instance }
    }

    /// The connections of one proxy.
    async fn connect(&self, request: RecruitProxy) -> Result<ProxyMembers> {
        let sequencer = self.connect_to::<SequencerService>(&request.sequencer);
        let resolvers = request.resolvers.iter().map(|(keys, endpoint)| async move {
            let ways = self.connect_twice::<ResolverService>(endpoint).await?;
            Ok::<_, Error>((keys.clone(), ways))
        });
        let logs =
            request.log_set.logs.iter().map(|log| self.connect_twice::<LogService>(&log.endpoint));
        let resolvers = futures::future::try_join_all(resolvers);
        let logs = futures::future::try_join_all(logs);
        let (sequencer, resolvers, logs) =
            futures::future::try_join3(sequencer, resolvers, logs).await?;
        Ok(ProxyMembers {
            number: request.number,
            generation: self.generation,
            sequencer,
            resolvers,
            logs,
            routing: Routing::new(request.shards),
            log_set: request.log_set,
        })
    }

    /// A connection for work, and one for questions that must not wait behind it.
    async fn connect_twice<S: Service>(&self, endpoint: &Endpoint) -> Result<Ways<S>> {
        let ways = (self.connect_to::<S>(endpoint), self.connect_to::<S>(endpoint));
        let (work, aside) = futures::future::try_join(ways.0, ways.1).await?;
        Ok(Ways { work, aside })
    }

    /// A connection to a member, whose silence ends the generation before it has begun.
    async fn connect_to<S: Service>(&self, endpoint: &Endpoint) -> Result<Link<S>> {
        let connected = self.network.connect::<S>(endpoint);
        let limit = self.settings.proxy.call_limit;
        runtime::timeout(limit, Stage::Connect, connected)
            .await
            .and_then(|connected| connected)
            .map_err(|error| error.at(endpoint))
            .inspect_err(|error| self.failure.fail_at(&endpoint.address, error.clone()))
            .map(|client| Link::new(self.network.clone(), endpoint.clone(), client))
    }

    /// The generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// How the generation ends.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.failure.fail(Error::new(ErrorCode::ShuttingDown, Stage::Process, ""));
        let hosted = std::mem::take(self.hosted.get_mut());
        hosted.proxies.iter().for_each(ProxyServer::stop);
        for (kind, instance) in hosted.offered {
            self.router.remove(kind, instance);
        }
    }
}

/// Cuts the keyspace into `count` parts: at the boundaries, if those are as many as it takes, or else with about equal
/// numbers of first bytes in each. The last part has the system keyspace.
pub fn split_keyspace(boundaries: &[Key], count: u32) -> Vec<KeyRange> {
    let count = count.clamp(1, 255);
    let is_given = boundaries.len() + 1 == count as usize
        && boundaries.iter().all(|key| *key > Key::MIN && *key <= Key::USER_END)
        && boundaries.windows(2).all(|pair| pair[0] < pair[1]);
    let even = |index: u32| Key::from(vec![u8::try_from(index * 255 / count).unwrap_or(u8::MAX)]);
    let mut cuts = vec![Key::MIN];
    match is_given {
        true => cuts.extend_from_slice(boundaries),
        false => cuts.extend((1..count).map(even)),
    }
    cuts.push(Key::SYSTEM_END);
    let pairs = cuts.windows(2);
    pairs.map(|pair| KeyRange { begin: pair[0].clone(), end: pair[1].clone() }).collect()
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hosted = self.hosted.lock();
        write!(f, "Coordinator(generation {}, {} roles)", self.generation, hosted.offered.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_cut_at_the_boundaries_if_those_fit() {
        let boundaries = ["b", "m"].map(Key::from);
        let begins = |count| -> Vec<Key> {
            split_keyspace(&boundaries, count).into_iter().map(|part| part.begin).collect()
        };
        assert_eq!(begins(3), [Key::MIN, "b".into(), "m".into()]);
        assert_eq!(begins(2), [Key::MIN, Key::from(&[0x7f])]);
        let in_disorder = ["m", "b"].map(Key::from);
        assert_eq!(split_keyspace(&in_disorder, 3), split_keyspace(&[], 3));
    }

    #[test]
    fn resolvers_share_the_keyspace_without_gaps() {
        for count in [0, 1, 2, 3, 7, 255, 1_000] {
            let parts = split_keyspace(&[], count);
            assert_eq!(parts[0].begin, Key::MIN);
            assert_eq!(parts[parts.len() - 1].end, Key::SYSTEM_END);
            assert!(parts[parts.len() - 1].begin <= Key::USER_END, "the system keyspace is whole");
            for pair in parts.windows(2) {
                assert_eq!(pair[0].end, pair[1].begin);
                assert!(!pair[0].is_empty());
            }
        }
    }
}
