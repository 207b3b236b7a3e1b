//! Workloads by name, as scenario files give them.

use serde::Deserialize;

use super::{
    Workload,
    api_model::{ApiModel, ApiModelSettings},
    arguments::{Arguments, ArgumentsSettings},
    atomic_operations::{AtomicOperations, AtomicOperationsSettings},
    availability::{Availability, AvailabilitySettings},
    bank::{BankSettings, BankWorkload},
    bulk::{Bulk, BulkSettings},
    c_interface::{CInterface, CInterfaceSettings},
    conflict_ranges::{ConflictRanges, ConflictRangesSettings},
    cycle::{Cycle, CycleSettings},
    deleted_keys::{DeletedKeys, DeletedKeysSettings},
    directories::{Directories, DirectoriesSettings},
    exactly_once::{ExactlyOnce, ExactlyOnceSettings},
    external_consistency::{ExternalConsistency, ExternalConsistencySettings},
    hot_key::{HotKey, HotKeySettings},
    idle::{Idle, IdleSettings},
    list_append::{ListAppend, ListAppendSettings},
    log_space::{LogSpace, LogSpaceSettings},
    long_idle::{LongIdle, LongIdleSettings},
    queue::{Queue, QueueSettings},
    recorded_bank::RecordedBankWorkload,
    repeatable::{Repeatable, RepeatableSettings},
    replica_check::{ReplicaCheck, ReplicaCheckSettings},
    saturation::{Saturation, SaturationSettings},
    serializability::{Serializability, SerializabilitySettings},
    status::{Status, StatusSettings},
    watches::{Watches, WatchesSettings},
    window_border::{WindowBorder, WindowBorderSettings},
};

/// A workload with its settings: `kind = "bank"`, and whatever its settings have, as fields beside it.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum WorkloadSpec {
    /// [`BankWorkload`].
    Bank(BankSettings),
    /// [`RecordedBankWorkload`].
    RecordedBank(BankSettings),
    /// [`Cycle`].
    Cycle(CycleSettings),
    /// [`Serializability`].
    Serializability(SerializabilitySettings),
    /// [`ListAppend`].
    ListAppend(ListAppendSettings),
    /// [`ExternalConsistency`].
    ExternalConsistency(ExternalConsistencySettings),
    /// [`HotKey`].
    HotKey(HotKeySettings),
    /// [`DeletedKeys`].
    DeletedKeys(DeletedKeysSettings),
    /// [`ExactlyOnce`].
    ExactlyOnce(ExactlyOnceSettings),
    /// [`Idle`].
    Idle(IdleSettings),
    /// [`LogSpace`].
    LogSpace(LogSpaceSettings),
    /// [`LongIdle`].
    LongIdle(LongIdleSettings),
    /// [`ApiModel`].
    ApiModel(ApiModelSettings),
    /// [`Arguments`].
    Arguments(ArgumentsSettings),
    /// [`AtomicOperations`].
    AtomicOperations(AtomicOperationsSettings),
    /// [`Availability`].
    Availability(AvailabilitySettings),
    /// [`Bulk`].
    Bulk(BulkSettings),
    /// [`CInterface`].
    CInterface(CInterfaceSettings),
    /// [`ConflictRanges`].
    ConflictRanges(ConflictRangesSettings),
    /// [`Directories`].
    Directories(DirectoriesSettings),
    /// [`Queue`].
    Queue(QueueSettings),
    /// [`Repeatable`].
    Repeatable(RepeatableSettings),
    /// [`ReplicaCheck`].
    ReplicaCheck(ReplicaCheckSettings),
    /// [`Saturation`].
    Saturation(SaturationSettings),
    /// [`Status`].
    Status(StatusSettings),
    /// [`Watches`].
    Watches(WatchesSettings),
    /// [`WindowBorder`].
    WindowBorder(WindowBorderSettings),
}

impl WorkloadSpec {
    /// The workload, ready to be set up.
    pub fn build(&self) -> Box<dyn Workload> {
        match self.clone() {
            WorkloadSpec::Bank(settings) => Box::new(BankWorkload::new(settings)),
            WorkloadSpec::RecordedBank(settings) => Box::new(RecordedBankWorkload::new(settings)),
            WorkloadSpec::Cycle(settings) => Box::new(Cycle::new(settings)),
            WorkloadSpec::Serializability(settings) => Box::new(Serializability::new(settings)),
            WorkloadSpec::ListAppend(settings) => Box::new(ListAppend::new(settings)),
            WorkloadSpec::ExternalConsistency(settings) => {
                Box::new(ExternalConsistency::new(settings))
            }
            WorkloadSpec::HotKey(settings) => Box::new(HotKey::new(settings)),
            WorkloadSpec::DeletedKeys(settings) => Box::new(DeletedKeys::new(settings)),
            WorkloadSpec::ExactlyOnce(settings) => Box::new(ExactlyOnce::new(settings)),
            WorkloadSpec::Idle(settings) => Box::new(Idle::new(settings)),
            WorkloadSpec::LogSpace(settings) => Box::new(LogSpace::new(settings)),
            WorkloadSpec::LongIdle(settings) => Box::new(LongIdle::new(settings)),
            WorkloadSpec::ApiModel(settings) => Box::new(ApiModel::new(settings)),
            WorkloadSpec::Arguments(settings) => Box::new(Arguments::new(settings)),
            WorkloadSpec::AtomicOperations(settings) => Box::new(AtomicOperations::new(settings)),
            WorkloadSpec::Availability(settings) => Box::new(Availability::new(settings)),
            WorkloadSpec::Bulk(settings) => Box::new(Bulk::new(settings)),
            WorkloadSpec::CInterface(settings) => Box::new(CInterface::new(settings)),
            WorkloadSpec::ConflictRanges(settings) => Box::new(ConflictRanges::new(settings)),
            WorkloadSpec::Directories(settings) => Box::new(Directories::new(settings)),
            WorkloadSpec::Queue(settings) => Box::new(Queue::new(settings)),
            WorkloadSpec::Repeatable(settings) => Box::new(Repeatable::new(settings)),
            WorkloadSpec::ReplicaCheck(settings) => Box::new(ReplicaCheck::new(settings)),
            WorkloadSpec::Saturation(settings) => Box::new(Saturation::new(settings)),
            WorkloadSpec::Status(settings) => Box::new(Status::new(settings)),
            WorkloadSpec::Watches(settings) => Box::new(Watches::new(settings)),
            WorkloadSpec::WindowBorder(settings) => Box::new(WindowBorder::new(settings)),
        }
    }
}
