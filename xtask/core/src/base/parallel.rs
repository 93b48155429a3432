//! The same work for several items at once.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Does the work for each item, for at most `limit` items at a time, and returns the results in the
/// order of the items. After a failure no further item is begun.
///
/// # Errors
/// The first failure.
pub fn map<T, R: Send, E: Send>(
    limit: usize,
    items: impl ExactSizeIterator<Item = T> + Send,
    work: impl Fn(T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let limit = limit.min(items.len());
    let items = Mutex::new(items.enumerate());
    let has_failed = AtomicBool::new(false);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..limit {
            scope.spawn(|| {
                while !has_failed.load(Ordering::SeqCst) {
                    let next = items.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((number, item)) = next else { break };
                    let result = work(item);
                    if result.is_err() {
                        has_failed.store(true, Ordering::SeqCst);
                    }
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.push((number, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    if has_failed.into_inner() {
        // In the order in which they happened: a later one is often a consequence.
        let failure = done.into_iter().find_map(|(_, result)| result.err());
        return failure.map_or(Ok(Vec::new()), Err);
    }
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicUsize, time::Duration};

    use super::*;

    #[test]
    fn at_most_so_many_at_a_time() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let items: Vec<usize> = (0..20).collect();
        let done = map(4, items.iter(), |item| {
            let running = now.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(running, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(2));
            now.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, ()>(item * 2)
        });
        assert_eq!(
            done.unwrap(),
            items.iter().map(|item| item * 2).collect::<Vec<_>>()
        );
        assert!((2..=4).contains(&most.into_inner()));
        assert_eq!(map(4, [0; 0].iter(), |_| Err::<(), _>(())), Ok(Vec::new()));
    }

    #[test]
    fn nothing_is_begun_after_a_failure() {
        let begun = AtomicUsize::new(0);
        let items: Vec<usize> = (0..1000).collect();
        let done = map(2, items.iter(), |item| {
            begun.fetch_add(1, Ordering::SeqCst);
            if *item == 3 { Err("three") } else { Ok(()) }
        });
        assert_eq!(done, Err("three"));
        assert!(begun.into_inner() < 1000);
    }
}
