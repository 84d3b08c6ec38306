//! A body that arrives: the scanner, fed by a reader, with its errors as the provider's.

use super::scanner::{Element, Malformed, Next, Scanner};
use crate::error::{ErrorCode, ProvisioningError};

/// A body that `read` gives piece by piece.
pub(crate) struct Body<'a, R> {
    scanner: Scanner,
    read: R,
    /// What is being done, for errors.
    doing: &'a str,
    /// What the body is not if it is malformed: "a list of …".
    expected: &'static str,
}

impl<'a, R: FnMut(&mut [u8]) -> Result<usize, ProvisioningError>> Body<'a, R> {
    pub(crate) fn new(scanner: Scanner, read: R, doing: &'a str, expected: &'static str) -> Self {
        Self { scanner, read, doing, expected }
    }

    /// Goes to the next element, key or value, or to the end.
    pub(crate) fn next(&mut self) -> Result<Next, ProvisioningError> {
        loop {
            match self.scanner.next().map_err(|malformed| self.malformed(malformed))? {
                Next::More => self.fill()?,
                next => return Ok(next),
            }
        }
    }

    /// Says whether the value of the key found last is the list.
    pub(crate) fn expect_list(&mut self, is_list: bool) {
        self.scanner.expect_list(is_list);
    }

    /// The bytes from the element here on: so many at least, if the body has them.
    pub(crate) fn peek(&mut self, needed: usize) -> Result<&[u8], ProvisioningError> {
        while self.scanner.peek().len() < needed && !self.scanner.has_ended() {
            self.fill()?;
        }
        Ok(self.scanner.peek())
    }

    /// Passes over the element here, which is known to have so many bytes.
    pub(crate) fn pass(&mut self, length: usize) {
        self.scanner.pass(length);
    }

    /// What `take` makes of the bytes of the element here; `None` if it is too large. The error of `take` is where in
    /// those bytes they turn out to be malformed.
    pub(crate) fn element<T>(
        &mut self,
        take: impl FnOnce(&[u8]) -> Result<T, usize>,
    ) -> Result<Option<T>, ProvisioningError> {
        loop {
            let begin = self.scanner.offset();
            let taken = match self.scanner.element() {
                Ok(Element::Whole(bytes)) => {
                    take(bytes).map(Some).map_err(|at| Malformed { at: begin + at, cut: false })
                }
                Ok(Element::TooLarge) => Ok(None),
                Ok(Element::More) => {
                    self.fill()?;
                    continue;
                }
                Err(malformed) => Err(malformed),
            };
            return taken.map_err(|malformed| self.malformed(malformed));
        }
    }

    fn fill(&mut self) -> Result<(), ProvisioningError> {
        let count = (self.read)(self.scanner.room())?;
        self.scanner.filled(count);
        Ok(())
    }

    /// The body itself is not repeated: what is wrong with it and where say enough.
    fn malformed(&self, Malformed { at, cut }: Malformed) -> ProvisioningError {
        let detail = match cut {
            true => format!("the answer ends too early (byte {at})"),
            false => format!("the answer is no {} (byte {at})", self.expected),
        };
        ProvisioningError::new(ErrorCode::MalformedAnswer, self.doing.to_owned(), detail)
    }
}
