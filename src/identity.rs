//! Who this process is, for people on other machines.

use crate::fork::FirstMade;

/// What does not change while a process runs.
#[derive(Debug)]
pub(crate) struct ThisProcess {
    /// The machine's name; empty if it has none.
    pub(crate) host: String,
    /// The command line, cut to fit.
    pub(crate) command: String,
}

/// The longest text that is told about a process, in bytes.
const TEXT_MAX: usize = 256;

/// This process's machine and command line, read once.
pub(crate) fn this_process() -> &'static ThisProcess {
    static IDENTITY: FirstMade<ThisProcess> = FirstMade::new();
    IDENTITY.get_or_make(|| {
        let uname = rustix::system::uname();
        let command = std::env::args_os()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(" ");
        ThisProcess {
            host: cut(&uname.nodename().to_string_lossy(), TEXT_MAX).to_owned(),
            command: cut(&command, TEXT_MAX).to_owned(),
        }
    })
}

/// `text`, cut to at most `bytes` bytes at a character's boundary.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
