//! English digits, as they are said.

/// The words for 0 to 9.
pub(super) const DIGITS: [&str; 10] =
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
