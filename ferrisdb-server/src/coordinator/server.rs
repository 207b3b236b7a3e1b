//! Hosting a coordinator: its roles are made, connected, opened, and ended together.

use ferrisdb_core::{
    Endpoint, Generation, Key, KeyRange, Result, Stage, handler,
    id::Address,
    runtime,
    service::{
        ServiceKind,
        controller::CoordinatorMembers,
        log::{LogClient, LogService},
        proxy::ProxyService,
        resolver::{ResolverClient, ResolverService},
        sequencer::{SequencerClient, SequencerService},
        worker::RecruitCoordinator,
    },
    transport::{Network, Router},
};

use super::{
    failure::Failure,
    proxy::{ProxyMembers, ProxyServer, ProxySettings, routing::Routing},
    resolver::ResolverServer,
    sequencer::{Sequencer, SequencerServer},
};

/// How a coordinator works.
#[derive(Clone, Debug, Default)]
pub struct CoordinatorSettings {
    /// For each proxy.
    pub proxy: ProxySettings,
}

/// The roles of one generation in this process. Dropping it ends them.
pub struct Coordinator {
    generation: Generation,
    members: CoordinatorMembers,
    proxies: Vec<ProxyServer>,
    failure: Failure,
    router: Router,
    offered: Vec<(ServiceKind, u64)>,
}

impl Coordinator {
    /// Makes the roles, offers them on `router`, and opens the generation with an empty commit.
    ///
    /// # Errors
    ///
    /// If a log cannot be reached or refuses: the generation cannot be opened.
    pub async fn start(
        request: RecruitCoordinator,
        address: &Address,
        network: &Network,
        router: &Router,
        settings: &CoordinatorSettings,
    ) -> Result<Coordinator> {
        let generation = request.generation;
        let offer = || Endpoint { address: address.clone(), instance: runtime::random_u64() | 1 };

        let sequencer = offer();
        let machine = Sequencer::new(generation, request.recovery_version, request.first_version);
        router.add::<SequencerService>(
            sequencer.instance,
            handler!(ferrisdb_core::service::sequencer::Sequencer, SequencerServer::new(machine)),
        );
        let resolvers: Vec<(KeyRange, Endpoint)> =
            split_keyspace(request.resolvers).into_iter().map(|keys| (keys, offer())).collect();
        for (_, endpoint) in &resolvers {
            let server = ResolverServer::new(generation, request.recovery_version);
            router.add::<ResolverService>(
                endpoint.instance,
                handler!(ferrisdb_core::service::resolver::Resolver, server),
            );
        }
        let mut coordinator = Coordinator {
            generation,
            members: CoordinatorMembers { sequencer, proxies: Vec::new(), resolvers },
            proxies: Vec::new(),
            failure: Failure::default(),
            router: router.clone(),
            offered: Vec::new(),
        };
        coordinator.note_offered();
        let routing = Routing::new(request.shards.clone());
        for number in 0..request.proxies.max(1) {
            let members = coordinator.connect(number, &request, routing.clone(), network).await?;
            let failure = coordinator.failure.clone();
            let proxy = ProxyServer::start(members, settings.proxy.clone(), failure).await?;
            let endpoint = offer();
            router.add::<ProxyService>(
                endpoint.instance,
                handler!(ferrisdb_core::service::proxy::Proxy, proxy.clone()),
            );
            coordinator.proxies.push(proxy);
            coordinator.members.proxies.push(endpoint);
            coordinator.note_offered();
        }
        tracing::info!(%generation, recovery_version = %request.recovery_version,
            first_version = %request.first_version, "the coordinator serves");
        Ok(coordinator)
    }

    /// The connections of one proxy.
    async fn connect(
        &self,
        number: u32,
        request: &RecruitCoordinator,
        routing: Routing,
        network: &Network,
    ) -> Result<ProxyMembers> {
        let sequencer: SequencerClient =
            network.connect::<SequencerService>(&self.members.sequencer).await?;
        let resolvers = self.members.resolvers.iter().map(|(keys, endpoint)| async move {
            let client: ResolverClient = network.connect::<ResolverService>(endpoint).await?;
            Ok::<_, ferrisdb_core::Error>((keys.clone(), client))
        });
        let logs = request.log_set.logs.iter().map(|log| async {
            let client: Result<LogClient> = network.connect::<LogService>(&log.endpoint).await;
            client.map_err(|error| error.at(&log.endpoint))
        });
        Ok(ProxyMembers {
            number,
            generation: request.generation,
            sequencer,
            resolvers: futures::future::try_join_all(resolvers).await?,
            logs: futures::future::try_join_all(logs).await?,
            log_set: request.log_set.clone(),
            routing,
        })
    }

    fn note_offered(&mut self) {
        let members = &self.members;
        let resolvers = members.resolvers.iter().map(|(_, e)| (ServiceKind::Resolver, e.instance));
        let proxies = members.proxies.iter().map(|e| (ServiceKind::Proxy, e.instance));
        self.offered = std::iter::once((ServiceKind::Sequencer, members.sequencer.instance))
            .chain(resolvers)
            .chain(proxies)
            .collect();
    }

    /// The generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Where the roles are reached.
    pub fn members(&self) -> &CoordinatorMembers {
        &self.members
    }

    /// How the generation ends.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let ended =
            ferrisdb_core::Error::new(ferrisdb_core::ErrorCode::ShuttingDown, Stage::Process, "");
        self.failure.fail(ended);
        self.proxies.iter().for_each(ProxyServer::stop);
        for &(kind, instance) in &self.offered {
            self.router.remove(kind, instance);
        }
    }
}

/// Cuts the keyspace into `count` parts of about equal numbers of first bytes.
fn split_keyspace(count: u32) -> Vec<KeyRange> {
    let count = count.clamp(1, 255);
    let boundary = |index: u32| match index {
        0 => Key::MIN,
        index if index == count => Key::SYSTEM_END,
        index => Key::from(vec![u8::try_from(index * 256 / count).unwrap_or(u8::MAX)]),
    };
    (0..count).map(|index| KeyRange { begin: boundary(index), end: boundary(index + 1) }).collect()
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Coordinator(generation {}, {} proxies)", self.generation, self.proxies.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_share_the_keyspace_without_gaps() {
        for count in [0, 1, 2, 3, 7, 255, 1_000] {
            let parts = split_keyspace(count);
            assert_eq!(parts[0].begin, Key::MIN);
            assert_eq!(parts[parts.len() - 1].end, Key::SYSTEM_END);
            for pair in parts.windows(2) {
                assert_eq!(pair[0].end, pair[1].begin);
                assert!(!pair[0].is_empty());
            }
        }
    }
}
