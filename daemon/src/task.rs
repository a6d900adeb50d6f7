//! Tasks of tokio, all of one type: tokio keeps code for each type of future and each type of outcome, and flash is
//! scarce.

use std::pin::Pin;
use tokio::{sync::oneshot, task::JoinHandle};

/// Starts an asynchronous task of the current tokio runtime.
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let task: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(task);
    tokio::spawn(task)
}

/// Runs a blocking job in a thread for such jobs and waits for its outcome; `None` when the runtime ends before.
pub async fn block<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, outcome) = oneshot::channel();
    start_blocking(Box::new(move || drop(done.send(job()))));
    outcome.await.ok()
}

/// Starts a blocking job in a thread for such jobs, and does not wait for it.
pub fn start_blocking(job: Box<dyn FnOnce() + Send>) {
    tokio::task::spawn_blocking(job);
}
