//! Generator of nodes: they join the network, and no router is behind them.

use anyhow::Result;
use gatewrt_protocol::{Endpoint, EndpointKind, JoinCode, JoinRequest, Signer, WgPublicKey};
use gatewrt_tests::mesh::Mesh;

/// Name of a generated node.
pub fn name(number: u16) -> String {
    format!("node-{number}")
}

/// Joins as a router with a public address does, with a key whose private part nobody has.
#[allow(dead_code, reason = "each test has its own kind of nodes")]
pub fn join(mesh: &Mesh, code: &str, number: u16) -> Result<()> {
    let [high, low] = number.to_be_bytes();
    let addr = format!("203.0.{}.{low}:51820", 113 + u16::from(high)).parse()?;
    join_from(mesh, code, number, vec![Endpoint { addr, kind: EndpointKind::Wan }])
}

/// Joins as a router behind a NAT box does: peers send it no handshakes, which would use processor time without end.
#[allow(dead_code, reason = "each test has its own kind of nodes")]
pub fn join_behind_nat(mesh: &Mesh, code: &str, number: u16) -> Result<()> {
    join_from(mesh, code, number, Vec::new())
}

fn join_from(mesh: &Mesh, code: &str, number: u16, endpoints: Vec<Endpoint>) -> Result<()> {
    let code: JoinCode = code.parse()?;
    let [high, low] = number.to_be_bytes();
    let mut key = [low; 32];
    key[..2].copy_from_slice(&[high, 9]);
    let signer = Signer::from_seed(&key);
    let request = JoinRequest {
        secret: code.secret_text(),
        key: WgPublicKey(key),
        identity: signer.public(),
        name: name(number).parse()?,
        board: "none".to_owned(),
        version: "0.1.0".to_owned(),
        port: 51820,
        endpoints,
        interfaces: Vec::new(),
    };
    let url = "https://127.0.0.1:8443/v1/join";
    // Each node joins from its own address, because many attempts from one address are refused.
    let from = format!("127.9.{high}.{low}");
    let curl = [
        "curl",
        "--silent",
        "--show-error",
        "--fail-with-body",
        "--insecure",
        "--interface",
        &from,
        "--data",
        "@-",
    ];
    mesh.host("coordinator")?
        .command(&[&curl, [url].as_slice()].concat())
        .stdin(signer.sign(&request)?)
        .run()?;
    Ok(())
}
