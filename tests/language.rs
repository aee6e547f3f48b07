//! Holds the language of comments, docs, messages and names: an actor is named by its role (holder,
//! waiter, caller, leader …), and a type's name means one thing in the whole crate. And pages name
//! files that exist.
//!
//! The first two rules have a ceiling, which may be lowered and is never raised.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};

/// Words that leave the actor of a sentence open.
const VAGUE: [&str; 11] = [
    "who",
    "whom",
    "whose",
    "whoever",
    "somebody",
    "someone",
    "nobody",
    "anybody",
    "anyone",
    "everybody",
    "everyone",
];

/// All comments, docs and help texts together have at most so many of them in 1,000 words.
const VAGUE_PER_THOUSAND: f64 = 0.3;

/// Files that stand in for another one in builds without it, and have its names.
const STAND_INS: [&str; 2] = ["src/host/no_host.rs", "src/process/no_table.rs"];

/// Where comments, docs and help texts are.
const PLACES: [&str; 8] =
    ["src", "tests", "examples", "benches", "dist", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"];

/// The page that follows one lock from file to file.
const WALK: &str = "src/guide/walk.md";

/// Names that are not ours.
const FOREIGN_NAMES: [&str; 1] = ["anyone_all"];

#[test]
fn actors_are_named_by_their_role() {
    let mut all = Count::default();
    texts().for_each(|(path, text)| all.add(Count::of(&path, &text)));
    println!("{:.2} of 1,000 words leave the actor open", all.per_thousand());
    assert!(
        all.per_thousand() <= VAGUE_PER_THOUSAND,
        "{:.2} of 1,000 words leave the actor open:\n{}",
        all.per_thousand(),
        all.found.join("\n")
    );
}

/// A test is named after what it shows of a holder, a waiter, a client; and so is what the tests call.
#[test]
fn no_name_leaves_the_actor_open() {
    let vague: BTreeSet<String> = texts()
        .filter(|(path, _)| path.ends_with(".rs"))
        .flat_map(|file| vague_names(&file))
        .collect();
    assert!(vague.is_empty(), "\n{}", Vec::from_iter(vague).join("\n"));
}

/// What the program and the library say, in errors and help: no ceiling, none at all.
#[test]
fn no_message_leaves_the_actor_open() {
    let (mut words, mut open) = (0, Vec::new());
    for (path, text) in texts().filter(|(path, _)| is_product(path)) {
        for literal in literals(&text) {
            let said = literal.split(|c: char| !c.is_alphabetic());
            words += said.clone().count();
            open.extend(said.filter(|word| is_open(word)).map(|word| format!("{path}: {word}")));
        }
    }
    assert!(words > 5_000, "the messages are not where this test looks for them");
    assert!(open.is_empty(), "\n{}", open.join("\n"));
}

#[test]
fn a_planted_vague_name_is_found() {
    let names = |text: &str| vague_names(&("src/planted.rs".to_owned(), text.to_owned())).len();
    assert_eq!(names("fn a_reader_blocks_nobody() { mod who_holds {} }"), 2);
    assert_eq!(names("enum ToldWhom { WakeAnyone }"), 2);
    assert_eq!(names("fn a_waiter_whose_time_is_over() { whole(); anyone_all(); }"), 0);
}

#[test]
fn a_planted_vague_word_is_found() {
    let count = |path: &str, text: &str| Count::of(path, text).found.len();
    let planted = "/// Whoever waits here.\nlet x = 1; // nobody's\n//! who, and whom\n";
    assert_eq!(count("src/planted.rs", planted), 4);
    let help = "const HELP: &str = \"for whoever asks\";\n/// Somebody\nfn f() {}\n";
    assert_eq!(count("src/cli/planted.rs", help), 2);
    assert_eq!(count("src/planted.rs", help), 2);
    assert_eq!(count("src/planted/tests.rs", help), 1);
    assert_eq!(count("dist/planted.service", "# for whoever asks\nUser=tierlock"), 1);
    assert_eq!(count("README.md", "Someone waits, \nand everybody else"), 2);
    let code = "let who = somebody(\"nobody\"); // the holder\nlet url = \"http://who\";";
    assert_eq!(count("tests/planted.rs", code), 0);
    let rate = Count::of("README.md", "one who waits for ten").per_thousand();
    assert_eq!(rate, 200.0);
}

#[test]
fn a_type_name_stands_in_one_file() {
    let shared =
        shared_names(&texts().filter(|(path, _)| is_of_the_crate(path)).collect::<Vec<_>>());
    assert!(shared.is_empty(), "these are in more than one file:\n{}", shared.join("\n"));
}

#[test]
fn a_planted_shared_name_is_found() {
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let planted = [
        file("src/one.rs", "mod a { pub(crate) struct Place(u8); }\nenum Way {}"),
        file("src/two.rs", "/// A struct Way is told of here.\nunion Place { a: u8 }"),
        file("src/three.rs", "trait Way { fn struct_of(&self) {} }"),
    ];
    let shared = shared_names(&planted);
    assert_eq!(shared.len(), 2, "{shared:?}");
    assert!(shared[0].starts_with("Place: src/one.rs, src/two.rs"), "{shared:?}");
    assert_eq!(shared_names(&planted[..1]), Vec::<String>::new());
}

#[test]
fn pages_name_files_that_exist() {
    let mut missing = Vec::new();
    for (path, text) in texts().filter(|(path, _)| path.ends_with(".md")) {
        missing.extend(lost_paths(&path, &text));
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

#[test]
fn the_walk_names_what_stands_in_its_files() {
    let walk = texts().find(|(path, _)| path == WALK).expect("the walk is there").1;
    let steps: Vec<_> = walk.lines().filter(|line| line.starts_with("| `src/")).collect();
    assert!(steps.len() > 20, "the walk's tables are not where this test looks for them");
    let missing: Vec<_> = steps.into_iter().flat_map(lost_steps).collect();
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

#[test]
fn each_row_of_the_walk_is_called_from_where_it_says() {
    let walk = texts().find(|(path, _)| path == WALK).expect("the walk is there").1;
    let broken = broken_calls(&walk);
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// A reader opens no more files than this to follow a lock of a scope: the headings say so.
#[test]
fn the_walk_is_as_short_as_its_headings_say() {
    let walk = texts().find(|(path, _)| path == WALK).expect("the walk is there").1;
    let kept = "the lease kept: five";
    let trip = "one round trip: fifteen";
    for (heading, files) in [("# Thread", 3), ("# Process", 8), (kept, 5), (trip, 15)] {
        let mut lines = walk.lines().skip_while(|line| !line.contains(heading)).skip(1);
        let section = lines.by_ref().take_while(|line| !line.starts_with("# "));
        let steps = section.filter(|line| line.starts_with("| `src/"));
        let opened: BTreeSet<_> = steps.map(|step| step.split('`').nth(1)).collect();
        assert_eq!(opened.len(), files, "{heading}");
    }
}

#[test]
fn a_planted_lost_path_is_found() {
    let page =
        "see [`climb`](src/climb.rs), `src/path/climb.rs`, `src/nowhere/` and [x](src/fork.rs#top)";
    assert_eq!(lost_paths("README.md", page).len(), 2);
    assert_eq!(lost_paths("src/guide/index.md", "[a](walk.md) [b](walks.md)").len(), 1);
    assert_eq!(lost_steps("| `src/api/mutex.rs` | `lock_named`, `lock_nobody` | … |").len(), 1);
    // It is called there, and defined elsewhere.
    assert_eq!(lost_steps("| `src/api/mutex.rs` | `Named::lock_quietly` | | … |").len(), 0);
    assert_eq!(lost_steps("| `src/api/mutex.rs` | `lock_slow` | | … |").len(), 1);
}

#[test]
fn a_planted_broken_call_is_found() {
    let rows = |second: &str| {
        let first = "| `src/api/mutex.rs` | `lock_named` | | … |";
        broken_calls(&format!("# A way\n| file | look for |\n|---|---|\n{first}\n{second}")).len()
    };
    assert_eq!(rows("| `src/path/quiet.rs` | `lock_quietly` | | … |"), 0);
    assert_eq!(rows("| `src/path/quiet.rs` | `enter_slot` | | … |"), 1);
    let through = "the row above by `src/path/lock.rs::lock_slow`";
    assert_eq!(rows(&format!("| `src/path/climb.rs` | `run` | {through} | … |")), 0);
    assert_eq!(rows(&format!("| `src/path/climb.rs` | `next` | {through} | … |")), 1);
    // What only passes the call on is called there, too, and makes the call on.
    let through = "the row above by `src/path/lock.rs::escalate_async`";
    assert_eq!(rows(&format!("| `src/path/climb.rs` | `run` | {through} | … |")), 0);
    let through = "the row above by `src/path/lock.rs::climb_async`";
    assert_eq!(rows(&format!("| `src/path/climb.rs` | `run` | {through} | … |")), 1);
    assert_eq!(rows("| `src/path/climb.rs` | `run` | `src/path/lock.rs` | … |"), 0);
    assert_eq!(rows("| `src/path/climb.rs` | `run` | `src/path/quiet.rs` | … |"), 1);
}

/// The library and the program: their string literals are errors and help texts.
fn is_product(path: &str) -> bool {
    let is_test =
        path.split(['/', '.']).any(|part| ["tests", "kills", "model", "misuse"].contains(&part));
    path.starts_with("src/") && path.ends_with(".rs") && !is_test
}

/// Whether a word in a name or a message leaves the actor open. *Whose* does not: there it follows the noun that
/// it is of.
fn is_open(word: &str) -> bool {
    let word = word.to_lowercase();
    word != "whose" && VAGUE.contains(&word.as_str())
}

/// The names in a file that have such a word among their parts.
fn vague_names((path, text): &(String, String)) -> Vec<String> {
    fn collect(tokens: TokenStream, found: &mut Vec<String>) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => collect(group.stream(), found),
                TokenTree::Ident(name) => found.push(name.to_string()),
                _ => {}
            }
        }
    }
    let is_vague = |name: &String| {
        let mut parts = name.split('_').flat_map(|part| {
            let starts = part.char_indices().filter(|(at, c)| *at == 0 || c.is_uppercase());
            let starts: Vec<usize> = starts.map(|(at, _)| at).chain([part.len()]).collect();
            Vec::from_iter(starts.windows(2).map(|word| &part[word[0]..word[1]]))
        });
        !FOREIGN_NAMES.contains(&name.as_str()) && parts.any(is_open)
    };
    let mut names = Vec::new();
    collect(text.parse().unwrap_or_else(|error| panic!("{path}: {error}")), &mut names);
    names.into_iter().filter(is_vague).map(|name| format!("{path}: {name}")).collect()
}

/// The words of some text, and which of them are vague.
#[derive(Default)]
struct Count {
    words: usize,
    /// Where each vague one stands.
    found: Vec<String>,
}

impl Count {
    fn of(path: &str, text: &str) -> Count {
        let mut count = Count::default();
        let is_code = path.ends_with(".rs");
        for (at, line) in text.lines().enumerate() {
            let prose = if is_code { comment_of(line) } else { Some(line) };
            count.read(path, at + 1, prose.unwrap_or_default());
        }
        if is_product(path) {
            for literal in literals(text) {
                literal.lines().for_each(|line| count.read(path, 0, line));
            }
        }
        count
    }

    fn read(&mut self, path: &str, line: usize, prose: &str) {
        let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '\'';
        for word in prose.split(|c: char| !is_part(c)) {
            if !word.starts_with(|c: char| c.is_alphabetic()) {
                continue;
            }
            self.words += 1;
            let word = word.split('\'').next().unwrap_or_default().to_lowercase();
            if VAGUE.contains(&word.as_str()) {
                self.found.push(format!("{path}:{line}: {}", prose.trim()));
            }
        }
    }

    fn add(&mut self, other: Count) {
        self.words += other.words;
        self.found.extend(other.found);
    }

    fn per_thousand(&self) -> f64 {
        1000.0 * self.found.len() as f64 / self.words.max(1) as f64
    }
}

/// What of a line is a comment: behind slashes at its begin, or behind a blank.
fn comment_of(line: &str) -> Option<&str> {
    let mut starts = line.match_indices("//").map(|(at, _)| at);
    let start =
        starts.find(|&at| line[..at].chars().next_back().is_none_or(char::is_whitespace))?;
    Some(&line[start..])
}

/// The string literals of a file that are no doc comments.
fn literals(text: &str) -> Vec<String> {
    fn collect(tokens: TokenStream, found: &mut Vec<String>) {
        let mut is_attribute = false;
        for token in tokens {
            match token {
                TokenTree::Group(group) if !is_attribute => collect(group.stream(), found),
                TokenTree::Literal(literal) if literal.to_string().starts_with('"') => {
                    found.push(literal.to_string().replace("\\n", "\n"));
                }
                TokenTree::Punct(punct) if matches!(punct.as_char(), '#' | '!') => {
                    is_attribute = punct.as_char() == '#' || is_attribute;
                    continue;
                }
                _ => {}
            }
            is_attribute = false;
        }
    }
    let mut found = Vec::new();
    collect(text.parse().expect("a source file"), &mut found);
    found
}

/// The names of types that are made in more than one file, and where.
fn shared_names(files: &[(String, String)]) -> Vec<String> {
    let mut places = BTreeMap::<String, BTreeSet<&str>>::new();
    for (path, text) in files {
        for name in type_names(text.parse().unwrap_or_else(|error| panic!("{path}: {error}"))) {
            places.entry(name).or_default().insert(path);
        }
    }
    let shared = places.into_iter().filter(|(_, paths)| paths.len() > 1);
    shared.map(|(name, paths)| format!("{name}: {}", Vec::from_iter(paths).join(", "))).collect()
}

fn type_names(tokens: TokenStream) -> Vec<String> {
    let tokens = Vec::from_iter(tokens);
    let mut names = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match (token, tokens.get(at + 1)) {
            (TokenTree::Group(group), _) => names.extend(type_names(group.stream())),
            (TokenTree::Ident(kind), Some(TokenTree::Ident(name)))
                if ["struct", "enum", "union", "trait"].iter().any(|known| kind == known) =>
            {
                names.push(name.to_string());
            }
            _ => {}
        }
    }
    names
}

/// The paths of the repository that a page names or links to, and that are not there.
fn lost_paths(page: &str, text: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_path = |c: char| c.is_alphanumeric() || "_-./".contains(c);
    let named = text.split(|c: char| !is_path(c)).filter(|word| {
        ["src/", "tests/", "examples/", "benches/"].iter().any(|place| word.starts_with(place))
    });
    let here = root.join(page).parent().expect("a page is in a folder").to_owned();
    let linked = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    let linked = linked.filter(|link| !link.contains(':') && link.ends_with(".md"));
    let named = named.map(|path| (path, root.join(path.trim_end_matches('.'))));
    let linked = linked.map(|path| (path, here.join(path)));
    let lost = named.chain(linked).filter(|(_, place)| !place.exists());
    lost.map(|(path, _)| format!("{page}: {path}")).collect()
}

/// What a row of the walk says that is in a file, and is not: functions are defined there, types named.
fn lost_steps(row: &str) -> Vec<String> {
    let mut cells = row.trim_matches('|').split(" | ");
    let file = cells.next().unwrap_or_default().trim().trim_matches('`').to_owned();
    let code = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&file)).unwrap();
    let named = cells.next().unwrap_or_default().split('`').skip(1).step_by(2);
    let parts = named.flat_map(|name| name.split("::"));
    let is_function = |part: &str| part.starts_with(|c: char| c.is_lowercase());
    let is_there = |part: &str| match is_function(part) {
        true => ["(", "<"].iter().any(|next| code.contains(&format!("fn {part}{next}"))),
        false => code.contains(part),
    };
    let lost = parts.filter(|part| !is_there(part));
    lost.map(|part| format!("{file} has no {part}")).collect()
}

/// Which rows of the walk are not called from where they say: from the row above, or from the file that the
/// third column names, there by way of each function that it names.
fn broken_calls(walk: &str) -> Vec<String> {
    let mut broken = Vec::new();
    // The file that calls, of the row above.
    let mut above: Option<String> = None;
    for line in walk.lines() {
        if !line.starts_with("| `src/") {
            // Another table begins anew.
            above = above.filter(|_| line.starts_with('|'));
            continue;
        }
        let cells: Vec<_> = line.trim_matches('|').split('|').collect();
        let quoted = |cell: usize| {
            cells.get(cell).into_iter().flat_map(|cell| cell.split('`').skip(1).step_by(2))
        };
        let file = quoted(0).next().expect("a row begins with its file").to_owned();
        let mut caller = above.replace(file.clone());
        let mut steps = Vec::new();
        for place in quoted(2) {
            match place.split_once("::") {
                Some((by, function)) => steps.push((by.to_owned(), function.to_owned())),
                None => caller = Some(place.to_owned()),
            }
        }
        let first = quoted(1).next().unwrap_or_default();
        let first = first.rsplit("::").next().unwrap_or_default().to_owned();
        steps.push((file, first));
        for (file, function) in steps {
            if let Some(caller) = caller.replace(file)
                && !calls(&caller, &function)
            {
                broken.push(format!("{caller} does not call {function}"));
            }
        }
    }
    broken
}

/// Whether a file has that function's name as that of a function of another file.
fn calls(file: &str, function: &str) -> bool {
    let code = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.lines()
        .filter(|line| comment_of(line).is_none_or(|text| text.len() < line.trim().len()))
        .any(|line| {
            line.match_indices(function).any(|(at, _)| {
                let (before, after) = (&line[..at], &line[at + function.len()..]);
                !before.ends_with(is_part) && !before.ends_with("fn ") && after.starts_with('(')
            })
        })
}

fn is_of_the_crate(path: &str) -> bool {
    path.starts_with("src/") && path.ends_with(".rs") && !STAND_INS.contains(&path)
}

/// The files that this test reads, but for itself, with their paths in the repository.
fn texts() -> impl Iterator<Item = (String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    PLACES.iter().for_each(|place| collect(&root.join(place), &mut files));
    files.sort();
    assert!(files.len() > 50, "the sources are not where this test looks for them");
    files.into_iter().filter_map(move |file| {
        let path = file.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        (path != "tests/language.rs").then_some((path, text))
    })
}

fn collect(place: &Path, files: &mut Vec<PathBuf>) {
    if place.is_dir() {
        for entry in fs::read_dir(place).unwrap() {
            collect(&entry.unwrap().path(), files);
        }
    } else if place.extension().is_some_and(|ending| ending == "rs" || ending == "md")
        || place.starts_with(Path::new(env!("CARGO_MANIFEST_DIR")).join("dist"))
    {
        files.push(place.to_owned());
    }
}
