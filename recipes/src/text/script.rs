//! What is known of a language's letters: by it errors are sorted, and texts in another script are found out.

/// Letters of one kind, whose errors are shown together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// As it is shown.
    pub name: &'static str,
    /// The letters.
    pub letters: &'static str,
}

/// The letters of a language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Script {
    /// All that its texts are written in, variants of keyboards included.
    pub letters: &'static str,
    /// Those that its neighbours lack.
    pub own_letters: &'static str,
    /// Letters that belong together.
    pub rows: &'static [Row],
    /// What people write in the place of a letter that their keyboard lacks.
    pub substitutes: &'static [(char, &'static str)],
}

impl Script {
    /// Of a language by its code, where somebody wrote it down.
    pub fn of(language: &str) -> Option<&'static Self> {
        match language {
            "ps" => Some(&super::pashto::SCRIPT),
            _ => None,
        }
    }

    /// Whether a character is one of its letters.
    pub fn has(&self, c: char) -> bool {
        self.letters.contains(c)
    }

    /// Whether two words may be one, written on two keyboards.
    pub fn may_be_the_same(&self, a: &str, b: &str) -> bool {
        let stands_for = |a: char, b: char| {
            self.substitutes.iter().any(|(letter, others)| *letter == a && others.contains(b))
        };
        let (mut a, mut b) = (a.chars(), b.chars());
        loop {
            match (a.next(), b.next()) {
                (None, None) => return true,
                (Some(x), Some(y)) if x == y || stands_for(x, y) || stands_for(y, x) => {}
                _ => return false,
            }
        }
    }
}
