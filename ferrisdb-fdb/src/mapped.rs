//! Mapped range reads: for every row of one range, usually an index, another range that a template makes of the row.
//!
//! ```text
//!   mapper   ("data", "{K[2]}", "{...}")         a packed tuple
//!
//!   row      ("index", "blue", 7) = ""      ->   all that begins with ("data", 7)
//!
//!   {K[n]}   element n of the row's key          {...}   last: a range, all behind the elements before it
//!   {V[n]}   element n of the row's value        {{ }}   braces that are braces
//! ```
//!
//! FoundationDB's servers do this where the index is. Here it is reads of the same transaction, many at a time: the same rows and
//! the same conflicts. What the transaction itself has written is in them, which FoundationDB refuses to do.

use ferrisdb_client::{
    KeyRange, KeyValue,
    tuple::{Element, Tuple},
};

use crate::errors::{self, Code};

/// A template of a range, see the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapper(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    /// The element itself.
    As(Element),
    /// The element of the row's key with this index.
    OfKey(usize),
    /// The element of the row's value with this index.
    OfValue(usize),
}

impl Mapper {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// `mapper_not_tuple`, `mapper_bad_index`; `mapper_bad_range_descriptor` for a range that is not the last element;
    /// `unsupported_operation` for a template without a range, whose result C has no form for.
    pub fn parse(packed: &[u8]) -> Result<Mapper, Code> {
        let template = Tuple::unpack(packed).map_err(|_| errors::MAPPER_NOT_TUPLE)?;
        let mut elements = template.into_elements();
        let is_range = |element: &Element| text_of(element) == Some(b"{...}");
        if !elements.last().is_some_and(is_range) {
            let is_inside = elements.iter().any(is_range);
            return Err(match is_inside {
                true => errors::MAPPER_BAD_RANGE_DESCRIPTOR,
                false => errors::UNSUPPORTED_OPERATION,
            });
        }
        elements.pop();
        if elements.iter().any(is_range) {
            return Err(errors::MAPPER_BAD_RANGE_DESCRIPTOR);
        }
        elements.into_iter().map(Part::of).collect::<Result<_, Code>>().map(Mapper)
    }

    /// The range that belongs to a row.
    ///
    /// # Errors
    ///
    /// `key_not_tuple`, `value_not_tuple`; `mapper_bad_index` if the row has no such element.
    pub fn range(&self, row: &KeyValue) -> Result<KeyRange, Code> {
        let (mut key, mut value) = (None, None);
        let mut elements = Vec::with_capacity(self.0.len());
        for part in &self.0 {
            elements.push(match part {
                Part::As(element) => element.clone(),
                Part::OfKey(index) => pick(&mut key, &row.key, *index, errors::KEY_NOT_TUPLE)?,
                Part::OfValue(index) => {
                    pick(&mut value, &row.value, *index, errors::VALUE_NOT_TUPLE)?
                }
            });
        }
        let begin = Tuple::from(elements).pack().map_err(|_| errors::MAPPER_NOT_TUPLE)?;
        Ok(KeyRange::prefix(&begin))
    }
}

impl Part {
    fn of(element: Element) -> Result<Part, Code> {
        let Some(text) = text_of(&element) else { return Ok(Part::As(element)) };
        if let Some(plain) = without_doubled_braces(text) {
            return Ok(Part::As(match element {
                Element::String(_) => Element::String(String::from_utf8_lossy(&plain).into_owned()),
                _ => Element::Bytes(plain),
            }));
        }
        let index = |text: &[u8]| {
            let text = text.strip_suffix(b"]}")?;
            Some(std::str::from_utf8(text).ok().and_then(|digits| digits.parse().ok()))
        };
        let of_key = text.strip_prefix(b"{K[").and_then(index);
        let of_value = text.strip_prefix(b"{V[").and_then(index);
        match (of_key, of_value) {
            (Some(index), _) => index.map(Part::OfKey).ok_or(errors::MAPPER_BAD_INDEX),
            (_, Some(index)) => index.map(Part::OfValue).ok_or(errors::MAPPER_BAD_INDEX),
            (None, None) => Ok(Part::As(element)),
        }
    }
}

fn text_of(element: &Element) -> Option<&[u8]> {
    match element {
        Element::String(text) => Some(text.as_bytes()),
        Element::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

/// The text with one brace for each two, if there are such.
fn without_doubled_braces(text: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        plain.push(*first);
        let is_double = matches!(first, b'{' | b'}') && behind.first() == Some(first);
        rest = if is_double { &behind[1..] } else { behind };
    }
    (plain.len() < text.len()).then_some(plain)
}

/// An element of a packed tuple, which is unpacked the first time.
fn pick(
    unpacked: &mut Option<Vec<Element>>,
    packed: &[u8],
    index: usize,
    not_a_tuple: Code,
) -> Result<Element, Code> {
    let elements = match unpacked {
        Some(elements) => elements,
        None => {
            let tuple = Tuple::unpack(packed).map_err(|_| not_a_tuple)?;
            unpacked.insert(tuple.into_elements())
        }
    };
    elements.get(index).cloned().ok_or(errors::MAPPER_BAD_INDEX)
}

#[cfg(test)]
mod tests {
    use ferrisdb_client::tuple::{pack, tuple};

    use super::*;

    fn row(key: &[u8], value: &[u8]) -> KeyValue {
        KeyValue { key: key.into(), value: value.into(), commit_version: None }
    }

    fn mapper(elements: Tuple) -> Result<Mapper, Code> {
        Mapper::parse(&elements.pack().unwrap())
    }

    #[test]
    fn elements_of_the_row_come_into_the_range() {
        let mapper = mapper(tuple!["data", "{K[1]}", "{V[0]}", "{{K[0]}}", "{...}"]).unwrap();
        let row = row(&pack(&("index", 7)).unwrap(), &pack(&(true,)).unwrap());
        let expected = pack(&("data", 7, true, "{K[0]}")).unwrap();
        assert_eq!(mapper.range(&row), Ok(KeyRange::prefix(&expected)));
    }

    #[test]
    fn wrong_templates_and_rows_are_refused() {
        assert_eq!(Mapper::parse(b"\xff no tuple"), Err(errors::MAPPER_NOT_TUPLE));
        let wrong = [
            (tuple!["{...}", "x", "{...}"], errors::MAPPER_BAD_RANGE_DESCRIPTOR),
            (tuple!["{...}", "x"], errors::MAPPER_BAD_RANGE_DESCRIPTOR),
            (tuple!["{K[x]}", "{...}"], errors::MAPPER_BAD_INDEX),
            (tuple!["{K[-1]}", "{...}"], errors::MAPPER_BAD_INDEX),
            (tuple!["data", "{K[1]}"], errors::UNSUPPORTED_OPERATION),
        ];
        for (template, code) in wrong {
            assert_eq!(mapper(template.clone()), Err(code), "{template}");
        }
        let of_key = mapper(tuple!["{K[1]}", "{...}"]).unwrap();
        assert_eq!(of_key.range(&row(b"\xff", b"")), Err(errors::KEY_NOT_TUPLE));
        let short = pack(&("one",)).unwrap();
        assert_eq!(of_key.range(&row(&short, b"")), Err(errors::MAPPER_BAD_INDEX));
        let of_value = mapper(tuple!["{V[0]}", "{...}"]).unwrap();
        assert_eq!(of_value.range(&row(&short, b"\xff")), Err(errors::VALUE_NOT_TUPLE));
    }
}
