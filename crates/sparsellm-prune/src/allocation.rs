//! The choice of how the linears of a model share its sparsity.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// How the linears of a model share an unstructured sparsity. With an N:M pattern they are all alike.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub enum Allocation {
    /// Every linear loses the same share of its weights.
    Uniform,
    /// Layers with a larger share of outliers keep more (OWL; Yin et al., ICML 2024). The number is
    /// OWL's λ: how far a layer's sparsity may differ from the average.
    Owl(f32),
    /// Each linear, and each of its rows, keeps more the more the model's loss suffers from its
    /// pruning.
    Measured,
}

impl Allocation {
    /// OWL with the λ that its authors use.
    pub const OWL: Allocation = Allocation::Owl(0.08);

    /// Returns the allocation if its λ is within its bounds.
    ///
    /// # Errors
    /// If it is not; the message says what is allowed.
    pub fn checked(self) -> Result<Self, String> {
        match self {
            Allocation::Owl(lambda) if !(0.0..=0.5).contains(&lambda) => Err(format!(
                "`allocation` must be measured, uniform (0), owl (0.08) or a number up to 0.5, not {lambda}"
            )),
            _ => Ok(self),
        }
    }
}

impl FromStr for Allocation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "uniform" => Ok(Allocation::Uniform),
            "owl" => Ok(Allocation::OWL),
            "measured" => Ok(Allocation::Measured),
            _ => match text.parse() {
                Ok(0.0) => Ok(Allocation::Uniform),
                Ok(lambda) if f32::is_finite(lambda) => Ok(Allocation::Owl(lambda)),
                _ => Err("measured, uniform, owl or a number was expected".into()),
            },
        }
    }
}

impl fmt::Display for Allocation {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Allocation::Uniform => to.write_str("uniform"),
            Allocation::Owl(lambda) => lambda.fmt(to),
            Allocation::Measured => to.write_str("measured"),
        }
    }
}

impl From<Allocation> for String {
    fn from(allocation: Allocation) -> String {
        allocation.to_string()
    }
}

/// The forms in which an allocation may be written.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Name(String),
    Number(f64),
}

impl TryFrom<Written> for Allocation {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let text = match written {
            Written::Name(name) => name,
            Written::Number(number) => number.to_string(),
        };
        text.parse().and_then(Allocation::checked)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_what_is_written_is_read_back() {
        let forms = [
            ("\"uniform\"", Allocation::Uniform),
            ("0", Allocation::Uniform),
            ("\"owl\"", Allocation::OWL),
            ("0.05", Allocation::Owl(0.05)),
            ("\"0.05\"", Allocation::Owl(0.05)),
            ("\"measured\"", Allocation::Measured),
        ];
        for (text, allocation) in forms {
            let read: Allocation = serde_json::from_str(text).unwrap();
            assert_eq!(read, allocation, "{text}");
            let written = serde_json::to_string(&allocation).unwrap();
            assert_eq!(serde_json::from_str::<Allocation>(&written).unwrap(), allocation);
        }
        for text in ["\"fair\"", "0.6", "-1", "\"nan\"", "null"] {
            assert!(serde_json::from_str::<Allocation>(text).is_err(), "{text}");
        }
    }
}
