//! Threads of their own for everything that goes to the store.
//!
//! A put copies, hashes and encrypts megabytes at a time. The threads of the connections must not wait for
//! that: they take in records and answer clients meanwhile.

use tokio::runtime::{Builder, Handle, Runtime};

/// The threads. They end, with what they do, when this is dropped.
#[derive(Debug)]
pub(crate) struct StoreThreads {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl StoreThreads {
    /// Starts one thread a core.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .thread_name("store")
            .enable_all()
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Where to spawn work.
    #[must_use]
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for StoreThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Blocking calls on a local store that hangs must not keep the process.
            runtime.shutdown_background();
        }
    }
}
