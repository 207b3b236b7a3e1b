//! Errors that hold one of ours.

use ferrisdb_core::Error;

/// An error of the caller that may hold a FerrisDB error, by which `run_transaction` decides on a retry.
pub trait AsError {
    /// The FerrisDB error inside, if there is one.
    fn as_error(&self) -> Option<&Error>;
}

impl AsError for Error {
    fn as_error(&self) -> Option<&Error> {
        Some(self)
    }
}

impl AsError for Box<dyn std::error::Error + Send + Sync> {
    fn as_error(&self) -> Option<&Error> {
        find_error(self.as_ref())
    }
}

impl AsError for Box<dyn std::error::Error> {
    fn as_error(&self) -> Option<&Error> {
        find_error(self.as_ref())
    }
}

#[cfg(feature = "anyhow")]
impl AsError for anyhow::Error {
    fn as_error(&self) -> Option<&Error> {
        self.downcast_ref().or_else(|| find_error(self.as_ref()))
    }
}

/// The FerrisDB error among an error and its sources.
pub fn find_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.find_map(|cause| cause.downcast_ref())
}
