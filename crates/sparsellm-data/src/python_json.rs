//! JSON as Python's `json` module writes it.

use serde::de::DeserializeOwned;

/// What Python writes for numbers that JSON does not have.
const NOT_NUMBERS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

/// Parses JSON in which `NaN`, `Infinity` and `-Infinity` may stand for numbers. They are read
/// as `null`, as pandas writes `NaN` for a value that is missing.
pub(crate) fn parse<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(json).or_else(|strict| match without_not_numbers(json) {
        Some(json) => serde_json::from_slice(&json),
        None => Err(strict),
    })
}

/// The text with `null` in place of what is no number outside strings; `None` if there is
/// nothing to replace.
fn without_not_numbers(json: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(json.len());
    let (mut at, mut in_string, mut replaced) = (0, false, false);
    while let Some(&byte) = json.get(at) {
        let rest = &json[at..];
        let word = NOT_NUMBERS.iter().find(|word| !in_string && rest.starts_with(word));
        let length = match word {
            Some(word) => word.len(),
            None if in_string && byte == b'\\' => rest.len().min(2),
            None => 1,
        };
        match word {
            Some(_) => out.extend_from_slice(b"null"),
            None => out.extend_from_slice(&rest[..length]),
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
    fn numbers_that_json_lacks_are_null_outside_strings() {
        let text = r#"{"NaN": [NaN, -Infinity,Infinity], "a": "NaN \" Infinity\\", "b": -1}"#;
        let value: Value = parse(text.as_bytes()).unwrap();
        assert_eq!(value, json!({"NaN": [null, null, null], "a": "NaN \" Infinity\\", "b": -1}));
        for bad in ["{\"a\": nan}", "{\"a\": NaNa}", "[NaN", "\"NaN", "{\"a\": 1NaN}", "[NaN, \"\\"]
        {
            assert!(parse::<Value>(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
