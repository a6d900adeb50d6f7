//! Requests over the control socket.

use super::{Daemon, Leaving, system};
use crate::{
    config::{Config, OwnScope, last},
    control::Request,
    core::{Input, Network, scopes::choice},
    error_chain::error_chain,
    show::{Answer, Done, PlanAnswer},
    store::Store,
};
use gatewrt_protocol::NetworkName;
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
            Request::ExitEnable { network, only, mut scope } => {
                self.choose(network, |config, name, network| {
                    scope.scope.name = only.unwrap_or_else(|| name.into());
                    choice::enable(*scope, config, name, network).map(|(scopes, hint)| (Some(scopes), hint))
                })
            }
            Request::ExitDisable { network, only } => self.choose(network, |config, name, network| {
                let scopes = choice::disable(only.as_ref(), config, name, network)?;
                Ok((Some(scopes), String::new()))
            }),
            Request::ExitForget { network } => self.choose(network, |config, name, network| {
                choice::refuse_against_owner(config, name, network)?;
                Ok((None, String::new()))
            }),
            Request::Reload => self.reload(),
            Request::Stop { teardown } => {
                self.stopping.push(reply);
                return self.feed(Input::Stop { teardown });
            }
        };
        let _ = reply.send(answer);
    }

    /// Changes a network's scopes as set on the router: stored first, then in effect. `None` forgets them.
    fn choose(
        &mut self,
        network: Option<NetworkName>,
        change: impl FnOnce(&Config, &NetworkName, &Network) -> Result<(Option<Vec<OwnScope>>, String), String>,
    ) -> Answer {
        let decided = self.one_network(network).and_then(|name| {
            let network = self.core.networks().get(&name).ok_or_else(|| self.not_joined(&name))?;
            Ok((change(&self.config, &name, network)?, name))
        });
        let ((scopes, hint), name) = match decided {
            Ok(decided) => decided,
            Err(why) => return Answer::Failed(why),
        };
        if let Err(error) = self.store.save_choice(&name, scopes.as_deref()) {
            return Answer::Failed(format!(
                "it can't be kept, so nothing was changed: {}",
                error_chain(&error)
            ));
        }
        match &scopes {
            Some(scopes) => {
                let names: Vec<_> = scopes.iter().map(|own| own.scope.name.to_string()).collect();
                log::info!("{name}: said on this router: scopes through exits: [{}]", names.join(", "));
            }
            None => log::info!("{name}: the coordinator's word counts for exits again"),
        }
        self.feed(Input::Chosen(name, scopes));
        Answer::Done(Done { hint })
    }

    /// Network that a request names, or else the only one that was joined.
    fn one_network(&self, named: Option<NetworkName>) -> Result<NetworkName, String> {
        let mut all = self.identities.keys();
        match (named, all.next(), all.next()) {
            (Some(named), ..) => Ok(named),
            (None, Some(only), None) => Ok(only.clone()),
            (None, Some(_), Some(_)) => {
                Err(format!("of which network? Joined: {}; say --network", self.joined()))
            }
            (None, None, _) => {
                Err("this router has not joined a network yet: “gatewrt join CODE”".to_owned())
            }
        }
    }

    fn joined(&self) -> String {
        let joined: Vec<_> = self.identities.keys().map(ToString::to_string).collect();
        if joined.is_empty() { "none".to_owned() } else { joined.join(", ") }
    }

    fn not_joined(&self, network: &NetworkName) -> String {
        format!("this router has not joined a network “{network}” (joined: {})", self.joined())
    }

    fn leave(&mut self, network: NetworkName, reply: oneshot::Sender<Answer>) {
        if self.identities.contains_key(&network) || self.core.unreadable(&network).is_some() {
            let is_removed = self.core.networks().get(&network).is_some_and(|it| it.directory.is_removed());
            self.leaving.push(Leaving { network: network.clone(), is_removed, reply });
            self.feed(Input::Leave(network));
        } else {
            let _ = reply.send(Answer::Failed(self.not_joined(&network)));
        }
    }

    pub(super) fn reload(&mut self) -> Answer {
        let loaded = last::load(&self.file);
        self.keep(&loaded);
        let config = loaded.config;
        config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        crate::log::set_level(config.log_level);
        let moved = config.state_dir != self.config.state_dir
            || config.run_dir != self.config.run_dir
            || config.wireguard != self.config.wireguard
            || config.firewall != self.config.firewall;
        self.config = config;
        self.drop_used_codes();
        log::info!("the configuration was read again");
        self.feed(Input::Configured(Box::new(self.config.clone())));
        self.joining.allow_refused();
        self.join_configured();
        let hint = if moved {
            "state_dir, run_dir, wireguard and firewall take effect with a restart of the daemon."
        } else {
            ""
        };
        let mut faults = self.config.warnings.iter().filter(|warning| !warning.skipped);
        match faults.next() {
            Some(fault) => {
                Answer::Failed(format!("all is in effect, except {}: {fault}", 1 + faults.count()))
            }
            None => Answer::Done(Done { hint: hint.to_owned() }),
        }
    }

    pub(super) fn forget(&mut self, network: &NetworkName) {
        self.identities.remove(network);
        self.persisters.remove(network);
        self.links.close(network);
        let forgotten = Store::new(&self.config.run_dir).forget(network).and(self.store.forget(network));
        system::networks_changed();
        let code = self.config.networks.get(network).and_then(|configured| configured.join_code.clone());
        let forgotten = forgotten.and(code.as_ref().map_or(Ok(()), |code| self.store.retire(code)));
        self.keep(&last::load(&self.file));
        if forgotten.is_ok() {
            log::info!("left {network}");
        }
        for Leaving { is_removed, reply, .. } in self.leaving.extract_if(.., |it| it.network == *network) {
            let mut hint = format!("Left {network}. ");
            hint.push_str(match is_removed {
                true => "The coordinator had removed this node before.",
                false => "The coordinator still lists this node: “gatewrt-coordinator node remove”.",
            });
            if code.is_some() {
                hint.push_str(" The join_code in /etc/config/gatewrt is not used again.");
            }
            let answer = match &forgotten {
                Ok(()) => Answer::Done(Done { hint }),
                Err(error) => Answer::Failed(error_chain(error)),
            };
            let _ = reply.send(answer);
        }
    }
}
