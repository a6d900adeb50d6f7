use super::*;
use gatewrt_protocol::WgPublicKey;
use std::process::Command;

fn file() -> ClientFile {
    let prefix = |text: &str| text.parse::<Prefix>().unwrap();
    ClientFile {
        addresses: vec!["10.80.255.1".parse().unwrap(), "fd00::1:1".parse().unwrap()],
        dns: vec!["10.80.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        mtu: 1420,
        gateway: WgPublicKey([9; 32]),
        endpoint: "[2001:db8::7]:51820".into(),
        allowed: ["10.80.0.0/16", "192.168.10.0/24", "fd00::/64"].map(prefix).into(),
        keepalive: 25,
    }
}

#[test]
fn file_has_the_format_of_wg_quick() {
    let key = PrivateKey::from_entropy(&mut [3; 32]);
    let text = text(&file(), Secret::Shown(&key), Secret::Shown(PresharedKey([5; 32])));
    let wanted = format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.80.255.1/32, fd00::1:1/128\nDNS = 10.80.0.1, fd00::1\nMTU = 1420\n\n\
         [Peer]\nPublicKey = CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=\n\
         PresharedKey = BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=\n\
         AllowedIPs = 10.80.0.0/16, 192.168.10.0/24, fd00::/64\nEndpoint = [2001:db8::7]:51820\n\
         PersistentKeepalive = 25\n",
        *key.text()
    );
    assert_eq!(*text, wanted);
}

/// Checked with `wg-quick strip`, whose output `wg` itself accepts.
#[test]
fn file_is_accepted_by_wireguard_tools() {
    let key = PrivateKey::from_entropy(&mut [3; 32]);
    let text = text(&file(), Secret::Shown(&key), Secret::Shown(PresharedKey([5; 32])));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("phone.conf");
    std::fs::write(&path, text.as_bytes()).unwrap();
    let output = Command::new("wg-quick").arg("strip").arg(&path).output();
    let output = output.expect("wireguard-tools are there (Debian package wireguard-tools)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stripped = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = stripped.lines().filter(|line| !line.is_empty()).collect();
    let interface_only = ["Address", "DNS", "MTU"];
    let wanted: Vec<_> = text
        .lines()
        .filter(|line| !line.is_empty() && !interface_only.iter().any(|name| line.starts_with(name)))
        .collect();
    assert_eq!(lines, wanted);
    let mut wg = Command::new("wg");
    let public = wg.arg("pubkey").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = public.spawn().unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), key.text().as_bytes()).unwrap();
    let said = child.wait_with_output().unwrap().stdout;
    assert_eq!(String::from_utf8(said).unwrap().trim(), key.public().to_string());
}

#[test]
fn missing_values_are_not_written() {
    let none = ClientFile { dns: Vec::new(), endpoint: String::new(), keepalive: 0, ..file() };
    let text = text(&none, Secret::Hidden, Secret::None);
    for absent in ["DNS", "Endpoint", "PersistentKeepalive", "PresharedKey"] {
        assert!(!text.contains(absent), "{absent}");
    }
    assert!(text.lines().any(|line| line.starts_with("# PrivateKey = ")));
}

#[test]
fn qr_code_has_every_dark_module_once() {
    let qr = Qr::new(&"x".repeat(400)).unwrap();
    let size = qr.0.size();
    let dark = |y| (0..size).filter(|x| qr.0.get_module(*x, y)).count() as i32;
    let runs = |y| qr.runs(y).iter().map(|(_, run)| run).sum::<i32>();
    assert!((0..size).all(|y| dark(y) == runs(y)));
    assert!(!qr.svg().contains("style") && qr.svg().starts_with("<svg "));
    let lines = qr.blocks();
    assert_eq!(lines.lines().count() as i32, (size + 2 * QUIET + 1) / 2);
    let drawn: usize = lines
        .chars()
        .map(|c| match c {
            '▀' | '▄' => 1,
            '█' => 2,
            _ => 0,
        })
        .sum();
    assert_eq!(drawn as i32, (0..size).map(dark).sum::<i32>());
    assert!(Qr::new(&"x".repeat(2954)).is_none());
}
