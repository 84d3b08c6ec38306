//! Which files are read, and which of them an entry is from. As with kubectl: the parameter names one file; else the
//! variable KUBECONFIG names any number, of which those that are missing are passed over; else it is the one in the
//! home folder. Of entries with the same name, and of current contexts, the first file's counts, whole.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::document::{Context, Document, Kind, shown};
use super::entry::Entry;
use super::node::{MAX_FILE, Node};
use crate::file::{Seen, read as read_file};

/// The variable that names files.
pub(super) const VARIABLE: &str = "KUBECONFIG";
/// The most files that it may name.
const MAX_FILES: usize = 50;
/// How many names are listed where one is not found.
const MAX_LISTED: usize = 10;

/// The files that are read, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Files(Vec<PathBuf>);

impl Files {
    /// Those that the parameter names, or the variables.
    ///
    /// # Errors
    /// Why there are none.
    pub(super) fn of(
        parameter: Option<PathBuf>,
        variable: Option<&OsStr>,
        home: Option<&OsStr>,
    ) -> Result<Self, String> {
        let files: Vec<PathBuf> = match (parameter, variable.filter(|list| !list.is_empty())) {
            (Some(path), _) => vec![path],
            (None, Some(list)) => {
                let mut files = Vec::new();
                for path in std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty()) {
                    if !files.contains(&path) {
                        files.push(path);
                    }
                    if files.len() > MAX_FILES {
                        return Err(format!("{VARIABLE} names more than {MAX_FILES} files"));
                    }
                }
                if files.is_empty() {
                    return Err(format!("{VARIABLE} names no file"));
                }
                files
            }
            (None, None) => match home.filter(|home| !home.is_empty()) {
                Some(home) => vec![Path::new(home).join(".kube").join("config")],
                None => return Err(format!("it is not named, and neither {VARIABLE} nor HOME is set")),
            },
        };
        // So that a change of the working folder later does not change what is meant.
        let files: Result<_, _> = files.into_iter().map(std::path::absolute).collect();
        files.map(Self).map_err(|_| "the working folder is not known".to_owned())
    }

    /// The files as they are now.
    pub(super) fn look(&self) -> Vec<Seen> {
        self.0.iter().cloned().map(Seen::new).collect()
    }

    /// Reads them.
    ///
    /// # Errors
    /// Which file is missing or wrong, where and why; never what it holds.
    pub(super) fn read(&self) -> Result<Merged, String> {
        let mut documents = Vec::new();
        for path in &self.0 {
            let is_missing = std::fs::metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
            if self.0.len() > 1 && is_missing {
                continue;
            }
            let content = read_file(path, MAX_FILE)?;
            let document = Document::parse(&content).map_err(|why| format!("file {path:?}: {why}"))?;
            let folder = path.parent().unwrap_or(Path::new("")).to_owned();
            documents.push((folder, document));
        }
        match documents.is_empty() {
            true => Err(format!("none of the files that {VARIABLE} names is there")),
            false => Ok(Merged(documents)),
        }
    }
}

/// The files' content, with the folder that each is in.
#[derive(Debug)]
pub(super) struct Merged(pub(super) Vec<(PathBuf, Document)>);

impl Merged {
    /// The current context.
    pub(super) fn current_context(&self) -> Option<&str> {
        self.0.iter().find_map(|(_, document)| document.current_context.as_deref())
    }

    /// The context of that name.
    ///
    /// # Errors
    /// It is not there, or says nothing usable.
    pub(super) fn context(&self, name: &str) -> Result<Context, String> {
        self.entry(Kind::Context, name, |entry, _| Context::read(entry))
    }

    /// Whether there is an entry of that name.
    pub(super) fn has(&self, kind: Kind, name: &str) -> bool {
        self.0.iter().any(|(_, document)| document.find(kind, name).is_some())
    }

    /// What `read` makes of the entry of that name, and of the folder of its file.
    ///
    /// # Errors
    /// It is not there, or those of `read`.
    pub(super) fn entry<T>(
        &self,
        kind: Kind,
        name: &str,
        read: impl FnOnce(&Entry<'_>, &Path) -> Result<T, String>,
    ) -> Result<T, String> {
        let found = self.0.iter().find_map(|(folder, document)| Some((folder, document.find(kind, name)?)));
        let place = kind.place(name);
        match found {
            Some((_, Node::Null)) if kind != Kind::User => Err(format!("{place}: it is missing")),
            Some((folder, node)) => read(&Entry::of(node, place)?, folder),
            None => {
                let mut names: Vec<_> = self.0.iter().flat_map(|(_, document)| document.names(kind)).collect();
                names.sort_unstable();
                names.dedup();
                let more = if names.len() > MAX_LISTED { " and others" } else { "" };
                let names: Vec<_> = names.into_iter().take(MAX_LISTED).map(shown).collect();
                let there = if names.is_empty() { "there is none".to_owned() } else { names.join(", ") };
                Err(format!("{place}: it is not there; there: {there}{more}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(parameter: Option<&str>, variable: Option<&str>, home: Option<&str>) -> Result<Vec<String>, String> {
        let files = Files::of(parameter.map(PathBuf::from), variable.map(OsStr::new), home.map(OsStr::new))?;
        Ok(files.0.iter().map(|path| path.display().to_string()).collect())
    }

    #[cfg(unix)]
    #[test]
    fn kubernetes_point_21_the_files_are_those_that_kubectl_reads() {
        assert_eq!(files(Some("/p:q"), Some("/v"), Some("/h")).unwrap(), ["/p:q"]);
        assert_eq!(files(None, Some("/a::/b:/a"), Some("/h")).unwrap(), ["/a", "/b"]);
        assert_eq!(files(None, Some(""), Some("/h")).unwrap(), ["/h/.kube/config"]);
        assert_eq!(files(None, None, Some("/h")).unwrap(), ["/h/.kube/config"]);
        assert!(files(None, None, None).unwrap_err().contains("HOME"));
        assert!(files(None, Some(":"), Some("/h")).unwrap_err().contains("names no file"));
        let many = (0..100).map(|n| format!("/{n}")).collect::<Vec<_>>().join(":");
        assert!(files(None, Some(&many), None).unwrap_err().contains("more than 50"));
        assert!(files(Some("relative"), None, None).unwrap()[0].starts_with('/'));
    }

    #[test]
    fn kubernetes_point_21_the_first_file_that_has_an_entry_wins_and_missing_files_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("sub")).unwrap();
        let first = "users: [{name: u, user: {token: one}}]\ncontexts: [{name: c, context: {cluster: x, user: u}}]\n";
        let second = "current-context: c\nusers: [{name: u, user: {tokenFile: t}}, {name: v, user: {tokenFile: t}}]\n\
                      clusters: [{name: x, cluster: {server: https://h}}]\n";
        let third = "current-context: d\nclusters: [{name: x, cluster: {server: 1}}]";
        std::fs::write(path("1"), first).unwrap();
        std::fs::write(path("sub/2"), second).unwrap();
        std::fs::write(path("3"), third).unwrap();
        let merged = Files(["0", "1", "sub/2", "3"].map(path).to_vec()).read().unwrap();
        assert_eq!(merged.current_context(), Some("c"));
        let context = merged.context("c").unwrap();
        assert_eq!((context.cluster.as_str(), context.user.as_deref()), ("x", Some("u")));
        let user = |name| merged.entry(Kind::User, name, |entry, _| entry.text("tokenFile").map(|file| file.is_some()));
        assert_eq!((user("u"), user("v")), (Ok(false), Ok(true)));
        let place = merged.entry(Kind::User, "v", |_, folder| Ok(folder.to_owned())).unwrap();
        assert_eq!(place, path("sub"));
        let server =
            merged.entry(Kind::Cluster, "x", |entry, _| entry.text("server").map(|text| text.map(str::to_owned)));
        assert_eq!(server.unwrap().as_deref(), Some("https://h"));
        assert_eq!(merged.context("z").unwrap_err(), "contexts[z].context: it is not there; there: c");

        assert!(Files(vec![path("0")]).read().unwrap_err().contains("not found"));
        assert!(Files(vec![path("0"), path("00")]).read().unwrap_err().contains("none of the files"));
        assert!(Files(vec![path("1"), path("sub")]).read().unwrap_err().contains("no"), "a folder");
        std::fs::write(path("bad"), "users: {").unwrap();
        let refusal = Files(vec![path("1"), path("bad")]).read().unwrap_err();
        assert!(refusal.contains("bad") && refusal.contains("line"), "{refusal}");
    }
}
