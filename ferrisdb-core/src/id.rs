//! Who is who: clusters, processes, tags, and the endpoints at which roles are reached.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u128);

        impl $name {
            /// A new identity, from the runtime's randomness.
            pub fn random() -> Self {
                let high = u128::from(crate::runtime::random_u64());
                Self(high << 64 | u128::from(crate::runtime::random_u64()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                u128::from_str_radix(text, 16).map(Self)
            }
        }
    };
}

random_id! {
    /// A cluster, drawn when its first controller starts with an empty directory.
    ///
    /// Every connection and every data directory names it, so that two clusters never mix.
    ClusterId
}

random_id! {
    /// A process, or rather its data directory: it stays the same across restarts.
    ProcessId
}

/// The stream of mutations that is meant for one storage server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tag(pub u32);

impl Tag {
    /// The stream of changes of the shard map, which controllers follow. Every log keeps it.
    pub const METADATA: Tag = Tag(u32::MAX);
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a process listens: `host:port`, or a name of its own for one that is reached in process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Address(pub String);

impl Address {
    /// An address from its textual form.
    pub fn new(text: impl Into<String>) -> Address {
        Address(text.into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One recruited instance of a role: the process it runs in, and which of that process' instances.
///
/// The instance is drawn anew for each recruitment, so a message meant for a role of an earlier
/// generation finds nobody instead of its successor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// The process.
    pub address: Address,
    /// The instance inside it; zero for a service of which a process has just one.
    pub instance: u64,
}

impl Endpoint {
    /// The endpoint of a service of which each process has just one.
    pub fn of_process(address: Address) -> Endpoint {
        Endpoint { address, instance: 0 }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.instance {
            0 => self.address.fmt(f),
            instance => write!(f, "{}#{instance:x}", self.address),
        }
    }
}
