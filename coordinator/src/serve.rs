//! `serve`: puts directory, keys, database, desk, broker and HTTPS together, and takes them apart again.

mod addresses;

pub use addresses::Advertised;

use crate::{
    broker::{Broker, BrokerConfig, BrokerError, Limits},
    data_dir::{DataDir, DirError},
    desk::{Desk, DeskError, DeskHandle, Nodes, Post},
    http::{self, App, GivenCert, HttpsError, HttpsServer},
    pki::Pki,
    store::{Store, StoreError},
};
use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
};

/// The file that tells local commands where the API is.
pub const LOCAL_URL: &str = "url";
/// A removed node is given this long to read its own tombstone before its session ends.
const LAST_READ: Duration = Duration::from_millis(500);
/// Messages on their way to the broker.
const POST: usize = 4096;

/// What `serve` is told.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// Keys and database.
    pub data: PathBuf,
    /// Where to listen for the API.
    pub https: SocketAddr,
    /// Where to listen for MQTT.
    pub mqtt: SocketAddr,
    /// Names and addresses by which routers reach the coordinator, best first; empty takes this machine's.
    pub advertise: Vec<String>,
    /// A certificate of the admin's own and where to listen with it, for browsers.
    pub given: Option<(GivenCert, SocketAddr)>,
}

/// Why the coordinator can't start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The directory.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The database.
    #[error("{}: {source}", path.display())]
    Store {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        source: StoreError,
    },
    /// A name to advertise.
    #[error("“{0}” can't be advertised: give a host name or an IP address, without a port")]
    Advertise(String),
    /// An address to listen on.
    #[error("can't listen for {what} on {addr}: {}", listen_advice(source, what))]
    Listen {
        /// `HTTPS`, `MQTT`.
        what: &'static str,
        /// Where.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// HTTPS other than its address.
    #[error(transparent)]
    Https(HttpsError),
    /// The broker other than its address.
    #[error("the MQTT broker can't start: {0}")]
    Broker(BrokerError),
    /// The stored records could not be brought up to date.
    #[error("the stored records can't be brought up to date: {0}")]
    Settle(DeskError),
    /// A part of the program ended that should not.
    #[error("{0} ended unexpectedly: see the log above")]
    Ended(&'static str),
    /// Anything of the operating system.
    #[error("{0}")]
    Io(#[from] io::Error),
}

fn listen_advice(error: &io::Error, what: &str) -> String {
    let option = what.to_ascii_lowercase();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("another program has that port; stop it, or choose another with --{option}")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine does not have that address; choose another with --{option}")
        }
        io::ErrorKind::PermissionDenied => {
            format!("not allowed; ports below 1024 need root, choose another with --{option}")
        }
        _ => error.to_string(),
    }
}

/// Runs until it is told to stop (SIGTERM, Ctrl-C).
pub async fn serve(config: ServeConfig) -> Result<(), ServeError> {
    raise_open_files();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut running = Running::start(config).await?;
    let ended = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        _ = &mut running.desk => Some("the desk"),
        _ = &mut running.https => Some("HTTPS"),
        _ = ended(&mut running.given) => Some("HTTPS with the given certificate"),
    };
    if let Some(part) = ended {
        return Err(ServeError::Ended(part));
    }
    tracing::info!("stopping");
    running.stop().await;
    Ok(())
}

/// Each router is a connection: as many as the system lets a program have.
fn raise_open_files() {
    use nix::sys::resource::{Resource::RLIMIT_NOFILE, getrlimit, setrlimit};
    let raised = getrlimit(RLIMIT_NOFILE).and_then(|(soft, hard)| match soft < hard {
        true => setrlimit(RLIMIT_NOFILE, hard, hard),
        false => Ok(()),
    });
    if let Err(error) = raised {
        tracing::warn!("can't have more open files, which limits how many routers can connect: {error}");
    }
}

/// Never where there is none.
async fn ended(task: &mut Option<JoinHandle<()>>) {
    match task {
        Some(task) => drop(task.await),
        None => std::future::pending().await,
    }
}

struct Running {
    desk: JoinHandle<()>,
    https: JoinHandle<()>,
    given: Option<JoinHandle<()>>,
    post: JoinHandle<Arc<Broker>>,
    _dir: DataDir,
}

impl Running {
    async fn start(config: ServeConfig) -> Result<Self, ServeError> {
        let dir = DataDir::open(&config.data)?;
        let advertised = Advertised::new(&config)?;
        let pki = Arc::new(Pki::open(&dir, &advertised.certificate_names())?);
        let (cert, key) = pki.server_files();
        let https = HttpsServer::bind(config.https, &cert, &key).await.map_err(https_error)?;
        let https_addr = https.local_addr()?;
        let given = match config.given.clone() {
            Some((cert, addr)) => Some(HttpsServer::bind_given(addr, cert).await.map_err(given_error)?),
            None => None,
        };

        let (post, posted) = mpsc::channel(POST);
        let (mut desk, handle, nodes) = open_desk(&dir, &pki, post).await?;
        let retained = desk.retained().into_iter();
        let retained = retained.map(|(topic, signed)| (topic.to_string(), signed.into())).collect();
        let broker_config = BrokerConfig {
            listen: config.mqtt,
            cert,
            key,
            client_ca: pki.ca_path(),
            limits: Limits::default(),
        };
        let started = Broker::start(broker_config, Arc::new(nodes.clone()), retained).await;
        let (broker, events) = started.map_err(broker_error)?;
        let broker = Arc::new(broker);
        let (mqtt_addr, sessions) = (broker.local_addr(), Arc::downgrade(&broker));
        let post = tokio::spawn(deliver(broker, nodes, posted));

        let control = advertised.resolve(https_addr.port(), mqtt_addr.port(), desk.control()).await;
        desk.settle(control).await.map_err(ServeError::Settle)?;
        let desk = tokio::spawn(desk.run(events));
        let app = App {
            url: advertised.url(https_addr.port()),
            brokers: advertised.brokers(mqtt_addr.port()),
            desk: handle,
            sessions: Arc::new(move || {
                sessions.upgrade().map(|broker| broker.sessions()).unwrap_or_default()
            }),
            logins: Arc::default(),
            limits: Arc::default(),
            started: Instant::now(),
            pki,
        };
        dir.write(LOCAL_URL, &format!("{}\n", addresses::local_url(https_addr)))?;
        banner(&config, &app, https_addr, mqtt_addr);
        let router = http::router(app);
        let given = given.map(|given| given.spawn(router.clone()));
        let https = https.spawn(router);
        Ok(Self { desk, https, given, post, _dir: dir })
    }

    /// From the outside in: no more orders, what was ordered is stored and published, then sessions end.
    async fn stop(self) {
        for task in [Some(self.https), self.given].into_iter().flatten() {
            task.abort();
            let _ = task.await;
        }
        let _ = self.desk.await;
        if let Some(broker) = self.post.await.ok().and_then(Arc::into_inner) {
            broker.stop().await;
        }
    }
}

async fn open_desk(
    dir: &DataDir,
    pki: &Pki,
    post: mpsc::Sender<Post>,
) -> Result<(Desk, DeskHandle, Nodes), ServeError> {
    let path = dir.database();
    let fault = |source| ServeError::Store { path: path.clone(), source };
    if !path.exists() {
        // Made here for its mode, which SQLite gives the files beside it too.
        dir.write("gatewrt.db", "")?;
    }
    let store = Store::open(&path).await.map_err(fault)?;
    let loaded = store.load(&pki.signer().public()).await.map_err(fault)?;
    Ok(Desk::new(loaded, store, pki.signer(), post))
}

/// Carries what the desk has to the broker, in order.
async fn deliver(broker: Arc<Broker>, nodes: Nodes, mut posted: mpsc::Receiver<Post>) -> Arc<Broker> {
    while let Some(post) = posted.recv().await {
        match post {
            Post::Record { topic, signed } => {
                if let Err(error) = broker.publish(&topic.to_string(), signed.into(), true).await {
                    tracing::error!(%topic, "a record was not published: {error}");
                }
            }
            Post::Remove(node) => {
                let (broker, nodes) = (Arc::downgrade(&broker), nodes.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(LAST_READ).await;
                    nodes.shut_out(node);
                    if let Some(broker) = broker.upgrade() {
                        broker.kick(&node.to_string()).await;
                    }
                });
            }
        }
    }
    broker
}

fn https_error(error: HttpsError) -> ServeError {
    match error {
        HttpsError::Listen { addr, source } => ServeError::Listen { what: "HTTPS", addr, source },
        error => ServeError::Https(error),
    }
}

fn given_error(error: HttpsError) -> ServeError {
    match error {
        HttpsError::Listen { addr, source } => ServeError::Listen { what: "cert-https", addr, source },
        error => ServeError::Https(error),
    }
}

fn broker_error(error: BrokerError) -> ServeError {
    match error {
        BrokerError::Listen { addr, source } => ServeError::Listen { what: "MQTT", addr, source },
        error => ServeError::Broker(error),
    }
}

/// Once, to stdout; no one has to be there to read it.
fn banner(config: &ServeConfig, app: &App, https: SocketAddr, mqtt: SocketAddr) {
    use std::io::Write;
    let standard = config.data == std::path::Path::new(crate::cli::DEFAULT_DATA);
    let data = if standard { String::new() } else { format!(" --data {}", config.data.display()) };
    let given = config
        .given
        .as_ref()
        .map(|(given, addr)| format!("  page   with {}  (listens on {addr})\n", given.cert.display()));
    let text = format!(
        "GateWRT coordinator {version} is ready
  HTTPS  {url}  (listens on {https})
  MQTT   {brokers}  (listens on {mqtt})
{given}  CA     sha256 {ca}
  data   {dir}
Next, in another terminal:
  gatewrt-coordinator network create home{data}
  gatewrt-coordinator code create home{data}
",
        version = http::VERSION,
        url = app.url,
        brokers = app.brokers.join(", "),
        ca = app.pki.ca_hash_text(),
        given = given.unwrap_or_default(),
        dir = config.data.display(),
    );
    let _ = io::stdout().lock().write_all(text.as_bytes());
}
