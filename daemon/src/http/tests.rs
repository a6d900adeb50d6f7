use super::*;
use proptest::prelude::*;
use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
    time::Instant,
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Starts a server that accepts one request, sends these bytes and closes. Returns its URL.
fn server(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(&answer);
    });
    url
}

fn get(url: &str, timeout: Duration) -> Result<Reply, HttpError> {
    read(agent(None, 0, timeout).get(url).header("connection", "close").call())
}

fn answered(answer: &[u8]) -> Result<(u16, Vec<u8>), String> {
    let reply = get(&server(answer.to_vec()), TIMEOUT);
    reply.map(|reply| (reply.status, reply.body)).map_err(|error| format!("{error:?}"))
}

#[test]
fn answer_of_any_status_is_read_whole() {
    assert_eq!(answered(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}rest"), Ok((200, b"{}".to_vec())));
    assert_eq!(answered(b"HTTP/1.0 404 x\r\n\r\n<html>"), Ok((404, b"<html>".to_vec())));
    let moved = b"HTTP/1.1 302 x\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(answered(moved), Ok((302, Vec::new())));
    let longest = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[b' '; MAX_BODY as usize]].concat();
    assert!(answered(&longest).is_ok_and(|(_, body)| body.len() as u64 == MAX_BODY));
}

#[test]
fn unsound_answers_are_refused_in_words() {
    let endless_head = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; 2 * MAX_HEAD]].concat();
    let long_body = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[b' '; 70 * 1024]].concat();
    for (answer, words) in [
        (b"SSH-2.0-OpenSSH_9.2\r\n".as_slice(), "BadAnswer(\"its answer is no HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "in pieces"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "its answer is no HTTP: content-length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", "larger than 64 KB"),
        (&long_body, "larger than 64 KB"),
        (&endless_head, "the head of its answer has no end"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "Broken(\"the answer breaks off\")"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "Broken(\"the answer breaks off\")"),
        (b"", "Broken("),
    ] {
        let outcome = answered(answer);
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(60)]);
        assert!(outcome.as_ref().is_err_and(|error| error.contains(words)), "{shown}: {outcome:?}");
    }
}

#[test]
fn url_of_the_wrong_kind_is_refused() {
    let tls = crate::tls::for_joining([0; 32]);
    for url in ["http://127.0.0.1:1/", "ftp://127.0.0.1/", "/x", "https:// /", ""] {
        let outcome = read(agent(Some(tls.clone()), 0, TIMEOUT).get(url).call());
        assert!(matches!(outcome, Err(HttpError::Url)), "{url}: {outcome:?}");
    }
    let outcome = read(agent(Some(tls), 0, TIMEOUT).get("https://-.example/").call());
    assert!(matches!(&outcome, Err(HttpError::Broken(why)) if why.contains("neither")), "{outcome:?}");
}

#[test]
fn host_is_found_by_name_and_by_bracketed_address() {
    for host in ["127.0.0.1", "localhost"] {
        let url = server(b"HTTP/1.1 204 x\r\n\r\n".to_vec()).replace("127.0.0.1", host);
        assert_eq!(get(&url, TIMEOUT).unwrap(), Reply { status: 204, body: Vec::new() });
    }
    let outcome = get("http://[::1]:1/", TIMEOUT);
    let Err(HttpError::Connect(tried)) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(tried[0].0, "[::1]:1".parse().unwrap());
}

#[test]
fn server_that_dribbles_is_left_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ");
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    let started = Instant::now();
    let outcome = get(&url, Duration::from_millis(500));
    let is_slow = matches!(outcome, Err(HttpError::Slow));
    assert!(is_slow && started.elapsed() < Duration::from_secs(3), "{outcome:?}");
    server.join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_answer_ends(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = answered(&bytes);
        let _ = answered(&[b"HTTP/1.1 200 OK\r\n", bytes.as_slice()].concat());
    }
}
