//! Deadline of a request, by which it is answered. Only a handler that waits for nodes, as it was asked to, puts it off.

use super::{REQUEST_TIMEOUT, problem::ApiError, with_body};
use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// Deadline of one request; see the module.
#[derive(Debug, Clone)]
pub(super) struct Deadline(Arc<watch::Sender<Instant>>);

impl Deadline {
    fn after(time: Duration) -> Self {
        Self(Arc::new(watch::Sender::new(Instant::now() + time)))
    }

    /// Puts the deadline off by `time`.
    pub(super) fn put_off(&self, time: Duration) {
        self.0.send_modify(|at| *at += time);
    }

    /// Waits until the deadline has passed, wherever it is put off to.
    async fn passed(&self) {
        let mut deadline = self.0.subscribe();
        loop {
            let at = *deadline.borrow_and_update();
            // An error means that it was not put off. The sender is this very value's.
            if timeout_at(at, deadline.changed()).await.is_err() {
                return;
            }
        }
    }
}

/// Middleware that answers with an error once a request's deadline has passed.
pub(super) async fn with_deadline(mut request: Request, next: Next) -> Response {
    let deadline = Deadline::after(REQUEST_TIMEOUT);
    request.extensions_mut().insert(deadline.clone());
    tokio::select! {
        answer = with_body(request, next) => answer,
        () = deadline.passed() => ApiError::too_slow().into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn deadline_passes_when_it_was_put_off_to() {
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let deadline = Deadline::after(30 * second);
        let waits = async {
            tokio::time::sleep(29 * second).await;
            deadline.put_off(60 * second);
        };
        tokio::join!(deadline.passed(), waits);
        assert_eq!(began.elapsed().as_secs(), 90);
        let never_put_off = Deadline::after(30 * second);
        never_put_off.passed().await;
        assert_eq!(began.elapsed().as_secs(), 120);
    }
}
