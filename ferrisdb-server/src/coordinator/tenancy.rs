//! Whose turn it is in a process that hosts roles of a coordinator: the newest generation's, and nobody else's.

use ferrisdb_core::{Error, ErrorCode, Generation, Result, Stage};

/// The newest generation that has been recruited here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tenancy {
    newest: Option<Generation>,
}

impl Tenancy {
    /// A generation wants a role hosted. Returns whether it is the first role of it, so that what is hosted of older
    /// ones has to go.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::GenerationEnded`] if a newer generation has been here.
    pub fn admit(&mut self, generation: Generation) -> Result<bool> {
        if let Some(newest) = self.newest.filter(|newest| *newest > generation) {
            let detail =
                format!("generation {newest} has been recruited here, this is {generation}");
            return Err(Error::new(ErrorCode::GenerationEnded, Stage::Control, detail));
        }
        let is_new = self.newest != Some(generation);
        self.newest = Some(generation);
        Ok(is_new)
    }

    /// The controller's newest generation is known. Returns whether that of the roles hosted here is over.
    pub fn is_over(&self, newest: Generation) -> bool {
        self.newest.is_some_and(|hosted| hosted < newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_generation_wins() {
        let mut tenancy = Tenancy::default();
        assert!(!tenancy.is_over(Generation(9)));
        assert!(tenancy.admit(Generation(2)).unwrap());
        assert!(!tenancy.admit(Generation(2)).unwrap(), "another role of it");
        assert!(tenancy.admit(Generation(4)).unwrap());
        let error = tenancy.admit(Generation(3)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::GenerationEnded);
        assert!(!tenancy.is_over(Generation(4)) && tenancy.is_over(Generation(5)));
    }
}
