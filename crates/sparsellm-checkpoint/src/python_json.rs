//! JSON as Python's `json` module writes it.

use serde::de::DeserializeOwned;

/// What Python writes for numbers that JSON does not have.
const NOT_NUMBERS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// What stands for a value that is `NaN`, `Infinity` or `-Infinity`, which JSON does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNumber {
    /// `null`: in rows of data, where pandas writes `NaN` for a value that is missing.
    Null,
    /// The word as a text, which is refused wherever a number is expected.
    Text,
}

/// Parses JSON in which Python's `NaN`, `Infinity` and `-Infinity` may stand in the place of
/// numbers; they are read as `not_number` says.
///
/// # Errors
/// If it is not valid JSON otherwise, or not that of a `T`.
pub fn parse_json<T: DeserializeOwned>(
    json: &[u8],
    not_number: NotNumber,
) -> serde_json::Result<T> {
    serde_json::from_slice(json).or_else(|strict| match replaced(json, not_number) {
        Some(json) => serde_json::from_slice(&json),
        None => Err(strict),
    })
}

/// The text with what is no number outside strings replaced; `None` if there is no such thing.
fn replaced(json: &[u8], not_number: NotNumber) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(json.len());
    let (mut at, mut in_string, mut replaced) = (0, false, false);
    while let Some(&byte) = json.get(at) {
        let rest = &json[at..];
        let word = NOT_NUMBERS.iter().find(|word| !in_string && rest.starts_with(word.as_bytes()));
        let length = match word {
            Some(word) => word.len(),
            None if in_string && byte == b'\\' => rest.len().min(2),
            None => 1,
        };
        match (word, not_number) {
            (Some(_), NotNumber::Null) => out.extend_from_slice(b"null"),
            (Some(word), NotNumber::Text) => {
                out.extend_from_slice(format!("\"{word}\"").as_bytes())
            }
            (None, _) => out.extend_from_slice(&rest[..length]),
        }
        in_string ^= byte == b'"';
        replaced |= word.is_some();
        at += length;
    }
    replaced.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn numbers_that_json_lacks_are_null_or_their_names_outside_strings() {
        let text = r#"{"NaN": [NaN, -Infinity,Infinity], "a": "NaN \" Infinity\\", "b": -1}"#;
        let read = |not_number| parse_json::<Value>(text.as_bytes(), not_number).unwrap();
        let with = |three: Value| json!({"NaN": three, "a": "NaN \" Infinity\\", "b": -1});
        assert_eq!(read(NotNumber::Null), with(json!([null, null, null])));
        assert_eq!(read(NotNumber::Text), with(json!(["NaN", "-Infinity", "Infinity"])));
        for bad in ["{\"a\": nan}", "{\"a\": NaNa}", "[NaN", "\"NaN", "{\"a\": 1NaN}", "[NaN, \"\\"]
        {
            for not_number in [NotNumber::Null, NotNumber::Text] {
                assert!(parse_json::<Value>(bad.as_bytes(), not_number).is_err(), "{bad}");
            }
        }
    }
}
