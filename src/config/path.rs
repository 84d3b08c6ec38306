//! Where a setting stands among the others: `providers[1].parameters.wait`.

use std::fmt;

/// The longest part of a name that is shown, in characters.
const SHOWN: usize = 64;

/// One step from the whole to a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Name(String),
    Index(usize),
}

/// The steps from the whole to a setting.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct FieldPath(Vec<Step>);

impl FieldPath {
    /// Of what is written `a.b` or `a[1]`, as the library's own errors name fields.
    pub(crate) fn of(field: &str) -> Self {
        Self::default().within(field)
    }

    /// The path of what is written so below this one.
    pub(crate) fn within(mut self, field: &str) -> Self {
        for part in field.split('.') {
            let (name, index) = match part.strip_suffix(']').and_then(|part| part.split_once('[')) {
                Some((name, index)) => (name, index.parse().ok()),
                None => (part, None),
            };
            self.0.push(Step::Name(name.to_owned()));
            self.0.extend(index.map(Step::Index));
        }
        self
    }

    pub(crate) fn name(mut self, name: &str) -> Self {
        self.0.push(Step::Name(name.to_owned()));
        self
    }

    pub(crate) fn index(mut self, index: usize) -> Self {
        self.0.push(Step::Index(index));
        self
    }

    /// Puts the whole one step further away.
    pub(super) fn begin_with(&mut self, step: Step) {
        self.0.insert(0, step);
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Name(name) => {
                    f.write_str(if at > 0 { "." } else { "" })?;
                    let shown: String = name.chars().take(SHOWN).collect();
                    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
                    match !shown.is_empty() && shown.chars().all(is_plain) {
                        true => f.write_str(&shown)?,
                        false => write!(f, "{shown:?}")?,
                    }
                    f.write_str(if shown.len() < name.len() { "…" } else { "" })?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p5_5_a_path_is_written_as_the_file_has_it_and_names_of_others_are_quoted_and_cut() {
        let path = FieldPath::of("providers").index(1).name("parameters").name("wait");
        assert_eq!(path.to_string(), "providers[1].parameters.wait");
        assert_eq!(FieldPath::of("a.b[3]").within("c").steps().len(), 4);
        assert_eq!(FieldPath::of("a").name("x y").to_string(), "a.\"x y\"");
        assert_eq!(FieldPath::of("a").name("b.c\n").to_string(), "a.\"b.c\\n\"");
        assert_eq!(FieldPath::default().name("").to_string(), "\"\"");
        assert!(FieldPath::default().name(&"x".repeat(100_000)).to_string().len() < 100);
    }
}
