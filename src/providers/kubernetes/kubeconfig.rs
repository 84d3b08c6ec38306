//! Server and credentials from a kubeconfig, as kubectl takes them.
//!
//! Which cluster and which user are meant is decided when the provider is made. From then on the files are looked at
//! before each request: the user's credentials and the cluster's authority are followed, another server is not. `merge`
//! says which files are read, `document`, `entry` and `node` what they say, `exec` what plugins are told and answer, `renewal`
//! when they are run, `process` how. No error, log or `Debug` repeats what a file or a plugin says but names.

mod child;
mod document;
mod entry;
mod exec;
mod merge;
mod node;
mod process;
mod renewal;
#[cfg(any(test, feature = "testkit"))]
pub(crate) mod told;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use crossbeam_channel::{Receiver, bounded, select};
use serde_json::json;

use self::document::{Bearer, Cluster, Kind, Token, User};
use self::exec::{Answer, Spec};
use self::merge::{Files, Merged};
use self::process::Failure;
use self::renewal::{Next, Renewal};
use crate::clock::Clock;
use crate::credential::CredentialReader;
use crate::error::{ErrorCode, ProvisioningError};
use crate::file::{Seen, read as read_file};
use crate::http::{Material, Pem, SharedMaterial, Target, TlsSettings};
use crate::provider::{CancelToken, Credential};
use crate::providers::source::{Lookup, Source};
use crate::providers::tls;
use crate::secret::{Secret, Secrets};
use crate::text::line::log_line;
use crate::thread::Thread;

const RUNNING: &str = "running the exec plugin";
/// Parameters that say what the kubeconfig says.
const WITHOUT_EFFECT: [&str; 5] = ["ca-file", "ca-path", "client-cert", "client-key", "service-account"];
/// The largest file of an authority that a plugin is told, in bytes.
const MAX_CA: u64 = 1024 * 1024;

/// What a definition takes from a kubeconfig.
pub(super) struct Opened {
    pub(super) target: Target,
    /// The context's.
    pub(super) namespace: Option<String>,
    pub(super) kubeconfig: Arc<Kubeconfig>,
}

/// The server and the user that a provider has taken from a kubeconfig.
pub(super) struct Kubeconfig {
    files: Files,
    cluster: String,
    /// None: the server is asked as nobody.
    user: Option<String>,
    /// Those that a server's URL without one means.
    ports: (u16, u16),
    place: Place,
    /// What secures connections; shared with the target.
    held: SharedMaterial,
    state: Mutex<State>,
    own: Weak<Self>,
}

/// Where the server is: what is not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    server: String,
    server_name: Option<String>,
    unchecked: bool,
}

struct State {
    /// The files as they were when they were read.
    seen: Vec<Seen>,
    /// What the last attempt to read them failed with.
    complaint: Option<String>,
    ca: Option<Pem>,
    user: User,
    exec_config: serde_json::Value,
    renewal: Renewal<Arc<Answer>>,
    run: Option<Run>,
    runs: u64,
}

/// A plugin that runs.
struct Run {
    number: u64,
    /// Disconnects when it has ended.
    done: Receiver<()>,
    cancel: CancelToken,
    waiting: usize,
    /// Whether it goes on although nobody waits for it.
    ahead: bool,
}

/// What the files say of a cluster and a user.
struct Found {
    cluster: Cluster,
    user: User,
    /// The user that the context names is not there: nobody stands for it, as with kubectl.
    absent: bool,
}

impl Found {
    fn read(merged: &Merged, cluster: &str, user: Option<&str>) -> Result<Self, String> {
        let there = user.filter(|name| merged.has(Kind::User, name));
        Ok(Self {
            cluster: merged.entry(Kind::Cluster, cluster, Cluster::read)?,
            user: match there {
                Some(name) => merged.entry(Kind::User, name, User::read)?,
                None => User::anonymous(),
            },
            absent: user.is_some() && there.is_none(),
        })
    }
}

/// Checks what the definition itself says, without reading a file. Returns the path that it names.
///
/// # Errors
/// A code of the validation category, with the field and the reason.
pub(super) fn check(source: &Source<'_>) -> Result<Option<PathBuf>, ProvisioningError> {
    let descriptor = source.descriptor;
    let without_effect = |field| source.invalid(field, "it is without effect with credentials = kubeconfig");
    if !descriptor.endpoints.is_empty() {
        return Err(without_effect("endpoints"));
    }
    if descriptor.credential != Credential::None {
        return Err(without_effect("credential"));
    }
    if let Some(field) = WITHOUT_EFFECT.into_iter().find(|field| descriptor.parameters.contains_key(*field)) {
        return Err(without_effect(field));
    }
    source.parameter("context")?;
    tls::path(source, source.parameter("kubeconfig")?)
}

/// Takes server and credentials from the kubeconfig that the definition or the environment names. `ports` are those that
/// an http and an https URL without one mean.
///
/// # Errors
/// A code of the validation category, with the field and the reason.
pub(super) fn open(source: &Source<'_>, lookup: Lookup<'_>, ports: (u16, u16)) -> Result<Opened, ProvisioningError> {
    let descriptor = source.descriptor;
    let refuse = |why: String| descriptor.refuse(ErrorCode::InvalidConfig, "kubeconfig", why);
    let parameter = check(source)?;
    let (variable, home) = (lookup(merge::VARIABLE), lookup("HOME").or_else(|| lookup("USERPROFILE")));
    let files = Files::of(parameter, variable.as_deref(), home.as_deref()).map_err(refuse)?;
    let seen = files.look();
    let merged = files.read().map_err(refuse)?;
    let named = source.parameter("context")?;
    let name = match (&named, merged.current_context()) {
        (Some(given), _) => &*given.text,
        (None, Some(name)) => name,
        (None, None) => {
            let reason = "the kubeconfig has no current-context: name one";
            return Err(descriptor.refuse(ErrorCode::MissingField, "context", reason));
        }
    };
    let context = merged.context(name).map_err(|why| match named {
        Some(_) => source.invalid("context", why),
        None => refuse(why),
    })?;
    let Found { cluster, user, absent } =
        Found::read(&merged, &context.cluster, context.user.as_deref()).map_err(refuse)?;
    if let (true, Some(user)) = (absent, &context.user) {
        log_line!(
            Warn,
            "the kubeconfig has no {}, which its context {name:?} names: the server is asked without credentials",
            Kind::User.place(user)
        );
    }
    let field = |key| format!("{}.{key}", Kind::Cluster.place(&context.cluster));
    let target = Target::parse_with_path(&cluster.server, ports.0, ports.1)
        .map_err(|why| refuse(format!("{}: {why}", field("server"))))?;
    let verify = tls::VERIFY.is_on(descriptor)?.unwrap_or(true);
    if cluster.unchecked && verify {
        let why = "it takes any certificate for the server's; name the authority instead, or set tls-verify to off \
                   for an experiment";
        return Err(refuse(format!("{}: {why}", field("insecure-skip-tls-verify"))));
    }
    if let (false, Some(_)) = (verify, &cluster.ca) {
        let reason =
            "off checks no certificate, but the kubeconfig names the server's authority; remove one of the two";
        return Err(source.invalid("tls-verify", reason));
    }
    let place = Place { server: target.base(), server_name: cluster.server_name, unchecked: cluster.unchecked };
    let held = SharedMaterial::new(Material { ca: cluster.ca.clone(), client: user.client.clone() });
    let target = if target.is_tls() {
        let server_name = match tls::server_name(source, None)? {
            None => place.server_name.clone(),
            own => own,
        };
        if server_name.as_deref().is_some_and(|name| !TlsSettings::is_server_name(name)) {
            return Err(refuse(format!("{}: it is no name that a certificate can hold", field("tls-server-name"))));
        }
        target.with_tls(TlsSettings {
            server_name,
            unchecked: !verify,
            held: Some(held.clone()),
            ..TlsSettings::default()
        })
    } else {
        tls::refuse_without_tls(source)?;
        if !target.is_loopback() && !user.is_anonymous() {
            return Err(refuse(format!("{}: credentials are sent over https only", field("server"))));
        }
        target
    };
    let state = State {
        seen,
        complaint: None,
        ca: cluster.ca,
        user,
        exec_config: cluster.exec_config,
        renewal: Renewal::new(),
        run: None,
        runs: 0,
    };
    let kubeconfig = Arc::new_cyclic(|own| Kubeconfig {
        files,
        cluster: context.cluster,
        user: context.user,
        ports,
        place,
        held,
        state: Mutex::new(state),
        own: Weak::clone(own),
    });
    Ok(Opened { target, namespace: context.namespace, kubeconfig })
}

impl Kubeconfig {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks whether the files have changed, and takes the credentials that they hold now.
    fn follow(&self) {
        let mut state = self.lock();
        let seen = self.files.look();
        // A failed attempt is repeated although nothing seems to have changed: rights may have.
        if state.complaint.is_none() && state.seen == seen {
            return;
        }
        state.seen = seen;
        let Found { cluster, user, .. } = match self.find(&state.user) {
            Ok(found) => found,
            Err(complaint) => {
                if state.complaint.as_ref() != Some(&complaint) {
                    log_line!(Warn, "the kubeconfig cannot be used, the last good credentials stay: {complaint}");
                }
                state.complaint = Some(complaint);
                return;
            }
        };
        state.complaint = None;
        state.exec_config = cluster.exec_config;
        if state.user == user && state.ca == cluster.ca {
            return;
        }
        log_line!(Info, "the kubeconfig has changed; the credentials that it holds now are used");
        if let (Bearer::Plugin(old), new) = (&state.user.bearer, &user.bearer)
            && !matches!(new, Bearer::Plugin(new) if new == old)
        {
            state.renewal.replaced();
            if let Some(run) = state.run.take() {
                run.cancel.cancel();
            }
        }
        (state.ca, state.user) = (cluster.ca, user);
        if !matches!(state.user.bearer, Bearer::Plugin(_)) {
            self.held.replace(Material { ca: state.ca.clone(), client: state.user.client.clone() });
        }
    }

    /// The cluster and the user as the files have them now, if the server is still the same, and the user is there if it
    /// was.
    fn find(&self, present: &User) -> Result<Found, String> {
        let merged = self.files.read()?;
        let found = Found::read(&merged, &self.cluster, self.user.as_deref())?;
        if let (true, false, Some(user)) = (found.absent, present.is_anonymous(), &self.user) {
            return Err(format!("{}: it is not there any more", Kind::User.place(user)));
        }
        let Cluster { server, server_name, unchecked, .. } = &found.cluster;
        let server = Target::parse_with_path(server, self.ports.0, self.ports.1);
        let server = server.map(|target| target.base()).unwrap_or_default();
        let place = Place { server, server_name: server_name.clone(), unchecked: *unchecked };
        match place == self.place {
            true => Ok(found),
            false => Err(format!(
                "{} names another server, or another way to check it, which takes a new provider",
                Kind::Cluster.place(&self.cluster)
            )),
        }
    }

    /// What a plugin is told of the cluster.
    fn told(&self, state: &State) -> serde_json::Value {
        let ca = match &state.ca {
            None => None,
            Some(Pem::File(path)) => read_file(path, MAX_CA).ok().map(|content| BASE64_STANDARD.encode(&*content)),
            Some(Pem::Held { content, .. }) => Some(BASE64_STANDARD.encode(&***content)),
        };
        let mut cluster = json!({"server": self.place.server, "config": state.exec_config});
        if let Some(cluster) = cluster.as_object_mut() {
            let name = self.place.server_name.clone();
            cluster.extend(name.map(|name| ("tls-server-name".to_owned(), name.into())));
            cluster.extend(ca.map(|ca| ("certificate-authority-data".to_owned(), ca.into())));
            if self.place.unchecked {
                cluster.insert("insecure-skip-tls-verify".to_owned(), true.into());
            }
        }
        cluster
    }

    /// Starts the plugin, if one is due, on a thread of its own.
    fn start(&self, state: &mut State, spec: &Arc<Spec>, clock: &Arc<dyn Clock>, ahead: bool) {
        let info = spec.info(&self.told(state));
        state.runs += 1;
        let (number, cancel, (alive, done)) = (state.runs, CancelToken::new(), bounded(0));
        state.run = Some(Run { number, done, cancel: cancel.clone(), waiting: 0, ahead });
        let (own, spec, time) = (Weak::clone(&self.own), Arc::clone(spec), Arc::clone(clock));
        let work = move || {
            let outcome = process::run(&spec, &info, &cancel);
            let outcome = outcome.and_then(|stdout| spec.answer(&stdout).map_err(Failure::Failed));
            if let Some(kubeconfig) = own.upgrade() {
                kubeconfig.ended(number, &spec, outcome, &time);
            }
            drop(alive);
        };
        if let Err(error) = Thread::Exec.spawn(work) {
            state.run = None;
            let error = ProvisioningError::new(ErrorCode::ThreadRefused, RUNNING, error.kind().to_string());
            state.renewal.failed(clock.now(), error);
        }
    }

    /// Takes what the plugin has answered, unless another run counts by now.
    fn ended(&self, number: u64, spec: &Spec, outcome: Result<Answer, Failure>, clock: &Arc<dyn Clock>) {
        let mut state = self.lock();
        if state.run.as_ref().is_none_or(|run| run.number != number) {
            return;
        }
        state.run = None;
        match outcome {
            Ok(answer) => {
                let expires = answer.expires;
                state.renewal.answered(clock.now(), Arc::new(answer), expires);
            }
            Err(Failure::Cancelled) => state.renewal.broken_off(),
            Err(Failure::Failed(why)) => {
                let detail = format!("{}: {why}", spec.place);
                let error = ProvisioningError::new(ErrorCode::TokenUnreadable, RUNNING, detail).with_advice(
                    "run the plugin by hand with the same arguments and environment, and correct what it says",
                );
                if state.renewal.failed(clock.now(), error.clone().with_field("kubeconfig")) {
                    log_line!(Warn, "the exec plugin gives no credential: {}", error.detail());
                }
            }
        }
    }

    /// The thread of that run has ended: without having said so, if the run is still there.
    fn gone(&self, number: u64, clock: &Arc<dyn Clock>) {
        let mut state = self.lock();
        if state.run.as_ref().is_some_and(|run| run.number == number) {
            state.run = None;
            let error = ProvisioningError::new(ErrorCode::TokenUnreadable, RUNNING, "its thread has panicked");
            state.renewal.failed(clock.now(), error);
        }
    }

    /// The plugin's credential and its number. Waits for the plugin where that takes it.
    fn of_plugin(
        &self,
        clock: &Arc<dyn Clock>,
        cancel: &CancelToken,
    ) -> Result<Option<(u64, Option<Secret>)>, ProvisioningError> {
        loop {
            let (number, done) = {
                let mut state = self.lock();
                let Bearer::Plugin(spec) = &state.user.bearer else { return Ok(None) };
                let spec = Arc::clone(spec);
                let next = state.renewal.next(clock.now());
                match next {
                    Next::Fail(error) => return Err(error),
                    Next::Use(number, answer) => return Ok(Some(self.show(&state, number, &answer))),
                    Next::Renew(number, answer) => {
                        self.start(&mut state, &spec, clock, true);
                        return Ok(Some(self.show(&state, number, &answer)));
                    }
                    Next::Run => self.start(&mut state, &spec, clock, false),
                    Next::Wait => {}
                }
                // No run: it could not be started, which shows in the next round.
                let Some(run) = &mut state.run else { continue };
                run.waiting += 1;
                (run.number, run.done.clone())
            };
            select! {
                recv(done) -> _ => self.gone(number, clock),
                recv(cancel.receiver()) -> _ => {
                    self.leave(number);
                    return Err(ProvisioningError::new(ErrorCode::Stopped, RUNNING, "it was cancelled"));
                }
            }
        }
    }

    /// Puts the certificate of the plugin's answer in force, and returns its token.
    fn show(&self, state: &State, number: u64, answer: &Answer) -> (u64, Option<Secret>) {
        self.held.replace(Material { ca: state.ca.clone(), client: answer.client.clone() });
        (number, answer.token.clone())
    }

    /// One less waits for that run; if it was the last, the run is broken off.
    fn leave(&self, number: u64) {
        let mut state = self.lock();
        if let Some(run) = state.run.as_mut().filter(|run| run.number == number) {
            run.waiting = run.waiting.saturating_sub(1);
            if run.waiting == 0 && !run.ahead {
                run.cancel.cancel();
            }
        }
    }
}

impl fmt::Debug for Kubeconfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kubeconfig").field("files", &self.files).field("user", &self.user).finish_non_exhaustive()
    }
}

impl Drop for Kubeconfig {
    fn drop(&mut self) {
        if let Some(run) = self.lock().run.take() {
            run.cancel.cancel();
        }
    }
}

/// How one connection is let in.
#[derive(Clone, Debug)]
pub(super) struct Login {
    kubeconfig: Arc<Kubeconfig>,
    clock: Arc<dyn Clock>,
    /// The number of the plugin's credential that was shown last.
    shown: Option<u64>,
    /// Reads the token's file.
    file: Option<(String, CredentialReader)>,
}

impl Login {
    pub(super) fn new(kubeconfig: Arc<Kubeconfig>, clock: Arc<dyn Clock>) -> Self {
        Self { kubeconfig, clock, shown: None, file: None }
    }

    /// The token to show now; `None` if there is none.
    ///
    /// # Errors
    /// [`ErrorCode::TokenUnreadable`]; [`ErrorCode::Stopped`] if `cancel` fired.
    pub(super) fn read(&mut self, cancel: &CancelToken) -> Result<Option<Secret>, ProvisioningError> {
        self.kubeconfig.follow();
        let bearer = self.kubeconfig.lock().user.bearer.clone();
        self.shown = None;
        match bearer {
            Bearer::None => Ok(None),
            Bearer::Token(Token(token)) => Ok(Some(token)),
            Bearer::File(path, instead) => self.read_file(path, instead),
            Bearer::Plugin(_) => match self.kubeconfig.of_plugin(&self.clock, cancel)? {
                Some((number, token)) => {
                    self.shown = Some(number);
                    Ok(token)
                }
                // Rewritten just now.
                None => self.read(cancel),
            },
        }
    }

    fn read_file(&mut self, path: String, instead: Option<Token>) -> Result<Option<Secret>, ProvisioningError> {
        let (_, reader) = match self.file.take() {
            Some(file) if file.0 == path => self.file.insert(file),
            _ => {
                let reader = CredentialReader::new(Credential::TokenFile(path.clone()), Secrets::default());
                self.file.insert((path, reader))
            }
        };
        match (reader.read(), instead) {
            (Err(error), Some(Token(token))) => {
                log_line!(Warn, "the kubeconfig's token is used in place of its tokenFile: {}", error.detail());
                Ok(Some(token))
            }
            (read, _) => read.map_err(|error| error.with_field("kubeconfig")),
        }
    }

    /// The server has answered 401 to what was shown last.
    pub(super) fn refused(&self) {
        if let Some(number) = self.shown {
            self.kubeconfig.lock().renewal.refused(number);
        }
    }
}

#[cfg(test)]
mod tests;
