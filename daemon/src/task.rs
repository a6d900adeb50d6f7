//! Tasks of tokio, all of one type: of a task tokio keeps code for each type of future, and each type of outcome.

use std::pin::Pin;
use tokio::{sync::oneshot, task::JoinHandle};

/// Starts a task of the runtime this is called in.
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let task: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(task);
    tokio::spawn(task)
}

/// Does what blocks, in a thread for such things; waits for what comes of it. `None` when the runtime ends before.
pub async fn block<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, outcome) = oneshot::channel();
    start_blocking(Box::new(move || drop(done.send(job()))));
    outcome.await.ok()
}

/// Starts what blocks, in a thread for such things.
pub fn start_blocking(job: Box<dyn FnOnce() + Send>) {
    tokio::task::spawn_blocking(job);
}
