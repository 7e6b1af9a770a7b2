//! What is kept until the room for it is used up: what came first stays.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Values by their keys, for several threads.
pub(in crate::task) struct Kept<K, V> {
    room: Mutex<Room<K, V>>,
}

struct Room<K, V> {
    by_key: HashMap<K, V>,
    free_bytes: usize,
}

impl<K: Eq + Hash, V: Clone> Kept<K, V> {
    /// Room for so many bytes.
    pub fn new(max_bytes: usize) -> Self {
        Self { room: Mutex::new(Room { by_key: HashMap::new(), free_bytes: max_bytes }) }
    }

    /// What is kept under `key`.
    pub fn get(&self, key: &K) -> Option<V> {
        self.lock().by_key.get(key).cloned()
    }

    /// Keeps a value of `n_bytes` if there is room for it.
    pub fn keep(&self, key: K, value: V, n_bytes: usize) {
        let mut room = self.lock();
        if n_bytes <= room.free_bytes && room.by_key.insert(key, value).is_none() {
            room.free_bytes -= n_bytes;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Room<K, V>> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.lock().by_key.len()
    }
}
