//! Builds files by hand: zip containers and pickles.

/// A zip file as torch writes it; with zip64 fields for the sizes if `long`.
pub fn zip(entries: &[(&str, &[u8])], method: u16, long: bool) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let (size, offset) = (data.len() as u64, file.len() as u64);
        let short = |n: u64| if long { u32::MAX } else { n as u32 }.to_le_bytes();
        let extra =
            [&[1, 0, 24, 0][..], &[size, size, offset].map(u64::to_le_bytes).concat()].concat();
        let extra = if long { [&[9, 9, 1, 0, 7][..], &extra].concat() } else { Vec::new() };
        let head = [&[0; 4][..], &method.to_le_bytes(), &[0; 8]].concat();
        let lengths = |extra: usize| {
            [(name.len() as u16).to_le_bytes(), (extra as u16).to_le_bytes()].concat()
        };
        let local =
            [b"PK\x03\x04", &head[..], &[0; 8], &lengths(3), name.as_bytes(), &[0; 3], data];
        file.extend(local.concat());
        let sizes = [short(size), short(size)].concat();
        let central = [b"PK\x01\x02\0\0", &head[..], &sizes, &lengths(extra.len()), &[0; 10]];
        directory.extend(
            [central.concat(), short(offset).to_vec(), name.as_bytes().to_vec(), extra].concat(),
        );
    }
    let place = [directory.len() as u64, file.len() as u64];
    file.extend(directory);
    let end64 = (file.len() as u64).to_le_bytes();
    let mut short = place.map(|n| (n as u32).to_le_bytes()).concat();
    if long {
        let record = [b"PK\x06\x06", &[0; 36][..], &place.map(u64::to_le_bytes).concat()];
        file.extend(
            [record.concat(), [b"PK\x06\x07", &[0; 4][..], &end64, &[0; 4]].concat()].concat(),
        );
        short = vec![255; 8];
    }
    file.extend([b"PK\x05\x06", &[0; 8][..], &short, &[0; 2]].concat());
    file
}

pub fn archive(pickle: &[u8]) -> Vec<u8> {
    let data: Vec<u8> = (0..64).collect();
    zip(&[("m/data.pkl", pickle), ("m/data/0", &data), ("m/data/1", b"")], 0, false)
}

pub fn long(n: i64) -> Vec<u8> {
    [&[0x8a, 8][..], &n.to_le_bytes()].concat()
}

pub fn text(s: &str) -> Vec<u8> {
    [b"X", &(s.len() as u32).to_le_bytes()[..], s.as_bytes()].concat()
}

/// A `_rebuild_tensor_v2` call on `data/{key}`; `more` holds the arguments after the sixth.
pub fn view(
    key: &str,
    class: &str,
    numel: i64,
    offset: i64,
    (shape, strides): (&[i64], &[i64]),
    more: &[u8],
) -> Vec<u8> {
    let tuple =
        |v: &[i64]| [b"(", &v.iter().flat_map(|&n| long(n)).collect::<Vec<_>>()[..], b"t"].concat();
    let class = format!("ctorch\n{class}\n");
    let id = [
        b"(",
        &text("storage")[..],
        class.as_bytes(),
        &text(key),
        &text("cpu"),
        &long(numel),
        b"tQ",
    ]
    .concat();
    let call = b"ctorch._utils\n_rebuild_tensor_v2\n(";
    [&call[..], &id, &long(offset), &tuple(shape), &tuple(strides), b"\x89}", more, b"tR"].concat()
}

/// The state dict `{"w": value}`.
pub fn one(value: &[u8]) -> Vec<u8> {
    archive(&[b"\x80\x02}", &text("w")[..], value, b"s."].concat())
}
