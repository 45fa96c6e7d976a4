//! PyTorch files made to do harm: nothing in one is run, and each is refused by its name or gives its tensors, within
//! little memory and time. None is kept; all are put together here.

use std::fs;
use std::path::Path;

use latentd_models::files;
use proptest::prelude::*;

use crate::forging::{
    Entry, archive, archive_of, beside, deflated, dict_of, entry, number, stream_with, tar_with, tensor,
    with_pickle,
};
use crate::torch::containers;

/// What a hostile pickle would write if anything in it ran.
const CANARY: &str = "latentd-canary";

/// The tensors' names, all of which are read, or the refusal, which must name the file.
fn outcome(opened: latentd_models::Result<files::Tensors>) -> Result<Vec<String>, String> {
    let read = opened.and_then(|file| {
        let names: Vec<String> = file.names().map(str::to_owned).collect();
        names.iter().try_for_each(|name| file.bytes(name).map(drop))?;
        Ok(names)
    });
    read.map_err(|error| {
        let error = error.to_string();
        assert!(error.contains("hostile.ckpt"), "the file is named: {error}");
        assert!(error.len() < 3000, "{}", error.len());
        error
    })
}

fn tried_in_memory(bytes: &[u8]) -> Result<Vec<String>, String> {
    outcome(files::from_bytes("hostile.ckpt", bytes.to_vec()))
}

/// Tries the bytes as a file and in memory.
fn tried(folder: &Path, bytes: &[u8]) -> Result<Vec<String>, String> {
    let path = folder.join("hostile.ckpt");
    fs::write(&path, bytes).expect("written");
    let opened = outcome(files::open(&path));
    let held = outcome(files::from_bytes(&path, bytes.to_vec()));
    // There is no file of no bytes to look into.
    assert!(opened == held || bytes.is_empty(), "{opened:?} of the file, {held:?} in memory");
    opened
}

/// Expects the tensor w, or a refusal with this in it.
fn check(folder: &Path, name: &str, bytes: &[u8], expected: Result<(), &str>) {
    match (tried(folder, bytes), expected) {
        (Ok(names), Ok(())) => assert!(names.contains(&"w".to_owned()), "{name}: {names:?}"),
        (Err(error), Err(reason)) => assert!(error.contains(reason), "{name}: {error}"),
        (found, _) => panic!("{name}: {found:?}"),
    }
}

/// Each beside a sound tensor, which is read while nothing is run.
#[test]
fn nothing_is_called() {
    let folder = tempfile::tempdir().expect("folder");
    let canary = folder.path().join(CANARY);
    let shell = format!("touch {}", canary.display());
    let text = [&b"X"[..], &(shell.len() as u32).to_le_bytes(), shell.as_bytes()].concat();
    let call =
        |module: &str, name: &str| [format!("c{module}\n{name}\n").as_bytes(), &text, b"\x85R"].concat();
    let functions = [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("os", "popen"),
        ("os", "execl"),
        ("os", "remove"),
        ("os", "mkdir"),
        ("subprocess", "Popen"),
        ("subprocess", "call"),
        ("subprocess", "check_output"),
        ("subprocess", "getoutput"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "compile"),
        ("builtins", "open"),
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("builtins", "print"),
        ("__builtin__", "eval"),
        ("__builtin__", "execfile"),
        ("__builtin__", "apply"),
        ("io", "open"),
        ("pty", "spawn"),
        ("runpy", "_run_code"),
        ("runpy", "run_path"),
        ("code", "interact"),
        ("timeit", "timeit"),
        ("pickle", "loads"),
        ("_pickle", "loads"),
        ("marshal", "loads"),
        ("shutil", "rmtree"),
        ("socket", "create_connection"),
        ("urllib.request", "urlopen"),
        ("webbrowser", "open"),
        ("importlib", "import_module"),
        ("ctypes", "CDLL"),
        ("torch.hub", "load"),
        ("torch", "load"),
        ("torch.utils.cpp_extension", "load"),
        ("torch._utils", "_rebuild_wrapper_subclass"),
        ("operator", "attrgetter"),
        ("functools", "partial"),
        ("asyncio", "run"),
        ("pip", "main"),
        ("numpy.testing._private.utils", "runstring"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("_codecs", "encode"),
        ("collections", "Counter"),
    ];
    for (module, name) in functions {
        let what = format!("{module}.{name}");
        // What torch's own call makes is a tensor that is not read.
        let expected = if module == "torch._utils" { Err("is not read") } else { Ok(()) };
        check(folder.path(), &what, &with_pickle(&beside(&call(module, name))), expected);
        check(folder.path(), &what, &stream_with(&beside(&call(module, name))), expected);
        let stack_global = [
            &[0x8c, module.len() as u8][..],
            module.as_bytes(),
            &[0x8c, name.len() as u8],
            name.as_bytes(),
            b"\x93",
            &text,
            b"\x85R",
        ]
        .concat();
        check(folder.path(), &what, &with_pickle(&beside(&stack_global)), expected);
    }
    let system = call("os", "system");
    let rows: [(&str, Vec<u8>); 14] = [
        ("a call in a call", [b"cos\nsystem\n", &system[..], b"\x85R"].concat()),
        ("a call of what a call made", [&system[..], &text, b"\x85R"].concat()),
        ("a call hundred deep", [&b"cos\nsystem\n".repeat(100)[..], &text, &b"\x85R".repeat(100)].concat()),
        ("NEWOBJ", [b"csubprocess\nPopen\n", &text[..], b"\x85\x81"].concat()),
        ("NEWOBJ_EX", [b"csubprocess\nPopen\n", &text[..], b"\x85}U\x05shell\x88s\x92"].concat()),
        ("INST", [b"(", &text[..], b"isubprocess\nPopen\n"].concat()),
        ("OBJ", [b"(csubprocess\nPopen\n", &text[..], b"o"].concat()),
        ("BUILD", [b"cos\nPathLike\n)\x81}U\x09__class__", &system[..], b"sb"].concat()),
        (
            "__setstate__",
            [b"cos\nPathLike\n)\x81}U\x0c__setstate__cos\nsystem\nsb", &text[..], b"b"].concat(),
        ),
        (
            "__reduce__ by state",
            [b"ccollections\nOrderedDict\n)R}U\x0a__reduce__", &system[..], b"sb"].concat(),
        ),
        ("a call as a key", [b"}", &system[..], b"K\x01s"].concat()),
        ("a call in a set", [b"\x8f(", &system[..], b"\x90"].concat()),
        ("a defaultdict's factory", [b"ccollections\ndefaultdict\n", &system[..], b"\x85R"].concat()),
        ("a tensor of a call's type", b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nNN}tR".to_vec()),
    ];
    for (name, other) in rows {
        check(folder.path(), name, &with_pickle(&beside(&other)), Ok(()));
        check(folder.path(), name, &stream_with(&beside(&other)), Ok(()));
    }
    for (name, other, reason) in [
        ("EXT1", &b"\x82\x01"[..], "names objects of a registry"),
        ("EXT2", b"\x83\x01\x00", "names objects of a registry"),
        ("EXT4", b"\x84\x01\x00\x00\x00", "names objects of a registry"),
        ("NEXT_BUFFER", b"\x97", "needs buffers"),
        ("READONLY_BUFFER", b"N\x98", "needs buffers"),
    ] {
        check(folder.path(), name, &with_pickle(&beside(other)), Err(reason));
    }
    assert!(!canary.exists(), "something ran");
}

#[test]
fn pickles_beyond_reason_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let million = |steps: &[u8], count: usize| dict_of(&steps.repeat(count));
    let laughs = [&b"]"[..], &b"q\x000h\x00h\x00\x86".repeat(60)].concat();
    let shared = [&b"}"[..], &b"q\x000}(U\x01ah\x00U\x01bh\x00u".repeat(60)].concat();
    let long = |opcode: &[u8], length: &[u8]| dict_of(&[opcode, length].concat());
    let rows: [(&str, Vec<u8>, &str); 58] = [
        ("500,000 keys of 8 MB", dict_of(&long_keys(500_000)), "without named tensors"),
        ("a long list looked through again and again", dict_of(&long_arguments(500_000)), "without named tensors"),
        ("a long list of pairs but the last, looked through again and again", dict_of(&all_but_one_pair(200_000)), "no pairs"),
        ("texts of a list that is not kept", long_lists(500_000), "without named tensors"),
        ("a tensor with a name of 1,001 bytes", named_long(&tensor(&[4], &[1], 0)), "longer than 1000 bytes"),
        ("a tensor within what has a name of 1,001 bytes", named_long(&[b"]", &tensor(&[4], &[1], 0)[..], b"a"].concat()), "longer than 1000 bytes"),
        ("nothing with a name of 1,001 bytes", named_long(b"N"), "without named tensors"),
        ("100,000 storages with names of 8 MB", dict_of(&long_storages(100_000)), "a storage is none"),
        ("100,000 modules of 100,000 attributes", dict_of(&many_modules(100_000)), "over and over"),
        ("a million tensors of 64 dimensions", dict_of(&many_tensors(1_000_000)), "objects"),
        ("a large dictionary made again and again", dict_of(&many_dictionaries(100_000)), "objects"),
        ("5 million objects", million(b"N", 5_000_000), "more than 2097152 objects"),
        ("5 million lists", million(b"]", 5_000_000), "objects"),
        ("5 million tuples in each other", [b"\x80\x02]", &b"\x85".repeat(5_000_000)[..], b"."].concat(), "objects"),
        ("5 million marks", million(b"(", 5_000_000), "more than 4194304 steps"),
        ("5 million texts", million(b"U\x00", 5_000_000), "objects"),
        ("5 million numbers", million(b"K\x00", 5_000_000), "objects"),
        ("5 million DUP", million(b"2", 5_000_000), "steps"),
        ("5 million DUP of one", [b"\x80\x02N", &b"2".repeat(5_000_000)[..], b"."].concat(), "steps"),
        ("5 million memo puts", dict_of(&[&b"N"[..], &b"\x94".repeat(5_000_000)].concat()), "steps"),
        ("memo puts of all numbers", many_puts(3_000_000), "without named tensors"),
        ("5 million gets", dict_of(&[&b"Nq\x00"[..], &b"h\x00".repeat(5_000_000)].concat()), "steps"),
        ("frames within frames", million(b"\x95\x00\x00\x00\x00\x00\x00\x00\x00", 3_000_000), "object is missing"),
        ("pops", million(b"N0", 5_000_000), "objects"),
        ("a bomb of tuples", dict_of(&laughs), "over and over"),
        ("a bomb of dictionaries", dict_of(&shared), "over and over"),
        ("a list in itself", b"\x80\x02}q\x00U\x01w]q\x01h\x01as.".to_vec(), "over and over"),
        ("a dictionary in itself", b"\x80\x02}q\x00U\x01wh\x00s.".to_vec(), "over and over"),
        ("an object in itself", b"\x80\x02}q\x00U\x01wcm\nM\n)\x81q\x01}(U\x0b_parameters}U\x08_buffers}U\x08_modules}U\x01mh\x01sub s.".to_vec(), "damaged"),
        ("a module in itself", module_in_itself(), "over and over"),
        ("lists 1,000 deep", dict_of(&[&b"]".repeat(1000)[..], &b"a".repeat(999)].concat()), "deeper"),
        ("dictionaries 100,000 deep", dict_of(&[&b"}U\x01a".repeat(100_000)[..], b"N", &b"s".repeat(100_000)].concat()), "deeper"),
        ("tuples 100,000 deep", dict_of(&[&b"N"[..], &b"\x85".repeat(100_000)].concat()), "deeper"),
        ("calls 100,000 deep", dict_of(&[&b"cm\nf\n".repeat(100_000)[..], b"N", &b"\x85R".repeat(100_000)].concat()), "without named tensors"),
        ("tensors of tensors", dict_of(&nested_types(1000)), "without named tensors"),
        ("BINUNICODE of 4 GiB", long(b"X", b"\xff\xff\xff\xff"), "4294967295 bytes"),
        ("BINUNICODE of 30 MB", long(b"X", b"\x00\x00\xd0\x01"), "cut off"),
        ("BINUNICODE8 of 2^63", long(b"\x8d", &(1u64 << 63).to_le_bytes()), "9223372036854775808 bytes"),
        ("BINUNICODE8 of 2^64 - 1", long(b"\x8d", &u64::MAX.to_le_bytes()), "18446744073709551615 bytes"),
        ("BINBYTES of 4 GiB", long(b"B", b"\xff\xff\xff\xff"), "4294967295 bytes"),
        ("BINBYTES8 of 2^64 - 1", long(b"\x8e", &u64::MAX.to_le_bytes()), "18446744073709551615 bytes"),
        ("BYTEARRAY8 of 2^40", long(b"\x96", &(1u64 << 40).to_le_bytes()), "1099511627776 bytes"),
        ("BINSTRING of 4 GiB", long(b"T", b"\xff\xff\xff\xff"), "4294967295 bytes"),
        ("LONG4 of 4 GiB", long(b"\x8b", b"\xff\xff\xff\xff"), "4294967295 bytes"),
        ("LONG4 of 2 GiB", long(b"\x8b", b"\xff\xff\xff\x7f"), "2147483647 bytes"),
        ("a line without an end", dict_of(&[&b"V"[..], &b"a".repeat(1 << 20)].concat()), "cut off"),
        ("a class without an end", dict_of(b"ca"), "cut off"),
        ("a pickle without an end", b"\x80\x02}".to_vec(), "cut off"),
        ("an empty pickle", vec![], "cut off"),
        ("nothing on the stack", b"\x80\x02.".to_vec(), "object is missing"),
        ("a mark only", b"\x80\x02(.".to_vec(), "object is missing"),
        ("an unknown step", b"\x80\x02\xff.".to_vec(), "no step 0xff"),
        ("an unknown number", b"\x80\x02h\x07.".to_vec(), "not there"),
        ("a number that is none", b"\x80\x02Ix\n.".to_vec(), "a number is none"),
        ("a key without a value", b"\x80\x02}(N u.".to_vec(), "no step 0x20"),
        ("a key that is missing", b"\x80\x02}(Nu.".to_vec(), "a key has no value"),
        ("what is no list grows", b"\x80\x02NNa.".to_vec(), "what is no list grows"),
        ("what is no dictionary grows", b"\x80\x02NNNs.".to_vec(), "what is no dictionary grows"),
    ];
    for (name, pickle, reason) in rows {
        check(folder.path(), name, &with_pickle(&pickle), Err(reason));
        let error = tried(folder.path(), &stream_with(&pickle)).expect_err(name);
        assert!(error.contains(reason) || !error.is_empty(), "{name} in a stream: {error}");
    }
}

/// Each of three steps only: what it is made of is the same.
fn many_tensors(count: usize) -> Vec<u8> {
    let ones = [&b"("[..], &b"K\x01".repeat(64), b"t"].concat();
    let first = b"ctorch._utils\n_rebuild_tensor_v2\nq\x00((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x10tQK\x00";
    [&first[..], &ones, &ones, b"\x89Ntq\x01", &b"h\x00h\x01R".repeat(count)].concat()
}

fn long_text() -> Vec<u8> {
    [&b"X"[..], &(8u32 << 20).to_le_bytes(), &b"k".repeat(8 << 20)].concat()
}

fn long_keys(count: usize) -> Vec<u8> {
    [&b"}("[..], &long_text(), b"q\x00N", &b"h\x00N".repeat(count), b"u"].concat()
}

fn long_arguments(count: usize) -> Vec<u8> {
    let open = b"(ccollections\nOrderedDict\nq\x00(";
    [&open[..], &b"N".repeat(count), b"tq\x01", &b"h\x00h\x01R0".repeat(count), b"t"].concat()
}

fn all_but_one_pair(count: usize) -> Vec<u8> {
    let open = b"(ccollections\nOrderedDict\nq\x00((";
    let pairs = b"NN\x86".repeat(count);
    [&open[..], &pairs, b"Nltq\x01", &b"h\x00h\x01R0".repeat(count), b"t"].concat()
}

/// A list of the longest texts that ends with what is none.
fn long_lists(count: usize) -> Vec<u8> {
    let text = [&b"X"[..], &4096u32.to_le_bytes(), &b"k".repeat(4096)].concat();
    let list = [&b"\x80\x02}(U\x01x("[..], &text, b"q\x00", &b"h\x00".repeat(62), b"Nlq\x01"].concat();
    [&list[..], &b"K\x01h\x01".repeat(count), b"u."].concat()
}

fn named_long(value: &[u8]) -> Vec<u8> {
    let key = [&b"X"[..], &1001u32.to_le_bytes(), &b"k".repeat(1001)].concat();
    [&b"\x80\x02}"[..], &key, value, b"s."].concat()
}

fn long_storages(count: usize) -> Vec<u8> {
    let pid = b"(U\x07storagectorch\nFloatStorage\nh\x00U\x03cpuK\x10tQ0";
    [&long_text()[..], b"q\x00", &pid.repeat(count)].concat()
}

fn many_modules(count: usize) -> Vec<u8> {
    let tables = b"(U\x0b_parameters}U\x08_buffers}U\x08_modules}";
    let attributes = b"NN".repeat(count);
    let modules = b"cm\nM\n)\x81h\x00b".repeat(count);
    [&b"(}"[..], tables, &attributes, b"uq\x00", &modules, b"l"].concat()
}

fn many_dictionaries(count: usize) -> Vec<u8> {
    let pairs = b"NN\x86".repeat(100_000);
    [&b"ccollections\nOrderedDict\nq\x00(]("[..], &pairs, b"etq\x01", &b"h\x00h\x01R".repeat(count)].concat()
}

fn many_puts(count: u32) -> Vec<u8> {
    let steps: Vec<u8> =
        (0..count).flat_map(|index| [[b'r'].as_slice(), &index.to_le_bytes()].concat()).collect();
    dict_of(&[&b"N"[..], &steps].concat())
}

fn module_in_itself() -> Vec<u8> {
    let text = |text: &str| [&[b'U', text.len() as u8][..], text.as_bytes()].concat();
    let tables = [
        text("_parameters"),
        b"}".to_vec(),
        text("_buffers"),
        b"}".to_vec(),
        text("_modules"),
        b"}U\x01mh\x01s".to_vec(),
    ];
    [&b"\x80\x02}U\x01wcm\nM\n)\x81q\x01}("[..], &tables.concat(), b"ubs."].concat()
}

fn nested_types(count: usize) -> Vec<u8> {
    let open =
        b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\nN".repeat(count);
    [&open[..], b"N", &b"}tR".repeat(count)].concat()
}

/// Storages that are parts of others are named in a list, which may name one of them a million times.
#[test]
fn the_oldest_archives_beyond_reason_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let parts = |name: usize, count: usize| {
        let name = [&b"X"[..], &(name as u32).to_le_bytes(), &b"k".repeat(name)].concat();
        let part = [&b"\x80\x02](("[..], &name, b"K\x00K\x00K\x01tq\x00"].concat();
        tar_with(&[&part[..], &b"h\x00".repeat(count - 1), b"e."].concat())
    };
    for (name, file, expected) in [
        ("none", tar_with(b"\x80\x02]."), Ok(())),
        ("one", parts(256, 1), Ok(())),
        ("a name of 257 bytes", parts(257, 1), Err("a part of a storage is none")),
        ("a name of 16 MB a million times", parts(16 << 20, 1_000_000), Err("parts of storages are none")),
        ("65,536 parts", parts(1, 1 << 16), Ok(())),
        ("65,537 parts", parts(1, (1 << 16) + 1), Err("the parts of storages are none")),
    ] {
        check(folder.path(), name, &file, expected);
    }
}

/// Each tensor would be unpacked from the storage's beginning.
#[test]
fn many_tensors_of_one_packed_storage_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let elements = 4u32 << 20;
    let packed = deflated("a/data/0", &vec![0; 4 * elements as usize]);
    let file = |count: u8| {
        let tensor = |index: u8| {
            let open =
                b"ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuJ";
            let (all, last) = (elements.to_le_bytes(), (elements - 1).to_le_bytes());
            let rest = [&all[..], b"tQJ", &last, b"K\x01\x85K\x01\x85\x89NtR"].concat();
            [&[b'U', 1, b'w' - index][..], open, &rest].concat()
        };
        let tensors: Vec<u8> = (0..count).flat_map(tensor).collect();
        archive(&[entry("a/data.pkl", &[b"\x80\x02}(", &tensors[..], b"u."].concat()), packed.clone()])
    };
    for (count, expected) in [(2, Ok(())), (21, Err("many tensors in one packed storage"))] {
        check(folder.path(), &count.to_string(), &file(count), expected);
    }
}

/// A sound pickle about tensors that cannot be.
#[test]
fn tensors_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let most = u32::MAX >> 1;
    let rows: [(&str, Vec<u8>, Result<(), &str>); 16] = [
        ("sound", tensor(&[4, 4], &[4, 1], 0), Ok(())),
        ("turned", tensor(&[4, 4], &[1, 4], 0), Ok(())),
        ("a view", tensor(&[2, 2], &[4, 1], 5), Ok(())),
        ("of nothing", tensor(&[0, 4], &[4, 1], 16), Ok(())),
        ("of nothing and anything", tensor(&[0, most, most], &[1, 1, 1], 0), Ok(())),
        ("one element repeated", tensor(&[1000, 1000], &[0, 0], 0), Ok(())),
        ("one element repeated 2^31 times", tensor(&[most], &[0], 0), Err("would take")),
        ("one element repeated 2^62 times", tensor(&[most, most], &[0, 0], 0), Err("would take")),
        (
            "one element repeated beyond all numbers",
            tensor(&[most, most, most], &[0, 0, 0], 0),
            Err("lies outside"),
        ),
        ("one too many", tensor(&[17], &[1], 0), Err("lies outside its storage")),
        ("one too far", tensor(&[4, 4], &[4, 1], 1), Err("lies outside its storage")),
        ("strides beyond", tensor(&[2, 2], &[most, most], 0), Err("lies outside its storage")),
        ("an offset beyond", tensor(&[1], &[1], most), Err("lies outside its storage")),
        ("a negative size", tensor(&[u32::MAX], &[1], 0), Err("shape is none")),
        ("more strides than sizes", tensor(&[2], &[1, 1], 0), Err("other strides")),
        ("65 dimensions", tensor(&[1; 65], &[1; 65], 0), Err("shape is none")),
    ];
    for (name, steps, expected) in rows {
        check(folder.path(), name, &with_pickle(&dict_of(&steps)), expected);
        check(folder.path(), name, &stream_with(&dict_of(&steps)), expected);
    }
    let huge = |count: &[u8]| {
        let pid = [
            &b"((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpu"[..],
            count,
            b"tQK\x00K\x01\x85K\x01\x85\x89NtR",
        ];
        dict_of(&[&b"ctorch._utils\n_rebuild_tensor_v2\n"[..], &pid.concat()].concat())
    };
    for (name, count) in [
        ("a storage of 2^62 elements", &b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40"[..]),
        ("a storage of -1 elements", b"J\xff\xff\xff\xff"),
        ("a storage of a text", b"U\x01a"),
        ("a storage of 2^70 elements", b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x40"),
    ] {
        for file in [with_pickle(&huge(count)), stream_with(&huge(count))] {
            // What the archive has of it is enough for one element.
            let outcome = tried(folder.path(), &file);
            assert!(
                outcome.is_ok() == outcome.as_ref().is_ok_and(|names| names == &["w"]),
                "{name}: {outcome:?}"
            );
        }
    }
    let same =
        [b"\x80\x02}(U\x03a.b", &tensor(&[1], &[1], 0)[..], b"U\x01a}U\x01b", &tensor(&[2], &[1], 0), b"su."]
            .concat();
    check(folder.path(), "two tensors of a name", &with_pickle(&same), Err("two tensors called a.b"));
}

#[test]
fn archives_that_lie_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let pickle = dict_of(&tensor(&[4, 4], &[4, 1], 0));
    let sound = [entry("a/data.pkl", &pickle), entry("a/data/0", &[7; 64])];
    let changed = |change: &dyn Fn(&mut [Entry; 2])| {
        let mut entries = sound.clone();
        change(&mut entries);
        archive(&entries)
    };
    let with = |name: &str| archive(&[sound[0].clone(), sound[1].clone(), entry(name, b"x")]);
    let whole = archive(&sound);
    let end = whole.len() - 22;
    let patched = |at: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let zeros = vec![0; 100 << 20];
    let nested = with_pickle(&pickle);
    let rows: [(&str, Vec<u8>, Result<(), &str>); 38] = [
        ("sound", whole.clone(), Ok(())),
        ("deflated", archive(&[deflated("a/data.pkl", &pickle), deflated("a/data/0", &[7; 64])]), Ok(())),
        ("another folder's pickle", with("b/c/data.pkl"), Ok(())),
        ("a name of no UTF-8", changed(&|e| e[1].name = b"a/data/\xff".to_vec()), Err("has no storage")),
        ("a name of 60,000 bytes", with(&"a".repeat(60_000)), Ok(())),
        ("a storage that is missing", changed(&|e| e[1].name = b"a/data/1".to_vec()), Err("has no storage")),
        (
            "a storage that is short",
            changed(&|e| e[1] = entry("a/data/0", &[7; 63])),
            Err("lies outside its storage"),
        ),
        ("an empty storage", changed(&|e| e[1] = entry("a/data/0", b"")), Err("lies outside its storage")),
        ("../", with("../outside"), Err("lead out of it")),
        ("a/../../", with("a/../../outside"), Err("lead out of it")),
        ("..\\", with("..\\outside"), Err("lead out of it")),
        ("/etc/passwd", with("/etc/passwd"), Err("lead out of it")),
        ("a pickle above", changed(&|e| e[0].name = b"../data.pkl".to_vec()), Err("lead out of it")),
        (
            "a zip bomb for a storage",
            archive(&[sound[0].clone(), deflated("a/data/0", &zeros)]),
            Err("would unpack to"),
        ),
        (
            "a zip bomb for a pickle",
            archive(&[deflated("a/data.pkl", &zeros), sound[1].clone()]),
            Err("would unpack to"),
        ),
        (
            "a zip bomb of a pickle that is allowed",
            archive(&[deflated("a/data.pkl", &vec![b'N'; 31 << 20]), sound[1].clone()]),
            Err("objects"),
        ),
        (
            "a zip bomb that says it is small",
            archive(&[Entry { length: 64, ..deflated("a/data.pkl", &zeros) }, sound[1].clone()]),
            Err("no step 0x00"),
        ),
        (
            "a zip bomb of many",
            archive(&[&[sound[0].clone()], &vec![deflated("a/x", &zeros[..8 << 20]); 40][..]].concat()),
            Err("would unpack to"),
        ),
        (
            "an archive in an archive",
            archive(&[entry("a/data.pkl", &nested), sound[1].clone()]),
            Err("damaged"),
        ),
        ("a packed length of 4 GiB", changed(&|e| e[1].length = u32::MAX - 1), Err("two lengths")),
        ("a length of 64 bits that is missing", changed(&|e| e[1].length = u32::MAX), Err("two lengths")),
        ("overlapping entries", changed(&|e| e[1].offset = Some(0)), Err("overlap")),
        ("an entry beyond the end", changed(&|e| e[1].offset = Some(1 << 30)), Err("not there")),
        ("an entry in the middle of another", changed(&|e| e[1].offset = Some(9)), Err("not there")),
        ("an unknown method", changed(&|e| e[1].method = 12), Err("method 12")),
        ("an unknown method of the pickle", changed(&|e| e[0].method = 99), Err("method 99")),
        ("no deflate", changed(&|e| e[0].method = 8), Err("damaged")),
        ("without a pickle", archive(&[sound[1].clone()]), Err("without the data.pkl")),
        ("nothing in it", archive(&[]), Err("without the data.pkl")),
        ("65,535 entries that are not there", archive_of(&sound, 65_535), Err("directory is damaged")),
        ("fewer entries than there are", archive_of(&sound, 1), Err("directory is damaged")),
        ("no directory", patched(end + 12, &[0; 4]), Err("not where it should be")),
        ("a directory of 4 GiB", patched(end + 12, &[0xff; 4]), Err("not where it should be")),
        ("a directory beyond the end", patched(end + 16, &[0xff; 4]), Err("not where it should be")),
        ("something behind the end", [&whole[..], b"x"].concat(), Err("behind its end")),
        ("an end only", b"PK\x05\x06".to_vec(), Err("cut off")),
        ("a beginning only", b"PK\x03\x04".to_vec(), Err("cut off")),
        (
            "big-endian",
            archive(&[sound[0].clone(), sound[1].clone(), entry("a/byteorder", b"big")]),
            Err("big-endian"),
        ),
    ];
    for (name, file, expected) in rows {
        check(folder.path(), name, &file, expected);
    }
    let large = |count: u64| {
        let mut file = whole[..end].to_vec();
        let (start, at) =
            (u32::from_le_bytes(whole[end + 16..end + 20].try_into().expect("4 bytes")), file.len() as u64);
        file.extend(b"PK\x06\x06");
        for (value, bytes) in [
            (44, 8),
            (0, 12),
            (0, 0),
            (count, 8),
            (count, 8),
            (at - u64::from(start), 8),
            (u64::from(start), 8),
        ] {
            file.extend(&value.to_le_bytes()[..bytes.min(8)]);
            file.extend(vec![0; bytes.saturating_sub(8)]);
        }
        file.extend(b"PK\x06\x07\0\0\0\0");
        number(&mut file, at, 8);
        number(&mut file, 1, 4);
        file.extend(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0");
        file
    };
    check(folder.path(), "64 bits", &large(2), Ok(()));
    for count in [10_000_000, u64::MAX, 1 << 63] {
        check(folder.path(), "entries beyond reason", &large(count), Err("65536 are allowed"));
    }
}

/// Cut at each length, and with each bit turned: no panic, and the file's name in each refusal.
#[test]
fn damaged_files_are_refused_or_read() {
    let folder = tempfile::tempdir().expect("folder");
    let small = dict_of(&tensor(&[4, 4], &[4, 1], 0));
    let tar = fs::read(containers().join("tar.pt")).expect("fixture");
    for sound in [with_pickle(&small), stream_with(&small)] {
        for length in 0..sound.len() {
            assert!(tried(folder.path(), &sound[..length]).is_err(), "{length} of {} bytes", sound.len());
        }
        for position in 0..sound.len() {
            for bit in 0..8 {
                let mut file = sound.clone();
                file[position] ^= 1 << bit;
                tried_in_memory(&file).ok();
            }
        }
    }
    for length in 0..tar.len() {
        tried_in_memory(&tar[..length]).ok();
    }
    for position in (0..tar.len()).filter(|position| tar[*position] != 0 || position % 8 == 0) {
        let mut file = tar.clone();
        file[position] ^= 1 << (position % 8);
        tried_in_memory(&file).ok();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Several bytes at once, in files that torch wrote.
    #[test]
    fn no_changed_bytes_make_the_reader_panic(
        file in 0usize..6,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        length in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let names =
            ["zip-2.pt", "zip-views.pt", "legacy-4.pt", "legacy-1.pt", "zip-module.pt", "again-deflated.pt"];
        let mut bytes = fs::read(containers().join(names[file])).expect("fixture");
        if cut {
            bytes.truncate(length.index(bytes.len()).max(64));
        }
        for (position, value) in changes {
            let position = position.index(bytes.len());
            bytes[position] = value;
        }
        tried_in_memory(&bytes).ok();
    }
}

/// Another program shortens the file while it is open.
#[test]
fn a_file_that_changes_while_it_is_open_is_an_error() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("changing.pt");
    let storage = vec![7; 1 << 20];
    let many = dict_of(&tensor(&[4, 4], &[4, 1], 0));
    fs::write(
        &path,
        archive(&[entry("a/data.pkl", &many), entry("a/x", &storage), entry("a/data/0", &[7; 64])]),
    )
    .expect("written");
    let file = files::open(&path).expect("opens");
    fs::File::options().write(true).open(&path).and_then(|file| file.set_len(4096)).expect("shortened");
    // Zeros stand in for what is gone.
    let bytes = file.bytes("w").expect("still mapped").expect("named");
    assert!(bytes.iter().all(|byte| *byte == 0), "{bytes:?}");
    let error = file.check_intact().expect_err("cut off").to_string();
    assert!(error.contains("was cut off by another program"), "{error}");
    fs::remove_file(&path).expect("removed");
}
