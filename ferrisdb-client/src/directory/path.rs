//! Where a directory is.

use std::{fmt, ops::Deref};

/// The names on the way to a directory; no names stand for where the way begins.
///
/// A string is one name, whatever characters it has: there are no separators.
///
/// ```
/// use ferrisdb_client::directory::DirectoryPath;
/// assert_eq!(DirectoryPath::from("app").len(), 1);
/// assert_eq!(DirectoryPath::from(["app", "users"]).to_string(), "app/users");
/// assert_eq!(DirectoryPath::from(vec!["app".to_string()]), DirectoryPath::from("app"));
/// assert!(DirectoryPath::from(()).is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectoryPath(Vec<String>);

impl DirectoryPath {
    /// The path that goes on with `further`.
    ///
    /// ```
    /// use ferrisdb_client::directory::DirectoryPath;
    /// let app = DirectoryPath::from("app");
    /// assert_eq!(app.join("users"), DirectoryPath::from(["app", "users"]));
    /// ```
    #[must_use]
    pub fn join(&self, further: impl Into<DirectoryPath>) -> DirectoryPath {
        let mut names = self.0.clone();
        names.extend(further.into().0);
        DirectoryPath(names)
    }

    /// The names from the `count`th on.
    pub(super) fn without_first(&self, count: usize) -> DirectoryPath {
        DirectoryPath(self.0.iter().skip(count).cloned().collect())
    }

    /// All names but the last; `None` if there is none.
    pub(super) fn split_last(&self) -> Option<(DirectoryPath, &str)> {
        let (name, parents) = self.0.split_last()?;
        Some((DirectoryPath(parents.to_vec()), name))
    }
}

impl Deref for DirectoryPath {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl From<()> for DirectoryPath {
    fn from((): ()) -> DirectoryPath {
        DirectoryPath::default()
    }
}

impl From<&str> for DirectoryPath {
    fn from(name: &str) -> DirectoryPath {
        DirectoryPath(vec![name.to_string()])
    }
}

impl From<String> for DirectoryPath {
    fn from(name: String) -> DirectoryPath {
        DirectoryPath(vec![name])
    }
}

impl From<&String> for DirectoryPath {
    fn from(name: &String) -> DirectoryPath {
        DirectoryPath(vec![name.clone()])
    }
}

impl From<&DirectoryPath> for DirectoryPath {
    fn from(path: &DirectoryPath) -> DirectoryPath {
        path.clone()
    }
}

impl<S: Into<String>> From<Vec<S>> for DirectoryPath {
    fn from(names: Vec<S>) -> DirectoryPath {
        names.into_iter().collect()
    }
}

impl<S: Into<String>, const N: usize> From<[S; N]> for DirectoryPath {
    fn from(names: [S; N]) -> DirectoryPath {
        names.into_iter().collect()
    }
}

impl<S: AsRef<str>> From<&[S]> for DirectoryPath {
    fn from(names: &[S]) -> DirectoryPath {
        names.iter().map(AsRef::as_ref).collect()
    }
}

impl<S: AsRef<str>, const N: usize> From<&[S; N]> for DirectoryPath {
    fn from(names: &[S; N]) -> DirectoryPath {
        names.as_slice().into()
    }
}

impl<S: Into<String>> FromIterator<S> for DirectoryPath {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> DirectoryPath {
        DirectoryPath(names.into_iter().map(Into::into).collect())
    }
}

/// For people: names are joined by slashes, whether they have slashes themselves or not.
impl fmt::Display for DirectoryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}
