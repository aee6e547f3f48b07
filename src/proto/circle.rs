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
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The edges, from each node to some others.
    type Edges = Vec<Vec<usize>>;

    fn edges() -> impl Strategy<Value = Edges> {
        (1..9_usize).prop_flat_map(|nodes| {
            let to = prop::collection::vec(0..nodes, 0..4);
            prop::collection::vec(to, nodes)
        })
    }

    /// Whether a way of two edges or more leads from `start` back to it, edge after edge.
    fn comes_back(edges: &Edges, start: usize) -> bool {
        let others = |from: usize| edges[from].iter().copied().filter(move |&to| to != from);
        let mut reached: BTreeSet<usize> = others(start).collect();
        for _ in 0..edges.len() {
            let further: Vec<_> = reached.iter().flat_map(|&from| others(from)).collect();
            reached.extend(further);
        }
        reached.contains(&start)
    }

    proptest! {
        #[test]
        fn a_circle_is_found_if_and_only_if_there_is_one(edges in edges()) {
            for start in 0..edges.len() {
                let found = circle_from(start, usize::MAX, |node| edges[node].clone());
                prop_assert_eq!(found.is_some(), comes_back(&edges, start));
                let Some(circle) = found else { continue };
                prop_assert!(circle.len() >= 2);
                prop_assert_eq!(circle[0], start);
                let ahead = circle.iter().skip(1).chain([&start]);
                for (from, to) in circle.iter().zip(ahead) {
                    prop_assert!(edges[*from].contains(to));
                }
                let nodes: BTreeSet<_> = circle.iter().collect();
                prop_assert_eq!(nodes.len(), circle.len());
            }
        }
    }

    #[test]
    fn no_more_is_looked_at_than_may_be() {
        let mut looks = 0;
        let endless = |node: u64| {
            looks += 1;
            vec![node + 1]
        };
        assert_eq!(circle_from(0, 100, endless), None);
        assert_eq!(looks, 100);
    }
}
