//! Reads the fields of a row of a data set.

use super::item::Parsed;
use serde_json::Value;

/// The value of a field that is a string.
pub fn text<'a>(row: &'a Value, name: &str) -> Parsed<&'a str> {
    let field = row.get(name).ok_or_else(|| format!("no \"{name}\" field"))?;
    field.as_str().ok_or_else(|| format!("\"{name}\" is not a text"))
}

/// The value of a field that is a list of strings.
pub fn texts<'a>(row: &'a Value, name: &str) -> Parsed<Vec<&'a str>> {
    let list = row.get(name).ok_or_else(|| format!("no \"{name}\" field"))?.as_array();
    let texts = list.and_then(|list| list.iter().map(Value::as_str).collect());
    texts.ok_or_else(|| format!("\"{name}\" is not a list of texts"))
}

/// The value of a field that is a whole number, or a string that holds one.
pub fn number(row: &Value, name: &str) -> Parsed<usize> {
    let field = row.get(name).ok_or_else(|| format!("no \"{name}\" field"))?;
    let number = field.as_u64().or_else(|| field.as_str()?.trim().parse().ok());
    let number = number.and_then(|n| usize::try_from(n).ok());
    number.ok_or_else(|| format!("\"{name}\" is {field}, which is no choice's number"))
}
