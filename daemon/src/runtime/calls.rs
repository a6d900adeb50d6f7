//! What is asked over the control socket.

use super::{Daemon, TEARDOWN};
use crate::{
    config::Config,
    control::{Answer, Done, PlanAnswer, Request},
    core::Input,
    log as logging,
    store::Store,
    whole::whole,
};
use gatewrt_protocol::NetworkName;
use std::time::Instant;
use tokio::sync::oneshot;

impl Daemon {
    pub(super) fn handle_call(&mut self, request: Request, reply: oneshot::Sender<Answer>) {
        let answer = match request {
            Request::Status => Answer::Status(Box::new(self.core.status(self.now()))),
            Request::Plan => {
                let steps = self.core.plan().steps.iter().map(ToString::to_string).collect();
                Answer::Plan(PlanAnswer { steps })
            }
            Request::Join { code, name } => return self.join(code, name, Some(reply)),
            Request::Leave { network } => return self.leave(network, reply),
            Request::Reload => self.reload(),
            Request::Stop { teardown } => {
                self.stop_by = Some(Instant::now() + TEARDOWN);
                self.stopping.push(reply);
                return self.feed(Input::Stop { teardown });
            }
        };
        let _ = reply.send(answer);
    }

    fn leave(&mut self, network: NetworkName, reply: oneshot::Sender<Answer>) {
        if self.identities.contains_key(&network) || self.core.unreadable(&network).is_some() {
            self.leaving.push((network.clone(), reply));
            self.feed(Input::Leave(network));
        } else {
            let joined: Vec<_> = self.identities.keys().map(ToString::to_string).collect();
            let joined = if joined.is_empty() { "none".to_owned() } else { joined.join(", ") };
            let why = format!("this router has not joined a network “{network}” (joined: {joined})");
            let _ = reply.send(Answer::Failed(why));
        }
    }

    pub(super) fn reload(&mut self) -> Answer {
        let config = match Config::load(&self.file) {
            Ok(config) => config,
            Err(error) => {
                let why = format!("{}; the configuration before stays in effect", whole(&error));
                log::error!("{why}");
                return Answer::Failed(why);
            }
        };
        config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        logging::set_level(config.log_level);
        let moved = config.state_dir != self.config.state_dir
            || config.run_dir != self.config.run_dir
            || config.wireguard != self.config.wireguard;
        self.config = config;
        log::info!("the configuration was read again");
        self.feed(Input::Configured(Box::new(self.config.clone())));
        self.joining.allow_refused();
        self.join_configured();
        let hint = if moved {
            "state_dir, run_dir and wireguard take effect with a restart of the daemon."
        } else {
            ""
        };
        Answer::Done(Done { hint: hint.to_owned() })
    }

    pub(super) fn forget(&mut self, network: &NetworkName) {
        self.identities.remove(network);
        self.records.remove(network);
        self.links.close(network);
        let forgotten = Store::new(&self.config.run_dir).forget(network).and(self.store.forget(network));
        let answer = match forgotten {
            Ok(()) => {
                log::info!("left {network}");
                let hint = format!(
                    "Left {network}. The coordinator still lists this node: “gatewrt-coordinator node remove”."
                );
                Answer::Done(Done { hint })
            }
            Err(error) => Answer::Failed(whole(&error)),
        };
        let (done, rest) =
            std::mem::take(&mut self.leaving).into_iter().partition(|(name, _)| name == network);
        self.leaving = rest;
        let done: Vec<(NetworkName, oneshot::Sender<Answer>)> = done;
        done.into_iter().for_each(|(_, reply)| drop(reply.send(answer.clone())));
    }
}
