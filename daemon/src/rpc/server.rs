//! Takes connections.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::{StreamCommon as _, tokio::Listener as _};
use latentd_client::socket::effective_user;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use super::connection;
use super::listen::{ListenError, Listening, Standing};
use super::methods::{self, Methods};
use super::session::{Daemon, Phase};

/// How often it is looked whether clients still find the socket.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Takes connections until the daemon closes, then waits for them to end.
pub(crate) async fn serve(daemon: Arc<Daemon>, mut listening: Listening) {
    let mut phase = daemon.phase.subscribe();
    let methods = Arc::new(methods::all());
    let mut connections = JoinSet::new();
    let mut look = tokio::time::interval(LOOK_EVERY);
    let open = loop {
        tokio::select! {
            accepted = listening.listener.accept() => match accepted {
                Ok(stream) => accept(&daemon, &methods, stream, &mut connections),
                Err(error) => {
                    // Out of file descriptors, most likely: wait for one to be given back.
                    warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => (),
            () = closing(&mut phase) => break Some(listening),
            _ = look.tick() => match found_again(&daemon, listening).await {
                Ok(found) => listening = found,
                Err(error) => {
                    // Nobody could reach it, and it would keep others from its state.
                    error!(%error, "the socket is lost; ending");
                    daemon.advance(Phase::Stopping);
                    break None;
                }
            },
        }
    };
    // Who comes now is to find another daemon, or to start one, and not to wait for an answer of this one.
    if let Some(listening) = open {
        listening.close();
    }
    while connections.join_next().await.is_some() {}
}

/// The socket, bound anew where nothing stands in its place any more. The folder is looked at off the threads that serve.
async fn found_again(daemon: &Daemon, listening: Listening) -> Result<Listening, String> {
    let runtime = tokio::runtime::Handle::current();
    let look = move || {
        // A socket is made for a runtime.
        let _runtime = runtime.enter();
        let path = listening.socket.path.display().to_string();
        let found = match listening.socket.find() {
            Standing::Ours => Ok(listening),
            Standing::Nothing => {
                listening.again().inspect(|_| warn!(path, "the socket was gone; bound again"))
            }
            Standing::Other => Err(ListenError::Displaced { path: listening.socket.path.clone() }),
        };
        Ok(found.map_err(|error| error.to_string()))
    };
    daemon.keepers.call(look).await.unwrap_or_else(|error| Err(error.to_string()))
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
        let limit = counted.0.config.get().connections;
        let refused = !counted.0.registry.make_room(open as usize, limit as usize);
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
