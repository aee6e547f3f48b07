//! A server that all tests of this process share.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{
    setting::{Port, temp_dir, until},
    surroundings::program,
};

/// It ends with this process, however that ends: its shell waits for the end of a pipe.
pub(super) struct SharedServer {
    pub(super) port: u16,
    /// Its standard input is the pipe.
    _shell: Child,
}

impl SharedServer {
    /// `set_up` makes its data in a folder, and `server` is what to start on that and a port.
    pub(super) fn start(
        set_up: impl Fn(&Path),
        server: impl Fn(&Path, &str) -> Command,
        answers: impl Fn(u16) -> bool,
    ) -> SharedServer {
        let folder = temp_dir().keep();
        set_up(&folder);
        let port = Port::claim().address().port();
        let server = server(&folder, &port.to_string());
        let mut shell = program("sh");
        // A shell has what it starts beside itself ignore SIGQUIT, unless that has its own mind.
        let script = "\"$@\" & server=$!; read -r _; kill -QUIT $server; kill $server; \
                      wait $server; rm -rf \"$FOLDER\"";
        shell.args(["-c", script, "sh"]).arg(server.get_program()).args(server.get_args());
        shell.env("FOLDER", &folder).current_dir("/");
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let shell = shell.spawn().unwrap();
        until("an answer of the shared server", || answers(port));
        SharedServer { port, _shell: shell }
    }
}
