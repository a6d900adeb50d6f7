//! What blocks, in a thread of its own.

use crate::wait::Wait;
use std::{
    io::{self, PipeReader},
    os::fd::AsFd,
    sync::{Arc, Mutex},
    thread,
};

/// Something under way in a thread.
#[derive(Debug)]
pub struct Job<T> {
    /// Ends when the thread does.
    over: PipeReader,
    outcome: Arc<Mutex<Option<T>>>,
}

impl<T: Send + 'static> Job<T> {
    /// Starts it. Dropped, it goes on unheard.
    pub fn start(job: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let (over, at_work) = io::pipe()?;
        let outcome = Arc::new(Mutex::new(None));
        let place = outcome.clone();
        // Boxed, so that there is code for one type of thread.
        let run: Box<dyn FnOnce() + Send> = Box::new(move || {
            let outcome = job();
            place.lock().map(|mut place| *place = Some(outcome)).unwrap_or_default();
            drop(at_work);
        });
        thread::Builder::new().spawn(run)?;
        Ok(Self { over, outcome })
    }

    /// What came of it, once.
    pub fn outcome(&self) -> Option<T> {
        self.outcome.lock().ok()?.take()
    }

    /// Adds what to wait for.
    pub fn enlist<'a>(&'a self, wait: &mut Wait<'a>) {
        wait.to_read(self.over.as_fd());
    }
}
