//! Tests the reader on files written by torch and on hostile files.

mod build;

use super::{gather, read_header};
use crate::{Dtype, PYTORCH, folder_entry::Entry, weight_files};
use build::{archive, one, text, view, zip};
use half::{bf16, f16};
use serde_json::Value as Json;
use sparsellm_base::Result;
use sparsellm_testing::fixture;
use std::{collections::BTreeMap, path::Path};

fn read(bytes: &[u8]) -> Result<Vec<Entry>> {
    read_header(Path::new("x.bin"), bytes)
}

fn message(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}

fn size(dtype: Dtype) -> usize {
    match dtype {
        Dtype::F64 => 8,
        Dtype::F32 => 4,
        Dtype::F16 | Dtype::Bf16 => 2,
        Dtype::Other(d) => d.bitsize() / 8,
    }
}

/// All elements in row-major order; panics if an entry violates its guarantees.
fn elements(bytes: &[u8], entry: &Entry) -> Vec<u8> {
    let (stored, size) = (&bytes[entry.bytes.clone()], size(entry.dtype));
    let len = entry.shape.iter().product::<usize>();
    let out = match &entry.strides {
        Some(strides) => gather(stored, size, &entry.shape, strides, 0..len),
        None => stored.to_vec(),
    };
    assert_eq!(out.len(), len * size, "{entry:?}");
    out
}

fn floats(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    let of = |b: &[u8]| match dtype {
        Dtype::F64 => f64::from_le_bytes(b.try_into().unwrap()) as f32,
        Dtype::F32 => f32::from_le_bytes(b.try_into().unwrap()),
        Dtype::F16 => f16::from_le_bytes(b.try_into().unwrap()).to_f32(),
        Dtype::Bf16 => bf16::from_le_bytes(b.try_into().unwrap()).to_f32(),
        Dtype::Other(_) => panic!("no float"),
    };
    bytes.chunks_exact(size(dtype)).map(of).collect()
}

/// Every tensor equals its twin in the sibling folder, rounded to `dtype`.
fn matches_sibling(folder: &str, sibling: &str, dtype: Dtype) -> BTreeMap<String, Entry> {
    let bytes =
        std::fs::read(fixture(&format!("families/{sibling}")).join("model.safetensors")).unwrap();
    let twins = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let folder = fixture(&format!("families/{folder}"));
    let mut all = BTreeMap::new();
    for file in weight_files(&folder, &PYTORCH).unwrap().unwrap() {
        let path = folder.join(file);
        let bytes = std::fs::read(&path).unwrap();
        for entry in read_header(&path, &bytes).unwrap() {
            assert_eq!(entry.dtype, dtype);
            let mut name = format!("model.{}", entry.name.trim_start_matches("model."));
            if entry.name == "lm_head.weight" {
                name = "model.decoder.embed_tokens.weight".into();
            }
            let twin = twins.tensor(&name).unwrap();
            assert_eq!(twin.shape(), entry.shape, "{name}");
            let round = |v: f32| match dtype {
                Dtype::F16 => f16::from_f32(v).to_f32(),
                Dtype::Bf16 => bf16::from_f32(v).to_f32(),
                _ => v,
            };
            let want: Vec<f32> = floats(twin.data(), Dtype::F32).into_iter().map(round).collect();
            assert_eq!(floats(&elements(&bytes, &entry), dtype), want, "{name}");
            assert!(all.insert(name.clone() + &entry.name[..2], entry).is_none());
        }
    }
    assert!(all.len() >= twins.len());
    all
}

#[test]
fn torch_files_match_their_safetensors() {
    matches_sibling("opt-125m-style-bin", "opt-125m-style", Dtype::F16);
    matches_sibling("opt-125m-style-bin-sharded", "opt-125m-style", Dtype::F32);
    matches_sibling("opt-no-bias-bin", "opt-no-bias", Dtype::Bf16);
    let tied = matches_sibling("opt-350m-style-bin", "opt-350m-style", Dtype::F32);
    let [head, embed] =
        ["lm", "mo"].map(|p| &tied[&format!("model.decoder.embed_tokens.weight{p}")]);
    assert_eq!(head.bytes, embed.bytes);
    let views = matches_sibling("opt-gelu-bin", "opt-gelu", Dtype::F32);
    let at = |name: &str| &views[&format!("model.decoder.layers.0.{name}mo")];
    assert_eq!(at("fc1.weight").strides, Some(vec![1, 128]));
    assert_eq!(at("self_attn.q_proj.weight").bytes.end, at("self_attn.k_proj.weight").bytes.start);
}

#[test]
fn gather_reads_any_range() {
    let bytes: Vec<u8> = (0..24).collect();
    let all = gather(&bytes, 1, &[2, 3, 4], &[1, 2, 6], 0..24);
    let want: Vec<u8> = (0..24).map(|i| i / 12 + i / 4 % 3 * 2 + i % 4 * 6).collect();
    assert_eq!(all, want);
    for (start, end) in [(0, 0), (5, 17), (23, 24), (12, 24)] {
        assert_eq!(gather(&bytes, 1, &[2, 3, 4], &[1, 2, 6], start..end), want[start..end]);
    }
}

#[test]
fn damaged_files_never_panic() {
    for folder in ["opt-gelu-bin", "opt-no-bias-bin", "opt-350m-style-bin"] {
        let mut bytes =
            std::fs::read(fixture(&format!("families/{folder}")).join(PYTORCH.single)).unwrap();
        let length = bytes.len();
        for cut in (0..length).step_by(61).chain(length - 2000..length) {
            read(&bytes[..cut]).unwrap_err();
        }
        let mut seed = 1u64;
        let mut random = |n: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % n
        };
        // The pickle is at the start of the file, the directory at its end; flip every byte
        // of both.
        let ends = (0..6000).chain(length - 5000..length);
        let flips: Vec<_> = ends.map(|at| vec![at]).collect();
        let anywhere = (0..3000).map(|_| (0..random(4) + 1).map(|_| random(length)).collect());
        for flip in flips.into_iter().chain(anywhere.collect::<Vec<_>>()) {
            let before: Vec<u8> = flip.iter().map(|&at| bytes[at]).collect();
            flip.iter().for_each(|&at| bytes[at] ^= 1 << random(8));
            if let Ok(entries) = read(&bytes) {
                entries.iter().for_each(|e| drop(elements(&bytes, e)));
            }
            flip.iter().zip(before).rev().for_each(|(&at, b)| bytes[at] = b);
        }
        read(&bytes).unwrap();
    }
}

fn floats_of(numel: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    one(&view("0", "FloatStorage", numel, offset, (shape, strides), b""))
}

#[test]
fn views_inside_their_storage_are_read() {
    let file = floats_of(16, 2, &[2, 1, 3], &[4, i64::MAX, 1]);
    let entry = &read(&file).unwrap()[0];
    assert_eq!((entry.bytes.len(), entry.strides.clone()), (7 * 4, Some(vec![4, 0, 1])));
    assert_eq!(elements(&file, entry)[12..], file[entry.bytes.start + 16..entry.bytes.end]);
    assert_eq!(read(&floats_of(16, 0, &[], &[])).unwrap()[0].bytes.len(), 4);
    assert_eq!(read(&floats_of(16, 12, &[2, 2], &[2, 1])).unwrap()[0].strides, None);
    let empty = one(&view("1", "LongStorage", 0, 0, (&[0, 5], &[5, 1]), b""));
    assert!(read(&empty).unwrap()[0].bytes.is_empty());
    let doubles = read(&one(&view("0", "DoubleStorage", 8, 7, (&[1], &[1]), b"N"))).unwrap();
    assert_eq!(doubles[0].dtype, Dtype::F64);
    let parameter = [
        b"ctorch._utils\n_rebuild_parameter\n(".to_vec(),
        view("0", "CharStorage", 64, 0, (&[64], &[1]), b"}"),
    ];
    assert_eq!(read(&one(&[parameter.concat(), b"\x88}tR".to_vec()].concat())).unwrap().len(), 1);
}

#[test]
fn views_outside_their_storage_are_refused() {
    for (numel, offset, shape, strides) in [
        (17, 0, &[1][..], &[1][..]),
        (16, 1, &[16], &[1]),
        (16, 0, &[4, 4], &[5, 1]),
        (16, 17, &[0], &[1]),
        (16, 0, &[1 << 40], &[0]),
        (16, 0, &[1 << 32, 1 << 32], &[0, 0]),
        (16, 0, &[2, 2], &[i64::MAX, i64::MAX]),
        (16, i64::MAX, &[1], &[1]),
        (i64::MAX, 0, &[1], &[1]),
        (16, -1, &[1], &[1]),
        (16, 0, &[-1], &[1]),
        (16, 8, &[2], &[-1]),
        (16, 0, &[1], &[1, 1]),
        (16, 0, &[1; 9], &[1; 9]),
    ] {
        let said = message(&floats_of(numel, offset, shape, strides));
        assert!(said.starts_with("x.bin: byte ") && said.contains("data.pkl: "), "{said}");
    }
    assert!(
        message(&floats_of(16, 1, &[16], &[1])).contains("tensor w: shape [16] with strides [1]")
    );
}

#[test]
fn what_is_no_state_dict_of_tensors_is_refused_by_name() {
    let seven = |more: &[u8]| one(&view("0", "FloatStorage", 16, 0, (&[1], &[1]), more));
    let twice = [
        &b"\x80\x02}("[..],
        &[text("w"), view("0", "ByteStorage", 9, 0, (&[1], &[1]), b"")].concat().repeat(2),
        b"u.",
    ];
    for (file, part) in [
        (one(b"cos\nsystem\n\x85R"), "byte 9 of its data.pkl: it names `os system`"),
        (one(b"cposix\nsystem\n"), "`posix system`"),
        (
            archive(b"\x80\x04\x95\x20\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93"),
            "`posix system`",
        ),
        (archive(b"\x80\x02c\x1b[2J\n\xc3\xa9\n"), "`\\u{1b}[2J é`"),
        (one(b"K\x07"), "entry w is an int, not a tensor"),
        (one(b"}"), "entry w is a dict, not a tensor; save only"),
        (one(b"G\0\0\0\0\0\0\0\0"), "BINFLOAT (0x47)"),
        (one(b"]"), "EMPTY_LIST"),
        (one(b"\xff"), "unknown (0xff)"),
        (one(b"}}N\x86b"), "_metadata"),
        (
            one(&[b"}}", &text("x")[..], b"Nsb"].concat()),
            "attributes other than a dict's _metadata",
        ),
        (one(b"ccollections\nOrderedDict\nN\x85R"), "OrderedDict with 1 arguments"),
        (one(b"ctorch._utils\n_rebuild_tensor_v3\n"), "_rebuild_tensor_v3"),
        (one(&view("0", "NoStorage", 1, 0, (&[1], &[1]), b"")), "`torch NoStorage`"),
        (one(&view("7", "ByteStorage", 1, 0, (&[1], &[1]), b"")), "storage 7 is not in the file"),
        (
            one(&view("0", "ByteStorage", 65, 0, (&[1], &[1]), b"")),
            "65 elements of 1 bytes, but has 64",
        ),
        (seven(&[&b"}"[..], &text("neg"), b"\x88s"].concat()), "tensor w: conjugated or negated"),
        (archive(&twice.concat()), "tensor w is in its state dict twice"),
        (archive(b"\x80\x02}N.N"), "it holds None"),
        (archive(b"\x80\x02}NNs."), "a key of its state dict is None"),
        (archive(b"\x80\x02}(s."), "too few values"),
        (archive(b"\x80\x02}(0."), "POP "),
        (archive(b"\x80\x02}(."), "the stack is empty"),
        (archive(b"\x80\x02}t."), "there is no MARK"),
        (archive(b"\x80\x02(Nu."), "a key without a value"),
        (archive(b"\x80\x02h\x05."), "memo 5 was never set"),
        (archive(b"\x80\x02r\xff\xff\xff\xff."), "the stack is empty"),
        (archive(b"\x80\x02X\xff\xff\xff\xffabc"), "ends inside"),
        (archive(b"\x80\x02}"), "ends inside"),
        (archive(b"\x80\x06}."), "protocol 6"),
        (archive(b"}."), "begins, once, with"),
        (archive(b""), "ends inside"),
        (archive(&[&b"\x80\x02N"[..], &[0x85; 1 << 20], b"."].concat()), "it holds a tuple"),
        (archive(&[&b"\x80\x02"[..], &[b'N'; 1 << 22]].concat()), "more than 4194304 instructions"),
    ] {
        let said = message(&file);
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn other_containers_are_refused_by_name() {
    let pickle = b"\x80\x02}.".as_slice();
    let entries = [("m/data.pkl", pickle), ("m/byteorder", b"big")];
    assert_eq!(read(&zip(&entries[..1], 0, false)).unwrap().len(), 0);
    let cut = |n: usize| zip(&entries[..1], 0, false)[n..].to_vec();
    for (file, part) in [
        (zip(&entries, 0, false), "byte order is `big`"),
        (zip(&entries[..1], 8, false), "entry m/data.pkl is compressed"),
        (zip(&[entries[0], entries[0]], 0, false), "entry m/data.pkl is in it twice"),
        (zip(&[("m/code", pickle)], 0, false), "without torch.save's data.pkl"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80".to_vec(), "before torch 1.6"),
        (b"<html>not found</html>".to_vec(), "not a whole download"),
        (Vec::new(), "not a PyTorch zip file"),
        (b"PK\x03\x04".to_vec(), "directory at its end is missing"),
        ([b"PK\x03\x04\0".to_vec(), cut(4)].concat(), "no directory entry"),
    ] {
        let said = message(&file);
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn zip64_and_new_protocols_are_read() {
    let call = view("0", "BFloat16Storage", 9, 1, (&[2, 4], &[4, 1]), b"N");
    let frame = b"\x80\x05\x95\x01\0\0\0\0\0\0\0\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94";
    let items = [&b"(\x8c\x01a\x94"[..], &call, b"\x94\x8c\x01bj\x05\0\0\0u}"].concat();
    let pickle = [&frame[..], &items, &text("_metadata"), b"}sb."].concat();
    let file = zip(
        &[("a/data.pkl", &pickle), ("a/byteorder", b"little"), ("a/data/0", &[7; 18])],
        0,
        true,
    );
    let entries = read(&file).unwrap();
    assert_eq!(entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(entries[0].bytes, entries[1].bytes);
    assert_eq!(elements(&file, &entries[1]), [7; 16]);
}

#[test]
fn weight_files_are_the_single_one_or_the_shards() {
    assert_eq!(
        weight_files(&fixture("families/opt-gelu-bin"), &PYTORCH).unwrap(),
        Some(vec![PYTORCH.single.into()])
    );
    assert_eq!(weight_files(&fixture("families/opt-gelu"), &PYTORCH).unwrap(), None);
    let index = fixture("families/opt-125m-style-bin-sharded").join(PYTORCH.index);
    let json: Json = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    let shards = weight_files(index.parent().unwrap(), &PYTORCH).unwrap().unwrap();
    assert!(
        json["weight_map"].as_object().unwrap().values().all(|v| shards.iter().any(|s| v == s))
    );
    assert_eq!(shards.len(), 2);
}
