//! Misuse that must not compile; this file exists for doc tests only.
//!
//! Each block that must fail stands beside one that must not, so that it fails for its reason.
//!
//! A guard cannot outlive a mutex that it borrows; an owned guard can:
//! ```compile_fail,E0597
//! let guard = {
//!     let mutex = tierlock::Mutex::new(1);
//!     mutex.lock().unwrap()
//! };
//! drop(guard);
//! ```
//! ```
//! let guard = {
//!     let mutex = std::sync::Arc::new(tierlock::Mutex::new(1));
//!     mutex.lock_arc().unwrap()
//! };
//! drop(guard);
//! ```
//!
//! The data cannot be reached without a lock, nor outlive its guard:
//! ```compile_fail,E0614
//! let mutex = tierlock::Mutex::new(1);
//! let _ = *mutex;
//! ```
//! ```compile_fail,E0597
//! let mutex = tierlock::Mutex::new(1);
//! let data: &u32 = {
//!     let guard = mutex.lock().unwrap();
//!     &*guard
//! };
//! assert_eq!(*data, 1);
//! ```
//! ```
//! let mutex = tierlock::Mutex::new(1);
//! let data: u32 = {
//!     let guard = mutex.lock().unwrap();
//!     *guard
//! };
//! assert_eq!(data, 1);
//! ```
//!
//! A guard that was released cannot be used:
//! ```compile_fail,E0382
//! let mutex = tierlock::Mutex::new(1);
//! let guard = mutex.lock().unwrap();
//! tierlock::MutexGuard::unlock(guard).unwrap();
//! drop(guard);
//! ```
//!
//! A guard of data that may not change threads stays on its thread, and so does its mutex:
//! ```compile_fail,E0277
//! let mutex = std::sync::Arc::new(tierlock::Mutex::new(std::rc::Rc::new(1)));
//! std::thread::spawn(move || drop(mutex.lock()));
//! ```
//! ```
//! let mutex = std::sync::Arc::new(tierlock::Mutex::new(std::cell::Cell::new(1)));
//! std::thread::spawn(move || drop(mutex.lock())).join().unwrap();
//! ```
//!
//! A part of the data cannot escape from `map`:
//! ```compile_fail
//! let mutex = tierlock::Mutex::new((1, 2));
//! let mut stolen = None;
//! let guard = tierlock::MutexGuard::map(mutex.lock().unwrap(), |pair| {
//!     stolen = Some(&mut pair.0);
//!     &mut pair.1
//! });
//! ```
//!
//! The data's lifetime cannot be shortened through a guard (it is invariant):
//! ```compile_fail
//! fn shorten<'g, 'long, 'short>(
//!     guard: tierlock::MutexGuard<'g, &'long str>,
//! ) -> tierlock::MutexGuard<'g, &'short str>
//! where
//!     'long: 'short,
//! {
//!     guard
//! }
//! ```
//!
//! A lock that is dropped at once is warned of:
//! ```compile_fail
//! #![deny(unused_must_use)]
//! let mutex = tierlock::Mutex::new(1);
//! mutex.lock().unwrap();
//! ```
//! ```
//! #![deny(unused_must_use)]
//! let mutex = tierlock::Mutex::new(1);
//! let _guard = mutex.lock().unwrap();
//! ```
