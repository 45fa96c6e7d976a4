//! GGUF files: tensors equal to what gguf-py reads in them, pictures equal, and files that lie.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::GzDecoder;
use latentd_models::files::{self, ElementType, FileKind, Tensors};
use latentd_models::image::RgbImage;
use latentd_models::model::Model;
use latentd_models::nn::backend::Layout;
use latentd_models::nn::backend::cpu::cpu;
use latentd_models::nn::{Loader, Precision};
use latentd_models::pipeline::{LatentDecoder, NoStages, NoWatch, Txt2Img};
use latentd_models::prompt::Reading;
use latentd_models::sampling::{NoiseSource, Sampler, Schedule};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/containers").join(name)
}

/// One of the files that are kept packed.
fn unpacked(name: &str) -> Vec<u8> {
    let packed = std::fs::read(fixture(name)).expect("fixture");
    let mut bytes = vec![];
    GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes).expect("gzip");
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    let digits = Sha256::digest(bytes).into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// A tensor's weights as f32, little-endian.
fn as_f32(file: &Tensors, name: &str) -> Vec<u8> {
    let (dtype, bytes) = file.weights(name).expect("weights").expect("there");
    let values = latentd_kernels::Weights { dtype, bytes: &bytes }.to_f32();
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// Each type, bit for bit: the arithmetic is gguf-py's.
#[test]
fn every_type_is_read_as_gguf_py_reads_it() {
    let told: BTreeMap<String, Value> =
        serde_json::from_slice(&std::fs::read(fixture("types.json")).expect("fixture")).expect("json");
    let file = files::open(&fixture("types.gguf")).expect("opens");
    assert_eq!(file.format(), "GGUF");
    assert_eq!(file.names().count(), told.len());
    // In memory the elements begin at any address.
    let mut shifted = std::fs::read(fixture("types.gguf")).expect("fixture");
    shifted.reserve_exact(1);
    let held = files::from_bytes("held", shifted).expect("opens");
    for (name, told) in &told {
        let shape: Vec<u64> = file.shape(name).expect("there").iter().map(|size| *size as u64).collect();
        assert_eq!(Value::from(shape), told["shape"], "{name}");
        let dtype = file.dtype(name).expect("there");
        assert_eq!(Value::from(dtype.name()), told["dtype"], "{name}");
        let whole = matches!(dtype, ElementType::I8 | ElementType::I16 | ElementType::I32 | ElementType::I64);
        if whole {
            let error = file.weights(name).expect_err("no weights").to_string();
            assert!(error.contains(name) && error.contains("which weights are not"), "{error}");
        }
        for file in [&file, &held] {
            let read = if whole {
                file.bytes(name).expect("read").expect("there").into_owned()
            } else {
                as_f32(file, name)
            };
            assert_eq!(Value::from(sha256(&read)), told["sha256"], "{name}");
        }
    }
    let texts: Vec<_> = file.metadata().iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(
        texts,
        [
            ("general.architecture", "sd1"),
            ("general.name", "a tensor of each type"),
            ("test.bool", "true"),
            ("test.float32", "0.5"),
            ("test.int64", "-5"),
        ]
    );
}

fn drawn(model: &Model) -> RgbImage {
    let request = Txt2Img {
        prompt: "a red circle".into(),
        negative_prompt: "".into(),
        reading: Reading::default(),
        embeddings: Arc::default(),
        seed: 19,
        steps: 4,
        cfg_scale: 7.0,
        width: 64,
        height: 64,
        sampler: Sampler::from_name("Euler").expect("a sampler"),
        schedule: Schedule::Automatic,
        batch_size: 1,
        n_iter: 1,
        clip_skip: 1,
        rng: NoiseSource::Nv,
        pad_cond_uncond: false,
        pad_cond_uncond_v0: false,
        decoder: LatentDecoder::Vae,
        ..Txt2Img::default()
    };
    let mut outputs = latentd_models::pipeline::txt2img(
        &model.facts(),
        &mut &*model,
        &request,
        &mut NoWatch,
        &mut NoStages,
    )
    .expect("draws");
    outputs.remove(0).image
}

/// The picture of the very values that gguf-py reads, in f32. Wanted are 60 dB; the same values give the same bytes.
#[test]
fn a_checkpoint_draws_as_its_values_do_elsewhere() {
    for (name, kind) in [("tiny-f16", "f16"), ("tiny-q8_0", "q8_0"), ("cpp-q8_0", "q8_0")] {
        let packed = unpacked(&format!("{name}.gguf.gz"));
        let file = files::from_bytes("tiny.gguf", packed.clone()).expect("opens");
        let info = files::FileInfo::of(&file);
        assert_eq!((info.kind, info.dtype.as_str()), (FileKind::Checkpoint, kind));
        let values = unpacked(&format!("{name}.safetensors.gz"));
        let plain = files::from_bytes("tiny.safetensors", values.clone()).expect("opens");
        assert_eq!(file.names().collect::<Vec<_>>(), plain.names().collect::<Vec<_>>());
        for name in plain.names() {
            assert!(as_f32(&file, name) == as_f32(&plain, name), "{kind}: {name}");
        }
        let open = |name: &str, bytes| Model::from_bytes(name, bytes, Precision::F32).expect("opens");
        let (model, wanted) = (open("tiny.gguf", packed), open("tiny.safetensors", values));
        assert_eq!(model.summary().dtype, kind);
        let (found, wanted) = (drawn(&model), drawn(&wanted));
        let greys = wanted.pixels.iter().collect::<std::collections::BTreeSet<_>>().len();
        assert!(greys > 20, "the picture has only {greys} values");
        assert!(found == wanted, "{kind}");
    }
}

/// ggml does not know how many sizes of 1 came first.
#[test]
fn leading_sizes_of_1_do_not_matter() {
    let mut file = Written::default();
    file.tensor("weight", &[4], 0, &[0; 16]);
    let file = files::from_bytes("x.gguf", file.bytes()).expect("opens");
    let loader = Loader::file(&file, &cpu(), Precision::F32);
    let load = |outputs, inputs| loader.matrix("weight", Layout::Linear { outputs, inputs }, Precision::F32);
    load(1, 4).expect("is [4]");
    for (outputs, inputs) in [(4, 1), (2, 2), (1, 5)] {
        let error = load(outputs, inputs).err().expect("another shape").to_string();
        assert!(error.contains("weight is [4]"), "{error}");
    }
}

/// As ComfyUI-GGUF writes tensors whose rows are no whole blocks.
#[test]
fn the_shape_that_a_tensor_had_is_the_one_it_has() {
    type Expected<'a> = Result<&'a [usize], &'a str>;
    let shape = |kind: u32, sizes: &[i32]| {
        let sizes = sizes.iter().flat_map(|size| size.to_le_bytes()).collect::<Vec<_>>();
        [&kind.to_le_bytes()[..], &(sizes.len() as u64 / 4).to_le_bytes(), &sizes].concat()
    };
    let rows: [(&str, Vec<u8>, Expected); 7] = [
        ("odd", shape(INT32, &[4, 2, 3, 4]), Ok(&[4, 2, 3, 4])),
        ("another", shape(INT32, &[4, 2]), Ok(&[3, 32])),
        ("odd", shape(INT32, &[4, 2, 3, 3]), Err("tensor odd is [3, 32], and was [4, 2, 3, 3]")),
        ("odd", shape(INT32, &[i32::MAX; 8]), Err("tensor odd is [3, 32]")),
        ("odd", shape(INT32, &[-96, -1]), Err("has a size of -96")),
        ("odd", shape(INT32, &[1; 9]), Err("is no shape, which is a list of up to 8 int32")),
        ("odd", shape(U32, &[96]), Err("is no shape")),
    ];
    for (name, list, expected) in rows {
        let mut file = Written::default();
        file.pair(&format!("comfy.gguf.orig_shape.{name}"), LIST, &list);
        file.tensor("odd", &[32, 3], Q8_0, &[0; 102]);
        match (files::from_bytes("x.gguf", file.bytes()), expected) {
            (Ok(file), Ok(shape)) => {
                assert_eq!(file.shape("odd"), Some(shape));
                assert_eq!(as_f32(&file, "odd").len(), 96 * 4);
                assert!(file.metadata().is_empty());
            }
            (Err(error), Err(reason)) => assert!(error.to_string().contains(reason), "{error}"),
            (found, _) => panic!("{expected:?}: {:?}", found.map(drop)),
        }
    }
}

/// A file put together by hand, to be put together wrongly.
#[derive(Clone, Default)]
struct Written {
    counts: Option<(u64, u64)>,
    pairs: Vec<Vec<u8>>,
    infos: Vec<Vec<u8>>,
    data: Vec<u8>,
}
impl Written {
    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    }

    /// A key with a value of a kind.
    fn pair(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.pairs.push([&Self::text(key)[..], &kind.to_le_bytes(), value].concat());
    }

    /// What a header says of a tensor.
    fn info(&mut self, name: &str, sizes: &[u64], kind: u32, offset: u64) {
        let mut info = Self::text(name);
        info.extend((sizes.len() as u32).to_le_bytes());
        info.extend(sizes.iter().flat_map(|size| size.to_le_bytes()));
        info.extend(kind.to_le_bytes());
        info.extend(offset.to_le_bytes());
        self.infos.push(info);
    }

    /// A sound tensor behind the others.
    fn tensor(&mut self, name: &str, sizes: &[u64], kind: u32, bytes: &[u8]) {
        self.info(name, sizes, kind, self.data.len() as u64);
        self.data.extend(bytes);
        self.data.resize(self.data.len().next_multiple_of(32), 0);
    }

    fn bytes(&self) -> Vec<u8> {
        let (tensors, pairs) = self.counts.unwrap_or((self.infos.len() as u64, self.pairs.len() as u64));
        let mut bytes = b"GGUF\x03\x00\x00\x00".to_vec();
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(pairs.to_le_bytes());
        bytes.extend(self.pairs.concat());
        bytes.extend(self.infos.concat());
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        [bytes, self.data.clone()].concat()
    }
}

const F32: u32 = 0;
const Q8_0: u32 = 8;
const U32: u32 = 4;
const INT32: u32 = 5;
const TEXT: u32 = 8;
const LIST: u32 = 9;

/// Two tensors and two keys, none of which lies.
fn sound() -> Written {
    let mut file = Written::default();
    file.pair("a.number", U32, &7u32.to_le_bytes());
    file.pair("a.text", TEXT, &Written::text("words"));
    file.tensor("first", &[4], F32, &[0; 16]);
    file.tensor("second", &[32, 2], Q8_0, &[0; 68]);
    file
}

/// Everything that can be asked of a file, or why it is refused.
fn looked_through(bytes: Vec<u8>) -> Result<(), String> {
    let file = files::from_bytes("broken.gguf", bytes).map_err(|error| error.to_string())?;
    let info = files::FileInfo::of(&file);
    assert!(info.tensors == file.names().count());
    for name in file.names() {
        file.bytes(name).map_err(|error| error.to_string())?;
        file.weights(name).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn refusal(what: &str, bytes: Vec<u8>) -> String {
    let error = looked_through(bytes).expect_err(what);
    assert!(error.starts_with("broken.gguf: "), "{what}: the file is named: {error}");
    assert!(error.len() < 3000, "{what}: {} bytes of error", error.len());
    error
}

/// What it is, what the error says, and how it is made.
type Lie<'a> = (&'a str, &'a str, &'a dyn Fn(&mut Written));

#[test]
fn files_that_lie_are_refused() {
    looked_through(sound().bytes()).expect("sound");
    let lies: [Lie; 31] = [
        ("tensors without end", "18446744073709551615 tensors", &|file| file.counts = Some((u64::MAX, 2))),
        ("keys without end", "9223372036854775808 key-values", &|file| file.counts = Some((2, 1 << 63))),
        ("as many as are believed, which are not there", "is cut off", &|file| {
            file.counts = Some((1 << 16, 2));
        }),
        ("keys that are not there", "is cut off", &|file| file.counts = Some((2, 1 << 16))),
        ("a key of 2^63 bytes", "wants 9223372036854775808 bytes", &|file| {
            file.pairs.insert(0, (1u64 << 63).to_le_bytes().to_vec());
        }),
        ("a text of 2^64 bytes", "key long: is cut off", &|file| {
            file.pair("long", TEXT, &u64::MAX.to_le_bytes());
        }),
        ("a key that is no text", "no UTF-8", &|file| {
            file.pairs.insert(0, [&2u64.to_le_bytes()[..], b"\xff\xff"].concat());
        }),
        ("the same key twice", "key a.number twice", &|file| file.pair("a.number", TEXT, &Written::text(""))),
        ("a value of no kind", "value type 13", &|file| file.pair("odd", 13, &[0; 64])),
        ("a list of no kind", "value type 99", &|file| {
            file.pair("odd", LIST, &[&99u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat());
        }),
        ("a list of lists", "list of lists", &|file| {
            file.pair(
                "nested",
                LIST,
                &[&LIST.to_le_bytes()[..], &1u64.to_le_bytes()].concat().repeat(10_000),
            );
        }),
        ("a list of 2^61 numbers", "key list: is cut off", &|file| {
            file.pair("list", LIST, &[&12u32.to_le_bytes()[..], &(1u64 << 61).to_le_bytes()].concat());
        }),
        ("a list of 2^64 texts", "key list: is cut off", &|file| {
            file.pair("list", LIST, &[&TEXT.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat());
        }),
        ("an alignment of 0", "general.alignment", &|file| file.pair("general.alignment", U32, &[0; 4])),
        ("an alignment of 33", "no power of 2", &|file| {
            file.pair("general.alignment", U32, &33u32.to_le_bytes());
        }),
        ("an alignment that is text", "no power of 2", &|file| {
            file.pair("general.alignment", TEXT, &Written::text("wide"));
        }),
        ("an alignment of 2^31", "is cut off: tensor first", &|file| {
            file.pair("general.alignment", U32, &(1u32 << 31).to_le_bytes());
        }),
        ("five dimensions", "5 dimensions", &|file| file.info("odd", &[1; 5], F32, 0)),
        ("2^32 dimensions", "4294967295 dimensions", &|file| {
            file.infos.push([&Written::text("odd")[..], &[0xff; 4]].concat());
        }),
        ("a size of 0", "sizes [0, 4]", &|file| file.info("odd", &[0, 4], F32, 0)),
        ("sizes that wrap round to 4", "which no tensor has", &|file| {
            file.info("odd", &[1 << 62, 4, 1, 1], F32, 0);
        }),
        ("bytes that wrap round to 0", "which no tensor has", &|file| file.info("odd", &[1 << 62], F32, 0)),
        ("half a block", "no whole blocks of q8_0", &|file| file.info("odd", &[16], Q8_0, 0)),
        ("rows of half a block", "rows of 16", &|file| file.info("odd", &[16, 2], Q8_0, 0)),
        ("a type that is not read", "is of type iq4_nl", &|file| file.info("odd", &[32], 20, 0)),
        ("a type that nobody knows", "is of type number 777", &|file| file.info("odd", &[32], 777, 0)),
        ("a place beyond the end", "is cut off: tensor odd", &|file| file.info("odd", &[4], F32, 4096)),
        ("a place that wraps round", "is cut off: tensor odd", &|file| file.info("odd", &[4], F32, !31)),
        ("a place between", "is no multiple of 32", &|file| file.info("odd", &[4], F32, 4)),
        ("two in one place", "tensors first and odd overlap", &|file| file.info("odd", &[4], F32, 0)),
        ("the same name twice", "tensor first twice", &|file| file.tensor("first", &[4], F32, &[0; 16])),
    ];
    for (what, expected, lie) in lies {
        let mut file = sound();
        lie(&mut file);
        let error = refusal(what, file.bytes());
        assert!(error.contains(expected), "{what}: {error}");
    }
    for (version, expected) in
        [(1u32, "version 1"), (4, "version 4"), (0, "version 0"), (3u32.swap_bytes(), "byte order")]
    {
        let mut bytes = sound().bytes();
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        assert!(refusal("version", bytes).contains(expected), "{version}");
    }
    let mut long = sound();
    long.pair("long", TEXT, &Written::text(&"x".repeat(files::LARGEST_HEADER)));
    assert!(refusal("a long header", long.bytes()).contains("its header is longer"));
    let mut named = sound();
    named.info(&"ß".repeat(1 << 20), &[1; 5], F32, 0);
    refusal("a long name", named.bytes());
}

/// Another program shortens the file while it is mapped.
#[test]
fn a_file_cut_off_while_it_is_read_is_an_error() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("model.gguf");
    std::fs::copy(fixture("types.gguf"), &path).expect("copied");
    let file = files::open(&path).expect("opens");
    std::fs::File::options().write(true).open(&path).and_then(|file| file.set_len(4096)).expect("shortened");
    for name in file.names() {
        // Zeros where there is nothing any more.
        let read = file.weights(name);
        assert!(read.is_ok() || name.starts_with('I'), "{name}");
    }
    let error = file.check_intact().expect_err("cut off").to_string();
    assert!(error.contains("model.gguf") && error.contains("was cut off by another program"), "{error}");
}

/// Without tensors a file is nothing, but no broken file.
#[test]
fn a_file_of_nothing_is_unknown() {
    let file = files::from_bytes("empty.gguf", Written::default().bytes()).expect("opens");
    let info = files::FileInfo::of(&file);
    assert_eq!((info.kind, info.tensors, info.dtype.as_str()), (FileKind::Unknown, 0, ""));
}

#[test]
fn whatever_is_cut_off_is_refused() {
    for bytes in [sound().bytes(), std::fs::read(fixture("types.gguf")).expect("fixture")] {
        // Behind the last element there may be what fills up the last multiple of the alignment.
        let end = bytes.len() - 64;
        for length in 0..end {
            refusal(&format!("{length} bytes"), bytes[..length].to_vec());
        }
    }
}

#[test]
fn no_flipped_bit_is_worse_than_a_refusal() {
    let sound = std::fs::read(fixture("types.gguf")).expect("fixture");
    let name = b"Q8_K";
    let header = sound.windows(name.len()).position(|bytes| bytes == name).expect("the last tensor") + 64;
    let mut refused = 0;
    for bit in 0..header * 8 {
        let mut bytes = sound.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Err(error) = looked_through(bytes) {
            assert!(error.starts_with("broken.gguf: "), "bit {bit}: {error}");
            refused += 1;
        }
    }
    assert!(refused > header, "only {refused} of {} were refused", header * 8);
}
