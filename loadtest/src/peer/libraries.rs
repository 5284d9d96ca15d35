//! Versions of a peer's libraries, as they are installed: those that were asked for may be others.

use std::fs;
use std::path::Path;

use serde::Deserialize;

/// The version of a library among these packages: npm's `node_modules`, or a virtual environment of
/// Python.
pub(super) fn version(packages: &Path, name: &str) -> Option<String> {
    of_npm(packages, name).or_else(|| of_python(packages, name))
}

fn of_npm(packages: &Path, name: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Package {
        version: String,
    }
    let file = fs::read(packages.join(name).join("package.json")).ok()?;
    let package: Package = serde_json::from_slice(&file).ok()?;
    Some(package.version)
}

/// From the name of its folder, `lib/python3.11/site-packages/uvicorn-0.54.0.dist-info`.
fn of_python(environment: &Path, name: &str) -> Option<String> {
    let pythons = fs::read_dir(environment.join("lib")).ok()?;
    let packages = pythons
        .filter_map(|python| fs::read_dir(python.ok()?.path().join("site-packages")).ok())
        .flatten();
    let mut names = packages.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.find_map(|folder| {
        let (package, version) = folder.strip_suffix(".dist-info")?.rsplit_once('-')?;
        package
            .eq_ignore_ascii_case(name)
            .then(|| version.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_that_are_installed() {
        let folder = tempfile::tempdir().unwrap();
        let npm = folder.path().join("@socket.io/redis-adapter");
        fs::create_dir_all(&npm).unwrap();
        fs::write(
            npm.join("package.json"),
            r#"{"name": "x", "version": "8.3.0"}"#,
        )
        .unwrap();
        let python = folder.path().join("lib/python3.11/site-packages");
        for package in [
            "uvicorn-0.54.0.dist-info",
            "PyJWT-2.15.1.dist-info",
            "redis",
        ] {
            fs::create_dir_all(python.join(package)).unwrap();
        }
        for (name, wanted) in [
            ("@socket.io/redis-adapter", Some("8.3.0")),
            ("uvicorn", Some("0.54.0")),
            ("pyjwt", Some("2.15.1")),
            ("redis", None),
        ] {
            assert_eq!(version(folder.path(), name).as_deref(), wanted, "{name}");
        }
    }
}
