//! Parts of the world that most steps leave as they are.

use ahash::RandomState;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

/// The worlds before and after a step have it in common, and its hash, until one of them changes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared<T>(Arc<Part<T>>);

#[derive(Debug, Default)]
struct Part<T> {
    value: T,
    hash: OnceLock<u64>,
}

impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Shared<T> {
        Shared(Arc::new(Part { value, hash: OnceLock::new() }))
    }

    /// Nobody has changed it since.
    pub(crate) fn is(&self, other: &Shared<T>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T: Clone> Clone for Part<T> {
    /// It is about to change.
    fn clone(&self) -> Part<T> {
        Part { value: self.value.clone(), hash: OnceLock::new() }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        let part = Arc::make_mut(&mut self.0);
        part.hash.take();
        &mut part.value
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Shared<T>) -> bool {
        self.is(other) || **self == **other
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T: Hash> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let own = || RandomState::with_seeds(1, 2, 3, 4).hash_one(&self.0.value);
        state.write_u64(*self.0.hash.get_or_init(own));
    }
}
