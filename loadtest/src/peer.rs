//! Servers to compare Rookery with. Each has a folder with a file `peer.toml` that describes it, and
//! a program `start` that runs one node of it: where everything is stands in its environment, see
//! `loadtest/peers/README.md`.

mod libraries;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::dialect::Dialect;
use crate::machine;

/// The file in a peer's folder.
const FILE: &str = "peer.toml";
/// The program in a peer's folder.
const START: &str = "start";

/// A peer's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    persistence: String,
    dialect: String,
    /// SQL for an empty database, in its folder.
    schema: PathBuf,
    /// What its installation leaves, in its folder or in the `PATH`.
    installed: PathBuf,
    /// A command that says the version of what it runs on.
    version: Vec<String>,
    /// Libraries whose versions count too, and the folder that they are installed in.
    #[serde(default)]
    libraries: Vec<String>,
    #[serde(default)]
    packages: PathBuf,
}

#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub name: String,
    pub about: String,
    /// What an acknowledgement promises, in words.
    pub persistence: String,
    pub dialect: Dialect,
    pub schema: PathBuf,
    pub start: PathBuf,
    version: Vec<String>,
    libraries: Vec<String>,
    packages: PathBuf,
    installed: PathBuf,
}

impl Peer {
    /// The peers of this folder with these names, in their order; all of them, by name, without any.
    ///
    /// # Errors
    /// There is none of a name, or its file cannot be understood.
    pub(crate) fn load(folder: &Path, names: &[String]) -> anyhow::Result<Vec<Self>> {
        let known = known(folder)?;
        for name in names {
            ensure!(
                known.contains(name),
                "there is no peer {name} in {}; there are {}",
                folder.display(),
                known.join(", ")
            );
        }
        let names = if names.is_empty() { &known } else { names };
        let peers = names
            .iter()
            .map(|name| Self::read(&folder.join(name), name));
        peers.collect()
    }

    fn read(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        let shown = || path.display().to_string();
        let text = std::fs::read_to_string(&path).with_context(shown)?;
        let file: File = toml::from_str(&text).with_context(shown)?;
        // Its nodes are started elsewhere.
        let folder = std::path::absolute(folder)?;
        let program = |path: PathBuf| match path.components().count() {
            1 => path,
            _ => folder.join(path),
        };
        let (first, rest) = file
            .version
            .split_first()
            .with_context(|| format!("{}: version is a command", shown()))?;
        let mut version = vec![program(first.into()).display().to_string()];
        version.extend_from_slice(rest);
        Ok(Self {
            name: name.to_owned(),
            about: file.about,
            persistence: file.persistence,
            dialect: Dialect::named(&file.dialect).with_context(shown)?,
            schema: folder.join(file.schema),
            start: folder.join(START),
            version,
            libraries: file.libraries,
            packages: folder.join(file.packages),
            installed: program(file.installed),
        })
    }

    /// What it runs on, as that says, and its libraries as they are installed.
    pub(crate) fn version(&self) -> String {
        let command: Vec<&str> = self.version.iter().map(String::as_str).collect();
        let mut all = machine::said(&command);
        for library in &self.libraries {
            let version = libraries::version(&self.packages, library);
            let version = version.as_deref().unwrap_or(machine::UNKNOWN);
            all = format!("{all}, {library} {version}");
        }
        all
    }

    /// Whether it could be started.
    ///
    /// # Errors
    /// It is not installed, and what to run.
    pub(crate) fn is_installed(&self) -> anyhow::Result<()> {
        let name = &self.name;
        let hint = format!("is not installed: run scripts/install-peers.sh {name}");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = match self.installed.is_absolute() {
            true => self.installed.exists(),
            false => std::env::split_paths(&path).any(|at| at.join(&self.installed).is_file()),
        };
        if !found {
            bail!("{name} {hint}");
        }
        ensure!(self.start.is_file(), "{} is missing", self.start.display());
        Ok(())
    }
}

/// The names of all peers of a folder.
fn known(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("there are no peers in {}", folder.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join(FILE).is_file())
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
    }

    #[test]
    fn every_peer_that_comes_along_is_well_formed() {
        let peers = Peer::load(&folder(), &[]).unwrap();
        assert!(!peers.is_empty());
        for peer in peers {
            for path in [&peer.schema, &peer.start] {
                assert!(path.is_file(), "{}: {}", peer.name, path.display());
            }
            let readme = folder().join(&peer.name).join("README.md");
            assert!(readme.is_file(), "{}", peer.name);
            assert!(!peer.about.is_empty() && !peer.persistence.is_empty());
        }
    }

    #[test]
    fn what_is_wrong_with_a_peer_is_said() {
        let error = Peer::load(&folder(), &["klingon".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("there are"), "{error}");

        let temporary = tempfile::tempdir().unwrap();
        let peer = temporary.path().join("x");
        std::fs::create_dir(&peer).unwrap();
        let good = "about = 'a'\npersistence = 'b'\ndialect = 'rookery'\nschema = 's.sql'\n\
                    version = ['true']\ninstalled = 'no-such-program-anywhere'";
        for (text, wanted) in [
            (
                good.replace("dialect = 'rookery'", "dialect = 'klingon'"),
                "klingon",
            ),
            (good.replace("about", "abuot"), "abuot"),
            (String::new(), "about"),
            (good.replace("['true']", "[]"), "version"),
        ] {
            std::fs::write(peer.join(FILE), text).unwrap();
            let error = format!("{:#}", Peer::load(temporary.path(), &[]).unwrap_err());
            assert!(error.contains(wanted) && error.contains(FILE), "{error}");
        }
        std::fs::write(peer.join(FILE), good).unwrap();
        let peers = Peer::load(temporary.path(), &[]).unwrap();
        let error = peers[0].is_installed().unwrap_err().to_string();
        assert_eq!(error, "x is not installed: run scripts/install-peers.sh x");
    }
}
