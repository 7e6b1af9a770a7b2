//! Pages that need nothing from elsewhere: what a run card and an error analysis have in common.

use std::fmt::Write as _;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#222}\
    th{text-align:left;padding-right:1.5rem;font-weight:600;vertical-align:top}td{font-variant-numeric:tabular-nums;\
    padding-right:1rem}pre{overflow-x:auto;background:#f6f6f6;padding:.75rem;font-size:13px}svg{max-width:100%;height:auto}\
    audio{width:100%;height:2rem}del{color:#a11;background:#fdecec}ins{color:#161;background:#e9f7e9;text-decoration:none}";

/// A whole page.
pub(crate) fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\n<style>{STYLE}</style></head>\n\
         <body>\n{body}</body></html>\n",
        escape(title)
    )
}

/// A table whose first row names the columns, unless it is empty. Cells may be in any script.
pub(crate) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let mut text = String::from("<table>");
    let row = |text: &mut String, tag: &str, cells: &mut dyn Iterator<Item = &str>| {
        text.push_str("<tr>");
        for cell in cells {
            // A number and its unit stay on one line.
            let cell = escape(cell).replace(" %", "\u{a0}%");
            let _ = write!(text, "<{tag}><bdi>{cell}</bdi></{tag}>");
        }
        text.push_str("</tr>");
    };
    if heading.iter().any(|cell| !cell.is_empty()) {
        row(&mut text, "th", &mut heading.into_iter());
    }
    for cells in rows {
        row(&mut text, "td", &mut cells.iter().map(String::as_str));
    }
    text + "</table>\n"
}

/// A table whose first row names the columns, and notes below it.
pub(crate) fn table_with_notes<const N: usize>(rows: &[[String; N]], notes: &[String]) -> String {
    let table = rows.split_first().map(|(heading, rows)| table(heading.each_ref().map(String::as_str), rows));
    let mut text = table.unwrap_or_default();
    for note in notes {
        let _ = writeln!(text, "<p>{}</p>", escape(note));
    }
    text
}

/// A page that is a table, whose first row names the columns; notes and links (text and address) stand below it.
pub fn table_page<const N: usize>(
    title: &str,
    rows: &[[String; N]],
    notes: &[String],
    links: &[(String, String)],
) -> String {
    let mut body = format!("<h1>{}</h1>\n{}", escape(title), table_with_notes(rows, notes));
    for (text, address) in links {
        let _ = writeln!(body, "<p><a href=\"{}\">{}</a></p>", escape(address), escape(text));
    }
    page(title, &body)
}

/// Text as it stands between tags, and in an attribute.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_no_markup() {
        assert_eq!(escape("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
        let table = table(["x", ""], &[["<b>".to_owned(), "1".to_owned()]]);
        assert!(table.contains("&lt;b&gt;") && table.contains("<th>"), "{table}");
        let cells = [["x".to_owned()], ["1".to_owned()]];
        let links = [("a & b".to_owned(), "a/card.html".to_owned())];
        let linked = table_page("t", &cells, &["<note>".to_owned()], &links);
        assert!(
            linked.contains("<p>&lt;note&gt;</p>")
                && linked.contains("<a href=\"a/card.html\">a &amp; b</a>")
        );
        assert!(page("a<b", "").contains("<title>a&lt;b</title>"));
    }
}
