//! Checks the layers of the code map at the top of `src/lib.rs`: which file may import which, which may say
//! `unsafe`, and where the heavy crates may be named.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The layers, the lowest first. A name is a file (`token.rs`) or a folder (`proto/`) of `src`.
const LAYERS: [&[&str]; 8] = [
    &["fork", "latches", "thread_number", "system"],
    &[
        "scope",
        "name",
        "token",
        "time",
        "printable",
        "error",
        "identity",
        "mode",
        "elected",
        "mistake",
        "played",
    ],
    &["clock", "alarm", "callbacks", "watch", "blocking", "cooperate", "filesystem", "proto"],
    &["thread", "process", "host"],
    &["path"],
    &["api"],
    &["fence"],
    &["cli", "bench", "main", "lib", "misuse", "guide"],
];

/// The only files that may say `unsafe`. `table/map.rs` beside `process/sys.rs`: what is a valid
/// view of mapped memory is a subject of its own, and the system's calls are another. `fork.rs`, since
/// every build needs to know a forked child.
const UNSAFE: [&str; 14] = [
    "src/cli/sys.rs",
    "src/fork.rs",
    "src/fork/latest.rs",
    "src/fork/lock_file.rs",
    "src/api/guard.rs",
    "src/api/guard/change.rs",
    "src/api/guard/hold.rs",
    "src/host/client/reader/lent.rs",
    "src/api/mutex.rs",
    "src/process/sys.rs",
    "src/process/table/map.rs",
    "src/api/rwlock.rs",
    "src/api/semaphore.rs",
    "src/system.rs",
];

/// Crates that only these files or folders may name.
const CRATES: [(&str, &[&str]); 18] = [
    (
        "tokio",
        &[
            "src/cooperate.rs",
            "src/host/engines/",
            "src/host/journal/ways.rs",
            "src/host/client/reader/lent.rs",
            "src/host/settings.rs",
            "src/host/speed.rs",
            "src/host/tests/",
            "src/api/manager/builder.rs",
            "src/bench/",
            "src/cli/serve/http",
        ],
    ),
    ("hyper", &["src/cli/serve/http"]),
    ("hyper_util", &["src/cli/serve/http.rs"]),
    ("prometheus_client", &["src/cli/serve/metrics.rs"]),
    ("quinn", &["src/host/speed.rs"]),
    ("quinn_proto", &["src/host/net/quic", "src/host/client/routes.rs", "src/host/net/tls.rs"]),
    ("rustls", &["src/host/"]),
    ("redb", &["src/host/journal/file"]),
    ("bincode", &["src/proto/wire.rs", "src/proto/wire/", "src/proto/group/"]),
    ("noraft", &["src/proto/group/raft.rs"]),
    ("fs4", &["src/process/", "src/host/journal/file/"]),
    ("memmap2", &["src/process/sys.rs", "src/process/table/map.rs"]),
    ("clap", &["src/cli/"]),
    ("redis", &["src/host/engines/"]),
    ("etcd_client", &["src/host/engines/etcd", "src/host/journal/etcd"]),
    ("mysql_async", &["src/host/engines/mysql"]),
    ("zookeeper_client", &["src/host/engines/zookeeper"]),
    ("tokio_postgres", &["src/host/engines/postgres", "src/host/journal/postgres"]),
];

/// What may say that a record is durable: what keeps records, and the proofs' own file. A reply that
/// depends on one cannot be made of anything else.
const COMMITTING: [&str; 6] = [
    "src/host/journal/etcd.rs",
    "src/host/journal/exclusive.rs",
    "src/host/journal/postgres.rs",
    "src/host/memory.rs",
    "src/proto/group/state.rs",
    "src/proto/record.rs",
];

/// What the protocol must never touch: clocks, files, threads, sockets.
const IMPURE: [&str; 6] = ["Instant", "SystemTime", "fs", "net", "thread", "io"];

#[test]
fn every_file_imports_only_from_lower_layers_and_from_its_own_folder() {
    let violations: Vec<String> = sources().iter().flat_map(upward_imports).collect();
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn a_planted_upward_import_is_found() {
    let planted = Source::parse("src/token.rs", "use crate::{error::LockError, manager::Engine};");
    assert_eq!(upward_imports(&planted).len(), 1);
    let sideways = Source::parse("src/host/client/link.rs", "fn f() { crate::process::open() }");
    assert_eq!(upward_imports(&sideways).len(), 1);
    let impure = Source::parse("src/proto/leader.rs", "use crate::clock;");
    assert_eq!(upward_imports(&impure).len(), 1);
    let from_the_top = Source::parse("src/api/guard.rs", "use crate::Mutex;");
    assert_eq!(upward_imports(&from_the_top).len(), 1);
    let climbing_out = Source::parse("src/proto/table.rs", "use super::super::manager::Engine;");
    assert_eq!(upward_imports(&climbing_out).len(), 1);
    let fine = Source::parse("src/api/guard.rs", "use crate::{api::mutex::Mutex, token::Token};");
    assert_eq!(upward_imports(&fine), Vec::<String>::new());
}

#[test]
fn only_the_islands_say_unsafe() {
    let found: BTreeSet<String> = sources()
        .into_iter()
        .filter(|source| source.words().any(|word| word == "unsafe"))
        .map(|source| source.path)
        .collect();
    let stray: Vec<_> = found.iter().filter(|path| !UNSAFE.contains(&path.as_str())).collect();
    assert!(stray.is_empty(), "unsafe outside its islands: {stray:?}");
}

#[test]
fn heavy_crates_stay_where_they_belong() {
    for source in sources() {
        for (name, places) in CRATES {
            let allowed = places.iter().any(|place| source.path.starts_with(place));
            let named = source.crates_named().any(|found| found == name);
            assert!(allowed || !named, "{} names the crate {name}", source.path);
        }
    }
}

#[test]
fn only_what_keeps_records_says_that_they_are_durable() {
    let said: BTreeSet<String> = sources()
        .into_iter()
        .filter(|source| !source.path.contains("/tests/") && says_committed(source))
        .map(|source| source.path)
        .collect();
    assert_eq!(said, COMMITTING.map(str::to_owned).into());
    let planted = Source::parse("src/host/leader.rs", "fn f(p: Pending) { g(p.committed()) }");
    assert!(says_committed(&planted));
    let by_path = Source::parse("src/host/leader.rs", "fn f() { all.map(Pending::committed) }");
    assert!(says_committed(&by_path));
    let only_moved = Source::parse("src/host/leader.rs", "fn f(c: Committed) { committed(c) }");
    assert!(!says_committed(&only_moved));
}

/// Whether it calls or defines `committed`, or names it by its path.
fn says_committed(source: &Source) -> bool {
    let words: Vec<String> = source.words().collect();
    words
        .windows(2)
        .any(|pair| matches!(pair[0].as_str(), "." | ":" | "fn") && pair[1] == "committed")
}

#[test]
fn the_protocol_is_pure() {
    for source in sources().iter().filter(|source| source.path.starts_with("src/proto/")) {
        for impure in IMPURE {
            let used = source.paths_from("std").any(|path| path.iter().any(|part| part == impure));
            assert!(!used, "{} uses std's {impure}", source.path);
        }
    }
}

#[test]
fn no_folder_has_a_circle() {
    assert_eq!(circles(&sources(), 1), Vec::<String>::new(), "these import each other");
    // A package of its own: what stands beside its root counts as a folder too.
    let mut compare = sources_of("benches/compare/src");
    for source in &mut compare {
        source.path = source.path.replacen("benches/compare/", "", 1);
    }
    assert_eq!(circles(&compare, 0), Vec::<String>::new(), "these import each other");
}

#[test]
fn a_planted_circle_is_found() {
    let parse = |texts: &[(&str, &str)]| -> Vec<Source> {
        texts.iter().map(|(path, text)| Source::parse(path, text)).collect()
    };
    let two = [
        ("src/host/link.rs", "use super::wire::Frame;"),
        ("src/host/wire.rs", "fn f() { crate::host::link::open() }"),
    ];
    assert_eq!(circles(&parse(&two), 1), ["src/host: link, wire"]);
    // Through a folder, and around a third one.
    let three = [
        ("src/host/link.rs", "use super::wire::Frame;"),
        ("src/host/wire/frame.rs", "use super::super::{pool::Pool, Options};"),
        ("src/host/pool.rs", "use crate::{error::LockError, host::link::Link};"),
        ("src/host/mod.rs", "use self::{link::Link, pool::Pool};"),
    ];
    assert_eq!(circles(&parse(&three), 1), ["src/host: link, pool, wire"]);
    let fine = [
        ("src/host/link.rs", "use super::{wire::Frame, Options}; mod tests { use super::*; }"),
        ("src/host/wire.rs", "use super::Options;"),
    ];
    assert_eq!(circles(&parse(&fine), 1), Vec::<String>::new());
}

/// Which files and folders of one folder import each other, in whatever order. Folders less than
/// `depth` below the root are left out.
fn circles(sources: &[Source], depth: usize) -> Vec<String> {
    let modules: Vec<Vec<String>> = sources.iter().map(Source::module).collect();
    let mut imports = BTreeMap::<&[String], BTreeMap<&str, BTreeSet<String>>>::new();
    for (source, module) in sources.iter().zip(&modules) {
        for target in source.imports(module) {
            let shared = module.iter().zip(&target).take_while(|(own, its)| own == its).count();
            let (Some(own), Some(its)) = (module.get(shared), target.get(shared)) else { continue };
            // Else it is an item of the folder's own file.
            let is_module = |known: &Vec<String>| known.starts_with(&target[..=shared]);
            if shared >= depth && modules.iter().any(is_module) {
                let folder = imports.entry(&module[..shared]).or_default();
                folder.entry(own).or_default().insert(its.clone());
            }
        }
    }
    let mut found = Vec::new();
    for (folder, imports) in &imports {
        let reached = |from: &str| {
            let mut reached = BTreeSet::new();
            let mut next = vec![from.to_owned()];
            while let Some(at) = next.pop() {
                let new = imports.get(&*at).into_iter().flatten();
                next.extend(new.filter(|to| reached.insert((*to).clone())).cloned());
            }
            reached
        };
        let mut told = BTreeSet::new();
        for start in imports.keys().filter(|start| reached(start).contains(**start)) {
            let circle: Vec<String> = reached(start)
                .into_iter()
                .filter(|other| reached(other).contains(*start))
                .collect();
            if told.insert(circle.clone()) {
                found.push(format!("src/{}: {}", folder.join("/"), circle.join(", ")));
            }
        }
    }
    found
}

/// How many attributes of `src/api` and `src/path` ask whether the build has host scope. A manager's service
/// and the questions to it are values that a build without host scope never has; those that are left are of
/// managers in memory, of public items that need a tier, and of what the program alone asks. It may be lowered.
const HOST_CFGS_MAX: usize = 9;

#[test]
fn the_path_and_the_api_know_no_build_without_host_scope() {
    let files = sources();
    let above = files.iter().filter(|source| matches!(source.place(), "path" | "api"));
    let found: Vec<_> = above
        .flat_map(|source| {
            let count = host_cfgs(&fs::read_to_string(root().join(&source.path)).unwrap());
            std::iter::repeat_n(source.path.clone(), count)
        })
        .collect();
    assert!(found.len() <= HOST_CFGS_MAX, "{} of them:\n{}", found.len(), found.join("\n"));
}

#[test]
fn a_planted_question_for_host_scope_is_found() {
    let planted = "#[cfg(feature = \"host\")]\nfn a() {}\n#[cfg_attr(not(any(feature = \"host\", \
                   feature = \"testing\")), expect(dead_code))]\nfn b() {\n    #[cfg(not(feature = \
                   \"service\"))]\n    c();\n}\n";
    assert_eq!(host_cfgs(planted), 3);
    let others = "#[cfg(feature = \"process\")]\nfn a() {}\n/// #[cfg(feature = \"host\")]\n\
                  #[cfg(all(test, feature = \"testing\"))]\nmod tests;\n";
    assert_eq!(host_cfgs(others), 0);
}

/// The attributes that ask for host scope, or for what stands in for it, but those of tests.
fn host_cfgs(text: &str) -> usize {
    let attributes = text.lines().map(str::trim).filter(|line| line.starts_with("#[cfg"));
    let asks = |line: &&str| {
        ["host", "testing", "service"].iter().any(|f| line.contains(&format!("\"{f}\"")))
            && !line.contains("(test,")
    };
    attributes.filter(asks).count()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// How many lines a file of the product may have.
const LINES_MAX: usize = 750;

#[test]
fn no_file_is_too_long_to_read_at_once() {
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    // What plays, and what is killed, stands beside what it tests.
    let is_test = |file: &Path| {
        let mut parts = file.iter();
        file.ends_with("tests.rs") || parts.any(|part| part == "tests" || part == "kills")
    };
    let long = files.into_iter().filter(|file| !is_test(file)).filter_map(|file| {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        (lines > LINES_MAX).then(|| format!("{} has {lines} lines", file.display()))
    });
    assert_eq!(Vec::from_iter(long), Vec::<String>::new());
}

#[test]
fn test_bodies_stand_beside_product_files() {
    let places = ["src", "benches/compare/src"].map(|folder| {
        let mut files = Vec::new();
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut files);
        files
    });
    let inside = places.into_iter().flatten().filter(|file| {
        let text = fs::read_to_string(file).unwrap();
        has_tests_inside(text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display())))
    });
    let inside: Vec<_> =
        inside.map(|file| format!("{} has a `mod tests {{`", file.display())).collect();
    assert!(inside.is_empty(), "their bodies belong into tests.rs:\n{}", inside.join("\n"));
}

#[test]
fn planted_tests_inside_are_found() {
    let finds = |text: &str| has_tests_inside(text.parse().unwrap());
    assert!(finds("fn f() {} #[cfg(test)] mod tests { #[test] fn g() {} }"));
    assert!(finds("mod a { #[cfg(all(test, feature = \"process\"))] pub(crate) mod tests {} }"));
    assert!(!finds("#[cfg(test)] mod tests; // mod tests { }"));
    assert!(!finds("mod testing { fn tests() {} }"));
}

/// Whether a module `tests` has its body in the file.
fn has_tests_inside(tokens: TokenStream) -> bool {
    let tokens = Vec::from_iter(tokens);
    let is_word = |token: &TokenTree, word: &str| token.to_string() == word;
    let has_body = |next: &TokenTree| matches!(next, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
    tokens.windows(3).any(|window| {
        is_word(&window[0], "mod") && is_word(&window[1], "tests") && has_body(&window[2])
    }) || tokens.into_iter().any(|token| match token {
        TokenTree::Group(group) => has_tests_inside(group.stream()),
        _ => false,
    })
}

#[test]
fn every_file_is_in_a_layer() {
    for source in sources() {
        assert!(layer_of(source.place()).is_some(), "{} is in no layer", source.path);
    }
}

/// A file of `src`, as tokens, without what is only compiled for tests.
struct Source {
    path: String,
    tokens: Vec<TokenTree>,
}

fn sources() -> Vec<Source> {
    sources_of("src")
}

fn sources_of(folder: &str) -> Vec<Source> {
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut files);
    files.sort();
    assert!(files.len() > 10, "the sources are not where this test looks for them");
    files
        .into_iter()
        .filter(|file| !file.ends_with("tests.rs"))
        .map(|file| {
            let text = fs::read_to_string(&file).unwrap();
            let path = file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
            Source::parse(path.to_str().unwrap(), &text)
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

impl Source {
    fn parse(path: &str, text: &str) -> Source {
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        Source { path: path.to_owned(), tokens: without_tests(tokens.into_iter().collect()) }
    }

    /// `src/host/client/link.rs` stands at `host`, `src/api/guard.rs` at `guard`.
    fn place(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap();
        inside.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// `src/host/client/link.rs` is `host::link`, `src/host/mod.rs` is `host`.
    fn module(&self) -> Vec<String> {
        let inside = self.path.strip_prefix("src/").unwrap().trim_end_matches(".rs");
        inside.trim_end_matches("/mod").split('/').map(str::to_owned).collect()
    }

    /// What it imports, as paths from the crate's root.
    fn imports(&self, module: &[String]) -> impl Iterator<Item = Vec<String>> {
        let from_super = self.paths_from("super").map(|path| {
            let supers = 1 + path.iter().take_while(|part| *part == "super").count();
            let outside = &module[..module.len().saturating_sub(supers)];
            let rest = path.into_iter().skip_while(|part| part == "super");
            outside.iter().cloned().chain(rest).collect()
        });
        self.paths_from("crate").chain(from_super)
    }

    fn in_a_folder(&self) -> bool {
        self.path.strip_prefix("src/").unwrap().contains('/')
    }

    fn words(&self) -> impl Iterator<Item = String> {
        let mut words = Vec::new();
        flatten(&self.tokens, &mut words);
        words.into_iter()
    }

    /// The paths that start with `root`, each as its parts after it; groups are unfolded.
    fn paths_from(&self, root: &str) -> impl Iterator<Item = Vec<String>> {
        let mut paths = Vec::new();
        find_paths(&self.tokens, root, 0, &mut paths);
        paths.into_iter()
    }

    /// First parts of paths that start with neither `crate`, `self` nor `super`.
    fn crates_named(&self) -> impl Iterator<Item = String> {
        let words: Vec<String> = self.words().collect();
        let mut named = Vec::new();
        for (at, word) in words.iter().enumerate() {
            let path_follows = words.get(at + 1).is_some_and(|next| next == ":")
                && words.get(at + 2).is_some_and(|next| next == ":");
            let path_before = at > 0 && words[at - 1] == ":";
            if path_follows && !path_before {
                named.push(word.clone());
            }
        }
        named.into_iter()
    }
}

fn upward_imports(source: &Source) -> Vec<String> {
    let own = source.place();
    let layer = layer_of(own).unwrap_or_else(|| panic!("{} is in no layer", source.path));
    let depth = source.path.matches('/').count();
    let from_crate = source.paths_from("crate");
    let from_super = source.paths_from("super").filter_map(|path| {
        let supers = 1 + path.iter().take_while(|part| *part == "super").count();
        let outside =
            if source.path.ends_with("/mod.rs") { supers > depth - 2 } else { supers >= depth };
        outside.then(|| path.into_iter().skip_while(|part| part == "super").collect())
    });
    let mut violations = Vec::new();
    for path in from_crate.chain(from_super) {
        let Some(target) = path.first() else { continue };
        if target == own {
            continue;
        }
        // What is no file and no folder is a name of lib.rs.
        let target_layer = layer_of(target).unwrap_or(LAYERS.len() - 1);
        let neighbours = target_layer == layer && !source.in_a_folder() && !is_folder(target);
        let program = layer == LAYERS.len() - 1;
        if target_layer >= layer && !neighbours && !program {
            violations.push(format!(
                "{} (layer {layer}) imports {} (layer {target_layer})",
                source.path,
                path.join("::")
            ));
        }
    }
    violations
}

fn layer_of(place: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&place))
}

/// Whether it has files besides the one of its name, and that one's tests.
fn is_folder(place: &str) -> bool {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(place);
    let mut files = Vec::new();
    if path.is_dir() {
        collect(&path, &mut files);
    }
    files.iter().any(|file| !file.ends_with("tests.rs"))
}

/// Drops every item behind `#[cfg(test)]`, and doc comments.
fn without_tests(tokens: Vec<TokenTree>) -> Vec<TokenTree> {
    let mut kept = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let attribute = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '#');
        if attribute && let Some(TokenTree::Group(group)) = tokens.peek() {
            let text = group.stream().to_string().replace(' ', "");
            tokens.next();
            if text.starts_with("cfg(test)") || text.starts_with("cfg(all(test") {
                skip_item(&mut tokens);
            }
            continue;
        }
        kept.push(match token {
            TokenTree::Group(group) => {
                let inner = without_tests(group.stream().into_iter().collect());
                TokenTree::Group(proc_macro2::Group::new(
                    group.delimiter(),
                    inner.into_iter().collect(),
                ))
            }
            other => other,
        });
    }
    kept
}

/// Skips to the end of an item: its body, or its semicolon.
fn skip_item(tokens: &mut impl Iterator<Item = TokenTree>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return,
            TokenTree::Punct(punct) if punct.as_char() == ';' => return,
            _ => {}
        }
    }
}

fn flatten(tokens: &[TokenTree], words: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                words.push("(".into());
                flatten(&group.stream().into_iter().collect::<Vec<_>>(), words);
                words.push(")".into());
            }
            other => words.push(other.to_string()),
        }
    }
}

/// `inline` is how many modules of this very file stand around the tokens: as many `super`s lead
/// no further than to the file itself.
fn find_paths(tokens: &[TokenTree], root: &str, inline: usize, paths: &mut Vec<Vec<String>>) {
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                find_paths(&inner, root, inline + usize::from(is_module(&tokens[..at])), paths);
            }
            TokenTree::Ident(word) if *word == root && !after_path(&tokens[..at]) => {
                let mut found = Vec::new();
                unfold(&tokens[at + 1..], Vec::new(), &mut found);
                paths.extend(found.into_iter().filter_map(|path| out_of(path, root, inline)));
            }
            _ => {}
        }
    }
}

/// Whether a group after these tokens is the body of `mod name { … }`.
fn is_module(before: &[TokenTree]) -> bool {
    matches!(before, [.., TokenTree::Ident(word), TokenTree::Ident(_)] if *word == "mod")
}

/// The path as seen from outside the file's inline modules; `None` if it stays inside.
fn out_of(path: Vec<String>, root: &str, inline: usize) -> Option<Vec<String>> {
    if root != "super" || inline == 0 {
        return Some(path);
    }
    let supers = 1 + path.iter().take_while(|part| *part == "super").count();
    (supers > inline).then(|| path.into_iter().skip(inline).collect())
}

fn after_path(before: &[TokenTree]) -> bool {
    matches!(before.last(), Some(TokenTree::Punct(punct)) if punct.as_char() == ':')
}

/// Follows `::a::b` or `::{a, b::c}`.
fn unfold(tokens: &[TokenTree], so_far: Vec<String>, paths: &mut Vec<Vec<String>>) {
    let separated = matches!(tokens, [TokenTree::Punct(a), TokenTree::Punct(b), ..]
        if a.as_char() == ':' && b.as_char() == ':');
    match tokens.get(2) {
        Some(TokenTree::Ident(part)) if separated => {
            let mut path = so_far;
            path.push(part.to_string());
            unfold(&tokens[3..], path, paths);
        }
        Some(TokenTree::Group(group)) if separated => {
            let items: Vec<TokenTree> = group.stream().into_iter().collect();
            let comma =
                |token: &TokenTree| matches!(token, TokenTree::Punct(p) if p.as_char() == ',');
            for item in items.split(comma) {
                if let Some(TokenTree::Ident(part)) = item.first() {
                    let mut path = so_far.clone();
                    path.push(part.to_string());
                    unfold(&item[1..], path, paths);
                }
            }
        }
        _ => paths.push(so_far),
    }
}
