//! What the service tells its subscribers, and the stream by which it reaches them.

mod stream;

pub use stream::{EventStream, NoEvent, Publisher, Subscriptions};
