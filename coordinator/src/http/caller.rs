//! Caller of the API, and the way of every query and change: a [`Caller`] checks rights and `If-Match`,
//! handles paging, `?dry_run=true` and `?wait=`, and writes the audit log. A handler only says what it plans and what
//! it answers:
//!
//! ```ignore
//! pub async fn rename_node(by: Caller, Path((net, node)): Path<(String, String)>, Body(spec): Body<NodeSpec>) -> Answer<NodeView> {
//!     let act = AuditedChange::of("node.rename", current_node(&net, &node)).with_detail(&spec);
//!     let plan = move |registry: &Registry, _: &Moment| registry.rename_node(&net, &node, &spec.name);
//!     by.change(act, plan, |state, node| NodeView::of(state, &node)).await
//! }
//! ```

use super::{
    App, Remote,
    deadline::Deadline,
    grant::Grant,
    obeyed::Wait,
    problem::ApiError,
    reply::{Answer, EntityTag, Listed, Page, Reply},
    resource::Resource,
};
use crate::{
    audit::{Entry, detail},
    controller::{ControllerError, ControllerState, Mode},
    obeyed::Expected,
    registry::{Changes, Moment, Outcome, Registry, RegistryError, Row},
};
use axum::{
    extract::{FromRequestParts, Query, RawPathParams},
    http::{HeaderMap, StatusCode, request::Parts},
};
use gatewrt_protocol::NetworkId;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Caller of the API: the grant, headers and query parameters of one request. See the module.
pub struct Caller {
    /// State that the handlers share.
    pub app: App,
    /// Rights of the caller.
    pub grant: Grant,
    filter: NetworkFilter,
    from: IpAddr,
    if_match: Option<String>,
    if_none_match: Option<String>,
    mode: Mode,
    wait: Wait,
    deadline: Deadline,
    page: Page,
}

/// Query parameters that many paths of the API take; where one is not taken, [`super::strict`] refuses it.
#[derive(Deserialize)]
struct CommonQuery {
    #[serde(default)]
    dry_run: bool,
    wait: Option<u64>,
    limit: Option<u32>,
    after: Option<String>,
    network: Option<String>,
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Query(common) = Query::<CommonQuery>::from_request_parts(parts, app)
            .await
            .map_err(|error| ApiError::bad_request(error.body_text()))?;
        let params = RawPathParams::from_request_parts(parts, app).await;
        let params = params.map_err(|error| ApiError::bad_request(error.body_text()))?;
        let in_path = params.iter().find(|(name, _)| *name == "net").map(|(_, net)| net.to_owned());
        let grant = parts.extensions.get::<Grant>().cloned().ok_or_else(ApiError::no_admin)?;
        let Remote(from) =
            *parts.extensions.get::<Remote>().expect("the server adds the source address to each request");
        let deadline = parts.extensions.get::<Deadline>().expect("each request has one").clone();
        let filter = NetworkFilter { only: grant.network, net: in_path.or(common.network) };
        if filter.only.is_some() {
            // This is checked again for each query and change. Here it keeps the answer from revealing
            // anything about the rest of the request.
            let filter = filter.clone();
            app.controller
                .view(move |state| filter.check(&state.registry))
                .await?
                .map_err(ControllerError::from)?;
        }
        Ok(Self {
            app: app.clone(),
            filter,
            grant,
            from: from.ip(),
            if_match: header(&parts.headers, "if-match"),
            if_none_match: header(&parts.headers, "if-none-match"),
            mode: if common.dry_run { Mode::DryRun } else { Mode::Real },
            wait: Wait::of(common.wait)?,
            deadline,
            page: Page::new(&parts.uri, common.limit, common.after)?,
        })
    }
}

/// Value of a request's header; one that is no text is empty and matches nothing.
fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default().to_owned())
}

/// Network that a request names, and the only one that its token is valid for.
#[derive(Debug, Clone)]
pub struct NetworkFilter {
    only: Option<NetworkId>,
    net: Option<String>,
}

impl NetworkFilter {
    /// True if the caller may see this network.
    pub fn sees(&self, net: NetworkId) -> bool {
        self.only.is_none_or(|only| only == net)
    }

    /// Id of the network that `?network=` or the path names, else the only one of the token; `None` means all networks.
    pub fn requested(&self, registry: &Registry) -> Result<Option<NetworkId>, RegistryError> {
        let named = self.net.as_deref().map(|net| registry.find_network(net)).transpose()?;
        Ok(named.map(|network| network.id).or(self.only))
    }

    /// Refuses a request that names a network for which its token is not valid. The error is the same as for a missing
    /// network, so that it reveals no names.
    fn check(&self, registry: &Registry) -> Result<(), RegistryError> {
        let (Some(only), Some(text)) = (self.only, &self.net) else { return Ok(()) };
        if registry.find_network(text).is_ok_and(|network| network.id == only) {
            return Ok(());
        }
        let known = registry.network(only).map(|network| network.name.clone()).into_iter().collect();
        Err(RegistryError::NoSuchNetwork { text: text.clone(), known })
    }
}

type Current = Box<dyn FnOnce(&ControllerState) -> Result<(String, EntityTag), RegistryError> + Send>;

/// Change of the registry with its entry for the audit log, and the resource that `If-Match` refers to.
pub struct AuditedChange {
    action: &'static str,
    target: String,
    detail: String,
    current: Option<Current>,
}

impl AuditedChange {
    /// Starts the creation of a resource with the name `target`.
    pub fn new(action: &'static str, target: impl ToString) -> Self {
        Self { action, target: target.to_string(), detail: String::new(), current: None }
    }

    /// Starts a change of an existing resource; `current` is the resource as `GET` shows it.
    pub fn of<V: Resource>(
        action: &'static str,
        current: impl FnOnce(&ControllerState) -> Result<V, RegistryError> + Send + 'static,
    ) -> Self {
        let current = move |state: &ControllerState| {
            current(state).map(|view| (view.display_name(), EntityTag::of(&view)))
        };
        Self { current: Some(Box::new(current)), ..Self::new(action, "") }
    }

    /// Adds the request's body to the entry for the audit log. It is stored and shown: no secrets.
    pub fn with_detail(self, spec: &impl Serialize) -> Self {
        Self { detail: detail(spec), ..self }
    }
}

impl Caller {
    /// Networks that the caller may see, for answers about several of them.
    pub fn filter(&self) -> NetworkFilter {
        self.filter.clone()
    }

    /// True if the caller sent `If-Match`.
    pub fn has_if_match(&self) -> bool {
        self.if_match.is_some()
    }

    /// True if the request is a dry run: changes are only to be checked.
    pub fn is_dry_run(&self) -> bool {
        self.mode == Mode::DryRun
    }

    /// Part of a list that the caller requested.
    pub fn page(&self) -> &Page {
        &self.page
    }

    /// Answers a query about the state, for handlers that process the result.
    pub async fn view<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&ControllerState) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let filter = self.filter();
        let asked = move |state: &ControllerState| filter.check(&state.registry).and_then(|()| ask(state));
        Ok(self.app.controller.view(asked).await?.map_err(ControllerError::from)?)
    }

    /// Answers a request with one resource, as `ask` finds it.
    pub async fn show<V: Resource + Send + 'static>(
        &self,
        ask: impl FnOnce(&ControllerState) -> Result<V, RegistryError> + Send + 'static,
    ) -> Answer<V> {
        Ok(Reply::shown(self.view(ask).await?, self.if_none_match.as_deref()))
    }

    /// Answers with the requested part of a list. Each item comes with a key that orders the list and does
    /// not change.
    pub async fn list<V: Serialize + Send + 'static>(
        &self,
        ask: impl FnOnce(&ControllerState) -> Result<Vec<(String, V)>, RegistryError> + Send + 'static,
    ) -> Listed<V> {
        let page = self.page.clone();
        let (part, link) = self.view(move |state| Ok(page.cut(ask(state)?))).await?;
        Ok(self.listed(part, link))
    }

    /// Answers a request with a part of a list that was selected elsewhere.
    pub fn listed<V: Serialize>(&self, part: Vec<V>, link: Option<String>) -> Reply<Vec<V>> {
        Reply::listed(part, link, self.if_none_match.as_deref())
    }

    /// Creates a resource of the API: 201, or 200 for a dry run.
    pub async fn create<T: Send + 'static, V: Resource + Send + 'static>(
        &self,
        act: AuditedChange,
        plan: impl FnOnce(&Registry, &Moment) -> Outcome<T> + Send + 'static,
        answer: impl FnOnce(&ControllerState, T) -> V + Send + 'static,
    ) -> Answer<V> {
        let status = if self.is_dry_run() { StatusCode::OK } else { StatusCode::CREATED };
        Ok(self.change(act, plan, answer).await?.with(status))
    }

    /// Changes a resource of the API, and answers with it once the nodes obey, or the wait for them is over.
    pub async fn change<T: Send + 'static, V: Resource + Send + 'static>(
        &self,
        act: AuditedChange,
        plan: impl FnOnce(&Registry, &Moment) -> Outcome<T> + Send + 'static,
        answer: impl FnOnce(&ControllerState, T) -> V + Send + 'static,
    ) -> Answer<V> {
        // From before the change on: a node may obey at once.
        let events = self.app.controller.watch();
        let answer = |state: &ControllerState, outcome| {
            (answer(state, outcome), Expected::of(&state.registry, &state.live, &state.ordered))
        };
        let (view, expected) = self.carry_out(act, plan, answer).await?;
        let obeyed = self.wait.wait(&self.app, &self.deadline, expected, events).await;
        Ok(Reply::of(view).obeyed(obeyed))
    }

    async fn carry_out<T: Send + 'static, U: Send + 'static>(
        &self,
        act: AuditedChange,
        plan: impl FnOnce(&Registry, &Moment) -> Outcome<T> + Send + 'static,
        then: impl FnOnce(&ControllerState, T) -> U + Send + 'static,
    ) -> Result<U, ApiError> {
        self.grant.may_change()?;
        let (filter, if_match) = (self.filter(), self.if_match.clone());
        let (who, from) = (self.grant.who.clone(), self.from);
        let plan = move |state: &ControllerState, moment: &Moment| {
            filter.check(&state.registry)?;
            let target = checked_target(act.current, act.target, state, if_match.as_deref())?;
            let network = filter.net.as_deref().and_then(|net| state.registry.find_network(net).ok());
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
            Ok((with_audit_entry(rows, entry), outcome))
        };
        Ok(self.app.controller.change(self.mode, plan, then).await?)
    }
}

/// Rows of a change with its entry for the audit log among them, stored together; without one if nothing changes.
pub(super) fn with_audit_entry(mut rows: Changes, entry: Entry) -> Changes {
    if !rows.is_empty() {
        rows.push(Row::Audit(Box::new(entry)));
    }
    rows
}

/// Name of the resource to change, if it still matches `If-Match`. This is checked where the change is
/// planned, so that no other change comes between.
fn checked_target(
    current: Option<Current>,
    target: String,
    state: &ControllerState,
    if_match: Option<&str>,
) -> Result<String, ControllerError> {
    let Some(current) = current else { return Ok(target) };
    let (target, tag) = current(state)?;
    match if_match {
        Some(wanted) if !tag.is_in(wanted) => Err(ControllerError::Changed(target)),
        _ => Ok(target),
    }
}
