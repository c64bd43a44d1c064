//! quinn's connection IDs, made by `seamless::sockets::quic`. Copy this file into a server of your own.

use std::{sync::Arc, time::Duration};

use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use quinn_proto::InvalidCid;
use seamless::sockets::quic::{ConnectionIds, MadeBy};

/// After this time, a connection gets other IDs, so that observers cannot follow it for long.
const LIFETIME: Duration = Duration::from_secs(60 * 60);

struct Ids(ConnectionIds);

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.generate())
    }

    /// Asked for packets of connections that this endpoint does not have. `Ok`: they are reset.
    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match self.0.made_by(id) {
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
        Some(LIFETIME)
    }
}

/// The configuration of the endpoint that reads from the member with these IDs.
pub fn endpoint_config(ids: &ConnectionIds) -> EndpointConfig {
    // The same in all generations, so that a new one can reset the connections of one that has crashed.
    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &ids.reset_key());
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    let ids = ids.clone();
    config.cid_generator(move || Box::new(Ids(ids.clone())));
    config
}
