//! What the providers that speak HTTP share: where a backend is, an agent to reach it, and one bounded exchange.
//!
//! Decided here: an environment's proxy is used by the rules of [`proxy`]; a redirect is never followed, so that no
//! credential travels to another host; every exchange is bounded in time and its body in size, after decompression;
//! and each way in which an exchange can fail has its code. What is asked, how often and what an answer means is left
//! to each provider.

#[cfg(feature = "kubernetes")]
mod beside;
mod body;
mod dial;
#[cfg(feature = "kubernetes")]
mod lines;
mod proxy;
mod route;
mod stamp;
mod target;
mod tls;
#[cfg(unix)]
mod unix;

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::config::AutoHeaderValue;
use ureq::http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE};
use ureq::http::{HeaderName, HeaderValue};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector};
use ureq::{Agent, AsSendBody, Body};
use zeroize::Zeroizing;

pub(crate) use body::{BodyReader, Incoming};
#[cfg(feature = "kubernetes")]
pub(crate) use lines::{Found, LineSplitter};
pub(crate) use target::Target;
pub(crate) use tls::TlsSettings;
#[cfg(feature = "kubeconfig")]
pub(crate) use tls::{Material, Pem, SharedMaterial};
#[cfg(feature = "consul")]
pub(crate) use ureq::http::HeaderMap;
pub(crate) use ureq::http::Method;

#[cfg(feature = "kubernetes")]
use self::beside::Beside;
use self::dial::{Dial, NoLookup, Spawn, ThreadRefused};
use self::proxy::Way;
use self::route::Route;
use self::stamp::Stamp;
use self::tls::{Refusal, TlsConnector, Unreadable};
#[cfg(unix)]
use self::unix::UnixConnector;
use crate::error::{ErrorCode, ProvisioningError};
use crate::secret::Secret;

/// The type of a JSON document.
pub(crate) const JSON: &str = "application/json";
/// The longest that a body may take once its head is there. A genuine answer of the default cap (64 MiB) needs a link
/// of 9 Mbit/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of a refusal's text is repeated in an error, in characters.
const EXCERPT: usize = 240;

/// An HTTP client for one connection to a target, which serves one request at a time. Clones share the connection.
#[derive(Clone)]
pub(crate) struct Client {
    agent: Agent,
    stamp: Stamp,
    route: Route,
    target: Target,
    /// The proxy on the way to the target, or why the one that is named cannot be used.
    way: Result<Option<Way>, String>,
    #[cfg(feature = "kubernetes")]
    connect_timeout: Duration,
    #[cfg(feature = "kubernetes")]
    beside: Beside,
}

impl Client {
    /// A client that is not connected yet. A name look-up, a connect with its handshake, and sending a request may each
    /// take `connect_timeout`; what a look-up leaves of its time is the connect's.
    pub(crate) fn new(target: &Target, connect_timeout: Duration) -> Self {
        Self::with(target, connect_timeout, dial::spawn, |name| std::env::var(name).ok())
    }

    /// The same with another way to start a thread, and another environment.
    fn with(
        target: &Target,
        connect_timeout: Duration,
        spawn: Spawn,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let way = proxy::way(target, variable);
        let looks_up = !target.is_literal() || matches!(way, Ok(Some(_)));
        let mut config = Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_connect(Some(if looks_up { connect_timeout * 2 } else { connect_timeout }))
            .timeout_send_request(Some(connect_timeout))
            .max_idle_connections(1)
            .max_idle_age(Duration::from_secs(60))
            .user_agent(concat!("cluster-provisioning/", env!("CARGO_PKG_VERSION")));
        config = config.proxy(way.as_ref().ok().and_then(Option::as_ref).map(|way| way.proxy.clone()));
        if target.is_loopback() {
            // Compression between neighbours in one machine costs more than it saves.
            config = config.accept_encoding(AutoHeaderValue::None);
        }
        let (stamp, route) = (Stamp::default(), Route::new(target));
        let config = config.build();
        #[cfg(unix)]
        let socket = target.socket().map(|path| {
            let connector = UnixConnector::new(path).chain(stamp.clone());
            Agent::with_parts(config.clone(), connector, NoLookup)
        });
        #[cfg(not(unix))]
        let socket: Option<Agent> = None;
        let agent = socket.unwrap_or_else(|| {
            let connector =
                ().chain(ConnectProxyConnector::default())
                    .chain(Dial::new(spawn, connect_timeout, route.clone()))
                    .chain(TlsConnector::new(target.secured()))
                    .chain(stamp.clone());
            Agent::with_parts(config, connector, NoLookup)
        });
        Self {
            agent,
            stamp,
            route,
            target: target.clone(),
            way,
            #[cfg(feature = "kubernetes")]
            connect_timeout,
            #[cfg(feature = "kubernetes")]
            beside: Beside::new(),
        }
    }

    /// Another client to the same target, for one request more at the same time. It is shut down with this one.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn beside(&self) -> Self {
        let client = Self::new(&self.target, self.connect_timeout);
        self.beside.add(client.agent.clone());
        client
    }

    /// Shuts down all clients beside this one.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn alone(&self) {
        self.beside.clear();
    }

    /// Ends a request blocked on its socket, at once, and spoils this client and its clones. A connect or name look-up
    /// under way is not interrupted: it ends within its timeout.
    pub(crate) fn shutdown(self) {
        #[cfg(feature = "kubernetes")]
        self.beside.close();
        self.agent.shutdown();
    }

    /// Whether anything of the last request may have reached the backend. While it is under way this is not known yet.
    pub(crate) fn was_sent(&self) -> bool {
        self.stamp.was_sent()
    }

    /// Sends the request and reads the whole answer. Blocks; ends soon after the client is shut down, or after its connect
    /// timeout if it is connecting.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`BodyReader::read`].
    pub(crate) fn exchange(&self, request: &Request<'_>) -> Result<Answer, ProvisioningError> {
        self.open(request)?.collect()
    }

    /// Sends the request and reads the answer's head. Blocks, and so does reading the body; both end soon after the
    /// client is shut down, or after its connect timeout if it is connecting.
    ///
    /// # Errors
    /// [`ErrorCode::RedirectRefused`] for a redirect, [`ErrorCode::Timeout`], [`ErrorCode::AnswerTooLarge`],
    /// [`ErrorCode::MalformedAnswer`] for what is not HTTP or not the announced encoding, [`ErrorCode::TokenUnreadable`]
    /// for a credential that no header can carry, [`ErrorCode::CertificateUnreadable`], [`ErrorCode::CertificateRejected`],
    /// [`ErrorCode::ThreadRefused`] where the name cannot be looked up for want of a thread,
    /// [`ErrorCode::BackendUnavailable`] for all else, which is all where the environment's proxy cannot be used.
    pub(crate) fn open(&self, request: &Request<'_>) -> Result<Incoming, ProvisioningError> {
        let way = self.way.as_ref().map_err(|why| {
            let error = ProvisioningError::new(ErrorCode::BackendUnavailable, request.doing.to_owned(), why.clone());
            error.with_advice("correct the variable, or name the host in NO_PROXY")
        })?;
        let failed = |error: &ureq::Error| failure(request.doing, &self.route, error, way.as_ref());
        let mut head = ureq::http::Request::builder().method(request.method.clone()).uri(request.url);
        if request.length.is_stream() {
            head = head.header(ACCEPT_ENCODING, "identity");
        }
        self.stamp.begin();
        self.read_certificates(request.doing)?;
        let login = self.target.authorization().map(|login| (AUTHORIZATION.as_str(), login));
        for (name, secret) in request.credential.into_iter().chain(login) {
            head = head.header(HeaderName::from_static(name), self.stand_in(request.doing, name, secret)?);
        }
        // A request of another method has a body, if an empty one: without a length it would be sent in chunks.
        let body = request.body.or((request.method != Method::GET).then_some((JSON, &[])));
        let response = match body {
            None => head.body(()).map_err(ureq::Error::from).and_then(|whole| self.run(whole, request)),
            Some((content_type, body)) => {
                let whole = head.header(CONTENT_TYPE, content_type).body(body);
                whole.map_err(ureq::Error::from).and_then(|whole| self.run(whole, request))
            }
        };
        self.stamp.clear();
        let response = response.map_err(|error| failed(&error))?;
        let (parts, body) = response.into_parts();
        if parts.status.is_redirection() {
            let detail = match parts.headers.get("location").and_then(|value| value.to_str().ok()) {
                Some(location) => format!("redirected ({}) to {}", parts.status.as_u16(), origin(location)),
                None => format!("redirected ({})", parts.status.as_u16()),
            };
            return Err(ProvisioningError::new(ErrorCode::RedirectRefused, request.doing.to_owned(), detail));
        }
        // A stream may go on for ever; a refusal may not.
        let max_body =
            if request.length.is_stream() && parts.status.is_success() { usize::MAX } else { request.max_body };
        let body = BodyReader::new(body, max_body, self.route.clone(), request.doing)?;
        let login = self.target.authorization().cloned();
        Ok(Incoming { status: parts.status.as_u16(), headers: parts.headers, body, login })
    }

    fn run(
        &self,
        whole: ureq::http::Request<impl AsSendBody>,
        request: &Request<'_>,
    ) -> Result<ureq::http::Response<Body>, ureq::Error> {
        let configured = self.agent.configure_request(whole).timeout_recv_response(Some(request.answer_timeout));
        let configured = configured.timeout_recv_body(match request.length {
            Length::Brief => Some(request.answer_timeout),
            Length::Document => Some(BODY_TIMEOUT),
            #[cfg(feature = "kubernetes")]
            Length::Stream => None,
        });
        self.agent.run(configured.build())
    }

    /// Sees to it that a new connection uses the certificates as they are now.
    fn read_certificates(&self, doing: &str) -> Result<(), ProvisioningError> {
        let Some(tls) = self.target.tls() else { return Ok(()) };
        tls.refresh().map_err(|Unreadable { field, detail }| {
            ProvisioningError::new(ErrorCode::CertificateUnreadable, doing.to_owned(), detail).with_field(field)
        })
    }

    /// What the client is given in place of the credential for that header.
    fn stand_in(&self, doing: &str, name: &'static str, secret: &Secret) -> Result<HeaderValue, ProvisioningError> {
        let unusable = || {
            let detail = "the token has characters that no HTTP header can carry";
            ProvisioningError::new(ErrorCode::TokenUnreadable, doing.to_owned(), detail)
                .with_advice("correct what the token's source holds: one line, in ASCII")
        };
        HeaderValue::from_str(secret.expose()).map_err(|_| unusable())?;
        HeaderValue::from_str(&self.stamp.set(name, secret)).map_err(|_| unusable())
    }
}

/// A request.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// The method.
    pub(crate) method: Method,
    /// The whole URL.
    pub(crate) url: &'a str,
    /// The document to send, if any, after its type.
    pub(crate) body: Option<(&'static str, &'a [u8])>,
    /// The header that carries the credential, and the credential.
    pub(crate) credential: Option<(&'static str, &'a Secret)>,
    /// How long the answer's head may take once the request is sent.
    pub(crate) answer_timeout: Duration,
    /// The largest body accepted, in bytes after decompression.
    pub(crate) max_body: usize,
    /// How long the answer's body may be.
    pub(crate) length: Length,
    /// What is being done, for errors.
    pub(crate) doing: &'a str,
}

/// How long the body of an answer may be, in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// A few bytes: they may take as long as the head.
    Brief,
    /// A document of the largest size that is accepted.
    Document,
    /// A stream, of which each piece has to arrive when it is sent: not compressed, and without a limit of time or size.
    /// Whoever reads it sees to it that silence ends it.
    #[cfg(feature = "kubernetes")]
    Stream,
}

impl Length {
    fn is_stream(self) -> bool {
        !matches!(self, Length::Brief | Length::Document)
    }
}

/// An answer, whatever its status but a redirect.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The same without the credential, should the backend repeat it.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn without(self, credential: Option<&Secret>) -> Self {
        match credential.map(Secret::expose).filter(|token| !token.is_empty()) {
            None => self,
            Some(token) => {
                let body = String::from_utf8_lossy(&self.body).replace(token, "***").into_bytes();
                Self { body, ..self }
            }
        }
    }

    /// The beginning of the body as text for an error: one line, without the credential, should the backend repeat it.
    pub(crate) fn excerpt(&self, credential: Option<&Secret>) -> String {
        let Some(token) = credential.map(Secret::expose).filter(|token| !token.is_empty()) else {
            return one_line(&String::from_utf8_lossy(self.body.get(..EXCERPT * 4).unwrap_or(&self.body)));
        };
        let reach = EXCERPT * 4 + 2 * token.len();
        let text = String::from_utf8_lossy(self.body.get(..reach).unwrap_or(&self.body)).replace(token, "***");
        // Where the body was cut, a beginning of the credential may be left.
        let cut = if self.body.len() > reach { token.chars().count() } else { 0 };
        let kept = text.chars().count().saturating_sub(cut);
        one_line(&text.chars().take(kept).collect::<String>())
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(EXCERPT).collect()
}

/// Scheme, host and port of a redirect's target, for people: what follows them may hold secrets.
fn origin(location: &str) -> String {
    let Some((scheme, rest)) = location.split_once("://") else { return "another path".to_owned() };
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}").chars().filter(|c| c.is_ascii_graphic()).take(EXCERPT).collect()
}

/// A refusal's text without the login, should the backend repeat it: as it was sent, or in clear.
fn without_login(body: &[u8], login: &Secret) -> Vec<u8> {
    let encoded = login.expose().strip_prefix("Basic ").unwrap_or(login.expose());
    let clear =
        BASE64_STANDARD.decode(encoded).ok().and_then(|clear| String::from_utf8(clear).ok()).map(Zeroizing::new);
    let password = clear.as_deref().and_then(|clear| clear.split_once(':')).map(|(_, password)| password);
    let secrets = [Some(encoded), clear.as_deref().map(String::as_str), password].into_iter().flatten();
    let mut text = String::from_utf8_lossy(body).into_owned();
    for secret in secrets.filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "***");
    }
    text.into_bytes()
}

/// Percent-encodes all but unreserved characters.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// What a failure means. `route`: where the request led, which the detail names; `way`: the proxy that it was to go through.
fn failure(doing: &str, route: &Route, error: &ureq::Error, way: Option<&Way>) -> ProvisioningError {
    use ureq::Error as E;
    let (code, detail) = match error {
        E::Timeout(phase) => (ErrorCode::Timeout, format!("no answer in time ({phase})")),
        E::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<Refusal>()) {
            Some(refusal) => (refusal.code, refusal.detail.clone()),
            None if is_thread_refused(error) => (ErrorCode::ThreadRefused, error.to_string()),
            None => (ErrorCode::BackendUnavailable, error.to_string()),
        },
        E::HostNotFound => (ErrorCode::BackendUnavailable, "the host name is unknown".to_owned()),
        E::Protocol(error) => (ErrorCode::MalformedAnswer, format!("the answer is not HTTP: {error}")),
        E::LargeResponseHeader(..) => (ErrorCode::MalformedAnswer, "the answer's head is too large".to_owned()),
        E::Decompress(..) => (ErrorCode::MalformedAnswer, "the answer does not decompress".to_owned()),
        E::TooManyRedirects | E::RedirectFailed => (ErrorCode::RedirectRefused, "redirected".to_owned()),
        other => (ErrorCode::BackendUnavailable, other.to_string()),
    };
    let is_unknown = match error {
        E::HostNotFound => true,
        // The standard library has no kind for it.
        E::Io(error) => error.to_string().starts_with("failed to lookup address information"),
        _ => false,
    };
    if is_unknown {
        route.forget();
    }
    let detail = match way {
        Some(way) => format!("{route}: {detail} ({})", way.told),
        None => format!("{route}: {detail}"),
    };
    let told = ProvisioningError::new(code, doing.to_owned(), detail);
    let is_the_way = way.is_some() && matches!(code, ErrorCode::BackendUnavailable | ErrorCode::Timeout);
    match (is_the_way, is_unknown) {
        (true, _) => {
            told.with_advice("check that the proxy runs and lets the connection pass, or name the host in NO_PROXY")
        }
        (false, true) => told.with_advice("check the host's name in the definition, and name resolution here"),
        (false, false) => told,
    }
}

fn is_thread_refused(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<ThreadRefused>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consul_point_14_an_excerpt_never_shows_the_token_not_even_its_beginning() {
        let secret = Secret::new("s3cret-token");
        let paddings = (0..EXCERPT * 4 + 40).flat_map(|n| [(n, "x"), (n, " ")]);
        for (padding, filler) in paddings {
            let body = format!("{}s3cret-token tail", filler.repeat(padding)).into_bytes();
            let answer = Answer { status: 500, body };
            let excerpt = answer.excerpt(Some(&secret));
            assert!(!excerpt.contains("s3c") && excerpt.chars().count() <= EXCERPT, "{padding}: {excerpt}");
        }
    }

    #[test]
    fn a_proxy_that_is_out_of_reach_or_of_no_use_is_named_without_its_password() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let asked = |proxy: String| {
            let variable = move |name: &str| (name == "HTTP_PROXY").then(|| proxy.clone());
            let target = Target::parse("http://consul.invalid:8500", 80, 443).unwrap();
            let client = Client::with(&target, Duration::from_secs(20), dial::spawn, variable);
            let request = Request {
                method: Method::GET,
                url: "http://consul.invalid:8500/v1/status/leader",
                body: None,
                credential: None,
                answer_timeout: Duration::from_secs(20),
                max_body: 1024,
                length: Length::Document,
                doing: "testing",
            };
            client.exchange(&request).map(|answer| answer.status).unwrap_err()
        };
        let dead = asked(format!("http://someone:hunter2@{closed}"));
        assert_eq!(dead.code(), ErrorCode::BackendUnavailable);
        let text = dead.to_string();
        assert!(text.contains(&format!("through the proxy http://{closed}, which HTTP_PROXY names")), "{text}");
        assert!(text.contains("NO_PROXY") && !text.contains("hunter2") && !text.contains("someone"), "{text}");
        let text = asked("socks5://someone:hunter2@proxy:1080".to_owned()).to_string();
        assert!(text.contains("HTTP_PROXY names a SOCKS proxy") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn consul_point_14_of_a_redirects_target_only_the_origin_is_shown() {
        assert_eq!(origin("https://user:pw@evil.example:1/path?token=x"), "https://evil.example:1");
        assert_eq!(origin("/elsewhere?token=x"), "another path");
    }

    #[test]
    fn consul_point_17_a_refusal_that_repeats_the_login_is_shown_without_it() {
        let login = Secret::new(format!("Basic {}", BASE64_STANDARD.encode("someone:hunter2")));
        let body = format!("401 for {} (someone:hunter2, hunter2)", login.expose());
        let text = String::from_utf8(without_login(body.as_bytes(), &login)).unwrap();
        assert_eq!(text, "401 for Basic *** (***, ***)");
    }
}
