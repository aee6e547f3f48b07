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
