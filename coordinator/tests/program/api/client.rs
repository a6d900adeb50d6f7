//! HTTPS client of the API.

use crate::coordinator::{Coordinator, text};
use serde_json::Value;
use std::sync::Arc;
use ureq::{
    Agent, Body,
    http::{HeaderMap, Request, Response},
};

#[derive(Clone)]
pub struct Api {
    pub agent: Agent,
    pub url: String,
    /// Token sent with each request; none if empty.
    pub token: String,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    fn read(answer: Response<Body>) -> Result<Self, ureq::Error> {
        let (parts, mut body) = answer.into_parts();
        let endless = parts.headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
        let text = if endless { String::new() } else { body.read_to_string()? };
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Self { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn is_problem(&self) -> bool {
        self.header("content-type") == "application/problem+json"
    }

    /// The kind of problem that it is.
    pub fn problem(&self) -> &str {
        assert!(self.is_problem(), "{self:?}");
        self.body["type"].as_str().unwrap()
    }
}

impl Api {
    /// Client with the admin token of the file.
    pub fn of(coordinator: &Coordinator) -> Self {
        let ca = text(&coordinator.data().join("ca.crt"));
        let ca = ureq::tls::Certificate::from_pem(ca.as_bytes()).unwrap();
        let tls = ureq::tls::TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(ureq::tls::RootCerts::new_with_certs(&[ca]));
        let config = Agent::config_builder().tls_config(tls.build()).http_status_as_error(false);
        let config =
            config.allow_non_standard_methods(true).timeout_global(Some(std::time::Duration::from_secs(20)));
        let token = text(&coordinator.data().join("admin.token")).trim().to_owned();
        Self { agent: config.build().into(), url: coordinator.url(), token }
    }

    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// A body is sent where the method has one. An answer without end is left after its head.
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
        self.try_call(method, path, headers, body).unwrap()
    }

    /// As [`Api::call`]; fails without an answer.
    pub fn try_call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, ureq::Error> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.filter(|_| !["GET", "DELETE"].contains(&method)).map(Value::to_string);
        let answer = match body {
            Some(body) => self.agent.run(request.body(body).unwrap()),
            None => self.agent.run(request.body(()).unwrap()),
        };
        Answer::read(answer?)
    }

    /// Sends a text as body with any method, one that has none too.
    pub fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        let url = format!("{}{path}", self.url);
        let request = match method {
            "GET" => self.agent.get(url).force_send_body(),
            "DELETE" => self.agent.delete(url).force_send_body(),
            "POST" => self.agent.post(url),
            "PUT" => self.agent.put(url),
            "PATCH" => self.agent.patch(url),
            _ => panic!("no test sends {method}"),
        };
        let request = request.header("authorization", format!("Bearer {}", self.token));
        Answer::read(request.send(body).unwrap()).unwrap()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], None)
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, &[], Some(body))
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, &[], None)
    }
}
