//! Functions of what FerrisDB does not have.
//!
//! They are there because programs are linked with them, and say so. They look at none of their arguments, which the calling
//! convention of C allows to be left out here.

use std::{ffi::c_void, sync::Arc};

use ferrisdb_fdb::{Ended, Output};

use crate::{
    errors::{self, Code},
    future::{self, Future},
};

/// Functions that give a future.
macro_rules! unsupported_futures {
    ($($name:ident),* $(,)?) => {$(
        /// Not supported: the future is complete with `unsupported_operation`.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> *mut Future {
            future::lend(unsupported())
        }
    )*};
}

/// Functions that give an error.
macro_rules! unsupported_codes {
    ($($name:ident),* $(,)?) => {$(
        /// Not supported: `unsupported_operation`.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> Code {
            errors::UNSUPPORTED_OPERATION
        }
    )*};
}

/// Functions that end the use of what nobody can have.
macro_rules! unsupported_ends {
    ($($name:ident),* $(,)?) => {$(
        /// Nothing: there is no such object to end the use of.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() {}
    )*};
}

/// Functions that give an object whose only use is to say that it is not there.
macro_rules! unsupported_results {
    ($($name:ident),* $(,)?) => {$(
        /// Not supported: whatever is read from the result is `unsupported_operation`.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> *mut c_void {
            std::ptr::from_ref(&NO_RESULT).cast_mut().cast()
        }
    )*};
}

/// Where results point that are none.
static NO_RESULT: u64 = 0;

fn unsupported() -> Arc<Future> {
    let result: Ended = Err::<Output, Code>(errors::UNSUPPORTED_OPERATION);
    Future::ready(result)
}

unsupported_futures! {
    fdb_database_blobbify_range,
    fdb_database_blobbify_range_blocking,
    fdb_database_create_snapshot,
    fdb_database_flush_blob_range,
    fdb_database_force_recovery_with_data_loss,
    fdb_database_list_blobbified_ranges,
    fdb_database_purge_blob_granules,
    fdb_database_reboot_worker,
    fdb_database_unblobbify_range,
    fdb_database_verify_blob_range,
    fdb_database_wait_purge_granules_complete,
    fdb_tenant_blobbify_range,
    fdb_tenant_blobbify_range_blocking,
    fdb_tenant_flush_blob_range,
    fdb_tenant_get_id,
    fdb_tenant_list_blobbified_ranges,
    fdb_tenant_purge_blob_granules,
    fdb_tenant_unblobbify_range,
    fdb_tenant_verify_blob_range,
    fdb_tenant_wait_purge_granules_complete,
    fdb_transaction_get_blob_granule_ranges,
    fdb_transaction_get_range_and_flat_map,
    fdb_transaction_read_blob_granules_description,
    fdb_transaction_read_blob_granules_start,
    fdb_transaction_summarize_blob_granules,
}

unsupported_codes! {
    fdb_database_open_tenant,
    fdb_future_get_granule_summary_array,
    fdb_future_get_keyrange_array,
    fdb_future_readbg_get_descriptions,
    fdb_result_get_bg_mutations_array,
    fdb_result_get_keyvalue_array,
    fdb_tenant_create_transaction,
}

unsupported_ends! {
    fdb_result_destroy,
    fdb_tenant_destroy,
}

unsupported_results! {
    fdb_readbg_parse_delta_file,
    fdb_readbg_parse_snapshot_file,
    fdb_transaction_read_blob_granules,
    fdb_transaction_read_blob_granules_finish,
}
