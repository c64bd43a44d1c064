//! quinn's connection IDs, made by `seamless::sockets::quic`. Copy this file into a server of your own.

use std::{sync::Arc, time::Duration};

use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use quinn_proto::InvalidCid;
use seamless::sockets::quic::{ConnectionIds, MadeBy};

/// After this time, a connection gets other IDs, so that observers cannot follow it for long.
pub const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Between two stateless resets of an endpoint. After a crash there may be thousands to send, and only packets with
/// IDs that this service has made are answered by one. quinn's own 20 ms are 50 in a second.
const BETWEEN_RESETS: Duration = Duration::from_micros(100);

struct Ids {
    ids: ConnectionIds,
    lifetime: Duration,
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.ids.generate())
    }

    /// Asked for packets of connections that this endpoint does not have. `Ok`: they are reset.
    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match self.ids.made_by(id) {
            MadeBy::ThisGeneration | MadeBy::Ended => Ok(()),
            // Its own process has the connection: a reset would end it.
            MadeBy::Living => Err(InvalidCid),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        ConnectionIds::LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        Some(self.lifetime)
    }
}

/// The configuration of the endpoint that reads from the member with these IDs. `lifetime`: of one ID.
pub fn endpoint_config(ids: &ConnectionIds, lifetime: Duration) -> EndpointConfig {
    // The same in all generations, so that a new one can reset the connections of one that has crashed.
    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &ids.reset_key());
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.min_reset_interval(BETWEEN_RESETS);
    let ids = ids.clone();
    config.cid_generator(move || Box::new(Ids { ids: ids.clone(), lifetime }));
    config
}
