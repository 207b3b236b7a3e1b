//! A line of the shell, cut into words.
//!
//! ```text
//!   set  "a key"  'it\'s'  x\ty\xff      four words:  set   a key   it's   x\ty\xff
//! ```
//!
//! Spaces separate words. `"..."` and `'...'` keep spaces inside a word, and mean the same; quotes may begin
//! anywhere (`a" "b` is one word) and `""` is an empty one. A backslash takes the meaning from a quote, a
//! space or a `#` that follows it. All other escapes are left as they are: the words are in the escaped form
//! in which every key and value is typed and printed, and each argument is unescaped once, by its own parser.
//! A `#` at the beginning of a word begins a comment.

use std::fmt;

/// A line that cannot be cut: a quote that is never closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenQuote(char);

impl fmt::Display for OpenQuote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a quote ({}) is never closed", self.0)
    }
}

impl std::error::Error for OpenQuote {}

/// The words of a line.
pub(crate) fn split(line: &str) -> Result<Vec<String>, OpenQuote> {
    let cut = Cut::new(line);
    match cut.open_quote {
        Some(quote) => Err(OpenQuote(quote)),
        None => Ok(cut.words.into_iter().map(|(_, word)| word).collect()),
    }
}

/// The words before the cursor, and the word at the cursor: where it begins in the line, and its text so far.
pub(crate) fn split_at_cursor(line: &str) -> (Vec<String>, usize, String) {
    let mut cut = Cut::new(line);
    let at_cursor = match cut.in_word {
        true => cut.words.pop(),
        false => None,
    };
    let (begin, text) = at_cursor.unwrap_or((line.len(), String::new()));
    (cut.words.into_iter().map(|(_, word)| word).collect(), begin, text)
}

/// Writes an escaped text as a word: in quotes if it needs them, and never to be taken for an option.
pub(crate) fn quote(text: &str) -> String {
    if let Some(rest) = text.strip_prefix('-') {
        return quote(&format!("\\x2d{rest}"));
    }
    let plain = !text.is_empty() && !text.contains([' ', '"', '\'']) && !text.starts_with('#');
    match plain {
        true => text.to_owned(),
        false => format!("\"{}\"", text.replace('"', "\\\"")),
    }
}

/// What is known of a line after its last character.
struct Cut {
    /// Each with the byte at which it begins.
    words: Vec<(usize, String)>,
    /// Whether the line ends inside the last word.
    in_word: bool,
    open_quote: Option<char>,
}

impl Cut {
    fn new(line: &str) -> Cut {
        let mut cut = Cut { words: Vec::new(), in_word: false, open_quote: None };
        let mut characters = line.char_indices();
        while let Some((at, character)) = characters.next() {
            if cut.open_quote.is_none() && character.is_ascii_whitespace() {
                cut.in_word = false;
                continue;
            }
            if !cut.in_word {
                if character == '#' {
                    break;
                }
                cut.in_word = true;
                cut.words.push((at, String::new()));
            }
            let word = &mut cut.words.last_mut().expect("a word was begun above").1;
            match (character, cut.open_quote) {
                ('\\', _) => match characters.next() {
                    Some((_, plain @ ('"' | '\'' | ' ' | '#'))) => word.push(plain),
                    Some((_, escape)) => word.extend(['\\', escape]),
                    None => word.push('\\'),
                },
                (quote @ ('"' | '\''), None) => cut.open_quote = Some(quote),
                (quote, Some(open)) if quote == open => cut.open_quote = None,
                _ => word.push(character),
            }
        }
        cut
    }
}

#[cfg(test)]
mod tests {
    use ferrisdb_core::key::{escape, unescape};
    use proptest::prelude::*;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        split(line).unwrap()
    }

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(words("  set a  b "), ["set", "a", "b"]);
        assert_eq!(words(r#"set "a key" 'two words'"#), ["set", "a key", "two words"]);
        assert_eq!(words(r#"set "" ''"#), ["set", "", ""]);
        assert_eq!(words(r#"a" "b 'it"s' "it's""#), ["a b", "it\"s", "it's"]);
        assert_eq!(words(r#""say \"x\"" 'it\'s' a\ b"#), ["say \"x\"", "it's", "a b"]);
    }

    #[test]
    fn escapes_are_left_to_the_arguments() {
        assert_eq!(words(r#"\x00 "\t\\" '\n'"#), [r"\x00", r"\t\\", r"\n"]);
        // The backslash before the quote is itself escaped, so the quote closes.
        assert_eq!(words(r#""a\\" b"#), [r"a\\", "b"]);
    }

    #[test]
    fn a_comment_begins_where_a_word_could() {
        assert_eq!(words("get a # why"), ["get", "a"]);
        assert_eq!(words("get a#b \\#c '#d'"), ["get", "a#b", "#c", "#d"]);
    }

    #[test]
    fn an_open_quote_is_an_error() {
        assert_eq!(split("get 'a"), Err(OpenQuote('\'')));
        assert_eq!(split(r#"get "a\""#), Err(OpenQuote('"')));
    }

    #[test]
    fn the_word_at_the_cursor() {
        let at = |line| split_at_cursor(line);
        assert_eq!(at("get us"), (vec!["get".into()], 4, "us".into()));
        assert_eq!(at("get "), (vec!["get".into()], 4, String::new()));
        assert_eq!(at(r#"get "a b"#), (vec!["get".into()], 4, "a b".into()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_quoted_key_comes_back(keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..4)) {
            let line: Vec<String> = keys.iter().map(|key| quote(&escape(key))).collect();
            let back: Vec<Vec<u8>> = words(&line.join(" ")).iter().map(|word| unescape(word).unwrap()).collect();
            prop_assert_eq!(back, keys);
        }

        #[test]
        fn any_line_is_cut_without_a_panic(line: String) {
            let _ = split(&line);
            let (_, begin, _) = split_at_cursor(&line);
            prop_assert!(line.is_char_boundary(begin));
        }
    }
}
