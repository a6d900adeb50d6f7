//! The QR code that a terminal shows is the client's file, as an independent reader sees it. The one of the API is read
//! off the page, in `browser.rs`.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::Lab,
    mesh::{Mesh, NETWORK},
};
use std::{
    io::Write,
    process::{Command, Stdio},
};

/// Dots of the picture a module, as a camera that is near enough would see it.
const SCALE: usize = 4;
/// Where the command line writes the file.
const FILE: &str = "/root/tablet.conf";

#[test]
fn the_code_in_the_terminal_is_the_file() -> Result<()> {
    let mesh = Mesh::start(Lab::two_sites()?, &["office"])?;
    mesh.admin(&["ingress", "set", NETWORK, "office"])?;
    let add = ["client", "add", NETWORK, "tablet", "--gateway", "office", "--psk", "--qr", "--out", FILE];
    let shown = mesh.admin(&add)?.stdout;
    let file = mesh.host("coordinator")?.read_file(FILE)?;
    ensure!(file.contains("PrivateKey = ") && file.contains("PresharedKey = "), "no whole file: {file}");
    assert_eq!(read(&picture(&shown)?)?, file);
    Ok(())
}

/// What is on the terminal as a picture (PGM): two rows of modules a line, drawn with half blocks.
fn picture(shown: &str) -> Result<Vec<u8>> {
    let lines: Vec<&str> = shown.lines().filter_map(code_of).collect();
    let wide = lines.first().context("a QR code is shown")?.chars().count();
    let row = |line: &str, is_dark: fn(char) -> bool| -> Vec<u8> {
        let dots = line.chars().flat_map(|c| [if is_dark(c) { 0 } else { 255 }; SCALE]);
        dots.collect::<Vec<u8>>().repeat(SCALE)
    };
    let rows = lines
        .iter()
        .flat_map(|line| [row(line, |c| matches!(c, '▀' | '█')), row(line, |c| matches!(c, '▄' | '█'))]);
    let dots: Vec<u8> = rows.flatten().collect();
    let head = format!("P5 {} {} 255\n", wide * SCALE, lines.len() * 2 * SCALE);
    Ok([head.into_bytes(), dots].concat())
}

/// A line of the code without its colours: black on white, whatever the theme.
fn code_of(line: &str) -> Option<&str> {
    line.strip_prefix("\u{1b}[38;5;16;48;5;231m")?.strip_suffix("\u{1b}[0m")
}

fn read(picture: &[u8]) -> Result<String> {
    let mut zbarimg = Command::new("zbarimg");
    zbarimg.args(["--quiet", "--raw", "--oneshot", "-Sbinary", "pgm:-"]);
    let mut zbarimg = zbarimg.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("zbarimg runs")?;
    zbarimg.stdin.take().context("a pipe")?.write_all(picture)?;
    let output = zbarimg.wait_with_output()?;
    ensure!(output.status.success(), "zbarimg sees no code: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
