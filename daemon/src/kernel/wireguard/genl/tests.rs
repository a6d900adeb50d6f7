use super::*;
use crate::kernel::netlink::attr::messages;
use proptest::prelude::*;

const FAMILY: u16 = 0x22;

fn name() -> IfName {
    IfName::new("gw-a").expect("valid")
}

fn order(key: u8, allowed: &[&str]) -> PeerOrder {
    PeerOrder {
        key: WgPublicKey([key; 32]),
        action: Action::Make,
        endpoint: Some("192.0.2.1:51820".parse().expect("valid")),
        keepalive: Some(25),
        psk: None,
        replace: true,
        allowed: allowed.iter().map(|p| p.parse().expect("valid")).collect(),
    }
}

fn set(fill: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::new(FAMILY, NLM_F_ACK, &[WG_CMD_SET_DEVICE, 1, 0, 0]);
    fill(&mut message);
    message.bytes(7)
}

/// Bytes as hexadecimal, from lines with comments.
fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.lines().filter_map(|l| l.split('#').next()).collect();
    let digits: Vec<u8> = digits.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex");
    digits.chunks(2).map(byte).collect()
}

#[test]
#[cfg(target_endian = "little")]
fn device_is_set_without_its_peers() {
    let settings = WgSettings { secret: WgSecret([0xab; 32]), port: 51820, mark: 0x0100_0000 };
    let expected = hex("
        54000000 2200 0500 07000000 00000000    # length 84, family, REQUEST|ACK, sequence, port id
        01 01 0000                              # WG_CMD_SET_DEVICE, version 1
        0900 0200 67772d6100 000000             # WGDEVICE_A_IFNAME gw-a
        2400 0300 abababababababababababababababababababababababababababababababab
        0600 0600 6cca 0000                     # WGDEVICE_A_LISTEN_PORT 51820
        0800 0700 00000001                      # WGDEVICE_A_FWMARK
    ");
    assert_eq!(set(|m| fill_device(m, &name(), &settings)), expected);
}

#[test]
#[cfg(target_endian = "little")]
fn new_peer_is_one_message() {
    let expected = hex("
        90000000 2200 0500 07000000 00000000
        01 01 0000
        0900 0200 67772d6100 000000
        7000 0880                               # WGDEVICE_A_PEERS | NLA_F_NESTED
          6c00 0080                             # a peer
            2400 0100 0505050505050505050505050505050505050505050505050505050505050505
            0800 0300 02000000                  # WGPEER_F_REPLACE_ALLOWEDIPS
            1400 0400 0200 ca6c c0000201 0000000000000000 # sockaddr_in, port in network order
            0600 0500 1900 0000                 # keepalive 25
            2000 0980                           # WGPEER_A_ALLOWEDIPS | NLA_F_NESTED
              1c00 0080
                0600 0100 0200 0000             # AF_INET
                0800 0200 0a010000
                0500 0300 10 000000             # /16
    ");
    assert_eq!(set(|m| fill_peers(m, &name(), &[order(5, &["10.1.0.0/16"])])), expected);
}

#[test]
#[cfg(target_endian = "little")]
fn new_endpoint_leaves_the_rest() {
    let mut moved = order(5, &[]);
    (moved.action, moved.keepalive, moved.replace) = (Action::Update, None, false);
    moved.endpoint = "[fd00::1]:51820".parse().ok();
    let expected = hex("
        74000000 2200 0500 07000000 00000000
        01 01 0000
        0900 0200 67772d6100 000000
        5400 0880
          5000 0080
            2400 0100 0505050505050505050505050505050505050505050505050505050505050505
            0800 0300 04000000                  # WGPEER_F_UPDATE_ONLY
            2000 0400 0a00 ca6c 00000000 fd000000000000000000000000000001 00000000 # sockaddr_in6
    ");
    assert_eq!(set(|m| fill_peers(m, &name(), &[moved])), expected);
}

#[test]
#[cfg(target_endian = "little")]
fn removal_names_the_peer_alone() {
    let mut gone = order(5, &[]);
    (gone.action, gone.endpoint, gone.keepalive, gone.replace) = (Action::Remove, None, None, false);
    let expected = hex("
        54000000 2200 0500 07000000 00000000
        01 01 0000
        0900 0200 67772d6100 000000
        3400 0880
          3000 0080
            2400 0100 0505050505050505050505050505050505050505050505050505050505050505
            0800 0300 01000000                  # WGPEER_F_REMOVE_ME
    ");
    assert_eq!(set(|m| fill_peers(m, &name(), &[gone])), expected);
}

#[test]
#[cfg(target_endian = "little")]
fn preshared_key_is_set_and_removed_alone() {
    for (psk, digits) in [(PresharedKey([0xcd; 32]), "cd"), (NO_PSK, "00")] {
        let mut keyed = order(5, &[]);
        (keyed.action, keyed.endpoint, keyed.keepalive, keyed.replace) = (Action::Update, None, None, false);
        keyed.psk = Some(psk);
        let expected = hex(&format!(
            "
            78000000 2200 0500 07000000 00000000
            01 01 0000
            0900 0200 67772d6100 000000
            5800 0880
              5400 0080
                2400 0100 0505050505050505050505050505050505050505050505050505050505050505
                0800 0300 04000000                  # WGPEER_F_UPDATE_ONLY
                2400 0200 {}                        # WGPEER_A_PRESHARED_KEY
        ",
            digits.repeat(32)
        ));
        assert_eq!(set(|m| fill_peers(m, &name(), &[keyed])), expected);
    }
}

/// A message as the kernel sends it, with the settings that it got.
fn told(orders: &[PeerOrder]) -> Vec<u8> {
    set(|m| fill_peers(m, &name(), orders))
}

#[test]
fn written_device_is_read_back() {
    let settings = WgSettings { secret: WgSecret([0xab; 32]), port: 51820, mark: 0x0100_0000 };
    let mut first = set(|m| fill_device(m, &name(), &settings));
    let mut six = order(6, &["fd00::/64", "::/0"]);
    six.endpoint = "[fd00::1]:9".parse().ok();
    six.psk = Some(PresharedKey([7; 32]));
    first.extend(told(&[order(5, &["10.1.0.0/16"]), six]));
    let device = merge(messages(&first).filter_map(part).collect());
    assert_eq!(device.settings, Some(settings));
    let five = &device.peers[&WgPublicKey([5; 32])];
    assert_eq!((five.keepalive, five.psk), (25, None));
    let six = &device.peers[&WgPublicKey([6; 32])];
    assert_eq!((six.endpoint, six.psk), ("[fd00::1]:9".parse().ok(), Some(PresharedKey([7; 32]))));
    assert_eq!(six.allowed.iter().map(Prefix::to_string).collect::<Vec<_>>(), ["::/0", "fd00::/64"]);
}

#[test]
fn peer_split_over_two_messages_is_one() {
    let mut rest = order(5, &["10.2.0.0/16"]);
    (rest.endpoint, rest.keepalive) = (None, None);
    let mut bytes = told(&[order(4, &[]), order(5, &["10.1.0.0/16"])]);
    bytes.extend(told(&[rest, order(6, &[])]));
    let device = merge(messages(&bytes).filter_map(part).collect());
    assert_eq!(device.settings, None);
    assert_eq!(device.peers.len(), 3);
    let five = &device.peers[&WgPublicKey([5; 32])];
    assert_eq!((five.allowed.len(), five.keepalive), (2, 25));
    assert_eq!(five.endpoint, "192.0.2.1:51820".parse().ok());
}

#[test]
fn counters_are_read() {
    let mut bytes = Message::new(FAMILY, 0, &[0, 1, 0, 0]);
    bytes.nest(DEVICE_PEERS, |peers| {
        peers.nest(0, |peer| {
            let time = [3u64.to_ne_bytes(), 5u64.to_ne_bytes()].concat();
            peer.attr(PEER_PUBLIC_KEY, &[5; 32]).attr(PEER_LAST_HANDSHAKE, &time);
            peer.attr(PEER_RX_BYTES, &8u64.to_ne_bytes()).attr(PEER_TX_BYTES, &9u64.to_ne_bytes());
        });
    });
    let device = merge(messages(&bytes.bytes(1)).filter_map(part).collect());
    let expected = WgCounters { handshake: Some(Duration::new(3, 5)), rx: 8, tx: 9 };
    assert_eq!(device.counters[&WgPublicKey([5; 32])], expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn long_update_is_split_and_nothing_is_lost(
        sizes in proptest::collection::vec(prop_oneof![40 => 0usize..4, 1 => 0usize..5000], 0..600),
    ) {
        let orders: Vec<_> = sizes.iter().enumerate().map(|(i, size)| {
            let mut order = order(0, &[]);
            order.key.0[..4].copy_from_slice(&(i as u32).to_ne_bytes());
            let prefix = |j: usize| Prefix::host(IpAddr::from([10, i as u8, (j >> 8) as u8, j as u8]));
            order.allowed = (0..*size).map(prefix).collect();
            order
        }).collect();
        let mut bytes = Vec::new();
        for batch in batches(&orders) {
            let message = told(&batch);
            prop_assert!(message.len() < 65_536, "{}", message.len());
            bytes.extend(message);
        }
        let device = merge(messages(&bytes).filter_map(part).collect());
        prop_assert_eq!(device.peers.len(), orders.len());
        for order in &orders {
            prop_assert_eq!(&device.peers[&order.key].allowed, &order.allowed);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_parse_without_a_loop(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let received = Received { kind: 0, flags: 0, sequence: 0, body: &bytes };
        let _ = part(received);
        let _ = peer_part(&bytes);
        let _ = endpoint(&bytes);
    }
}
