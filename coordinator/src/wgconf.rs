//! Configuration file of a client, for `wg-quick` (wireguard-tools) and the WireGuard apps, and its QR code.
//! Pure.

use crate::{registry::ClientFile, secret::PrivateKey};
use gatewrt_protocol::{Prefix, PresharedKey};
use qrcodegen::{QrCode, QrCodeEcc};
use std::fmt::{Display, Write};
use zeroize::Zeroizing;

/// Width of the light margin around a QR code, in modules (ISO/IEC 18004 requires four).
const QUIET: i32 = 4;

/// Secret in a client's file: none, a comment in its place, or the secret itself.
#[derive(Clone, Copy)]
pub enum Secret<T> {
    /// No secret.
    None,
    /// A comment in place of the secret.
    Hidden,
    /// The secret itself.
    Shown(T),
}

/// Text of a client's file, as `wg-quick` and the WireGuard apps read it.
pub fn text(file: &ClientFile, private: Secret<&PrivateKey>, psk: Secret<PresharedKey>) -> Zeroizing<String> {
    // The capacity is large enough that the buffer never moves and leaves a copy of the secrets behind.
    let mut text = Zeroizing::new(String::with_capacity(1024 + 48 * file.allowed.len()));
    let mut line = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("a string takes all");
        text.push('\n');
    };
    line(format_args!("[Interface]"));
    match private {
        Secret::Shown(key) => line(format_args!("PrivateKey = {}", *key.text())),
        _ => {
            line(format_args!("# PrivateKey = (the private key of this client, which is known to it alone)"))
        }
    }
    let hosts: Vec<_> = file.addresses.iter().copied().map(Prefix::host).collect();
    line(format_args!("Address = {}", list(&hosts)));
    if !file.dns.is_empty() {
        line(format_args!("DNS = {}", list(&file.dns)));
    }
    line(format_args!("MTU = {}\n", file.mtu));
    line(format_args!("[Peer]"));
    line(format_args!("PublicKey = {}", file.gateway));
    match psk {
        Secret::None => {}
        Secret::Hidden => line(format_args!("# PresharedKey = (as in the file that was issued)")),
        Secret::Shown(psk) => line(format_args!("PresharedKey = {}", *Zeroizing::new(psk.to_string()))),
    }
    line(format_args!("AllowedIPs = {}", list(&file.allowed)));
    if !file.endpoint.is_empty() {
        line(format_args!("Endpoint = {}", file.endpoint));
    }
    if file.keepalive != 0 {
        line(format_args!("PersistentKeepalive = {}", file.keepalive));
    }
    text
}

fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// QR code of a client's file.
pub struct Qr(QrCode);

impl Qr {
    /// Makes the QR code of a text; `None` if the text is too long for one (2,953 bytes).
    pub fn new(text: &str) -> Option<Self> {
        QrCode::encode_binary(text.as_bytes(), QrCodeEcc::Low).ok().map(Self)
    }

    /// QR code as SVG, without anything that a strict content security policy would refuse.
    pub fn svg(&self) -> String {
        let (size, side) = (self.0.size(), self.0.size() + 2 * QUIET);
        let mut path = String::new();
        for y in 0..size {
            for (x, run) in self.runs(y) {
                let (x, y) = (x + QUIET, y + QUIET);
                write!(path, "M{x} {y}h{run}v1h-{run}z").expect("a string takes all");
            }
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\" \
             role=\"img\" aria-label=\"QR code of the client's file\"><rect width=\"{side}\" height=\"{side}\" \
             fill=\"#fff\"/><path fill=\"#000\" d=\"{path}\"/></svg>"
        )
    }

    /// QR code as text for a terminal: two rows of modules a line, with explicit colours so that any theme shows it
    /// right.
    pub fn blocks(&self) -> String {
        let rows = (-QUIET..self.0.size() + QUIET).step_by(2);
        let line = |y: i32| {
            let cells = (-QUIET..self.0.size() + QUIET).map(|x| self.cell(x, y)).collect::<String>();
            format!("\u{1b}[38;5;16;48;5;231m{cells}\u{1b}[0m\n")
        };
        rows.map(line).collect()
    }

    fn cell(&self, x: i32, y: i32) -> char {
        match (self.0.get_module(x, y), self.0.get_module(x, y + 1)) {
            (false, false) => ' ',
            (true, false) => '▀',
            (false, true) => '▄',
            (true, true) => '█',
        }
    }

    /// Runs of dark modules in a row of the QR code: start and length.
    fn runs(&self, y: i32) -> Vec<(i32, i32)> {
        let mut runs: Vec<(i32, i32)> = Vec::new();
        for x in (0..self.0.size()).filter(|x| self.0.get_module(*x, y)) {
            match runs.last_mut() {
                Some((start, run)) if *start + *run == x => *run += 1,
                _ => runs.push((x, 1)),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests;
