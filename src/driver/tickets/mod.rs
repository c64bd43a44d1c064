//! The keys of TLS session tickets in this process: taken over, and handed over.

mod keys;

use crate::proto::tickets::{Keys, Label};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub(crate) use keys::{keys, may_rotate, now};

/// Of one configuration.
pub(crate) type Shared = Mutex<Keys>;

pub(in crate::driver) struct Tickets(Mutex<Inner>);

struct Inner {
    /// What the predecessor has handed over is here.
    taken: bool,
    /// Those of the predecessor that no configuration has asked for.
    inherited: BTreeMap<Label, Keys>,
    ours: BTreeMap<Label, Arc<Shared>>,
}

impl Tickets {
    pub(in crate::driver) const fn new() -> Tickets {
        let inner = Inner { taken: false, inherited: BTreeMap::new(), ours: BTreeMap::new() };
        Tickets(Mutex::new(inner))
    }
}
