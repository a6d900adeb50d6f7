//! API on a unix socket in the data directory, for commands on this machine. It has a listener and room of its own, so
//! that the admin gets through while HTTPS is under attack.
//!
//! The kernel says which user a caller is. Root and the coordinator's own user are admins without a token: both can
//! read `admin.token` anyway. The socket has mode 0600, so others get nowhere; if one does, a token is required.

use super::{Remote, grant::LocalAdmin, server::serve_http};
use crate::{
    admission::{Admission, Permit, Room, Rooms, Source, Stage, WhenFull},
    listen::ACCEPT_PAUSE,
};
use axum::Router;
use nix::unistd::{Uid, User, geteuid};
use std::{
    fs,
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    net::{UnixListener, UnixStream},
    task::{JoinHandle, JoinSet},
    time::sleep,
};

/// Name of the socket in the data directory.
pub const LOCAL_SOCKET: &str = "api.sock";
/// Room for commands on this machine, one connection each.
const ROOM: Room = Room { total: 128, per_source: 64, when_full: WhenFull::CloseOldest };

/// Server of the API on a unix socket. Dropping it removes the socket.
pub struct LocalServer {
    listener: UnixListener,
    path: PathBuf,
    admission: Arc<Admission>,
    /// User that the coordinator runs as, and its name for the audit log.
    own: (Uid, LocalAdmin),
}

impl LocalServer {
    /// Binds the server to a socket in a directory that this process has locked. A socket that is there was left by a
    /// coordinator that was killed; it is replaced.
    pub fn bind(dir: &Path) -> io::Result<Self> {
        let (path, aside) = (dir.join(LOCAL_SOCKET), dir.join(format!(".{LOCAL_SOCKET}.new")));
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&aside)?;
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o600))?;
        fs::rename(&aside, &path)?;
        let own = geteuid();
        let name = User::from_uid(own).ok().flatten().map_or_else(|| own.to_string(), |user| user.name);
        let rooms = Rooms { handshake: ROOM, anonymous: ROOM, authenticated: ROOM };
        let admission = Admission::new("local commands", rooms);
        Ok(Self { listener, path, admission, own: (own, LocalAdmin(format!("local {name}").into())) })
    }

    /// Serves the API in a task until the task is aborted; its connections end with it.
    pub fn spawn(self, router: Router) -> JoinHandle<()> {
        tokio::spawn(self.accept(router))
    }

    async fn accept(self, router: Router) {
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            match self.listener.accept().await.and_then(|(stream, _)| self.admit(stream)) {
                Ok((stream, permit, admin)) => {
                    let router = router.clone();
                    connections.spawn(async move {
                        tokio::select! {
                            () = permit.closed() => {}
                            () = serve(stream, admin, router) => {}
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!("can't accept a local command: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, stream: UnixStream) -> io::Result<(UnixStream, Permit, Option<LocalAdmin>)> {
        let uid = Uid::from_raw(stream.peer_cred()?.uid());
        let admin = admin_of(uid, &self.own);
        let stage = if admin.is_some() { Stage::Authenticated } else { Stage::Anonymous };
        let permit = self.admission.admit(Source::User(uid.as_raw()), stage).map_err(io::Error::other)?;
        Ok((stream, permit, admin))
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        // The next start replaces a socket that stays.
        let _ = fs::remove_file(&self.path);
    }
}

/// Admin that a user is: root or the coordinator's own user.
fn admin_of(uid: Uid, own: &(Uid, LocalAdmin)) -> Option<LocalAdmin> {
    match uid {
        uid if uid == own.0 => Some(own.1.clone()),
        uid if uid.is_root() => Some(LocalAdmin("local root".into())),
        _ => None,
    }
}

async fn serve(stream: UnixStream, admin: Option<LocalAdmin>, router: Router) {
    let served = serve_http(stream, router, Arc::default(), move |request| {
        request.extensions_mut().insert(Remote(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)));
        if let Some(admin) = &admin {
            request.extensions_mut().insert(admin.clone());
        }
    });
    if let Err(error) = served.await {
        tracing::debug!("connection of a local command ended: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_own_user_are_admins() {
        let own = (Uid::from_raw(107), LocalAdmin("local gatewrt".into()));
        let name = |uid| admin_of(Uid::from_raw(uid), &own).map(|admin| admin.0.to_string());
        assert_eq!(name(107).as_deref(), Some("local gatewrt"));
        assert_eq!(name(0).as_deref(), Some("local root"));
        assert_eq!([1, 106, 65534].map(name), [None, None, None]);
    }

    #[tokio::test]
    async fn socket_of_a_killed_coordinator_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCAL_SOCKET);
        for left in [LOCAL_SOCKET.to_owned(), format!(".{LOCAL_SOCKET}.new")] {
            drop(UnixListener::bind(dir.path().join(left)).unwrap());
        }
        let server = LocalServer::bind(dir.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).await.unwrap();
        drop(server);
        assert!(!path.exists());
    }
}
