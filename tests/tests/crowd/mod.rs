//! Nodes that have joined and are nowhere.

use anyhow::Result;
use gatewrt_protocol::{Endpoint, EndpointKind, JoinCode, JoinRequest, Signer, WgPublicKey};
use gatewrt_tests::mesh::Mesh;

/// The name of one.
pub fn name(number: u16) -> String {
    format!("node-{number}")
}

/// Joins as a router does that has an address of its own, with a key that nobody has the private part of.
#[allow(dead_code, reason = "each test has its own kind of nodes")]
pub fn join(mesh: &Mesh, code: &str, number: u16) -> Result<()> {
    let [high, low] = number.to_be_bytes();
    let addr = format!("203.0.{}.{low}:51820", 113 + u16::from(high)).parse()?;
    join_from(mesh, code, number, vec![Endpoint { addr, kind: EndpointKind::Wan }])
}

/// The same behind a NAT box: nobody tries to shake hands with it, which takes time of the processor without end.
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
    // Each from an address of its own: many tries from one are refused.
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
