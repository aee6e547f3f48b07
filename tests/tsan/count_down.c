/* What an Arc counts down with, as ThreadSanitizer is to see it.

   The last owner of an Arc sees what the others did by a fence after its releasing count-down. ThreadSanitizer
   knows no fences: it would report the end of whatever threads share, and scoped threads that end before their
   handles. So a releasing subtraction, which nothing but Arc and Weak uses here, acquires as well.

   tests/tsan/std.py renames the runtime's own function to the one that is called below. */

enum { RELEASE = 3, ACQUIRE_AND_RELEASE = 4 };

long tierlock_tsan_fetch_sub(volatile long *at, long by, int order);

long __tsan_atomic64_fetch_sub(volatile long *at, long by, int order) {
    return tierlock_tsan_fetch_sub(at, by, order == RELEASE ? ACQUIRE_AND_RELEASE : order);
}
