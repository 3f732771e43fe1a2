//! SentencePiece models (`tokenizer.model`), unigram and BPE.
//!
//! A class with a pipeline of its own takes only the pieces, as BPE whose merges go by the
//! pieces' ids. Otherwise the model itself says how text is normalized and split, and its merges
//! go by their scores.

use super::{
    pipeline::part, settings::Settings, tokens::Defaults, vocabulary::Vocabulary, written::Written,
};
use prost::Message;
use serde_json::{Value, json};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
};
use tokenizers::{
    NormalizerWrapper, PreTokenizerWrapper, Tokenizer as Inner,
    models::{bpe::BpeBuilder, bpe::Merges, bpe::Vocab, unigram::Unigram},
    normalizers::{Precompiled, Sequence},
};

/// The fields of `sentencepiece_model.proto` that say how text is encoded.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SentencePiece {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<Trainer>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<Normalization>,
}

#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(int32, optional, tag = "3", default = "1")]
    kind: Option<i32>,
}

/// The kinds of pieces that are not plain: those of text, of none, and matched as a whole.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

#[derive(Clone, PartialEq, Message)]
struct Trainer {
    #[prost(int32, optional, tag = "3", default = "1")]
    model_type: Option<i32>,
    #[prost(bool, optional, tag = "35")]
    byte_fallback: Option<bool>,
    #[prost(int32, optional, tag = "40", default = "0")]
    unk_id: Option<i32>,
    #[prost(int32, optional, tag = "41", default = "1")]
    bos_id: Option<i32>,
    #[prost(int32, optional, tag = "42", default = "2")]
    eos_id: Option<i32>,
    #[prost(string, optional, tag = "45", default = "<unk>")]
    unk_piece: Option<String>,
    #[prost(string, optional, tag = "46", default = "<s>")]
    bos_piece: Option<String>,
    #[prost(string, optional, tag = "47", default = "</s>")]
    eos_piece: Option<String>,
}

const UNIGRAM: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct Normalization {
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3", default = "true")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4", default = "true")]
    remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5", default = "true")]
    escape_whitespaces: Option<bool>,
}

/// The most bytes that a model's merges may take. 4 million of LLaMA's fit.
const MOST_BYTES_OF_MERGES: usize = 1 << 28;

impl SentencePiece {
    /// Reads a model.
    ///
    /// # Errors
    /// Returns an error if the bytes are not a SentencePiece model, or one without pieces.
    pub fn parse(bytes: &[u8]) -> Result<SentencePiece, String> {
        let refused = |why: &str| {
            format!(
                "{why}; if it is tiktoken's, save the tokenizer with transformers as tokenizer.json"
            )
        };
        let model = SentencePiece::decode(bytes).map_err(|e| refused(&e.to_string()))?;
        if model.pieces.is_empty() {
            return Err(refused("it holds no pieces"));
        }
        match model.pieces.iter().position(|piece| !piece.score().is_finite()) {
            Some(at) => Err(format!("the score of piece {at} is not finite")),
            None => Ok(model),
        }
    }

    /// The pieces as BPE. A piece is merged of all pairs of pieces that it can be split into;
    /// those of the piece with the lowest id come first.
    ///
    /// # Errors
    /// Returns an error if the merges would take too much memory.
    pub fn vocabulary(&self) -> Result<Vocabulary, String> {
        let ids = ids(self.names());
        let mut pieces: Vec<(u32, &str)> = ids.iter().map(|(p, id)| (*id, p.as_str())).collect();
        pieces.sort_unstable();
        let mut merges = Merges::new();
        let mut splits = Splits::of(pieces.iter().map(|(_, piece)| *piece));
        for (_, piece) in pieces {
            let pairs = splits.pairs(piece)?;
            merges.extend(pairs.iter().map(|(l, r)| (l.to_string(), r.to_string())));
        }
        Ok(Vocabulary { ids, merges })
    }

    /// The control and user-defined pieces, which are matched as a whole.
    pub fn whole_pieces(&self) -> Vec<Written> {
        let whole = self.pieces.iter().filter(|p| [CONTROL, USER_DEFINED].contains(&p.kind()));
        let token = |p: &Piece| Written {
            content: p.piece().to_string(),
            special: p.kind() == CONTROL,
            normalized: Some(false),
            ..Written::default()
        };
        whole.map(token).collect()
    }

    /// The special tokens that the model names.
    pub fn defaults(&self) -> Defaults {
        let trainer = self.trainer.clone().unwrap_or_default();
        let named = [
            ("bos_token", trainer.bos_id(), trainer.bos_piece(), "<s>"),
            ("eos_token", trainer.eos_id(), trainer.eos_piece(), "</s>"),
            ("unk_token", trainer.unk_id(), trainer.unk_piece(), "<unk>"),
        ];
        let roles =
            named.into_iter().filter(|(_, id, ..)| *id >= 0).map(|(role, _, piece, usual)| {
                (role, if piece.is_empty() { usual } else { piece }.to_string())
            });
        let mut extras = self.whole_pieces();
        extras.retain(|token| token.special);
        Defaults { roles: roles.collect(), extras }
    }

    /// Whether text is given a space at its beginning.
    pub fn adds_dummy_prefix(&self) -> bool {
        self.normalizer.clone().unwrap_or_default().add_dummy_prefix()
    }

    /// The tokenizer that encodes as the model says.
    ///
    /// # Errors
    /// Returns an error if the model's parts contradict each other.
    pub fn tokenizer(&self, settings: &Settings) -> Result<Inner, String> {
        let trainer = self.trainer.clone().unwrap_or_default();
        let names = self.renamed(settings);
        let mut inner = if self.is_unigram() {
            let pieces = self.pieces.iter().map(|p| (p.piece().to_string(), p.score().into()));
            let unk = usize::try_from(trainer.unk_id()).map_err(|_| "it has no unknown piece")?;
            let unigram = Unigram::from(pieces.collect(), Some(unk), trainer.byte_fallback());
            Inner::new(unigram.map_err(|e| e.to_string())?)
        } else {
            let user_defined = self.positions(USER_DEFINED).next().is_some();
            let bpe = BpeBuilder::new()
                .vocab_and_merges(
                    ids(names.iter().map(String::as_str)),
                    self.merges_by_score(&names)?,
                )
                .unk_token(trainer.unk_piece().to_string())
                .fuse_unk(true)
                .byte_fallback(trainer.byte_fallback())
                .ignore_merges(user_defined);
            Inner::new(bpe.build().map_err(|e| e.to_string())?)
        };
        // Whether every text between two added tokens is given a space at its beginning.
        let legacy = settings.entry("legacy").is_none_or(|legacy| legacy == &Value::Bool(true));
        let normalizer = self.normalizer(legacy)?;
        inner.with_normalizer(Some(normalizer)).map_err(|e| e.to_string())?;
        let pre_tokenizer = self.pre_tokenizer(legacy, &names);
        inner.with_pre_tokenizer(part::<PreTokenizerWrapper>(pre_tokenizer)?);
        Ok(inner)
    }

    fn is_unigram(&self) -> bool {
        self.trainer.as_ref().is_none_or(|trainer| trainer.model_type() == UNIGRAM)
    }

    fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.pieces.iter().map(Piece::piece)
    }

    fn positions(&self, kind: i32) -> impl Iterator<Item = usize> {
        (0..self.pieces.len()).filter(move |at| self.pieces[*at].kind() == kind)
    }

    /// The pieces by id. In BPE, a listed added token renames the piece with its id, unless
    /// another piece keeps that name.
    fn renamed(&self, settings: &Settings) -> Vec<String> {
        if self.is_unigram() {
            return self.names().map(str::to_string).collect();
        }
        let listed = |at: usize| Some(&settings.added.get(&i64::try_from(at).ok()?)?.content);
        let pieces = self.names().enumerate();
        let kept: HashSet<&str> =
            pieces.clone().filter(|(at, _)| listed(*at).is_none()).map(|(_, p)| p).collect();
        let name = |(at, piece): (usize, &str)| match listed(at) {
            Some(name) if !kept.contains(name.as_str()) => name.clone(),
            _ => piece.to_string(),
        };
        pieces.map(name).collect()
    }

    /// The merges of plain pieces; those of the piece with the highest score come first.
    fn merges_by_score(&self, names: &[String]) -> Result<Merges, String> {
        let normal: BTreeMap<&str, usize> =
            self.positions(NORMAL).map(|at| (names[at].as_str(), at)).collect();
        let mut splits = Splits::of(normal.keys().copied());
        let mut ranked = Vec::new();
        for (piece, at) in normal {
            let rank = 0.0 - self.pieces[at].score(); // never -0, which would come before 0
            ranked.extend(splits.pairs(piece)?.into_iter().map(|(l, r)| (rank, at, l, r)));
        }
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2, a.3).cmp(&(b.1, b.2, b.3))));
        Ok(ranked.into_iter().map(|(.., l, r)| (l.to_string(), r.to_string())).collect())
    }

    fn normalizer(&self, legacy: bool) -> Result<NormalizerWrapper, String> {
        let spec = self.normalizer.clone().unwrap_or_default();
        let mut steps = Vec::new();
        let map = spec.precompiled_charsmap();
        if !map.is_empty() {
            steps.push(Precompiled::from(map).map_err(|e| e.to_string())?.into());
        }
        let mut replace = |pattern: Value, content: &str| {
            let step = json!({"type": "Replace", "pattern": pattern, "content": content});
            part::<NormalizerWrapper>(step).map(|step| steps.extend(step))
        };
        if spec.remove_extra_whitespaces() {
            replace(json!({"Regex": r"\A +| +\z"}), "")?;
            replace(json!({"Regex": " {2,}"}), " ")?;
        }
        if spec.escape_whitespaces() {
            replace(json!({"String": " "}), "▁")?;
        }
        if spec.add_dummy_prefix() && legacy {
            // SentencePiece puts a space before one that is there, and Metaspace does not.
            replace(json!({"Regex": r"\A▁"}), "▁▁")?;
        }
        Ok(Sequence::new(steps).into())
    }

    fn pre_tokenizer(&self, legacy: bool, names: &[String]) -> Value {
        let mut steps = Vec::new();
        if self.adds_dummy_prefix() {
            steps.push(json!({"type": "Metaspace", "replacement": "▁", "split": false,
                              "prepend_scheme": if legacy { "always" } else { "first" }}));
        }
        let mut user_defined: Vec<&String> =
            self.positions(USER_DEFINED).map(|at| &names[at]).collect();
        if !user_defined.is_empty() {
            user_defined.sort_by_key(|piece| Reverse(piece.chars().count()));
            let pattern: Vec<String> = user_defined.iter().map(|piece| escape(piece)).collect();
            steps.push(json!({"type": "Split", "pattern": {"Regex": pattern.join("|")},
                              "behavior": "Isolated", "invert": false}));
        }
        if steps.is_empty() {
            return Value::Null;
        }
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}

fn ids<'a>(names: impl Iterator<Item = &'a str>) -> Vocab {
    names.map(str::to_string).zip(0..).collect()
}

/// A regular expression that matches exactly `text`.
fn escape(text: &str) -> String {
    let special = |c: char| r"\.+*?()|[]{}^$".contains(c);
    let escaped = text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c]));
    escaped.collect()
}

/// The ways to split a piece in two others.
struct Splits<'a> {
    pieces: HashSet<&'a str>,
    /// The lengths that pieces have, so that only likely ones are looked up.
    lengths: HashSet<usize>,
    /// The bytes that all pairs so far take.
    bytes: usize,
}

impl<'a> Splits<'a> {
    fn of(pieces: impl Iterator<Item = &'a str>) -> Splits<'a> {
        let pieces: HashSet<&str> = pieces.collect();
        let lengths = pieces.iter().map(|piece| piece.len()).collect();
        Splits { pieces, lengths, bytes: 0 }
    }

    /// The pairs that make `piece`, by the length of the first.
    fn pairs<'b>(&mut self, piece: &'b str) -> Result<Vec<(&'b str, &'b str)>, String> {
        let mut pairs = Vec::new();
        for (at, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(at);
            let likely = [left, right].iter().all(|half| self.lengths.contains(&half.len()));
            if likely && self.pieces.contains(left) && self.pieces.contains(right) {
                self.bytes += piece.len() + 2 * size_of::<String>();
                if self.bytes > MOST_BYTES_OF_MERGES {
                    return Err("its pieces can be merged in too many ways".into());
                }
                pairs.push((left, right));
            }
        }
        Ok(pairs)
    }
}
