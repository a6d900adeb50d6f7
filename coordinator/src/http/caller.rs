//! Who asks, and how everything is asked: every question and every change of the API goes through a
//! [`Caller`]. It sees to rights, paging, `If-Match`, `?dry_run=true` and the audit log, so that a handler says
//! what it plans and what it answers, and nothing else:
//!
//! ```ignore
//! pub async fn rename_node(by: Caller, Path((net, node)): Path<(String, String)>, Body(wish): Body<NodeWish>) -> Answer<NodeView> {
//!     let act = Act::of("node.rename", the_node(&net, &node)).saying(&wish);
//!     let plan = move |registry: &Registry, _: &Moment| registry.rename_node(&net, &node, &wish.name);
//!     by.change(act, plan, |state, node| NodeView::of(state, &node)).await
//! }
//! ```

use super::{
    App, Remote,
    grant::Grant,
    problem::ApiError,
    reply::{Answer, Listed, Page, Reply, Resource, Tag},
};
use crate::{
    audit::{Entry, detail},
    desk::{DeskError, Mode, State},
    registry::{Changes, Moment, Outcome, Registry, RegistryError, Row},
};
use axum::{
    extract::{FromRequestParts, Query, RawPathParams},
    http::{HeaderMap, StatusCode, request::Parts},
};
use gatewrt_protocol::NetworkId;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// See the module.
pub struct Caller {
    /// What the handlers share.
    pub app: App,
    /// What the caller may do.
    pub grant: Grant,
    scope: Scope,
    from: IpAddr,
    if_match: Option<String>,
    if_none_match: Option<String>,
    mode: Mode,
    page: Page,
}

/// Parameters that every path takes.
#[derive(Deserialize)]
struct Common {
    #[serde(default)]
    dry_run: bool,
    limit: Option<u32>,
    after: Option<String>,
    network: Option<String>,
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Query(common) = Query::<Common>::from_request_parts(parts, app)
            .await
            .map_err(|error| ApiError::bad_request(error.body_text()))?;
        let params = RawPathParams::from_request_parts(parts, app).await;
        let params = params.map_err(|error| ApiError::bad_request(error.body_text()))?;
        let in_path = params.iter().find(|(name, _)| *name == "net").map(|(_, net)| net.to_owned());
        let grant = parts.extensions.get::<Grant>().cloned().ok_or_else(ApiError::no_admin)?;
        let Remote(from) =
            *parts.extensions.get::<Remote>().expect("the server says where a request comes from");
        let scope = Scope { only: grant.network, net: in_path.or(common.network) };
        if scope.only.is_some() {
            // Checked again where it counts; here for an answer that says nothing of the rest of the request.
            let scope = scope.clone();
            app.desk.view(move |state| scope.check(&state.registry)).await?.map_err(DeskError::from)?;
        }
        Ok(Self {
            app: app.clone(),
            scope,
            grant,
            from: from.ip(),
            if_match: header(&parts.headers, "if-match"),
            if_none_match: header(&parts.headers, "if-none-match"),
            mode: if common.dry_run { Mode::Rehearsal } else { Mode::Real },
            page: Page::new(&parts.uri, common.limit, common.after)?,
        })
    }
}

/// As it was sent; what is no text matches nothing.
fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default().to_owned())
}

/// Which network a request names, and which is the only one its token is for.
#[derive(Debug, Clone)]
pub struct Scope {
    only: Option<NetworkId>,
    net: Option<String>,
}

impl Scope {
    /// Whether this network may be seen.
    pub fn sees(&self, net: NetworkId) -> bool {
        self.only.is_none_or(|only| only == net)
    }

    /// The network asked for in `?network=`.
    pub fn wanted(&self, registry: &Registry) -> Result<Option<NetworkId>, RegistryError> {
        let named = self.net.as_deref().map(|net| registry.find_network(net)).transpose()?;
        Ok(named.map(|network| network.id).or(self.only))
    }

    /// Refuses a network that the token is not for as one that is not there: its name is no one else's matter.
    fn check(&self, registry: &Registry) -> Result<(), RegistryError> {
        let (Some(only), Some(text)) = (self.only, &self.net) else { return Ok(()) };
        if registry.find_network(text).is_ok_and(|network| network.id == only) {
            return Ok(());
        }
        let known = registry.network(only).map(|network| network.name.clone()).into_iter().collect();
        Err(RegistryError::NoSuchNetwork { text: text.clone(), known })
    }
}

type Current = Box<dyn FnOnce(&State) -> Result<(String, Tag), RegistryError> + Send>;

/// A change as the audit log tells it, and what `If-Match` is about.
pub struct Act {
    action: &'static str,
    target: String,
    detail: String,
    current: Option<Current>,
}

impl Act {
    /// Makes something new, called `target`.
    pub fn new(action: &'static str, target: impl ToString) -> Self {
        Self { action, target: target.to_string(), detail: String::new(), current: None }
    }

    /// Changes something that is there: `current` is it as `GET` shows it.
    pub fn of<V: Resource>(
        action: &'static str,
        current: impl FnOnce(&State) -> Result<V, RegistryError> + Send + 'static,
    ) -> Self {
        let current = move |state: &State| current(state).map(|view| (view.called(), Tag::of(&view)));
        Self { current: Some(Box::new(current)), ..Self::new(action, "") }
    }

    /// With what was asked for. It is kept and shown: no secrets.
    pub fn saying(self, wish: &impl Serialize) -> Self {
        Self { detail: detail(wish), ..self }
    }
}

impl Caller {
    /// Which networks the caller may see, for answers about several of them.
    pub fn scope(&self) -> Scope {
        self.scope.clone()
    }

    /// Whether the caller says what it saw of the thing that it changes (`If-Match`).
    pub fn has_seen(&self) -> bool {
        self.if_match.is_some()
    }

    /// Whether a change is only to be tried.
    pub fn is_rehearsal(&self) -> bool {
        self.mode == Mode::Rehearsal
    }

    /// Which part of a list is asked for.
    pub fn page(&self) -> &Page {
        &self.page
    }

    /// Answers a question about the state, for handlers that make something else of it.
    pub async fn view<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&State) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let scope = self.scope();
        let asked = move |state: &State| scope.check(&state.registry).and_then(|()| ask(state));
        Ok(self.app.desk.view(asked).await?.map_err(DeskError::from)?)
    }

    /// Shows one thing.
    pub async fn show<V: Resource + Send + 'static>(
        &self,
        ask: impl FnOnce(&State) -> Result<V, RegistryError> + Send + 'static,
    ) -> Answer<V> {
        Ok(Reply::shown(self.view(ask).await?, self.if_none_match.as_deref()))
    }

    /// Shows the part of a list that is asked for. What is listed comes with a key that orders it and stays as
    /// long as it does.
    pub async fn list<V: Serialize + Send + 'static>(
        &self,
        ask: impl FnOnce(&State) -> Result<Vec<(String, V)>, RegistryError> + Send + 'static,
    ) -> Listed<V> {
        let page = self.page.clone();
        let (part, link) = self.view(move |state| Ok(page.cut(ask(state)?))).await?;
        Ok(self.listed(part, link))
    }

    /// The part of a list that was cut elsewhere.
    pub fn listed<V: Serialize>(&self, part: Vec<V>, link: Option<String>) -> Reply<Vec<V>> {
        Reply::listed(part, link, self.if_none_match.as_deref())
    }

    /// Makes something: 201, or 200 where it was only tried.
    pub async fn create<T: Send + 'static, V: Resource + Send + 'static>(
        &self,
        act: Act,
        plan: impl FnOnce(&Registry, &Moment) -> Outcome<T> + Send + 'static,
        answer: impl FnOnce(&State, T) -> V + Send + 'static,
    ) -> Answer<V> {
        let status = if self.is_rehearsal() { StatusCode::OK } else { StatusCode::CREATED };
        Ok(self.change(act, plan, answer).await?.with(status))
    }

    /// Changes something.
    pub async fn change<T: Send + 'static, V: Resource + Send + 'static>(
        &self,
        act: Act,
        plan: impl FnOnce(&Registry, &Moment) -> Outcome<T> + Send + 'static,
        answer: impl FnOnce(&State, T) -> V + Send + 'static,
    ) -> Answer<V> {
        Ok(Reply::of(self.carry_out(act, plan, answer).await?))
    }

    /// As [`Caller::change`], for answers that are made elsewhere.
    pub async fn carry_out<T: Send + 'static, U: Send + 'static>(
        &self,
        act: Act,
        plan: impl FnOnce(&Registry, &Moment) -> Outcome<T> + Send + 'static,
        then: impl FnOnce(&State, T) -> U + Send + 'static,
    ) -> Result<U, ApiError> {
        self.grant.may_change()?;
        let (scope, if_match) = (self.scope(), self.if_match.clone());
        let (who, from) = (self.grant.who.clone(), self.from);
        let plan = move |state: &State, moment: &Moment| {
            scope.check(&state.registry)?;
            let target = unchanged(act.current, act.target, state, if_match.as_deref())?;
            let network = scope.net.as_deref().and_then(|net| state.registry.find_network(net).ok());
            let entry = Entry {
                at: moment.now,
                who,
                from,
                net: network.map(|network| network.id),
                network: network.map(|network| network.name.clone()),
                action: act.action.to_owned(),
                target,
                detail: act.detail,
            };
            let (rows, outcome) = plan(&state.registry, moment)?;
            Ok((told(rows, entry), outcome))
        };
        Ok(self.app.desk.change(self.mode, plan, then).await?)
    }
}

/// What changes nothing is no news for the audit log.
pub(super) fn told(mut rows: Changes, entry: Entry) -> Changes {
    if !rows.is_empty() {
        rows.push(Row::Audit(Box::new(entry)));
    }
    rows
}

/// What is changed is called what, if it is still what the caller saw. Checked where changes are planned, so
/// that nothing comes between.
fn unchanged(
    current: Option<Current>,
    target: String,
    state: &State,
    if_match: Option<&str>,
) -> Result<String, DeskError> {
    let Some(current) = current else { return Ok(target) };
    let (target, tag) = current(state)?;
    match if_match {
        Some(wanted) if !tag.is_in(wanted) => Err(DeskError::Changed(target)),
        _ => Ok(target),
    }
}
