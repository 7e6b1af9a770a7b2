//! The last few connections of a full server: for its operator's probes. A server without room for more clients lives,
//! and one that does not answer when it is asked whether it lives is killed.

use std::time::Duration;

use axum::{extract::Request, middleware::Next, response::Response};

use crate::error::Error;

/// Connections beyond `serve.max_connections`: those of a few probes and scrapers at a time. Further ones are closed at
/// once.
pub const SPARE_CONNECTIONS: usize = 16;
/// Time for a request's head, where `serve.header_timeout_secs` is not shorter, and for all of the one exchange: whoever
/// holds such a connection holds it briefly. A refused upload is read on for less.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// When to ask again for a connection.
const RETRY: Duration = Duration::from_secs(1);

/// Goes with a request that came on a spare connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spare;

/// Refuses what came on a spare connection, and says so: for all routes that are not the operator's.
pub(crate) async fn refuse(request: Request, next: Next) -> Result<Response, Error> {
    match request.extensions().get::<Spare>() {
        Some(Spare) => Err(Error::Full { retry_after: RETRY }),
        None => Ok(next.run(request).await),
    }
}
