//! Start and stop of the coordinator: directory, keys, database, controller, broker, HTTPS.

mod addresses;
mod admin_token;

pub use addresses::Advertised;
pub use admin_token::reset as reset_admin_token;

use crate::{
    broker::{Broker, BrokerConfig, BrokerError, Limits},
    controller::{Admitted, Controller, ControllerError, ControllerHandle, Delivery},
    data_dir::{DEFAULT_DATA, DataDir, DirError, LOCAL_URL},
    http::{self, App, CustomCertificate, HttpsError, HttpsServer, LocalServer},
    pki::{Pki, TRUSTED},
    store::{Store, StoreError},
};
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
};

/// Largest number of deliveries of the controller that wait for the broker.
const DELIVERIES: usize = 4096;

/// Configuration of the coordinator, from the options of `serve`.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// Directory with keys and database.
    pub data: PathBuf,
    /// Listen address of the API.
    pub https: SocketAddr,
    /// Listen address of MQTT.
    pub mqtt: SocketAddr,
    /// Names and addresses of the coordinator for routers, best first; empty means the addresses of this
    /// machine.
    pub advertise: Vec<String>,
    /// Custom certificate for browsers, and its listen address.
    pub custom_certificate: Option<(CustomCertificate, SocketAddr)>,
}

/// Error that keeps the coordinator from starting, or stops it.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The directory can't be used.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The database can't be used.
    #[error("{}: {source}", path.display())]
    Store {
        /// Path of the database.
        path: PathBuf,
        /// Error of the database.
        source: StoreError,
    },
    /// The text can't be advertised.
    #[error("“{host}” can't be advertised: {why}")]
    Advertise {
        /// Text as it was given.
        host: String,
        /// Reason why routers could not use it, and what to do.
        why: &'static str,
    },
    /// The address can't be listened on.
    #[error("can't listen for {what} on {addr}: {}", listen_advice(source, what))]
    Listen {
        /// Service: `HTTPS`, `cert-https` or `MQTT`.
        what: &'static str,
        /// Address that can't be listened on.
        addr: SocketAddr,
        /// Error of the kernel.
        source: io::Error,
    },
    /// HTTPS failed for another reason.
    #[error(transparent)]
    Https(HttpsError),
    /// The broker failed for another reason.
    #[error("the MQTT broker can't start: {0}")]
    Broker(BrokerError),
    /// The stored records can't be brought up to date.
    #[error("the stored records can't be brought up to date: {0}")]
    Reconcile(ControllerError),
    /// A part of the coordinator ended unexpectedly.
    #[error("{0} ended unexpectedly: see the log above")]
    Ended(&'static str),
    /// The operating system failed.
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

/// Runs the coordinator until it gets SIGTERM or SIGINT.
pub async fn serve(config: ServeConfig) -> Result<(), ServeError> {
    raise_open_files();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut running = Running::start(config).await?;
    let ended = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        _ = &mut running.controller => Some("the controller"),
        _ = &mut running.https => Some("HTTPS"),
        _ = ended(&mut running.custom_certificate) => Some("HTTPS with the custom certificate"),
    };
    if let Some(part) = ended {
        return Err(ServeError::Ended(part));
    }
    tracing::info!("stopping");
    running.stop().await;
    Ok(())
}

/// Raises the limit of open files to what the system allows: each router takes several.
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

/// Waits for the end of a task of the coordinator; forever without one.
async fn ended(task: &mut Option<JoinHandle<()>>) {
    match task {
        Some(task) => drop(task.await),
        None => std::future::pending().await,
    }
}

struct Running {
    controller: JoinHandle<()>,
    https: JoinHandle<()>,
    custom_certificate: Option<JoinHandle<()>>,
    local: Option<JoinHandle<()>>,
    delivery: JoinHandle<Arc<Broker>>,
    _dir: DataDir,
}

impl Running {
    async fn start(config: ServeConfig) -> Result<Self, ServeError> {
        let dir = DataDir::open(&config.data, &TRUSTED)?;
        let advertised = Advertised::new(&config)?;
        let pki = Arc::new(Pki::open(&dir, &advertised.certificate_names())?);
        let (cert, key) = pki.server_files();
        let https = HttpsServer::bind(config.https, &cert, &key).map_err(https_error)?;
        let https_addr = https.local_addr()?;
        let custom_certificate = match config.custom_certificate.clone() {
            Some((cert, addr)) => {
                Some(HttpsServer::bind_custom(addr, cert).map_err(custom_certificate_error)?)
            }
            None => None,
        };

        let local = bind_local(&config.data);

        let (deliveries, delivered) = mpsc::channel(DELIVERIES);
        let (mut controller, handle, admitted) = open_controller(&dir, &pki, deliveries).await?;
        let retained = controller.retained().into_iter();
        let retained = retained.map(|(topic, signed)| (topic.to_string(), signed.into())).collect();
        let broker_config = BrokerConfig {
            listen: config.mqtt,
            cert,
            key,
            client_ca: pki.ca_path(),
            limits: Limits::default(),
        };
        let started = Broker::start(broker_config, Arc::new(admitted), retained).await;
        let (broker, events) = started.map_err(broker_error)?;
        let broker = Arc::new(broker);
        let (mqtt_addr, sessions) = (broker.local_addr(), Arc::downgrade(&broker));
        let delivery = tokio::spawn(deliver(broker, delivered));

        let control = advertised.resolve(https_addr.port(), mqtt_addr.port(), controller.control()).await;
        let brokers = advertised.brokers(mqtt_addr.port());
        controller.reconcile_records(control, brokers).await.map_err(ServeError::Reconcile)?;
        admin_token::adopt(&dir, &mut controller).await?;
        let controller = tokio::spawn(controller.run(events));
        let app = App {
            url: advertised.url(https_addr.port()),
            brokers: advertised.brokers(mqtt_addr.port()),
            controller: handle,
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
        let custom_certificate =
            custom_certificate.map(|custom_certificate| custom_certificate.spawn(router.clone()));
        let local = local.map(|local| local.spawn(router.clone()));
        let https = https.spawn(router);
        Ok(Self { controller, https, custom_certificate, local, delivery, _dir: dir })
    }

    /// Stops the coordinator from the outside in: first no more requests, then all changes are stored and published,
    /// then sessions end.
    async fn stop(self) {
        for task in [Some(self.https), self.custom_certificate, self.local].into_iter().flatten() {
            task.abort();
            let _ = task.await;
        }
        let _ = self.controller.await;
        if let Some(broker) = self.delivery.await.ok().and_then(Arc::into_inner) {
            broker.stop().await;
        }
    }
}

/// Binds the socket for commands on this machine. They use HTTPS and `admin.token` without it.
fn bind_local(data: &Path) -> Option<LocalServer> {
    let bound = LocalServer::bind(data);
    bound.inspect_err(|error| tracing::warn!("commands on this machine use HTTPS: no socket: {error}")).ok()
}

async fn open_controller(
    dir: &DataDir,
    pki: &Pki,
    deliveries: mpsc::Sender<Delivery>,
) -> Result<(Controller, ControllerHandle, Admitted), ServeError> {
    let path = dir.database();
    let fault = |source| ServeError::Store { path: path.clone(), source };
    let is_first = dir.is_first_start();
    if is_first {
        dir.make_database()?;
    }
    let mut store = Store::open(&path, is_first).await.map_err(fault)?;
    let loaded = store.load(&pki.signer().public()).await.map_err(fault)?;
    dir.end_first_start()?;
    Ok(Controller::new(loaded, store, pki.signer(), deliveries))
}

/// Carries deliveries of the controller to the broker, in order. Returns the broker when there are no more.
async fn deliver(broker: Arc<Broker>, mut deliveries: mpsc::Receiver<Delivery>) -> Arc<Broker> {
    while let Some(delivery) = deliveries.recv().await {
        match delivery {
            Delivery::Record { topic, signed } => {
                if let Err(error) = broker.publish(&topic.to_string(), signed.into(), true).await {
                    tracing::error!(%topic, "a record was not published: {error}");
                }
            }
            // Nobody waits any more if the receiver is gone.
            Delivery::Flush(published) => drop(published.send(())),
            Delivery::EndSession(node) => {
                // A session may take seconds to end: other deliveries must not wait for it.
                let broker = Arc::downgrade(&broker);
                tokio::spawn(async move {
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

fn custom_certificate_error(error: HttpsError) -> ServeError {
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

/// Prints the addresses of the coordinator and next steps to stdout. Nobody has to be there to read it.
fn banner(config: &ServeConfig, app: &App, https: SocketAddr, mqtt: SocketAddr) {
    use std::io::Write;
    let standard = config.data == std::path::Path::new(DEFAULT_DATA);
    let data = if standard { String::new() } else { format!(" --data {}", config.data.display()) };
    let custom_certificate = config.custom_certificate.as_ref().map(|(custom_certificate, addr)| {
        format!("  page   with {}  (listens on {addr})\n", custom_certificate.cert.display())
    });
    let text = format!(
        "GateWRT coordinator {version} is ready
  HTTPS  {url}  (listens on {https})
  MQTT   {brokers}  (listens on {mqtt})
{custom_certificate}  CA     sha256 {ca}
  data   {dir}
Next, in another terminal:
  gatewrt-coordinator network create home{data}
  gatewrt-coordinator code create home{data}
",
        version = http::VERSION,
        url = app.url,
        brokers = app.brokers.join(", "),
        ca = app.pki.ca_hash_text(),
        custom_certificate = custom_certificate.unwrap_or_default(),
        dir = config.data.display(),
    );
    let _ = io::stdout().lock().write_all(text.as_bytes());
}
