//! The options that every command has, completed from the environment.

use std::path::{Path, PathBuf};

use super::{Common, usage::usage};
use crate::{
    api::manager::LockManagerBuilder,
    cli::failure::{Failure, exit},
    host::{
        ClientKeys,
        service_url::{ServiceKind, ServiceUrl},
    },
    process,
};

impl Common {
    /// Fills in from the environment what the command line leaves out. A variable that is set to
    /// nothing counts as unset.
    pub(in crate::cli) fn with_environment(mut self) -> Result<Common, Failure> {
        let path = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        self.dir = self.dir.or_else(|| path("TIERLOCK_DIR"));
        self.secret_file = self.secret_file.or_else(|| path("TIERLOCK_SECRET_FILE"));
        if let Some(service) = &self.service {
            if ServiceUrl::parse(service)?.password.is_some() {
                return Err(Failure::new(
                    exit::CONFIG,
                    "--service has a password, which every user of this machine can read there: put it \
                     in a file and name that by ?password_file=FILE, or set TIERLOCK_SERVICE",
                ));
            }
        } else if self.leaders.is_empty() {
            let leaders = text_of("TIERLOCK_LEADERS")?;
            self.service = text_of("TIERLOCK_SERVICE")?;
            if leaders.is_some() && self.service.is_some() {
                return Err(Failure::new(
                    exit::CONFIG,
                    "TIERLOCK_LEADERS and TIERLOCK_SERVICE are both set, but locks are granted \
                     by one service: unset one, or give --leader or --service",
                ));
            }
            let leaders = leaders.iter().flat_map(|leaders| leaders.split(',')).map(str::trim);
            self.leaders = leaders.filter(|it| !it.is_empty()).map(str::to_owned).collect();
        }
        if let Some(service) = &self.service {
            let (feature, is_here) = ServiceUrl::parse(service)?.kind.feature();
            if !is_here {
                return Err(usage(format_args!(
                    "this tierlock was built without the feature `{feature}`, which that service needs: \
                     cargo install tierlock --features cli,{feature}"
                )));
            }
        }
        if self.label.is_none() {
            self.label = text_of("TIERLOCK_LABEL")?;
        }
        if self.dir.is_none() && self.leaders.is_empty() && self.service.is_none() {
            return Err(Failure::new(
                exit::CONFIG,
                "nothing says which processes share the locks; give --dir, --leader or --service, or set \
                 TIERLOCK_DIR, TIERLOCK_LEADERS or TIERLOCK_SERVICE",
            ));
        }
        Ok(self)
    }

    /// The label unless one was given.
    pub(in crate::cli) fn or_label(mut self, label: String) -> Common {
        self.label.get_or_insert(label);
        self
    }

    /// The leaders' addresses, or the service; none, if no lock can be taken at host scope.
    pub(in crate::cli) fn leaders(&self) -> Vec<String> {
        let service = self.service.as_ref().map(|service| match ServiceUrl::parse(service) {
            Ok(url) if url.kind == ServiceKind::Tierlock => url.addresses,
            Ok(url) => vec![url.shown()],
            Err(_) => vec!["the service".to_owned()],
        });
        service.unwrap_or_else(|| self.leaders.clone())
    }

    /// The addresses of our own leaders, if host scope is theirs.
    pub(in crate::cli) fn leader_addresses(&self) -> Vec<String> {
        match &self.service {
            None => self.leaders.clone(),
            Some(service) => match ServiceUrl::parse(service) {
                Ok(url) if url.kind == ServiceKind::Tierlock => url.addresses,
                _ => Vec::new(),
            },
        }
    }

    /// Whether the secret can be read once only.
    pub(in crate::cli) fn has_secret_in_a_pipe(&self) -> bool {
        self.secret_file.as_deref().is_some_and(|file| file.exists() && !file.is_file())
    }

    /// Whether the secret can be read more than once.
    pub(in crate::cli) fn has_secret_in_a_file(&self) -> bool {
        self.secret_file.as_deref().is_some_and(Path::is_file)
    }

    /// The secret that they share with their clients, or a credential of it.
    pub(in crate::cli) fn keys(&self) -> Result<ClientKeys, Failure> {
        match &self.secret_file {
            Some(file) => Ok(ClientKeys::read(file)?),
            None => Err(Failure::new(
                exit::CONFIG,
                "leaders are asked with the secret that they share with their clients: give \
                 --secret-file, or set TIERLOCK_SECRET_FILE",
            )),
        }
    }

    /// Whether host scope is a service of another kind than our leaders.
    pub(in crate::cli) fn has_service(&self) -> bool {
        self.service.is_some()
    }

    /// The directory of process-scope locks.
    pub(in crate::cli) fn directory(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// The same, but for a directory that no process has used yet: for callers that make nothing, neither a
    /// directory that was mistyped nor a new one's files.
    pub(in crate::cli) fn without_unused_directory(self) -> Result<Common, Failure> {
        let is_in_use = self.directory().map(process::is_in_use).transpose()?.unwrap_or_default();
        Ok(Common { dir: self.dir.filter(|_| is_in_use), ..self })
    }

    /// The same for the leader alone.
    pub(in crate::cli) fn without_directory(self) -> Common {
        Common { dir: None, ..self }
    }

    pub(in crate::cli) fn into_builder(self) -> LockManagerBuilder {
        let mut builder = LockManagerBuilder::default().leaders(self.leaders);
        if let Some(service) = self.service {
            builder = builder.service(service);
        }
        if let Some(dir) = self.dir {
            builder = builder.directory(dir);
        }
        if let Some(file) = self.secret_file {
            builder = builder.secret_file(file);
        }
        if let Some(label) = self.label {
            builder = builder.label(label);
        }
        builder
    }
}

fn text_of(variable: &str) -> Result<Option<String>, Failure> {
    match std::env::var(variable) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => Ok(Some(text)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(Failure::new(exit::CONFIG, format_args!("{variable}: {error}"))),
    }
}
