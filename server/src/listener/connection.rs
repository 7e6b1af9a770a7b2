//! One connection, from its first byte to its last.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Version, header},
    response::Response,
};
use hyper::{Request, body::Incoming};
use hyper_util::{rt::TokioIo, server::conn::auto, service::TowerToHyperService};
use parking_lot::Mutex;
use tokio::{
    net::TcpStream,
    sync::{Notify, OwnedSemaphorePermit, watch},
    time::{Instant, sleep, timeout},
};
use tower::ServiceExt;

use super::{
    io::Patient,
    linger::Linger,
    spare::{self, Spare},
    stream::{Answer, Streams},
};
use crate::{access, error::Error, state::AppState};

/// A connection that is to close and has no request any more is closed after this: the last bytes of a response may still be
/// on their way. A client of HTTP/2 that does not answer would else keep the server from ending.
const CLOSING: Duration = Duration::from_secs(5);
/// A connection with requests is looked at again no sooner than this.
const MIN_WATCH: Duration = Duration::from_millis(100);

/// What all connections share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) app: Router,
    pub(super) server: Arc<auto::Builder<Streams>>,
    pub(super) state: Arc<AppState>,
    /// True once requests in flight are the last ones.
    pub(super) stop: watch::Receiver<bool>,
}

/// What a connection holds while it is there.
pub(super) struct Place {
    /// Whether it is for one request of an operator.
    pub(super) is_spare: bool,
    pub(super) _permit: OwnedSemaphorePermit,
}

impl Shared {
    /// Serves a connection until its client leaves, its time is over or the server stops.
    pub(super) async fn serve(self, stream: TcpStream, place: Place) {
        let served = self.converse(stream, place.is_spare);
        if !place.is_spare {
            served.await;
        } else if timeout(spare::TIMEOUT, served).await.is_err() {
            tracing::debug!("connection closed: it was a spare one");
        }
    }

    async fn converse(mut self, stream: TcpStream, is_spare: bool) {
        let limits = &self.state.config.serve;
        let keep_alive = limits.keep_alive_secs.duration();
        let write_timeout = limits.write_timeout_secs;
        let header_timeout = limits.header_timeout_secs.duration();
        let header_timeout = if is_spare { header_timeout.min(spare::HEAD_TIMEOUT) } else { header_timeout };

        let _ = stream.set_nodelay(true);
        let stream = TokioIo::new(Patient::new(stream, write_timeout.duration()));
        let activity = Arc::new(Activity::new());
        let noted = Arc::clone(&activity);
        let app = self.app;
        let service = tower::service_fn(move |mut request: Request<Incoming>| {
            let in_flight = InFlight::new(&noted);
            if is_spare {
                request.extensions_mut().insert(Spare);
            }
            let is_last = is_spare && request.version() < Version::HTTP_2;
            let app = app.clone();
            async move {
                let mut response = respond(app, request, in_flight).await;
                if is_last {
                    // Requests that were sent with it are not looked at.
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let connection = self.server.serve_connection(stream, TowerToHyperService::new(service));
        let mut connection = pin!(connection.into_owned());
        let mut timer = pin!(sleep(header_timeout));
        let mut is_closing = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!("connection closed: {error}");
                        if is_timeout(&*error) {
                            access::note(&self.state, &Error::SlowReader { limit_secs: write_timeout.get() });
                        }
                    }
                    return;
                }
                () = received(&mut self.stop), if !is_closing => timer.as_mut().reset(Instant::now() + CLOSING),
                () = activity.begun.notified(), if is_spare && !is_closing => {}
                () = timer.as_mut() => match activity.pulse.lock().patience(if is_closing { CLOSING } else { keep_alive }, Instant::now()) {
                    Patience::None => {
                        tracing::debug!("connection closed: no request came");
                        return;
                    }
                    Patience::Until(time) => {
                        timer.as_mut().reset(time);
                        continue;
                    }
                    // It was told to close, and did not.
                    Patience::Over if is_closing => return,
                    Patience::Over => timer.as_mut().reset(Instant::now() + write_timeout.duration()),
                },
            }
            connection.as_mut().graceful_shutdown();
            is_closing = true;
        }
    }
}

async fn received(stop: &mut watch::Receiver<bool>) {
    // Without a sender nothing is served any more.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn respond(app: Router, request: Request<Incoming>, in_flight: InFlight) -> Response {
    match app.oneshot(Linger::new(request).map(Body::new)).await {
        Ok(response) => response.map(|body| Body::new(Answer::new(body, in_flight))),
        Err(never) => match never {},
    }
}

/// Whether a connection ended because a write of ours got nowhere.
fn is_timeout(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What goes on on a connection.
struct Activity {
    pulse: Mutex<Pulse>,
    /// A request came.
    begun: Notify,
}

struct Pulse {
    has_begun: bool,
    n_requests: usize,
    idle_since: Instant,
}

/// How much longer a connection is kept.
#[derive(Debug, PartialEq)]
enum Patience {
    /// No longer: it has had no request.
    None,
    /// No longer: it has been idle.
    Over,
    /// At least until then.
    Until(Instant),
}

impl Activity {
    fn new() -> Self {
        let pulse = Pulse { has_begun: false, n_requests: 0, idle_since: Instant::now() };
        Self { pulse: Mutex::new(pulse), begun: Notify::new() }
    }
}

impl Pulse {
    fn patience(&self, keep_alive: Duration, now: Instant) -> Patience {
        if !self.has_begun {
            Patience::None
        } else if self.n_requests > 0 {
            Patience::Until(now + keep_alive.max(MIN_WATCH))
        } else if self.idle_since + keep_alive > now {
            Patience::Until(self.idle_since + keep_alive)
        } else {
            Patience::Over
        }
    }
}

/// A request that is not over before its response is.
pub(super) struct InFlight(Arc<Activity>);

impl InFlight {
    fn new(activity: &Arc<Activity>) -> Self {
        let mut pulse = activity.pulse.lock();
        pulse.has_begun = true;
        pulse.n_requests += 1;
        activity.begun.notify_one();
        drop(pulse);
        Self(Arc::clone(activity))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut pulse = self.0.pulse.lock();
        pulse.n_requests -= 1;
        pulse.idle_since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_kept_while_it_has_requests_and_for_a_while_after() {
        let keep_alive = Duration::from_secs(75);
        let activity = Arc::new(Activity::new());
        let patience =
            |at: Instant, secs| activity.pulse.lock().patience(keep_alive, at + Duration::from_secs(secs));
        let start = Instant::now();
        assert_eq!(patience(start, 0), Patience::None);
        for request in [InFlight::new(&activity), InFlight::new(&activity)] {
            assert_eq!(patience(start, 1000), Patience::Until(start + Duration::from_secs(1075)));
            drop(request);
        }
        let idle_since = activity.pulse.lock().idle_since;
        assert!(idle_since >= start);
        assert_eq!(patience(idle_since, 74), Patience::Until(idle_since + keep_alive));
        assert_eq!(patience(idle_since, 75), Patience::Over);
    }
}
