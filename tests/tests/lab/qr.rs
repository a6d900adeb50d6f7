//! The QR code on a terminal contains the client's file, as an independent reader sees it. The API's QR code is read
//! from the page, in `browser`.

use anyhow::{Context, Result, ensure};
use gatewrt_tests::{
    lab::Lab,
    mesh::{Mesh, NETWORK},
};
use std::{
    io::Write,
    process::{Command, Stdio},
};

/// Dots of the picture for each module, as a near camera would see it.
const SCALE: usize = 4;
/// Path of the file that the command line writes.
const FILE: &str = "/root/tablet.conf";

#[test]
fn qr_code_in_the_terminal_is_the_file() -> Result<()> {
    let mesh = Mesh::start(Lab::two_sites()?, &["office"])?;
    mesh.admin(&["ingress", "set", NETWORK, "office"])?;
    let add = format!("client add {NETWORK} tablet --gateway office --psk --qr --out {FILE}");
    let shown = on_terminal(&mesh, &add)?;
    let file = mesh.host("coordinator")?.read_file(FILE)?;
    ensure!(file.contains("PrivateKey = ") && file.contains("PresharedKey = "), "no whole file: {file}");
    assert_eq!(read(&picture(&shown)?)?, file);
    no_terminal_no_code(&mesh)
}

/// Asserts that without a terminal the file is printed in place of the code, and that the command in the hint shows the
/// code on a terminal.
fn no_terminal_no_code(mesh: &Mesh) -> Result<()> {
    let add = |name, more: &[&str]| {
        mesh.admin(&[&["client", "add", NETWORK, name, "--gateway", "office", "--qr"], more].concat())
    };
    let plain = add("laptop", &[])?;
    ensure!(plain.stdout.starts_with("[Interface]\nPrivateKey = "), "{}", plain.stdout);
    ensure!(plain.stderr.contains("--private-key-file FILE"), "{}", plain.stderr);

    let saved = add("van", &["--out", FILE])?;
    assert_eq!(saved.stdout, "");
    let (_, hint) = saved.stderr.split_once("gatewrt-coordinator client qr").context("what to run")?;
    let shown = on_terminal(mesh, &format!("client qr{}", hint.lines().next().unwrap_or_default()))?;
    assert_eq!(read(&picture(&shown)?)?, mesh.host("coordinator")?.read_file(FILE)?);
    Ok(())
}

/// Runs the admin's command line on a terminal, and returns its output.
fn on_terminal(mesh: &Mesh, arguments: &str) -> Result<String> {
    let command = format!("gatewrt-coordinator {arguments}");
    let script = ["script", "--quiet", "--return", "--command", &command, "/dev/null"];
    Ok(mesh.host("coordinator")?.run(&script)?.stdout)
}

/// The terminal's content as a picture (PGM): each line has two rows of modules, drawn with half blocks.
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

/// A line of the code without its colours, which are black on white in every theme.
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
