//! Amounts of money.

use super::lexeme::Lexeme::{self, Digits, Mark, Space, Word};
use super::lexeme::{Place, Reading};
use super::numbers::{Number, cardinal, whole};

/// A currency by its sign or its code.
struct Currency {
    /// Before or behind amounts.
    sign: Option<char>,
    code: &'static str,
    one: &'static str,
    many: &'static str,
    /// A hundredth, one and many, where people count in them.
    minor: Option<(&'static str, &'static str)>,
}

const fn currency(
    sign: Option<char>,
    code: &'static str,
    one: &'static str,
    many: &'static str,
    minor: Option<(&'static str, &'static str)>,
) -> Currency {
    Currency { sign, code, one, many, minor }
}

const CENTS: Option<(&str, &str)> = Some(("cent", "cents"));

static CURRENCIES: [Currency; 17] = [
    currency(Some('$'), "", "dollar", "dollars", CENTS),
    currency(Some('£'), "GBP", "pound", "pounds", Some(("penny", "pence"))),
    currency(Some('€'), "EUR", "euro", "euros", CENTS),
    currency(Some('¥'), "JPY", "yen", "yen", None),
    currency(Some('؋'), "AFN", "afghani", "afghanis", None),
    currency(Some('₹'), "INR", "rupee", "rupees", None),
    currency(Some('₽'), "RUB", "ruble", "rubles", None),
    currency(Some('₩'), "KRW", "won", "won", None),
    currency(Some('₺'), "", "lira", "lira", None),
    currency(Some('₴'), "UAH", "hryvnia", "hryvnias", None),
    currency(Some('¢'), "", "cent", "cents", None),
    currency(None, "USD", "U S dollar", "U S dollars", CENTS),
    currency(None, "CAD", "Canadian dollar", "Canadian dollars", CENTS),
    currency(None, "AUD", "Australian dollar", "Australian dollars", CENTS),
    currency(None, "CHF", "Swiss franc", "Swiss francs", None),
    currency(None, "CNY", "yuan", "yuan", None),
    currency(None, "PKR", "Pakistani rupee", "Pakistani rupees", None),
];

/// What stands before a dollar sign, and the code that both are.
const DOLLARS: [(&str, &str); 5] = [("US", "USD"), ("A", "AUD"), ("AU", "AUD"), ("C", "CAD"), ("CA", "CAD")];

/// Letters for large numbers behind an amount.
const SCALES: [(&str, &str); 11] = [
    ("k", "thousand"),
    ("K", "thousand"),
    ("m", "million"),
    ("M", "million"),
    ("mn", "million"),
    ("b", "billion"),
    ("B", "billion"),
    ("bn", "billion"),
    ("t", "trillion"),
    ("T", "trillion"),
    ("tn", "trillion"),
];

fn of_sign(sign: char) -> Option<&'static Currency> {
    CURRENCIES.iter().find(|currency| currency.sign == Some(sign))
}

fn of_code(code: &str) -> Option<&'static Currency> {
    CURRENCIES.iter().find(|currency| !code.is_empty() && currency.code == code)
}

/// The currency at the head of `lexemes`, and how many lexemes it is: `$`, `US$`, `EUR`.
fn ahead(lexemes: &[Lexeme<'_>]) -> Option<(&'static Currency, usize)> {
    match lexemes {
        [Mark(sign), ..] => of_sign(*sign).map(|currency| (currency, 1)),
        [Word(country), Mark('$'), ..] => {
            let (_, code) = DOLLARS.iter().find(|(prefix, _)| prefix == country)?;
            of_code(code).map(|currency| (currency, 2))
        }
        [Word(code), ..] => of_code(code).map(|currency| (currency, 1)),
        _ => None,
    }
}

/// The name of the currency behind a number, and how many lexemes it is: `5 €`, `5 USD`. A sign that an amount follows is that one's.
pub(super) fn behind(lexemes: &[Lexeme<'_>], is_one: bool) -> Option<(String, usize)> {
    let (currency, taken) = ahead(lexemes)?;
    let is_free = !matches!(lexemes[taken..], [Digits(_), ..]);
    is_free.then(|| ((if is_one { currency.one } else { currency.many }).to_owned(), taken))
}

/// Whether an amount stands at the head of `lexemes`, its sign first.
pub(super) fn is_amount(lexemes: &[Lexeme<'_>]) -> bool {
    matches!(lexemes, [Mark(sign), Digits(_), ..] if of_sign(*sign).is_some())
}

/// `$5`, `£3.50`, `US$ 3.5 million`, `$5-10`, `EUR 5`, `$5k`.
pub(super) fn amount(place: Place<'_>) -> Option<Reading> {
    let lexemes = place.ahead();
    let (currency, n_sign) = ahead(lexemes)?;
    let mut taken = n_sign + usize::from(lexemes.get(n_sign) == Some(&Space));
    let Some(number) = Number::read(&lexemes[taken..]) else {
        // A sign alone; a code alone is an acronym.
        return (!matches!(lexemes[..n_sign], [Word(_)])).then(|| Reading::new(n_sign, currency.many));
    };
    taken += number.taken;
    let last = span(&lexemes[taken..], lexemes[n_sign - 1]);
    taken += last.as_ref().map_or(0, |(_, n_last)| *n_last);
    let scale = scale(&lexemes[taken..]);
    taken += scale.map_or(0, |(_, n_scale)| n_scale);
    let numbers = match &last {
        Some((last, _)) => format!("{} to {}", number.words(), last.words()),
        None => number.words(),
    };
    let words = match scale {
        // `a $3-million house`.
        Some((scale, _)) if lexemes[taken - 2] == Mark('-') => format!("{numbers} {scale} {}", currency.one),
        Some((scale, _)) => format!("{numbers} {scale} {}", currency.many),
        None if last.is_some() => format!("{numbers} {}", currency.many),
        None => currency.words(&number),
    };
    Some(Reading::new(taken, words))
}

/// The end of a span of amounts, whether or not it repeats their sign: `-10`, `-$10`.
fn span<'a>(rest: &[Lexeme<'a>], sign: Lexeme<'_>) -> Option<(Number<'a>, usize)> {
    let [Mark('-' | '–'), rest @ ..] = rest else { return None };
    let n_sign = usize::from(rest.first() == Some(&sign));
    let number = Number::read(&rest[n_sign..])?;
    let taken = 1 + n_sign + number.taken;
    Some((number, taken))
}

/// The large number that an amount is told in, and how many lexemes it is.
fn scale(rest: &[Lexeme<'_>]) -> Option<(&'static str, usize)> {
    let (word, taken) = match rest {
        [Word(word), ..] => (word, 1),
        [Space | Mark('-'), Word(word), ..] if word.len() > 1 => (word, 2),
        _ => return None,
    };
    SCALES.iter().find(|(letters, name)| letters == word || name == word).map(|(_, name)| (*name, taken))
}

impl Currency {
    /// 5.25: five dollars and twenty-five cents.
    fn words(&self, number: &Number<'_>) -> String {
        let n_minor: Option<u64> =
            number.decimals.filter(|decimals| decimals.len() == 2).and_then(|decimals| decimals.parse().ok());
        let is_one = number.whole == "1";
        let major = || format!("{} {}", whole(&number.whole), if is_one { self.one } else { self.many });
        let minor = |n: u64| {
            let (one, many) = self.minor.filter(|_| n > 0)?;
            Some(format!("{} {}", cardinal(n), if n == 1 { one } else { many }))
        };
        match (number.decimals, n_minor) {
            (None, _) | (_, Some(0)) => major(),
            (_, Some(n)) => match minor(n) {
                Some(minor) if matches!(number.whole.as_str(), "" | "0") => minor,
                Some(minor) => format!("{} and {minor}", major()),
                None => format!("{} {}", number.words(), self.many),
            },
            _ => format!("{} {}", number.words(), self.many),
        }
    }
}
