//! How this process describes itself, for people on other machines.

use crate::fork::FirstMade;

/// What does not change while a process runs.
#[derive(Debug)]
pub(crate) struct ThisProcess {
    /// The machine's name; empty if it has none.
    pub(crate) host: String,
    /// The program's name, or what this process was told to say instead.
    pub(crate) command: String,
}

/// What is said about this process instead of its program's name.
static COMMAND: FirstMade<String> = FirstMade::new();

/// Has others told that this process runs `command`. Only before anything else is said about this
/// process; the first one counts.
#[cfg(feature = "cli")]
pub(crate) fn says_it_runs(command: String) {
    let _ = COMMAND.set(command);
}

/// The longest text that is told about a process, in bytes.
const TEXT_MAX: usize = 256;

/// This process's machine and program, read once. Its arguments are not shown to others: they may
/// hold passwords.
pub(crate) fn this_process() -> &'static ThisProcess {
    static IDENTITY: FirstMade<ThisProcess> = FirstMade::new();
    IDENTITY.get_or_make(|| {
        let uname = rustix::system::uname();
        let command = COMMAND.get().cloned().unwrap_or_else(program_name);
        ThisProcess {
            host: cut(&uname.nodename().to_string_lossy(), TEXT_MAX).to_owned(),
            command: cut(&command, TEXT_MAX).to_owned(),
        }
    })
}

fn program_name() -> String {
    let program = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&program).file_name().unwrap_or(&program);
    name.to_string_lossy().into_owned()
}

/// `text`, cut to at most `bytes` bytes at a character's boundary.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
