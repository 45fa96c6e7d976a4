//! Tables as Python's `csv` reads and writes them, in the form that A1111 keeps styles in.

/// The rows of a table. Fields stand between commas, where spaces before them do not count; those that begin with a quote
/// end with one, and hold anything, of quotes two for one. Rows without anything are left out.
pub(super) fn read(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field) = (vec![], vec![], String::new());
    let mut state = State::Begin;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let is_end = matches!(character, '\n' | '\r') && state != State::Quoted;
        if is_end {
            if character == '\r' {
                characters.next_if_eq(&'\n');
            }
            if state != State::Begin || !row.is_empty() {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            state = State::Begin;
            continue;
        }
        state = match (state, character) {
            (State::Begin | State::Comma, ' ') => State::Comma,
            (State::Begin | State::Comma, '"') => State::Quoted,
            (State::Quoted, '"') => State::Quote,
            (State::Quote, '"') => {
                field.push('"');
                State::Quoted
            }
            (State::Quoted, _) => {
                field.push(character);
                State::Quoted
            }
            (_, ',') => {
                row.push(std::mem::take(&mut field));
                State::Comma
            }
            _ => {
                field.push(character);
                State::Plain
            }
        };
    }
    if state != State::Begin || !row.is_empty() {
        row.push(field);
        rows.push(row);
    }
    rows
}

/// Where in a row a reader is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before all of it.
    Begin,
    /// Before a field.
    Comma,
    /// In a field without quotes.
    Plain,
    /// In a field with quotes.
    Quoted,
    /// Behind a quote in such a field.
    Quote,
}

/// A row, with its end.
pub(super) fn write(fields: &[&str]) -> String {
    let field = |field: &&str| {
        let needs_quotes = field.contains([',', '"', '\n', '\r']) || field.starts_with(' ');
        if needs_quotes { format!("\"{}\"", field.replace('"', "\"\"")) } else { (*field).to_owned() }
    };
    fields.iter().map(field).collect::<Vec<_>>().join(",") + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Python's `csv.reader` makes of these, with `skipinitialspace`.
    #[test]
    fn tables_are_read_as_python_reads_them() {
        let rows: &[(&str, &[&[&str]])] = &[
            ("", &[]),
            ("\n\r\n", &[]),
            ("a,b\r\nc,d", &[&["a", "b"], &["c", "d"]]),
            ("a, b ,", &[&["a", "b ", ""]]),
            ("\"a,\"\"b\"\"\nc\",d\n", &[&["a,\"b\"\nc", "d"]]),
            ("a\"b\",\"c\"d", &[&["a\"b\"", "cd"]]),
            ("a, \"b\"", &[&["a", "b"]]),
            ("\"open\nend", &[&["open\nend"]]),
            (",\n\n\"\"\n", &[&["", ""], &[""]]),
            ("a\rb", &[&["a"], &["b"]]),
        ];
        for (text, expected) in rows {
            assert_eq!(read(text), *expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let fields = ["", "a", " a", "a ", "a,b", "\"", "a\"b\"", "a\nb", "a\r\nb", "é, {prompt}"];
        for first in fields {
            for second in fields {
                assert_eq!(read(&write(&[first, second])), [[first, second]], "{first:?} {second:?}");
            }
        }
    }
}
