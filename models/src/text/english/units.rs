//! Units of measurement.

use super::lexeme::Lexeme::{self, Digits, Mark, Space, Word};
use super::lexeme::{Place, Reading, is_small};

/// Symbols with the unit for one; many have an `s`, but for `PLURALS`.
const UNITS: [(&str, &str); 72] = [
    ("nm", "nanometer"),
    ("µm", "micrometer"),
    ("μm", "micrometer"),
    ("mm", "millimeter"),
    ("cm", "centimeter"),
    ("dm", "decimeter"),
    ("m", "meter"),
    ("km", "kilometer"),
    ("ft", "foot"),
    ("yd", "yard"),
    ("mi", "mile"),
    ("ha", "hectare"),
    ("mg", "milligram"),
    ("µg", "microgram"),
    ("μg", "microgram"),
    ("g", "gram"),
    ("kg", "kilogram"),
    ("oz", "ounce"),
    ("lb", "pound"),
    ("lbs", "pound"),
    ("ml", "milliliter"),
    ("mL", "milliliter"),
    ("cl", "centiliter"),
    ("dl", "deciliter"),
    ("l", "liter"),
    ("L", "liter"),
    ("gal", "gallon"),
    ("ns", "nanosecond"),
    ("µs", "microsecond"),
    ("μs", "microsecond"),
    ("ms", "millisecond"),
    ("s", "second"),
    ("sec", "second"),
    ("secs", "second"),
    ("min", "minute"),
    ("mins", "minute"),
    ("h", "hour"),
    ("hr", "hour"),
    ("hrs", "hour"),
    ("mph", "mile per hour"),
    ("kph", "kilometer per hour"),
    ("rpm", "revolution per minute"),
    ("fps", "frame per second"),
    ("ppm", "part per million"),
    ("Hz", "hertz"),
    ("kHz", "kilohertz"),
    ("MHz", "megahertz"),
    ("GHz", "gigahertz"),
    ("kB", "kilobyte"),
    ("KB", "kilobyte"),
    ("MB", "megabyte"),
    ("GB", "gigabyte"),
    ("TB", "terabyte"),
    ("KiB", "kibibyte"),
    ("MiB", "mebibyte"),
    ("GiB", "gibibyte"),
    ("kbps", "kilobit per second"),
    ("Mbps", "megabit per second"),
    ("Gbps", "gigabit per second"),
    ("V", "volt"),
    ("kV", "kilovolt"),
    ("mA", "milliampere"),
    ("mAh", "milliampere hour"),
    ("W", "watt"),
    ("kW", "kilowatt"),
    ("MW", "megawatt"),
    ("GW", "gigawatt"),
    ("kWh", "kilowatt hour"),
    ("kcal", "kilocalorie"),
    ("kPa", "kilopascal"),
    ("hPa", "hectopascal"),
    ("dB", "decibel"),
];

/// First words that have no plural in `s`.
const PLURALS: [(&str, &str); 6] = [
    ("foot", "feet"),
    ("inch", "inches"),
    ("hertz", "hertz"),
    ("kilohertz", "kilohertz"),
    ("megahertz", "megahertz"),
    ("gigahertz", "gigahertz"),
];

/// Units that are squared and cubed.
const LENGTHS: [&str; 9] =
    ["millimeter", "centimeter", "decimeter", "meter", "kilometer", "inch", "foot", "yard", "mile"];

/// A unit at the head of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// Behind one.
    pub(super) one: String,
    /// Behind any other number.
    pub(super) many: String,
    /// How many lexemes it is.
    pub(super) taken: usize,
}

/// Whether a word is a unit's symbol.
pub(super) fn is_unit(word: &str) -> bool {
    named(word).is_some()
}

fn named(symbol: &str) -> Option<&'static str> {
    let find = |symbol: &str| UNITS.iter().find(|(unit, _)| *unit == symbol).map(|(_, name)| *name);
    // People's own; other capitals are other units.
    let is_known = matches!(symbol, "KM" | "KG" | "CM" | "LB" | "LBS" | "MPH" | "RPM");
    if is_known { find(&symbol.to_lowercase()) } else { find(symbol) }
}

impl Unit {
    /// The unit at the head of `lexemes`: `km`, `m²`, `km/h`, `°C`.
    pub(super) fn read(lexemes: &[Lexeme<'_>]) -> Option<Self> {
        if let [Mark('°'), rest @ ..] = lexemes {
            return Some(Self::degrees(rest));
        }
        let [Word(symbol), rest @ ..] = lexemes else { return None };
        let name = named(symbol)?;
        let (power, n_power) = power(rest);
        if n_power > 0 && !LENGTHS.contains(&name) {
            return None;
        }
        let mut unit = Self {
            one: format!("{power}{name}"),
            many: format!("{power}{}", many(name)),
            taken: 1 + n_power,
        };
        if let [Mark('/'), Word(per), rest @ ..] = &lexemes[unit.taken..]
            && let Some(per) = named(per).or_else(|| (is_small(per) && per.len() > 2).then_some(*per))
        {
            let (per, n_power) = with_power(per, rest);
            unit.one = format!("{} per {per}", unit.one);
            unit.many = format!("{} per {per}", unit.many);
            unit.taken += 2 + n_power;
        }
        // The dot of `lbs.` in the middle of a sentence.
        if let [Mark('.'), Space, Word(next), ..] = &lexemes[unit.taken..]
            && is_small(next)
        {
            unit.taken += 1;
        }
        Some(unit)
    }

    fn degrees(rest: &[Lexeme<'_>]) -> Self {
        let (scale, taken) = match rest {
            [Word("C"), ..] => (" Celsius", 2),
            [Word("F"), ..] => (" Fahrenheit", 2),
            [Space, Word("C"), ..] => (" Celsius", 3),
            [Space, Word("F"), ..] => (" Fahrenheit", 3),
            _ => ("", 1),
        };
        Self { one: format!("degree{scale}"), many: format!("degrees{scale}"), taken }
    }
}

/// Meter: meters; mile per hour: miles per hour.
fn many(name: &str) -> String {
    let (first, rest) = name.split_at(name.find(" per ").unwrap_or(name.len()));
    match PLURALS.iter().find(|(one, _)| *one == first) {
        Some((_, many)) => format!("{many}{rest}"),
        None => format!("{first}s{rest}"),
    }
}

/// The power behind a unit, and how many lexemes it is.
fn power(rest: &[Lexeme<'_>]) -> (&'static str, usize) {
    match rest {
        [Mark('²'), ..] => ("square ", 1),
        [Mark('³'), ..] => ("cubic ", 1),
        [Mark('^'), Digits("2"), ..] => ("square ", 2),
        [Mark('^'), Digits("3"), ..] => ("cubic ", 2),
        // `m2x` is no area.
        [Digits(_), Word(_), ..] => ("", 0),
        [Digits("2"), ..] => ("square ", 1),
        [Digits("3"), ..] => ("cubic ", 1),
        _ => ("", 0),
    }
}

/// What something is divided by, and how many lexemes its power is: square meter, second squared.
fn with_power(name: &str, rest: &[Lexeme<'_>]) -> (String, usize) {
    match (power(rest), rest) {
        ((power, n_power), _) if LENGTHS.contains(&name) => (format!("{power}{name}"), n_power),
        ((_, n_power), [Mark('²'), ..] | [Mark('^'), Digits("2"), ..]) => {
            (format!("{name} squared"), n_power)
        }
        _ => (name.to_owned(), 0),
    }
}

/// A rate that no number is before, as in "in km/h".
pub(super) fn rate(place: Place<'_>) -> Option<Reading> {
    let [Word(unit), Mark('/'), Word("h" | "s" | "min"), ..] = place.ahead() else { return None };
    if !place.begins_chunk() || !is_unit(unit) {
        return None;
    }
    Unit::read(place.ahead()).map(|unit| Reading::new(unit.taken, unit.many))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::english::lexeme::lexemes;

    #[test]
    fn units_have_names_for_one_and_for_many() {
        for (text, one, many, taken) in [
            ("km", "kilometer", "kilometers", 1),
            ("KM", "kilometer", "kilometers", 1),
            ("ft", "foot", "feet", 1),
            ("mph", "mile per hour", "miles per hour", 1),
            ("m²", "square meter", "square meters", 2),
            ("m3,", "cubic meter", "cubic meters", 2),
            ("m/s²", "meter per second squared", "meters per second squared", 4),
            ("g/cm³", "gram per cubic centimeter", "grams per cubic centimeter", 4),
            ("MB/s", "megabyte per second", "megabytes per second", 3),
            ("mg/day", "milligram per day", "milligrams per day", 3),
            ("° C", "degree Celsius", "degrees Celsius", 3),
            ("lbs. of", "pound", "pounds", 2),
            ("lbs. Of", "pound", "pounds", 1),
        ] {
            let unit = Unit { one: one.to_owned(), many: many.to_owned(), taken };
            assert_eq!(Unit::read(&lexemes(text)), Some(unit), "{text}");
        }
        for text in ["M", "D", "people", "kg2", ""] {
            assert_eq!(Unit::read(&lexemes(text)), None, "{text}");
        }
    }
}
