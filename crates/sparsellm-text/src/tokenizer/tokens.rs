//! Special and added tokens: which there are, in which order they are added, and the template
//! that inserts those at the ends of a text.

use super::{
    settings::{ROLES, Settings},
    written::Written,
};
use serde_json::{Value, json};
use std::collections::HashSet;
use tokenizers::{AddedToken, PostProcessorWrapper, Tokenizer as Inner};

/// What a vocabulary or a class says of its special tokens where the settings do not.
#[derive(Default)]
pub(super) struct Defaults {
    /// Roles and their tokens. Those without a role of [`ROLES`] are the class's own.
    pub roles: Vec<(&'static str, String)>,
    /// The tokens that a SentencePiece model has besides.
    pub extras: Vec<Written>,
}

/// The special tokens of a tokenizer.
pub(super) struct Specials {
    /// Roles and their tokens, in the order in which they are added.
    roles: Vec<(String, Written)>,
    extras: Vec<Written>,
}

impl Specials {
    /// Gathers the special tokens.
    pub fn of(settings: &Settings, defaults: &Defaults) -> Specials {
        let default = |role: &str| {
            let (_, token) = defaults.roles.iter().find(|(r, _)| *r == role)?;
            Written::of(&token.as_str().into())
        };
        let mut roles: Vec<(String, Written)> = Vec::new();
        for role in ROLES {
            let token = match settings.entry(role) {
                Some(token) => Written::of(token).map(|token| {
                    // What a list of added tokens says of it counts.
                    let listed = settings.added.values().rev().find(|t| t.content == token.content);
                    listed.cloned().unwrap_or(token)
                }),
                None => default(role),
            };
            roles.extend(token.map(|token| (role.to_string(), token)));
        }
        let own = |role: &str| role.ends_with("_token") && !ROLES.contains(&role);
        let named = |(role, token): (&String, &Value)| Some((role.clone(), Written::of(token)?));
        let defaults_own = defaults.roles.iter().filter(|(role, _)| own(role));
        let of_model = defaults_own
            .filter_map(|(role, _)| Some((role.to_string(), default(role)?)))
            .chain(settings.entries().filter(|(role, _)| own(role)).filter_map(named))
            .chain(settings.model_specific.iter().filter_map(named));
        for (role, token) in of_model {
            match roles.iter_mut().find(|(r, _)| *r == role) {
                Some((_, before)) => *before = token,
                None => roles.push((role, token)),
            }
        }
        let extras = match settings.listed_extras() {
            None if !defaults.extras.is_empty() => defaults.extras.clone(),
            _ => settings.extras().iter().filter_map(Written::of).collect(),
        };
        Specials { roles, extras }
    }

    /// The token with a role.
    pub fn role(&self, role: &str) -> Option<&str> {
        let (_, token) = self.roles.iter().find(|(r, _)| r == role)?;
        Some(&token.content)
    }

    /// Adds the listed tokens by their ids, then the special ones that are not among them. A
    /// token that the vocabulary does not have gets the next id.
    ///
    /// # Errors
    /// Returns an error if the crate refuses a token.
    pub fn add_to(&self, inner: &mut Inner, settings: &Settings) -> Result<(), String> {
        let mut tokens: Vec<Written> = settings.added.values().cloned().collect();
        let mut known: HashSet<String> =
            inner.get_added_tokens_decoder().into_values().map(|token| token.content).collect();
        known.extend(tokens.iter().map(|token| token.content.clone()));
        let roles = || self.roles.iter().map(|(_, token)| token);
        for token in roles().chain(&self.extras) {
            // One token under several roles may be written in several ways; the last counts.
            if !known.contains(&token.content) && !tokens.contains(token) {
                tokens.push(token.clone());
            }
        }
        for token in &mut tokens {
            token.special |= roles().any(|special| special.content == token.content);
        }
        inner.add_tokens(tokens.iter().map(Written::token)).map_err(|e| e.to_string())?;
        Ok(())
    }

    /// Adds every special token as a plain one, whatever its flags were (as `Qwen2Tokenizer`).
    ///
    /// # Errors
    /// Returns an error if the crate refuses a token.
    pub fn add_plainly(&self, inner: &mut Inner) -> Result<(), String> {
        let all = self.roles.iter().map(|(_, token)| token).chain(&self.extras);
        let plain = all.map(|token| AddedToken::from(token.content.clone(), true));
        inner.add_tokens(plain).map_err(|e| e.to_string())?;
        Ok(())
    }

    /// The template that inserts beginning-of-text and end-of-text where the settings ask for
    /// them.
    ///
    /// # Errors
    /// Returns an error if one of the two is not in the vocabulary.
    pub fn template(
        &self,
        inner: &Inner,
        add_bos: bool,
        add_eos: bool,
    ) -> Result<Option<PostProcessorWrapper>, String> {
        let bos = self.role("bos_token").filter(|_| add_bos);
        let eos = self.role("eos_token").filter(|_| add_eos);
        let mut ids = serde_json::Map::new();
        for token in bos.iter().chain(&eos) {
            let id = inner.token_to_id(token).ok_or(format!("it does not know {token}"))?;
            ids.insert(token.to_string(), json!({"id": token, "ids": [id], "tokens": [token]}));
        }
        if ids.is_empty() {
            return Ok(None);
        }
        let special = |token| json!({"SpecialToken": {"id": token, "type_id": 0}});
        let sequence = |id| json!({"Sequence": {"id": id, "type_id": 0}});
        let single: Vec<Value> = (bos.into_iter().map(special))
            .chain([sequence("A")])
            .chain(eos.into_iter().map(special))
            .collect();
        let template = json!({"type": "TemplateProcessing", "single": single,
            "pair": [sequence("A"), sequence("B")], "special_tokens": ids});
        serde_json::from_value(template).map(Some).map_err(|e| e.to_string())
    }
}
