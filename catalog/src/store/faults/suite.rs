//! The store that a test suite runs on.

use ulid::Ulid;

use crate::{CatalogError, Store};

/// Names a store, by its URL, that tests use in the place of memory.
pub const SUITE_URL: &str = "STRIPELOG_TEST_SUITE_URL";

/// An empty store for a test: a part of the one that [`SUITE_URL`] names, or one in memory.
///
/// # Errors
/// If there is no store under that URL.
pub fn suite_store() -> Result<Store, CatalogError> {
    match std::env::var(SUITE_URL) {
        Ok(url) => Store::open(&format!(
            "{}/{}",
            url.trim_end_matches('/'),
            Ulid::generate()
        )),
        Err(_) => Store::open("memory:///"),
    }
}
