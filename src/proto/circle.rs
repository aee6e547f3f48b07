//! Circles in a graph that is known edge by edge.

use std::collections::BTreeSet;

/// A way from `start` back to it, as the nodes on it, `start` first. An edge from a node to itself is
/// no circle. `None` also if more than `most` nodes would have to be looked at.
///
/// What was looked at once need not be looked at again: if a way led on from there, the first look would
/// have found it.
pub(super) fn circle_from<K: Copy + Ord>(
    start: K,
    most: usize,
    mut next: impl FnMut(K) -> Vec<K>,
) -> Option<Vec<K>> {
    let mut seen = BTreeSet::from([start]);
    let mut way = vec![(start, next(start))];
    while let Some((node, open)) = way.last_mut() {
        match open.pop() {
            None => drop(way.pop()),
            Some(to) if to == start && *node != start => {
                return Some(way.into_iter().map(|(node, _)| node).collect());
            }
            Some(to) if seen.insert(to) => {
                if seen.len() > most {
                    return None;
                }
                way.push((to, next(to)));
            }
            Some(_) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests;
