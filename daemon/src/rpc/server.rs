//! Takes connections.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use interprocess::local_socket::tokio::{Listener, Stream};
use interprocess::local_socket::traits::{StreamCommon as _, tokio::Listener as _};
use latentd_client::socket::effective_user;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::connection;
use super::methods::{self, Methods};
use super::session::{Daemon, Phase};

/// Takes connections until the daemon closes, then waits for them to end.
pub(crate) async fn serve(daemon: Arc<Daemon>, listener: Listener) {
    let mut phase = daemon.phase.subscribe();
    let methods = Arc::new(methods::all());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(stream) => accept(&daemon, &methods, stream, &mut connections),
                Err(error) => {
                    // Out of file descriptors, most likely: wait for one to be given back.
                    warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => (),
            () = closing(&mut phase) => break,
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn closing(phase: &mut watch::Receiver<Phase>) {
    // The sender lives in the daemon, which we hold: waiting cannot fail.
    phase.wait_for(|phase| *phase == Phase::Closing).await.ok();
}

fn accept(daemon: &Arc<Daemon>, methods: &Arc<Methods>, stream: Stream, connections: &mut JoinSet<()>) {
    let peer = stream.peer_creds().ok().and_then(|peer| peer.euid());
    if peer != Some(effective_user()) {
        warn!(?peer, "a connection of another user was refused");
        return;
    }
    let open = daemon.connections.fetch_add(1, Ordering::Relaxed) + 1;
    debug!(open, "connected");
    let (daemon, methods) = (Arc::clone(daemon), Arc::clone(methods));
    connections.spawn(async move {
        let counted = Counted(daemon);
        let refused = open > counted.0.config.get().connections;
        connection::run(&counted.0, &methods, stream, refused).await;
    });
}

/// Counts a connection as open until it is dropped, also by a panic.
struct Counted(Arc<Daemon>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.activity.send_modify(|changes| *changes += 1);
    }
}
