//! TLS sessions that survive a restart (rustls).
//!
//! A client that comes back resumes its session instead of making a full handshake, which costs both sides
//! many times as much. What it needs for that is in a ticket, which the server has encrypted and given to the
//! client. So the successor must have the key. rustls's own ticketer makes new keys in each process: after each
//! restart every client makes a full handshake. A [`Ticketer`] hands its keys over.
//!
//! `http::Tls::pem` uses one by itself. For a configuration of your own:
//!
//! ```no_run
//! # fn start(mut config: rustls::ServerConfig) -> seamless::Result<()> {
//! seamless::init("/run/web/web.pid")?;
//! config.ticketer = seamless::tls::Ticketer::new("public")?.into();
//! seamless::started()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Which configurations may share a label
//!
//! **A resumed session skips the client's certificate.** If one configuration asks for client certificates and
//! another does not, and both had the same keys, a client could get a ticket from the second and come in with
//! it at the first. So each configuration has a label of its own, and labels never share keys. Change the label
//! when what makes a client trusted changes: its certificate authority, for example.
//!
//! # The keys
//!
//! Each key encrypts for 6 hours, and decrypts for 6 hours more. Ages go on through restarts. Only the
//! generation that serves makes new keys. Keys are never written to a disk or a log; they move to the successor
//! in sealed memory. After a crash, and after a stop, they are new. rustls accepts no early data (0-RTT) with a
//! ticketer, since others could send it again: `max_early_data_size` has no effect. [The
//! guide](crate::guide::datagrams) tells how early data goes on through restarts.

use crate::driver::tickets::{self, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::tickets::{Key, Label, ROTATION};
use crate::shutdown::lock;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;
use std::fmt;
use std::sync::Arc;

/// The length of a key's name.
const NAME: usize = 16;

/// Makes session tickets whose keys the successor gets: for `ticketer` of a
/// [`rustls::ServerConfig`].
pub struct Ticketer {
    keys: Arc<Shared>,
    random: SystemRandom,
}

impl Ticketer {
    /// The ticketer of the configuration with this label. The successor's ticketer with the same label has the
    /// same keys, and so has a second ticketer of this label in this process. One with another label never has
    /// them.
    ///
    /// Call it between [`init`](crate::init) and [`started`](crate::started). Like the first call for a socket,
    /// it transfers everything from the predecessor. If the transfer fails, the log says why, and the keys
    /// are new.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidConfig`]: the label is empty or begins with `seamless/`.
    /// - [`ErrorKind::System`]: the system has no random numbers.
    /// - [`ErrorKind::NotInitialized`]: `init` has not succeeded.
    pub fn new(label: &str) -> Result<Ticketer> {
        if label.is_empty() || label.starts_with("seamless/") {
            let why = if label.is_empty() { "it is empty" } else { "it belongs to the crate" };
            let text = format!("cannot use the label {label:?} (tickets): {why}");
            return Err(Error::new(ErrorKind::InvalidConfig, text));
        }
        Ticketer::of(label.as_bytes())
    }

    /// Also with a label of the crate's own.
    pub(crate) fn of(label: &[u8]) -> Result<Ticketer> {
        let random = SystemRandom::new();
        let mut hash: Label = [0; 32];
        hash.copy_from_slice(digest(&SHA256, label).as_ref());
        let fresh = fresh(&random).ok_or_else(|| {
            Error::new(ErrorKind::System, "the system has no random numbers (tickets)")
        })?;
        let keys = tickets::keys(hash, fresh).ok_or_else(|| {
            let text = "cannot make a ticketer (tickets): init was not called, or failed";
            Error::new(ErrorKind::NotInitialized, text)
        })?;
        Ok(Ticketer { keys, random })
    }
}

fn fresh(random: &SystemRandom) -> Option<Key> {
    let mut key = Key { name: [0; NAME], secret: [0; 32], made: tickets::now() };
    random.fill(&mut key.name).ok()?;
    random.fill(&mut key.secret).ok()?;
    Some(key)
}

fn cipher(key: &Key) -> Option<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, &key.secret).ok().map(LessSafeKey::new)
}

/// A ticket is the name of the key, a nonce, and what is encrypted. The name is authenticated as well.
impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    /// How long the key of a ticket decrypts at least.
    fn lifetime(&self) -> u32 {
        ROTATION.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let key = {
            let mut keys = lock(&self.keys);
            if keys.is_due(tickets::now()) && tickets::may_rotate() {
                keys.rotate(fresh(&self.random)?);
            }
            keys.encrypts().clone()
        };
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        cipher(&key)?.seal_in_place_append_tag(unique, Aad::from(&key.name), &mut sealed).ok()?;
        Some([&key.name[..], &nonce, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = lock(&self.keys).decrypts(name, tickets::now())?.clone();
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = cipher(&key)?.open_in_place(nonce, Aad::from(&key.name), &mut opened).ok()?;
        Some(plain.to_vec())
    }
}

impl From<Ticketer> for Arc<dyn ProducesTickets> {
    fn from(ticketer: Ticketer) -> Self {
        Arc::new(ticketer)
    }
}

/// Without keys.
impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticketer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{ErrorKind, ProducesTickets, Shared, SystemRandom, Ticketer, fresh, lock};
    use crate::proto::tickets::Keys;
    use std::sync::Arc;

    /// With keys of its own.
    fn ticketer() -> Ticketer {
        let random = SystemRandom::new();
        let key = fresh(&random).expect("random numbers");
        Ticketer { keys: Arc::new(Shared::new(Keys::new(key))), random }
    }

    #[test]
    fn a_ticket_is_read_with_the_keys_that_it_was_made_with() {
        let (one, other) = (ticketer(), ticketer());
        let ticket = one.encrypt(b"a session").expect("a ticket");
        assert_eq!(one.decrypt(&ticket).as_deref(), Some(&b"a session"[..]));
        assert_eq!(other.decrypt(&ticket), None);
        assert_ne!(one.encrypt(b"a session"), Some(ticket.clone()), "another nonce");
        // Two keys are valid: the one before is, and the one before that is not.
        for read in [true, false] {
            lock(&one.keys).rotate(fresh(&one.random).expect("random numbers"));
            assert_eq!(one.decrypt(&ticket).is_some(), read);
        }
    }

    /// All that an attacker may send.
    #[test]
    fn p10_what_is_no_ticket_is_refused() {
        let one = ticketer();
        let ticket = one.encrypt(b"a session").expect("a ticket");
        for end in 0..ticket.len() {
            assert_eq!(one.decrypt(&ticket[..end]), None, "{end}");
        }
        for at in 0..ticket.len() {
            for bit in [1, 128] {
                let mut changed = ticket.clone();
                changed[at] ^= bit;
                assert_eq!(one.decrypt(&changed), None, "{at}");
            }
        }
        let mut longer = ticket;
        longer.push(0);
        assert_eq!(one.decrypt(&longer), None);
        assert_eq!(one.decrypt(&[0; 10_000]), None);
    }

    #[test]
    fn labels_that_cannot_be_used() {
        for (label, kind) in [
            ("", ErrorKind::InvalidConfig),
            ("seamless/", ErrorKind::InvalidConfig),
            ("seamless/x", ErrorKind::InvalidConfig),
            ("x", ErrorKind::NotInitialized),
        ] {
            assert_eq!(Ticketer::new(label).expect_err(label).kind(), kind);
        }
        assert_eq!(format!("{:?}", ticketer()), "Ticketer { .. }");
    }
}
