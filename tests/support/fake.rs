//! An HTTP server that says whatever a test wants, however odd.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub at: Instant,
    /// The number of the request, from 0.
    pub number: usize,
    /// Only some of the tests look at it.
    #[allow(dead_code)]
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn is_probe(&self) -> bool {
        self.target.contains("tag=")
    }

    pub fn index(&self) -> Option<&str> {
        self.target.split(['?', '&']).find_map(|part| part.strip_prefix("index="))
    }

    /// How long the server may wait for news. Only some of the tests look at it.
    #[allow(dead_code)]
    pub fn wait(&self) -> Option<Duration> {
        let text = self.target.split(['?', '&']).find_map(|part| part.strip_prefix("wait="))?;
        text.strip_suffix("ms")?.parse().ok().map(Duration::from_millis)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// A server that ends with the test process; its threads block in reads.
pub struct Fake {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
}

impl Fake {
    /// Hands each request to `answer`, on a thread for each connection. Returning false closes the connection.
    pub fn start(answer: impl Fn(&Request, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let answer = Arc::new(answer);
        let fake = Self { address, requests: Arc::clone(&requests), connections: Arc::clone(&connections) };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                stream.set_nodelay(true).unwrap();
                connections.fetch_add(1, Ordering::SeqCst);
                let (answer, requests) = (Arc::clone(&answer), Arc::clone(&requests));
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    while let Some(mut request) = read(&mut reader) {
                        {
                            let mut requests = requests.lock().unwrap();
                            request.number = requests.len();
                            requests.push(request.clone());
                        }
                        if !answer(&request, &mut stream) {
                            return;
                        }
                    }
                });
            }
        });
        fake
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The requests of the watch.
    pub fn watches(&self) -> Vec<Request> {
        let is_watch = |request: &Request| !request.is_probe() && request.target.starts_with("/v1/health/");
        self.requests().into_iter().filter(is_watch).collect()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((key, value)) => headers.push((key.to_owned(), value.to_owned())),
            None => break,
        }
    }
    let mut request = Request { at: Instant::now(), number: 0, method, target, headers, body: String::new() };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).unwrap();
    Some(request)
}

/// Sends a whole answer.
pub fn send(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> bool {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    stream.write_all(head.as_bytes()).is_ok() && stream.write_all(body).is_ok()
}

/// Sends a list with an index.
pub fn list(stream: &mut TcpStream, index: u64, body: &str) -> bool {
    send(stream, "200 OK", &format!("X-Consul-Index: {index}\r\n"), body.as_bytes())
}

/// A watch without news: sends the list when its wait is over; one of a second or more is held for ever.
#[allow(dead_code)]
pub fn wait_or_hold(request: &Request, stream: &mut TcpStream, index: u64, body: &str) -> bool {
    match request.wait() {
        Some(wait) if wait < Duration::from_secs(1) => {
            std::thread::sleep(wait);
            list(stream, index, body)
        }
        _ => hold(stream),
    }
}

/// A passing instance.
pub fn entry(id: &str) -> String {
    format!(
        r#"{{"Node":{{"Address":"10.0.0.1"}},"Service":{{"ID":"{id}","Address":"","Port":1,"Meta":{{"id":"{id}"}},
            "Tags":null}},"Checks":[{{"CheckID":"x","Status":"passing"}}]}}"#
    )
}

/// Holds a request for ever, or until the client hangs up.
pub fn hold(stream: &mut TcpStream) -> bool {
    let _ = stream.set_read_timeout(None);
    let _ = stream.peek(&mut [0]);
    false
}
