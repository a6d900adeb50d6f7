//! A name server for the lab.

use anyhow::Result;
use gatewrt_tests::lab::Host;
use std::{
    net::{IpAddr, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

/// A name server on a host; it answers every question with the addresses that were set last, and does not answer when
/// there are none.
pub struct Names {
    addresses: Arc<Mutex<Vec<IpAddr>>>,
    _thread: JoinHandle<()>,
}

impl Names {
    /// Serves names on a host.
    pub fn serve(host: &Host, addresses: &[IpAddr]) -> Result<Self> {
        let socket = host.in_netns(|| UdpSocket::bind("0.0.0.0:53"))??;
        let addresses = Arc::new(Mutex::new(addresses.to_vec()));
        let known = addresses.clone();
        let thread = std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                let known = known.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = (!known.is_empty()).then(|| socket.send_to(&answer(&query[..length], &known), from));
            }
        });
        Ok(Self { addresses, _thread: thread })
    }

    /// Sets the addresses that are answered.
    pub fn set(&self, addresses: &[IpAddr]) {
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses.to_vec();
    }
}

/// Answer to a query (RFC 1035, 4.1): the question, and a record for each address of the type that it asks for.
fn answer(query: &[u8], addresses: &[IpAddr]) -> Vec<u8> {
    let kind = query[query.len() - 3];
    let fitting: Vec<&IpAddr> =
        addresses.iter().filter(|addr| kind == if addr.is_ipv4() { 1 } else { 28 }).collect();
    let mut message = query.to_vec();
    message[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, fitting.len() as u8]);
    for addr in fitting {
        let data = match addr {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        message.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0, 0, data.len() as u8]);
        message.extend(data);
    }
    message
}
