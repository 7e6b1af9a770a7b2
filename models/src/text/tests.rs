use proptest::prelude::*;

use super::*;

/// English as it is written, and as it is read.
#[rustfmt::skip]
const ENGLISH: &[(&str, &str)] = &[
    // Numbers
    ("0", "zero"),
    ("7 dogs", "seven dogs"),
    ("21 cats", "twenty-one cats"),
    ("342", "three hundred forty-two"),
    ("1001", "one thousand one"),
    ("1,234,567", "one million two hundred thirty-four thousand five hundred sixty-seven"),
    ("1000000", "one million"),
    ("1000000000000000", "one quadrillion"),
    ("1000000000000001", "one zero zero zero zero zero zero zero zero zero zero zero zero zero zero one"),
    ("-5 degrees", "minus five degrees"),
    ("−12", "minus twelve"),
    ("agent 007", "agent zero zero seven"),
    ("3.14", "three point one four"),
    ("0.5", "zero point five"),
    (".5", "point five"),
    ("-0.25", "minus zero point two five"),
    ("1,000.5", "one thousand point five"),
    ("1, 2, 3", "one, two, three"),
    ("1,2,3", "one, two, three"),
    ("version 1.2.3", "version one point two point three"),
    ("192.168.0.1", "one hundred ninety-two dot one hundred sixty-eight dot zero dot one"),
    ("٤٢ and ४२", "forty-two and forty-two"),
    // Ordinals
    ("1st", "first"),
    ("22nd", "twenty-second"),
    ("103rd", "one hundred third"),
    ("the 21st century", "the twenty-first century"),
    ("his 40th birthday", "his fortieth birthday"),
    ("1,000th", "one thousandth"),
    ("100TH", "one hundredth"),
    // Years
    ("in 1984", "in nineteen eighty-four"),
    ("since 2005", "since two thousand five"),
    ("in 1900", "in nineteen hundred"),
    ("by 2024", "by twenty twenty-four"),
    ("in 1905, he", "in nineteen oh five, he"),
    ("1984 people", "one thousand nine hundred eighty-four people"),
    ("in 1500 homes", "in one thousand five hundred homes"),
    ("from 1990 to 2000", "from nineteen ninety to two thousand"),
    ("in 1984, 1990 and 2001", "in nineteen eighty-four, nineteen ninety and two thousand one"),
    ("Orwell (1984)", "Orwell, nineteen eighty-four"),
    ("1990-2000", "nineteen ninety to two thousand"),
    ("1990–95", "nineteen ninety to ninety-five"),
    ("the 1990s", "the nineteen nineties"),
    ("the '90s", "the nineties"),
    ("1980's music", "nineteen eighties music"),
    ("the 2000s and 2010s", "the two thousands and twenty tens"),
    ("in her 20s", "in her twenties"),
    ("44 BC", "forty-four B C"),
    ("World Cup 2026", "World Cup twenty twenty-six"),
    ("the 1984 film", "the nineteen eighty-four film"),
    ("a 1500 meter race", "a one thousand five hundred meter race"),
    // Dates
    ("2024-05-01", "May first twenty twenty-four"),
    ("on 2024-12-25.", "on December twenty-fifth twenty twenty-four."),
    ("5/1/2024", "May first twenty twenty-four"),
    ("25/12/2024", "December twenty-fifth twenty twenty-four"),
    ("12/31/99", "December thirty-first nineteen ninety-nine"),
    ("12-25-2024", "December twenty-fifth twenty twenty-four"),
    ("01.05.2024", "May first twenty twenty-four"),
    ("May 1, 2024, was", "May first twenty twenty-four, was"),
    ("1 May 2024", "the first of May twenty twenty-four"),
    ("on the 4th of July", "on the fourth of July"),
    ("the 4th July", "the fourth of July"),
    ("Jan. 5", "January fifth"),
    ("Sept. 2021", "September twenty twenty-one"),
    ("March 3rd", "March third"),
    ("May 5-10", "May fifth to tenth"),
    ("In May 2005 she", "In May two thousand five she"),
    ("5-May-2024", "May fifth twenty twenty-four"),
    ("2024-05", "May twenty twenty-four"),
    ("2024-05-01T10:30", "May first twenty twenty-four ten thirty"),
    // Times
    ("at 10:30", "at ten thirty"),
    ("10:05 pm", "ten oh five P M"),
    ("12:00", "twelve o'clock"),
    ("17:45", "seventeen forty-five"),
    ("18:00", "eighteen hundred"),
    ("00:00", "midnight"),
    ("10:00 am", "ten A M"),
    ("9am-5pm", "nine A M to five P M"),
    ("10:30 - 11:30", "ten thirty to eleven thirty"),
    ("at 10 a.m. sharp", "at ten A M sharp"),
    ("It began at 10 a.m.", "It began at ten A M."),
    ("10:30:15", "ten thirty and fifteen seconds"),
    ("16:9", "sixteen to nine"),
    // Money
    ("$5", "five dollars"),
    ("$1", "one dollar"),
    ("$5.25", "five dollars and twenty-five cents"),
    ("$5.00", "five dollars"),
    ("$0.50", "fifty cents"),
    ("-$5", "minus five dollars"),
    ("£3", "three pounds"),
    ("£1.01", "one pound and one penny"),
    ("€2.50", "two euros and fifty cents"),
    ("5€", "five euros"),
    ("¥100", "one hundred yen"),
    ("؋50", "fifty afghanis"),
    ("50¢", "fifty cents"),
    ("$1,234.56", "one thousand two hundred thirty-four dollars and fifty-six cents"),
    ("$3 million", "three million dollars"),
    ("$3.5bn", "three point five billion dollars"),
    ("$10k", "ten thousand dollars"),
    ("a $3-million house", "a three million dollar house"),
    ("$5-10", "five to ten dollars"),
    ("$5-$10", "five to ten dollars"),
    ("$5/month", "five dollars per month"),
    ("US$5", "five U S dollars"),
    ("5 USD", "five U S dollars"),
    ("EUR 100", "one hundred euros"),
    // Percent, fractions, spans
    ("50% off", "fifty percent off"),
    ("3.5 %", "three point five percent"),
    ("5-10%", "five to ten percent"),
    ("1/2", "one half"),
    ("3/4 of it", "three quarters of it"),
    ("5/8", "five eighths"),
    ("1/2 km", "one half of a kilometer"),
    ("2 1/2", "two and a half"),
    ("2½ cups", "two and a half cups"),
    ("½", "one half"),
    ("120/80", "one hundred twenty over eighty"),
    ("24/7", "twenty-four seven"),
    ("10/10", "ten out of ten"),
    ("5-10", "five to ten"),
    ("pp. 5-10", "pages five to ten"),
    ("5–10 km", "five to ten kilometers"),
    // Units
    ("5 km", "five kilometers"),
    ("1 km", "one kilometer"),
    ("3kg", "three kilograms"),
    ("20°C", "twenty degrees Celsius"),
    ("-5°C", "minus five degrees Celsius"),
    ("68 °F", "sixty-eight degrees Fahrenheit"),
    ("a 90° turn", "a ninety degrees turn"),
    ("10 km/h", "ten kilometers per hour"),
    ("60 mph", "sixty miles per hour"),
    ("5 MB", "five megabytes"),
    ("2 GHz", "two gigahertz"),
    ("6ft 2in", "six feet two inches"),
    ("100 m²", "one hundred square meters"),
    ("9.8 m/s²", "nine point eight meters per second squared"),
    ("a 5-km run", "a five kilometer run"),
    ("5 lbs. of sugar", "five pounds of sugar"),
    ("500 mAh", "five hundred milliampere hours"),
    ("in km/h", "in kilometers per hour"),
    ("a 5-year-old", "a five-year-old"),
    ("−40 °C (−40 °F).", "minus forty degrees Celsius, minus forty degrees Fahrenheit."),
    // Telephone numbers
    ("555-1234", "five five five, one two three four"),
    ("(555) 123-4567", "five five five, one two three, four five six seven"),
    ("+1 555 123 4567", "plus one, five five five, one two three, four five six seven"),
    ("1-800-555-1234", "one, eight zero zero, five five five, one two three four"),
    ("020 7946 0958", "zero two zero, seven nine four six, zero nine five eight"),
    // Roman numerals
    ("Chapter IV", "Chapter four"),
    ("Henry VIII", "Henry the eighth"),
    ("World War II", "World War two"),
    ("Elizabeth II's reign", "Elizabeth the second's reign"),
    ("King George V.", "King George the fifth."),
    ("Henry I think", "Henry I think"),
    ("Vol. IV", "Volume four"),
    ("the XIX century", "the nineteenth century"),
    ("Super Bowl LVIII", "Super Bowl fifty-eight"),
    // Abbreviations
    ("Mr. Smith", "Mister Smith"),
    ("Mr. & Mrs. Jones", "Mister and Missus Jones"),
    ("Dr Lee and Ms. Poe", "Doctor Lee and Miz Poe"),
    ("St. Paul", "Saint Paul"),
    ("123 Main St.", "one hundred twenty-three Main Street."),
    ("Mt Everest", "Mount Everest"),
    ("Gen. Grant", "General Grant"),
    ("cats vs. dogs", "cats versus dogs"),
    ("milk, etc.", "milk, et cetera."),
    ("fruit, e.g. apples", "fruit, for example apples"),
    ("i.e., now", "that is, now"),
    ("No. 5", "Number five"),
    ("No. That is it.", "No. That is it."),
    ("Fig. 3", "Figure three"),
    ("c. 1900", "circa nineteen hundred"),
    ("the U.S. Army", "the U S Army"),
    ("J. K. Rowling", "J K Rowling"),
    ("J.R.R. Tolkien", "J R R Tolkien"),
    ("a Ph.D. thesis", "a P H D thesis"),
    ("King Jr. spoke", "King Junior spoke"),
    ("tea w/o sugar", "tea without sugar"),
    // Acronyms
    ("the FBI", "the F B I"),
    ("NASA and UNESCO", "NASA and UNESCO"),
    ("an IBM PC", "an I B M P C"),
    ("CDs", "C D's"),
    ("the CEO's car", "the C E O's car"),
    ("her PhD", "her P H D"),
    ("do NOT go", "do NOT go"),
    ("AT&T", "A T and T"),
    ("R&D", "R and D"),
    ("my iPhone", "my iPhone"),
    ("THIS IS THE END OF IT ALL", "THIS IS THE END OF IT ALL"),
    // Mixed tokens
    ("B2B", "B two B"),
    ("COVID-19", "COVID nineteen"),
    ("4x4", "four by four"),
    ("5 x 10", "five by ten"),
    ("3D", "three D"),
    ("MP3", "M P three"),
    ("an mp3", "an M P three"),
    ("H2O", "H two O"),
    ("H₂O", "H two O"),
    ("4K", "four K"),
    ("A320", "A three two zero"),
    ("UTF-8", "U T F eight"),
    ("post-2008", "post two thousand eight"),
    ("x86", "x eighty-six"),
    ("IPv6", "I P V six"),
    ("24-hour", "twenty-four-hour"),
    ("v2.0", "v two point zero"),
    ("1️⃣ and ①", "one and one"),
    // Symbols
    ("rock & roll", "rock and roll"),
    ("2 + 2 = 4", "two plus two equals four"),
    ("5 - 3 = 2", "five minus three equals two"),
    ("5 × 3", "five times three"),
    ("5+", "five plus"),
    ("~5", "about five"),
    ("x < 5", "x less than five"),
    ("x² + y²", "x squared plus y squared"),
    ("10^6 or 10⁶", "ten to the power of six or ten to the power of six"),
    ("a word¹ here", "a word here"),
    ("C++ and C#", "C plus plus and C sharp"),
    ("#1", "number one"),
    ("#rust", "hashtag rust"),
    ("@home", "at home"),
    ("and/or", "and or"),
    ("he/she", "he slash she"),
    ("snake_case", "snake case"),
    // Addresses
    ("example.com", "example dot com"),
    ("See https://www.example.com/path.", "See W W W dot example dot com slash path."),
    ("user.name@example.co.uk", "user dot name at example dot co dot U K"),
    ("foo_bar+1@mail.org", "foo underscore bar plus one at mail dot org"),
    ("example.com/a-b?x=1", "example dot com slash a dash b question mark x equals one"),
    ("report.pdf", "report dot P D F"),
    ("Node.js and .NET", "Node dot J S and dot NET"),
    // Punctuation
    ("“Hello,” she said.", "Hello, she said."),
    ("Hi 😀! It’s me — Tom", "Hi! It's me, Tom"),
    ("Wait… what?!", "Wait, what?"),
    ("- one\n- two; (three)", "one\ntwo, three"),
    ("A well-known café, سلام", "A well-known café, سلام"),
];

#[test]
fn english_is_read_as_people_read_it() {
    let wrong = ENGLISH.iter().map(|(text, expected)| (text, spoken(text, "en"), expected));
    let wrong: Vec<_> = wrong.filter(|(_, spoken, expected)| spoken != *expected).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(ENGLISH.len() >= 120);
}

#[test]
fn what_is_written_out_stays_as_it_is() {
    for (_, text) in ENGLISH {
        assert_eq!(spoken(text, "en-GB"), *text);
    }
}

#[test]
fn clauses_follow_each_other_over_paragraphs() {
    assert!(clauses(" \n … 😀 ()", "en", 10, Breaks::Marks).is_empty());
    let clauses = clauses("Mr. Smith paid $5, twice.\n\nWhy?", "en", 100, Breaks::Marks);
    let clauses: Vec<_> = clauses.iter().map(|clause| (clause.text.as_str(), clause.pause)).collect();
    let expected = [
        ("Mister Smith paid five dollars,", Pause::Short),
        ("twice.", Pause::Paragraph),
        ("Why?", Pause::Paragraph),
    ];
    assert_eq!(clauses, expected);
}

/// Rules are quick on what they could go over again and again.
#[test]
fn long_runs_take_no_longer_than_their_length() {
    for piece in [
        "1984, ", "(", "(a", "1-", "1.", "1,234", "a.", "A. ", ".. ", "& ", "#", "x", " ", "%", "'", "0 ",
        "$", "/", "😀",
    ] {
        let text = piece.repeat(20_000);
        for language in ["en", "ps", "de"] {
            clauses(&text, language, 50, Breaks::Sentences);
        }
    }
}

/// Pieces of which English that rules know is made.
const PIECES: [&str; 72] = [
    " ", " ", " ", " ", ".", ",", ":", ";", "-", "–", "−", "/", "%", "°", "$", "€", "#", "@", "&", "+", "=",
    "(", ")", "'", "\"", "^", "²", "³", "½", "*", "~", "<", ">", "_", "\n", "0", "1", "5", "10", "12", "007",
    "1984", "2024", "123", "1234567", "May", "Jan", "a", "m", "am", "pm", "km", "kg", "st", "th", "s", "x",
    "in", "the", "to", "Dr", "St", "No", "etc", "USD", "NASA", "FBI", "PhD", "Henry", "VIII", "com", "www",
];

fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        12 => proptest::sample::select(PIECES.to_vec()).prop_map(str::to_owned),
        2 => any::<char>().prop_map(String::from),
        1 => proptest::char::range('\u{600}', '\u{6ff}').prop_map(String::from),
        1 => proptest::char::range('\u{1f300}', '\u{1f6ff}').prop_map(String::from),
        1 => proptest::char::range('\u{2000}', '\u{2fff}').prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn small_words() -> impl Strategy<Value = String> {
    let word = proptest::collection::vec(proptest::char::range('a', 'z'), 1..8);
    let word = word.prop_map(|chars| chars.into_iter().collect::<String>());
    let words = proptest::collection::vec((word, proptest::sample::select(vec![" ", ", "])), 1..12);
    words.prop_map(|words| words.into_iter().flat_map(|(word, gap)| [word, gap.to_owned()]).collect())
}

fn letters(text: &str) -> String {
    text.split_whitespace().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_digit_is_left_in_english(text in texts()) {
        let spoken = spoken(&text, "en");
        prop_assert!(!spoken.contains(|c: char| digits::value(c).is_some()), "{spoken}");
    }

    /// Of ASCII, letters, the four marks and what joins words are left.
    #[test]
    fn no_symbol_is_left_in_english(text in texts()) {
        let spoken = spoken(&text, "en");
        let is_known = |c: char| !c.is_ascii() || c.is_ascii_alphabetic() || " \n.,?!-'".contains(c);
        prop_assert!(spoken.chars().all(is_known), "{spoken}");
    }

    #[test]
    fn plain_words_are_never_changed(text in small_words()) {
        let text = text.trim_end().trim_end_matches(',');
        prop_assert_eq!(spoken(text, "en"), text);
    }

    #[test]
    fn clauses_hold_what_is_spoken(text in texts(), max_chars in 0_usize..60) {
        for (language, breaks) in
            [("en", Breaks::Marks), ("en", Breaks::Sentences), ("ps", Breaks::Sentences), ("de", Breaks::Marks)]
        {
            let spoken = spoken(&text, language);
            let clauses = clauses(&text, language, max_chars, breaks);
            let joined = clauses.iter().map(|clause| clause.text.as_str()).collect::<Vec<_>>().join(" ");
            // Words that are longer than a clause are cut.
            prop_assert_eq!(letters(&joined), letters(&spoken));
            if spoken.split_whitespace().all(|word| word.chars().count() <= max_chars) {
                prop_assert!(joined.split_whitespace().eq(spoken.split_whitespace()));
            }
            for clause in &clauses {
                prop_assert!(!clause.text.trim().is_empty());
                prop_assert!(clause.text.chars().count() <= max_chars.max(1));
            }
            prop_assert!(clauses.last().is_none_or(|clause| clause.pause == Pause::Paragraph));
        }
    }
}
