//! Reads the fixtures made by tools/fixtures/gguf.py, both intact and damaged in many ways.

use std::collections::HashMap;

use memmap2::MmapMut;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use sparsellm_base::Result;
use tokenizers::Tokenizer;

use super::dequantize::{Kind, dequantize};
use super::file::{Gguf, PARALLEL};
use super::metadata::Metadata;
use super::parts::Part;
use super::rope;
use crate::{TensorInfo, TensorSource};

fn fixture(name: &str) -> Vec<u8> {
    let path = sparsellm_testing::fixture("gguf").join(name);
    std::fs::read(path).expect("tools/fixtures/gguf.py made it")
}

fn parse(bytes: &[u8]) -> Result<Gguf> {
    let mut map = MmapMut::map_anon(bytes.len().max(1)).expect("memory");
    map[..bytes.len()].copy_from_slice(bytes);
    let map = map.make_read_only().expect("a map");
    let (metadata, tensors) = Metadata::parse("model.gguf".to_owned(), map)?;
    Gguf::new(vec![Part { metadata, tensors }])
}

/// Replaces the only occurrence of `from` in `bytes` by `to`, which has the same length.
fn patched(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut places = bytes.windows(from.len()).enumerate().filter(|(_, window)| *window == from);
    let (at, _) = places.next().expect("it is there");
    assert!(places.next().is_none(), "more than once");
    let mut out = bytes.to_vec();
    out[at..at + to.len()].copy_from_slice(to);
    out
}

fn complaint(bytes: &[u8]) -> String {
    match parse(bytes).and_then(|gguf| gguf.config().and(gguf.tokenizer_files())) {
        Ok(_) => panic!("no complaint"),
        Err(error) => error.to_string(),
    }
}

fn everything(gguf: &Gguf) -> HashMap<String, Vec<f32>> {
    let read = |(name, info): (&String, &TensorInfo)| {
        let mut out = vec![0.0; info.len()];
        gguf.read_f32(name, 0..out.len(), &mut out).expect("it reads");
        (name.clone(), out)
    };
    gguf.tensors().iter().map(read).collect()
}

#[test]
fn every_format_equals_gguf_py() {
    let gguf = parse(&fixture("quants.gguf")).unwrap();
    let expected = fixture("quants.safetensors");
    let expected = SafeTensors::deserialize(&expected).unwrap();
    let ours = everything(&gguf);
    assert_eq!(ours.len(), expected.len());
    let kinds: std::collections::HashSet<_> =
        gguf.tensors.iter().map(|t| t.kind.to_string()).collect();
    assert_eq!(kinds.len(), 14, "{kinds:?}");
    for (name, info) in gguf.tensors() {
        let tensor = expected.tensor(name).unwrap();
        assert_eq!(tensor.shape(), info.shape, "{name}");
        let bits: Vec<u8> = ours[name].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert!(bits == tensor.data(), "{name} differs");
    }
}

#[test]
fn blocks_of_other_formats_equal_gguf_py() {
    let blocks = fixture("blocks.safetensors");
    let blocks = SafeTensors::deserialize(&blocks).unwrap();
    for kind in [Kind::IQ4_NL, Kind::IQ4_XS, Kind::TQ1_0, Kind::TQ2_0, Kind::MXFP4] {
        let raw = blocks.tensor(&format!("{kind}.raw")).unwrap();
        let values = blocks.tensor(&format!("{kind}.values")).unwrap();
        assert_eq!(raw.shape()[1], kind.bytes(), "{kind}");
        assert_eq!(values.shape()[1], kind.block(), "{kind}");
        let mut ours = vec![f32::NAN; values.data().len() / 4];
        assert!(dequantize(kind, raw.data(), 0, &mut ours));
        let bits: Vec<u8> = ours.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert!(bits == values.data(), "{kind} differs");
    }
}

#[test]
fn any_range_reads_like_the_whole() {
    let gguf = parse(&fixture("quants.gguf")).unwrap();
    for (name, whole) in everything(&gguf) {
        for (start, length) in [(0, 0), (1, 1), (7, 300), (255, 2), (256, 256), (31, 1025)] {
            let range = start.min(whole.len())..(start + length).min(whole.len());
            let mut part = vec![f32::NAN; range.len()];
            gguf.read_f32(&name, range.clone(), &mut part).unwrap();
            assert_eq!(part, whole[range], "{name}");
        }
        let mut out = [0.0; 2];
        for range in [whole.len()..whole.len() + 2, 0..1, usize::MAX - 1..usize::MAX] {
            assert!(gguf.read_f32(&name, range, &mut out).is_err());
        }
    }
    assert!(gguf.read_f32("model.layers.2.mlp.up_proj.weight", 0..0, &mut []).is_err());
}

#[test]
fn the_threads_read_what_one_does() {
    let columns = 256;
    let data: Vec<u8> = (0..2 * PARALLEL).map(|i| (i * 37 % 120) as u8).collect();
    let mut bytes = fixture("quants.gguf");
    let start = bytes.len().next_multiple_of(32);
    bytes.resize(start, 0);
    bytes.extend(&data);
    let mut gguf = parse(&bytes).unwrap();
    let tensor = gguf.tensors.iter_mut().find(|t| t.name.ends_with("0.self_attn.q_proj.weight"));
    let tensor = tensor.unwrap();
    tensor.kind = Kind::F16;
    tensor.bytes = start..bytes.len();
    tensor.shape = vec![PARALLEL / columns, columns];
    let mut out = vec![0.0; PARALLEL];
    let name = tensor.name.clone();
    gguf.read_f32(&name, 0..PARALLEL, &mut out).unwrap();
    for row in 0..PARALLEL / columns {
        let mut one = vec![0.0; columns];
        gguf.read_f32(&name, row * columns..(row + 1) * columns, &mut one).unwrap();
        assert_eq!(one, out[row * columns..(row + 1) * columns], "row {row}");
    }
}

#[test]
fn config_has_llama3_scaling_back() {
    let config = parse(&fixture("quants.gguf")).unwrap().config().unwrap();
    let scaling = json!({
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    assert_eq!(config["rope_scaling"], scaling);
    assert_eq!(config["rms_norm_eps"], json!(1e-5));
    assert_eq!(config["head_dim"], json!(8));
    assert_eq!(config["num_key_value_heads"], json!(1));
    assert_eq!(config["tie_word_embeddings"], json!(false));
    let table = [1.0, 2.0, 3.0, 8.0];
    assert_eq!(rope::llama3(&table, 8, 500_000.0), None);
    assert_eq!(rope::llama3(&[1.0; 4], 8, 500_000.0), Some(Value::Null));
}

#[test]
fn llama_3_2_scales_by_32() {
    // Llama 3.2 1B: the head dimension is 64, and the middle frequencies are blended.
    let table: Vec<f32> = (0..32)
        .map(|i| {
            let wavelength = std::f64::consts::TAU * 500_000f64.powf(f64::from(i) / 32.0);
            let smooth = ((8192.0 / wavelength - 1.0) / 3.0).clamp(0.0, 1.0);
            (1.0 / ((1.0 - smooth) / 32.0 + smooth)) as f32
        })
        .collect();
    let scaling = rope::llama3(&table, 64, 500_000.0).unwrap();
    assert_eq!(scaling["factor"], json!(32.0));
    assert_eq!(scaling["original_max_position_embeddings"], json!(8192));
}

#[test]
fn tokenizers_give_the_ids_of_the_originals() {
    let expected: Value = serde_json::from_slice(&fixture("tokens.json")).unwrap();
    for name in ["quants", "pieces", "symbols"] {
        let files = parse(&fixture(&format!("{name}.gguf"))).unwrap().tokenizer_files().unwrap();
        let tokenizer = Tokenizer::from_bytes(&files[0].1).unwrap();
        let config: Value = serde_json::from_slice(&files[1].1).unwrap();
        assert_eq!(config["add_bos_token"], json!(name != "quants"));
        assert_eq!(config.get("chat_template").is_some(), name == "quants");
        let texts = expected["texts"].as_array().unwrap();
        for (text, ids) in texts.iter().zip(expected[name].as_array().unwrap()) {
            if ids.is_null() {
                continue;
            }
            let text = text.as_str().unwrap();
            let ours = tokenizer.encode(text, true).unwrap();
            assert_eq!(json!(ours.get_ids()), *ids, "{name}: {text:?}");
        }
    }
}

#[test]
fn version_2_reads_and_others_are_named() {
    let mut bytes = fixture("pieces.gguf");
    let three = everything(&parse(&bytes).unwrap());
    bytes[4] = 2;
    assert_eq!(everything(&parse(&bytes).unwrap()), three);
    bytes[4] = 1;
    assert!(complaint(&bytes).contains("version 1"));
    bytes[4..8].copy_from_slice(&[0, 0, 0, 3]);
    assert!(complaint(&bytes).contains("big-endian"));
    bytes[0] = b'g';
    assert!(complaint(&bytes).contains("not a GGUF file"));
    assert!(complaint(b"").contains("not a GGUF file"));
}

#[test]
fn complaints_name_what_is_wrong() {
    let good = fixture("quants.gguf");
    let key = b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0";
    let mut other = good.clone();
    let at = good.windows(key.len()).position(|window| window == key).unwrap() + key.len();
    other[at..at + 5].copy_from_slice(b"mamba");
    let said = complaint(&other);
    assert!(said.contains("`mamba`") && said.contains("llama, mistral3, qwen2"), "{said}");
    let cases: [(&[u8], &[u8], &str); 6] = [
        (b"smollm", b"nosuch", "`nosuch`"),
        (b"blk.1.ffn_up.weight", b"blk.2.ffn_up.weight", "blk.2.ffn_up.weight"),
        (b"blk.1.ffn_up.weight", b"blk.0.ffn_up.weight", "twice"),
        (b"blk.1.attn_q.weight", b"blk.1.attn_v.weight", "blk.1.attn_v.weight"),
        (b"llama.block_count", b"llama.block_kount", "llama.block_count"),
        (b"tokenizer.ggml.merges", b"tokenizer.ggml.nerges", "tokenizer.ggml.merges"),
    ];
    for (from, to, message) in cases {
        let said = complaint(&patched(&good, from, to));
        assert!(said.contains(message) && said.starts_with("model.gguf: "), "{said}");
    }
    // An IQ2_XXS tensor: name, two dimensions, then the type.
    let name = b"blk.0.ffn_up.weight";
    let at = good.windows(name.len()).position(|window| window == name).unwrap() + name.len();
    let mut other = good.clone();
    other[at + 20] = 16;
    let said = complaint(&other);
    assert!(said.contains("blk.0.ffn_up.weight") && said.contains("IQ2_XXS"), "{said}");
}

/// Any damage must give a value or an error: no panic, and no unbounded time or memory.
fn survives(bytes: &[u8]) {
    let Ok(gguf) = parse(bytes) else { return };
    let _ = gguf.config();
    let _ = gguf.tokenizer_files();
    for (name, info) in gguf.tensors() {
        let total = info.len();
        assert!(total <= 512 * bytes.len(), "{name} is larger than the file can hold");
        let mut out = vec![0.0; total.min(1000)];
        let _ = gguf.read_f32(name, total - out.len()..total, &mut out);
    }
}

#[test]
fn truncated_files_are_refused() {
    for name in ["quants.gguf", "pieces.gguf"] {
        let bytes = fixture(name);
        let header = 10_000.min(bytes.len());
        for length in (0..header).chain((header..bytes.len()).step_by(997)) {
            assert!(parse(&bytes[..length]).is_err(), "{name} cut to {length}");
        }
    }
}

#[test]
fn damaged_files_do_no_harm() {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = move |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for name in ["quants.gguf", "pieces.gguf"] {
        let good = fixture(name);
        let header = 10_000.min(good.len());
        for round in 0..3000 {
            let mut bytes = good.clone();
            for _ in 0..1 + round % 4 {
                let at = random(if round % 8 == 0 { good.len() } else { header });
                match random(3) {
                    0 => bytes[at] ^= 1 << random(8),
                    1 => bytes[at] = random(256) as u8,
                    _ => {
                        let end = (at + 8).min(good.len());
                        bytes[at..end].fill(if random(2) == 0 { 0xFF } else { 0x7F });
                    }
                }
            }
            survives(&bytes);
        }
    }
}

#[test]
fn announced_sizes_allocate_nothing() {
    let header = |counts: [u64; 2], rest: &[u8]| {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        counts.iter().for_each(|count| bytes.extend(count.to_le_bytes()));
        bytes.extend(rest);
        bytes
    };
    for count in [u64::MAX, 1 << 40, 1 << 16] {
        assert!(parse(&header([count, 0], &[0; 64])).is_err());
        assert!(parse(&header([0, count], &[0; 64])).is_err());
        // A key of that length, then an array of that many strings, u64s or arrays.
        assert!(parse(&header([0, 1], &count.to_le_bytes())).is_err());
        for kind in [8u8, 9, 10] {
            let mut rest = b"\x01\0\0\0\0\0\0\0k\x09\0\0\0".to_vec();
            rest.extend([kind, 0, 0, 0]);
            rest.extend(count.to_le_bytes());
            rest.extend([0; 64]);
            assert!(parse(&header([0, 1], &rest)).is_err());
        }
    }
    // Arrays of one array each, nested thousands deep.
    let mut rest = b"\x01\0\0\0\0\0\0\0k\x09\0\0\0".to_vec();
    (0..100_000).for_each(|_| rest.extend(b"\x09\0\0\0\x01\0\0\0\0\0\0\0"));
    assert!(complaint(&header([0, 1], &rest)).contains("deeper"));
}
