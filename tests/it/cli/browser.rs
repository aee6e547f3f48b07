//! A headless Chromium that a test drives over a pipe, as an operator would by keyboard.

use std::io::{BufRead as _, Write as _};

use serde_json::{Value, json};

use super::*;

/// A browser with one page. Dropped, it is killed.
pub(super) struct Browser {
    child: Child,
    to: ChildStdin,
    answers: mpsc::Receiver<Value>,
    last: u64,
    page: Option<String>,
}

/// The name of a Chromium, if there is one.
pub(super) fn chromium() -> Option<&'static str> {
    let names = ["chromium-headless-shell", "chromium", "google-chrome"];
    let found = names.into_iter().find(|name| program(name).arg("--version").output().is_ok());
    if found.is_none() {
        eprintln!(
            "SKIPPED: no Chromium (Debian: chromium-headless-shell), and this is about the page"
        );
    }
    found
}

pub(super) const HEADLESS: [&str; 3] = ["--headless", "--no-sandbox", "--disable-gpu"];

impl Browser {
    /// Shows this page; `None` where there is no browser.
    pub(super) fn open(profile: &Path, url: &str) -> Option<Browser> {
        let name = chromium()?;
        // It reads from descriptor 3, and writes to 4.
        let mut command = program("sh");
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh", name]);
        command.args(HEADLESS).arg("--remote-debugging-pipe");
        command.arg(format!("--user-data-dir={}", profile.display()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let to = child.stdin.take().unwrap();
        let (told, answers) = mpsc::channel();
        let mut from = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while from.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                let whole = message.strip_suffix(&[0]).unwrap_or(&message);
                let message_told = serde_json::from_slice(whole).map(|value| told.send(value));
                message.clear();
                if !matches!(message_told, Ok(Ok(()))) {
                    return;
                }
            }
        });
        let mut browser = Browser { child, to, answers, last: 0, page: None };
        let target = browser.call("Target.createTarget", json!({"url": url}))["targetId"].take();
        let attach = json!({"targetId": target, "flatten": true});
        let session = browser.call("Target.attachToTarget", attach)["sessionId"].take();
        browser.page = Some(session.as_str().unwrap().to_owned());
        Some(browser)
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.try_call(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    fn try_call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if let Some(page) = &self.page {
            message["sessionId"] = json!(page);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut answer = self.answers.recv_timeout(PATIENCE).expect("the browser answers");
            if answer["id"] == self.last {
                return match answer["error"].take() {
                    Value::Null => Ok(answer["result"].take()),
                    error => Err(error),
                };
            }
        }
    }

    /// What an expression of the page's own language comes to.
    pub(super) fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true});
        let mut answer = eventually(expression, || {
            match self.try_call("Runtime.evaluate", params.clone()) {
                Ok(answer) => Some(answer),
                // The page is on its way, and the one before it has gone.
                Err(error) if error["message"] == "Cannot find default execution context" => None,
                Err(error) => panic!("{expression}: {error}"),
            }
        });
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits until it comes to `true`.
    pub(super) fn becomes(&mut self, expression: &str) {
        eventually(expression, || (self.value(expression) == true).then_some(()));
    }

    /// Types into what has the focus.
    pub(super) fn types(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Presses a key that is no character, such as `Enter` or `Tab`.
    pub(super) fn presses(&mut self, key: &str, code: u32) {
        // A key with a text is a character as well, by which a button is pressed.
        let down = match key {
            "Enter" => json!({"type": "keyDown", "text": "\r"}),
            _ => json!({"type": "rawKeyDown"}),
        };
        for mut params in [down, json!({"type": "keyUp"})] {
            params["key"] = json!(key);
            params["code"] = json!(key);
            params["windowsVirtualKeyCode"] = json!(code);
            self.call("Input.dispatchKeyEvent", params);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
