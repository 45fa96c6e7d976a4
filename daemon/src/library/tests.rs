//! A library over a folder of small files: what is found, by which names, and when it is looked at again.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::*;

/// A file of the fixtures: a small checkpoint with random weights.
pub(super) fn tiny() -> Vec<u8> {
    let path = "../tests/fixtures/models/Stable-diffusion/tiny-sd1.safetensors";
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("read")
}

/// The same with its header changed; offsets count from the header's end.
fn changed(change: impl FnOnce(&mut Map<String, Value>, &mut Vec<u8>)) -> Vec<u8> {
    let bytes = tiny();
    let (length, rest) = bytes.split_first_chunk::<8>().expect("a length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let (mut header, mut data) = (serde_json::from_slice(header).expect("a header"), data.to_vec());
    change(&mut header, &mut data);
    let header = serde_json::to_vec(&header).expect("JSON");
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

/// Nothing but a name: a LoRA of one number.
pub(super) fn lora() -> Vec<u8> {
    let header = br#"{"a.lora_up.weight":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}"#;
    [&(header.len() as u64).to_le_bytes()[..], header, &[0, 0]].concat()
}

struct Shop {
    library: Library,
    models: PathBuf,
    events: Arc<Mutex<Vec<LibraryEvent>>>,
    folder: tempfile::TempDir,
}

impl Shop {
    /// With these files, whose paths begin in the models folder.
    fn with(files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let models = folder.path().join("models");
        fs::create_dir_all(&models).expect("made");
        let shop = Self::over(folder, vec![models]);
        for (path, bytes) in files {
            shop.put(path, bytes);
        }
        shop.library.rescan();
        shop
    }

    fn over(folder: tempfile::TempDir, folders: Vec<PathBuf>) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&events);
        let models = folders.first().cloned().unwrap_or_default();
        let tell = move |event: &LibraryEvent| told.lock().expect("sound").push(event.clone());
        let library = Library::open(folders, folder.path(), tell);
        Self { library, models, events, folder }
    }

    fn put(&self, path: &str, bytes: &[u8]) -> PathBuf {
        let path = self.models.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, bytes).expect("written");
        path
    }

    fn find(&self, name: &str) -> Result<Item> {
        self.library.find(LibraryKind::Checkpoint, name)
    }

    /// The path of what a name means, inside the models folder.
    fn path_of(&self, name: &str) -> String {
        let item = self.find(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        self.inside(item.path().expect("a file"))
    }

    fn inside(&self, path: &Path) -> String {
        path.strip_prefix(&self.models).expect("inside").display().to_string()
    }

    fn problems(&self) -> Vec<(String, String)> {
        let snapshot = self.library.snapshot();
        let told = |problem: &Problem| (self.inside(&problem.path), problem.reason.clone());
        snapshot.problems.iter().map(told).collect()
    }

    fn names(&self) -> Vec<String> {
        let snapshot = self.library.snapshot();
        snapshot.entries.iter().filter(|item| !item.is_built_in()).map(|item| item.name.clone()).collect()
    }

    fn pin(&self, name: &str, waiter: &dyn Waiter) -> Result<Arc<Pinned>> {
        self.library.pin(Some(name), "", waiter)
    }

    /// Waits until the folders have been at rest, so that what is known of them is believed.
    fn rest(&self) {
        let deadline = std::time::Instant::now() + Duration::from_mins(1);
        while !self.library.rescan().is_current() {
            assert!(std::time::Instant::now() < deadline, "never at rest");
        }
    }

    fn text_of(&self, name: &str) -> (Class, String) {
        let error = self.find(name).expect_err("refused");
        (error.class, error.text)
    }
}

#[test]
fn what_is_listed_as_usable_loads_and_what_is_not_says_why() {
    let retyped = |name: &'static str, dtype: &'static str, size: usize| {
        changed(move |header, data| {
            let old = header.remove(name).expect("a tensor");
            let count = old["shape"][0].as_u64().expect("a number") as usize;
            let (start, end) = (data.len(), data.len() + count * size);
            data.resize(end, 0);
            header
                .insert(name.into(), json!({"dtype": dtype, "shape": [count], "data_offsets": [start, end]}));
            header.insert("old".into(), old);
        })
    };
    let bias = "model.diffusion_model.out.2.bias";
    let without = |prefix: &'static str, name: &'static str| {
        changed(move |header, _| {
            let names: Vec<_> = header.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
            for old in names {
                let entry = header.remove(&old).expect("there");
                header.insert(old.replacen(prefix, name, 1), entry);
            }
        })
    };
    let rows: [(&str, Vec<u8>, Class, &str); 7] = [
        ("u8", retyped(bias, "U8", 1), Class::Model, "out.2.bias is of type U8"),
        ("i64", retyped("model.diffusion_model.time_embed.0.bias", "I64", 8), Class::Model, "is of type I64"),
        ("no-text", without("cond_stage_model.", "none."), Class::Model, "no text encoder"),
        ("a-b", without("model.diffusion_model.middle_block.", "none."), Class::Model, "missing tensor"),
        ("x0", tiny(), Class::Unsupported, "predicts \"x0\""),
        ("html", b"<!doctype html><html>".to_vec(), Class::Model, "is a web page"),
        (
            "told",
            changed(|header, _| {
                header.insert("__metadata__".into(), json!({"modelspec.prediction_type": "sample"}));
            }),
            Class::Unsupported,
            "predicts \"sample\"",
        ),
    ];
    let shop = Shop::with(&[
        ("Stable-diffusion/zz-good.safetensors", &tiny()),
        ("Stable-diffusion/no-vae.safetensors", &without("first_stage_model.", "none.")),
    ]);
    for (name, bytes, ..) in &rows {
        shop.put(&format!("Stable-diffusion/{name}.safetensors"), bytes);
    }
    let config = shop.put("Stable-diffusion/x0.yaml", b"parameterization: x0\n");
    // Twice: as found, and as the index knows it.
    for _ in 0..2 {
        shop.library.rescan();
        assert_eq!(shop.names(), ["no-vae", "zz-good"]);
        for (name, _, class, expected) in &rows {
            let path = format!("Stable-diffusion/{name}.safetensors");
            let (_, reason) = shop.problems().into_iter().find(|(at, _)| *at == path).expect(name);
            assert!(reason.contains(expected), "{name}: {reason}");
            let (found, text) = shop.text_of(name);
            assert!(found == *class && text.contains(expected), "{name}: {found:?} {text}");
        }
        let default = shop.library.default_checkpoint("").expect("one that draws");
        assert_eq!(default.name, "zz-good", "whatever comes before it by name");
    }
    let good = shop.library.pin(None, "", &Patient).expect("pinned");
    assert_eq!(good.item().name, "zz-good");
    good.checkpoint().expect("loads");
    // What a configuration says is looked at again when it changes.
    for (text, prediction) in
        [(Some("parameterization: v"), Prediction::Velocity), (None, Prediction::Epsilon)]
    {
        match text {
            Some(text) => fs::write(&config, text).expect("written"),
            None => fs::remove_file(&config).expect("removed"),
        }
        assert_eq!(shop.find("x0").expect("usable").facts.prediction, Some(prediction));
    }
}

#[test]
fn checkpoints_of_other_architectures_say_so_and_what_else_is_held_is_told() {
    let shop = Shop::with(&[]);
    let with_control = changed(|header, _| {
        let end = header.values().filter_map(|entry| entry["data_offsets"][1].as_u64()).max().expect("some");
        let entry = json!({"dtype": "F16", "shape": [0], "data_offsets": [end, end]});
        header.insert("control_model.input_hint_block.0.weight".into(), entry);
    });
    shop.put("Stable-diffusion/both.safetensors", &with_control);
    let sdxl = br#"{"model.diffusion_model.input_blocks.0.0.weight":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},
        "conditioner.embedders.0.w":{"dtype":"F16","shape":[1],"data_offsets":[2,4]}}"#;
    let sdxl = [&(sdxl.len() as u64).to_le_bytes()[..], sdxl, &[0; 4]].concat();
    shop.put("Stable-diffusion/a-large.safetensors", &sdxl);
    shop.library.rescan();
    let entry = |name: &str| shop.library.entry(&shop.find(name).expect("listed"));
    let both = entry("both");
    assert_eq!((both.also, both.prediction.as_deref()), (vec![LibraryKind::Controlnet], Some("epsilon")));
    assert_eq!(both.unsupported, None);
    let large = entry("a-large");
    assert!(large.unsupported.is_some_and(|why| why.contains("sdxl")) && large.prediction.is_none());
    assert_eq!(shop.library.default_checkpoint("").expect("one").name, "both");
}

#[test]
fn names_are_found_as_a1111_writes_them() {
    let shop = Shop::with(&[
        ("Stable-diffusion/anime/v2.safetensors", &tiny()),
        ("Stable-diffusion/with [brackets] [0123abcd].safetensors", &tiny()),
        ("Lora/anime/v2.safetensors", &lora()),
    ]);
    let expected = "Stable-diffusion/anime/v2.safetensors";
    let old = shop.find("v2").expect("found").facts.old_hash.expect("told at the scan");
    let pinned = shop.pin("v2", &Patient).expect("pinned");
    let sha256 = pinned.sha256(&|| false).expect("hashed");
    for name in
        ["v2", "anime/v2", "anime/v2.safetensors", "anime\\v2.safetensors", "anime_v2", "v2.safetensors"]
    {
        assert_eq!(shop.path_of(name), expected, "{name}");
        for hash in [&old, &sha256[..8], &sha256[..10], &sha256, &sha256[..10].to_uppercase()] {
            assert_eq!(shop.path_of(&format!("{name} [{hash}]")), expected, "{name} [{hash}]");
        }
        let (class, text) = shop.text_of(&format!("{name} [ffffffffff]"));
        assert!(class == Class::NotFound && text.contains(&sha256[..10]), "{text}");
    }
    // A file whose very name ends so.
    let odd = "with [brackets] [0123abcd]";
    assert_eq!(shop.path_of(odd), format!("Stable-diffusion/{odd}.safetensors"));
    assert_eq!(shop.path_of(&sha256[..10]), expected);
    // One that was renamed is found by the hash it is written with.
    assert_eq!(shop.path_of(&format!("gone.safetensors [{}]", &sha256[..10])), expected);
    let entry = shop.library.find(LibraryKind::Lora, "anime/v2").expect("of its kind");
    assert_eq!(entry.kind, LibraryKind::Lora);
    for refused in ["", "../v2", "a\\..\\v2", "/etc/passwd", "a\0"] {
        assert_eq!(shop.text_of(refused).0, Class::InvalidParams, "{refused}");
    }
}

#[test]
fn a_name_that_several_files_have_is_an_error_that_tells_them_apart() {
    let shop = Shop::with(&[
        ("Stable-diffusion/model.safetensors", &tiny()),
        ("Stable-diffusion/a/model.safetensors", &tiny()),
        ("Stable-diffusion/broken/model.safetensors", b"broken"),
    ]);
    for name in ["model", "model.safetensors"] {
        let (class, text) = shop.text_of(name);
        assert_eq!(class, Class::InvalidParams, "{text}");
        for path in ["Stable-diffusion/model.safetensors", "Stable-diffusion/a/model.safetensors"] {
            assert!(text.contains(&format!("'{path}'")), "{text}");
            assert_eq!(shop.path_of(path), path, "what it says works");
        }
        assert!(!text.contains("broken"), "{text}");
    }
    assert_eq!(shop.path_of("a/model"), "Stable-diffusion/a/model.safetensors");
    // Copies have one hash, and links are one file.
    let sha256 = shop.pin("a/model", &Patient).expect("pinned").sha256(&|| false).expect("hashed");
    shop.pin("Stable-diffusion/model", &Patient).expect("pinned").sha256(&|| false).expect("hashed");
    shop.find(&sha256).expect("either");
    fs::remove_file(shop.models.join("Stable-diffusion/a/model.safetensors")).expect("removed");
    assert_eq!(shop.path_of("model"), "Stable-diffusion/model.safetensors");
    symlink("../model.safetensors", shop.models.join("Stable-diffusion/a/model.safetensors"))
        .expect("linked");
    shop.library.rescan();
    shop.find("model").expect("one file by two names");
    // In two models folders of one layout only whole paths differ.
    let other = shop.folder.path().join("other");
    fs::create_dir_all(other.join("Stable-diffusion")).expect("made");
    fs::copy(
        shop.models.join("Stable-diffusion/model.safetensors"),
        other.join("Stable-diffusion/model.safetensors"),
    )
    .expect("copied");
    let folder = tempfile::tempdir().expect("a folder");
    let both = Shop::over(folder, vec![shop.models.clone(), other.clone()]);
    both.library.rescan();
    let (_, text) = both.text_of("Stable-diffusion/model");
    assert!(text.contains(&other.display().to_string()), "{text}");
}

/// Counts, and cancels once it was asked so often.
#[derive(Default)]
struct Counting {
    asked: AtomicU64,
    patience: Option<u64>,
    told: Mutex<Vec<(u64, u64)>>,
}

impl Waiter for Counting {
    fn is_cancelled(&self) -> bool {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        self.patience.is_some_and(|patience| asked >= patience)
    }

    fn hashed(&self, done: u64, total: u64) {
        self.told.lock().expect("sound").push((done, total));
    }
}

#[test]
fn a_hash_that_is_not_known_is_computed_for_who_waits() {
    let tiny = tiny();
    let shop = Shop::with(&[
        (
            "Stable-diffusion/a.safetensors",
            &changed(|header, _| drop(header.insert("__metadata__".into(), json!({"a": "a"})))),
        ),
        ("Stable-diffusion/b.safetensors", &tiny),
    ]);
    let sha256: String =
        sha2::Digest::finalize(sha2::Digest::chain_update(<sha2::Sha256 as sha2::Digest>::new(), &tiny))
            .iter()
            .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let (class, text) = shop.text_of(&sha256[..10]);
    assert!(class == Class::NotFound && text.contains("2 files are not known yet"), "{text}");
    // Who cancels goes at once.
    let impatient = Counting { patience: Some(0), ..Counting::default() };
    let error = shop.pin(&sha256[..10], &impatient).err().expect("cancelled");
    assert_eq!(error.class, Class::Cancelled);
    let patient = Counting::default();
    let found = shop.pin(&sha256[..10], &patient).expect("found");
    assert_eq!((found.item().name.as_str(), found.sha256(&|| false)), ("b", Ok(sha256.clone())));
    let told = patient.told.lock().expect("sound").clone();
    let total: u64 =
        shop.library.snapshot().entries.iter().filter(|item| !item.is_built_in()).map(Item::size).sum();
    assert!(!told.is_empty() && told.iter().all(|(done, of)| *of == total && done <= of), "{told:?}");
    assert!(told.is_sorted(), "{told:?}");
    assert_eq!(shop.path_of(&sha256), "Stable-diffusion/b.safetensors", "known from now on");
    // None has it, and all are known: nobody waits.
    let nobody = Counting::default();
    let error = shop.pin("0123456789", &nobody).err().expect("none");
    assert!(error.class == Class::NotFound && nobody.asked.load(Ordering::Relaxed) == 0, "{error}");
    assert!(!error.text.contains("known yet"), "{error}");
}

/// Cancelled when told so.
#[derive(Default)]
struct Until {
    cancelled: AtomicBool,
    waits: AtomicBool,
}

impl Waiter for Until {
    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn hashed(&self, _done: u64, _total: u64) {
        self.waits.store(true, Ordering::Relaxed);
    }
}

#[test]
fn few_wait_for_hashes_and_the_others_have_threads_left() {
    let shop = Shop::with(&[]);
    // Hours to hash, and no place on the disk.
    let length = 1u64 << 42;
    let large = changed(|header, data| {
        let (start, end) = (data.len() as u64, data.len() as u64 + length);
        header
            .insert("unused".into(), json!({"dtype": "U8", "shape": [length], "data_offsets": [start, end]}));
    });
    let path = shop.put("Stable-diffusion/large.safetensors", &large);
    let file = fs::File::options().write(true).open(path).expect("opened");
    file.set_len(large.len() as u64 + length).expect("made larger");
    shop.library.rescan();
    let waiters: Vec<_> = (0..4).map(|_| Until::default()).collect();
    std::thread::scope(|scope| {
        for (index, waiter) in waiters.iter().enumerate() {
            let wait =
                move |shop: &Shop| shop.pin(&format!("0123456789{index}"), waiter).err().expect("ends");
            let shop = &shop;
            scope.spawn(move || assert_eq!(wait(shop).class, Class::Cancelled));
        }
        while !waiters.iter().all(|waiter| waiter.waits.load(Ordering::Relaxed)) {
            std::thread::yield_now();
        }
        let error = shop.pin("0123456789", &Patient).err().expect("refused");
        assert!(error.class == Class::Busy && error.text.contains("name the file"), "{error}");
        shop.pin("large", &Patient).expect("who names the file waits for nothing");
        for waiter in &waiters {
            waiter.cancelled.store(true, Ordering::Relaxed);
        }
    });
    // Their places are free again.
    let impatient = Until { cancelled: AtomicBool::new(true), ..Until::default() };
    assert_eq!(shop.pin("0123456789", &impatient).err().expect("cancelled").class, Class::Cancelled);
}

#[test]
fn a_file_of_the_same_size_and_time_is_another_file() {
    let shop = Shop::with(&[("Stable-diffusion/model.safetensors", &tiny())]);
    let path = shop.models.join("Stable-diffusion/model.safetensors");
    let time = fs::metadata(&path).expect("there").modified().expect("a time");
    let before = shop.pin("model", &Patient).expect("pinned");
    let sha256 = before.sha256(&|| false).expect("hashed");
    let mut bytes = tiny();
    // A weight that is not the same.
    *bytes.last_mut().expect("some") ^= 1;
    let timed = |path: &Path, bytes: &[u8]| {
        let mut file =
            fs::File::options().create(true).truncate(false).write(true).open(path).expect("opened");
        file.write_all(bytes).expect("written");
        file.set_modified(time).expect("set");
    };
    let new = shop.folder.path().join("new");
    timed(&new, &bytes);
    fs::rename(&new, &path).expect("replaced");
    let replaced = shop.pin("model", &Patient).expect("pinned");
    assert_ne!(replaced.identity(), before.identity());
    assert_ne!(replaced.sha256(&|| false), Ok(sha256.clone()), "of the bytes that are there");
    // The one that was replaced is still what it was.
    assert_eq!(before.sha256(&|| false), Ok(sha256.clone()));
    before.check().expect("sound");
    // Written to in place, and its time set back: only the time of its last change tells.
    timed(&path, &tiny());
    let again = shop.pin("model", &Patient).expect("pinned");
    assert_ne!(again.identity(), replaced.identity());
    assert_eq!(again.sha256(&|| false), Ok(sha256));
}

#[test]
fn names_are_listed_in_natural_order_and_links_to_nothing_as_problems() {
    let shop = Shop::with(&[]);
    for name in ["Zoo", "model-v10", "model-v2", "Model-v3", "anime"] {
        shop.put(&format!("Lora/{name}.safetensors"), &lora());
    }
    for (target, link) in [
        ("nowhere.safetensors", "Lora/dangling.safetensors"),
        ("self.safetensors", "Lora/self.safetensors"),
        ("/mnt/none", "VAE"),
        ("nowhere.txt", "Lora/notes.txt"),
        ("../Lora", "Lora/loop"),
        ("..", "Lora/up"),
    ] {
        symlink(target, shop.models.join(link)).expect("linked");
    }
    shop.library.rescan();
    assert_eq!(shop.names(), ["anime", "model-v2", "Model-v3", "model-v10", "Zoo"]);
    let problems = shop.problems();
    let expected = [
        ("Lora/dangling.safetensors", "is a link to nowhere.safetensors, which is not there"),
        ("Lora/self.safetensors", "cannot be followed"),
        ("VAE", "is a link to /mnt/none, which is not there"),
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:?}");
    for ((path, reason), (at, part)) in problems.iter().zip(expected) {
        assert!(path == at && reason.contains(part), "{problems:?}");
    }
    // What a link leads to is found once it is there.
    shop.put("Lora/nowhere.safetensors", &lora());
    assert!(shop.library.snapshot().has_loose_ends());
    assert!(shop.library.find(LibraryKind::Lora, "dangling").is_ok());
}

#[test]
fn a_file_keeps_the_place_it_has_by_itself_whatever_links_lead_there() {
    let shop = Shop::with(&[("Stable-diffusion/deep/model.safetensors", &tiny())]);
    symlink("Stable-diffusion", shop.models.join("A-link")).expect("linked");
    symlink("../Stable-diffusion/deep", shop.put("Lora/x.safetensors", &lora()).with_file_name("a"))
        .expect("linked");
    shop.library.rescan();
    assert_eq!(shop.path_of("model"), "Stable-diffusion/deep/model.safetensors");
}

#[test]
fn where_there_is_no_checkpoint_nothing_is_scanned_until_something_changes() {
    let shop = Shop::with(&[("Stable-diffusion/half.safetensors", &tiny()[..1000])]);
    shop.rest();
    let before = shop.library.snapshot();
    let default = || shop.library.default_checkpoint("").ok().filter(|item| !item.is_built_in());
    for _ in 0..3 {
        assert_eq!(default(), None);
        assert!(Arc::ptr_eq(&before, &shop.library.snapshot()), "nothing changed");
        assert!(shop.find("none-of-this-name").is_err());
        assert!(Arc::ptr_eq(&before, &shop.library.snapshot()), "nothing changed");
    }
    // One that becomes whole, and one that comes.
    let half = shop.put("Stable-diffusion/half.safetensors", &tiny());
    assert_eq!(default().expect("whole").name, "half");
    fs::remove_file(half).expect("removed");
    assert_eq!(default(), None);
    shop.put("Stable-diffusion/new/deep.safetensors", &tiny());
    assert_eq!(default().expect("new").name, "deep");

    let folder = tempfile::tempdir().expect("a folder");
    let none = Shop::over(folder, Vec::new());
    let before = none.library.rescan();
    assert!(none.library.default_checkpoint("").ok().is_none_or(|item| item.is_built_in()));
    assert!(Arc::ptr_eq(&before, &none.library.snapshot()));
}

#[test]
fn a_file_of_another_kind_hides_no_checkpoint() {
    let built_in = |shop: &Shop| shop.library.snapshot().entries.iter().any(Item::is_built_in);
    let carried = Item::built_in().is_some();
    // In its folder, in none, and in that of checkpoints: a LoRA is told by what is in it.
    for path in ["Lora/latentd-demo", "latentd-demo", "Stable-diffusion/latentd-demo"] {
        let shop = Shop::with(&[(&format!("{path}.safetensors"), &lora())]);
        assert_eq!(built_in(&shop), carried, "{path}");
        assert!(!carried || shop.find("latentd-demo").is_ok_and(|item| item.is_built_in()));
        assert!(shop.library.find(LibraryKind::Lora, "latentd-demo").is_ok());
    }
    let shop =
        Shop::with(&[("ControlNet/latentd-demo.safetensors", b"broken"), ("Lora/x.safetensors", b"broken")]);
    assert_eq!(built_in(&shop), carried);
    let told = shop.library.only_built_in();
    assert!(!told.contains("broken") && !told.contains("ControlNet") && !told.contains("Lora"), "{told}");
}

#[test]
fn events_tell_what_came_changed_and_went() {
    let shop = Shop::with(&[("Lora/a.safetensors", &lora()), ("Lora/b.safetensors", &lora())]);
    shop.put("Lora/c.safetensors", &lora());
    fs::remove_file(shop.models.join("Lora/a.safetensors")).expect("removed");
    let b = fs::File::options().write(true).open(shop.models.join("Lora/b.safetensors")).expect("opened");
    b.set_modified(SystemTime::UNIX_EPOCH).expect("set");
    shop.library.rescan();
    shop.library.rescan();
    let events = shop.events.lock().expect("sound").clone();
    let [event] = &events[..] else { panic!("{events:?}") };
    let names = [&event.added[..], &event.changed[..], &event.removed[..]];
    assert_eq!(names, [["lora/c"], ["lora/b"], ["lora/a"]]);
}

#[test]
fn a_file_that_is_replaced_all_the_time_is_held_as_it_is() {
    let shop = Shop::with(&[("Stable-diffusion/model.safetensors", &tiny())]);
    let path = shop.models.join("Stable-diffusion/model.safetensors");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (kept, new) = (shop.folder.path().join("kept"), shop.folder.path().join("new"));
            fs::copy(&path, &kept).expect("copied");
            while !done.load(Ordering::Relaxed) {
                fs::copy(&kept, &new).expect("copied");
                fs::rename(&new, &path).expect("replaced");
            }
        });
        for _ in 0..20 {
            let pinned = shop.pin("model", &Patient).expect("held");
            pinned.checkpoint().expect("sound");
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_several_requests_find_at_once_is_all_known() {
    let shop = Shop::with(&[]);
    let names: Vec<String> = (0..8).map(|index| format!("new-{index}")).collect();
    for _ in 0..5 {
        for name in &names {
            shop.put(&format!("Lora/{name}.safetensors"), &lora());
        }
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| shop.library.find(LibraryKind::Lora, name).expect("found"));
            }
        });
        assert_eq!(shop.names(), names);
        fs::remove_dir_all(shop.models.join("Lora")).expect("removed");
        shop.library.rescan();
    }
    // Who listens knows the same at any time.
    let mut known = std::collections::HashSet::new();
    for LibraryEvent { added, changed, removed, .. } in shop.events.lock().expect("sound").iter() {
        for name in added {
            assert!(known.insert(name.clone()), "{name} came twice");
        }
        for name in removed {
            assert!(known.remove(name), "{name} went before it came");
        }
        assert!(changed.is_empty(), "{changed:?}");
    }
    assert!(known.is_empty(), "{known:?}");
}

#[test]
fn the_entry_of_a_file_is_that_of_the_very_file() {
    let shop = Shop::with(&[("Lora/a.safetensors", &lora()), ("Lora/b.safetensors", &lora())]);
    let snapshot = shop.library.snapshot();
    let path = shop.models.join("Lora/b.safetensors");
    let seen = stamp::Seen::at(&path).expect("there");
    assert_eq!(snapshot.entry_of(&path, &seen).map(|item| item.name.as_str()), Some("b"));
    assert_eq!(snapshot.entry_of(&shop.models.join("Lora/a.safetensors"), &seen), None);
    let other = stamp::Seen { file: Stamp { inode: 0, ..seen.file }, ..seen };
    assert_eq!(snapshot.entry_of(&path, &other), None);
}

#[test]
fn a_scan_that_does_not_end_keeps_nobody_from_a_file_that_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let models = folder.path().join("models");
    fs::create_dir_all(&models).expect("made");
    // Nobody ever scans it.
    let shop = Shop::over(folder, vec![models]);
    shop.put("Stable-diffusion/tiny.safetensors", &tiny());
    let (found, missing, built_in) = std::thread::scope(|scope| {
        let find = |name| {
            let library = &shop.library;
            scope.spawn(move || library.find(LibraryKind::Checkpoint, name).map(|item| item.name))
        };
        let threads = [find("tiny"), find("tyni"), find("latentd-demo")];
        threads.map(|thread| thread.join().expect("no panic")).into()
    });
    assert_eq!(found, Ok("tiny".into()));
    assert!(missing.is_err_and(|error| error.class == Class::NotFound));
    assert_eq!(built_in.is_ok(), cfg!(feature = "demo"));
    assert!(!shop.library.is_scanned(), "what was found alone is not taken for all there is");
    assert_eq!(shop.library.rescan().entries.len(), 1 + usize::from(cfg!(feature = "demo")));
}

/// A LoRA of one number whose header says this of itself.
pub(super) fn lora_that_says(metadata: &Value) -> Vec<u8> {
    let header = json!({"__metadata__": metadata, "lora_unet_a.lora_up.weight":
        {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}});
    let header = serde_json::to_vec(&header).expect("JSON");
    [&(header.len() as u64).to_le_bytes()[..], &header, &[0, 0]].concat()
}

#[test]
fn what_is_said_of_a_file_is_told_and_a_change_beside_it_is_one_of_the_entry() {
    let noted = "A".repeat(64);
    let said = json!({"ss_base_model_version": "sd_v1", "ss_output_name": "out", "sshs_model_hash": noted,
        "ss_tag_frequency": r#"{"a": {"cat": 2}}"#});
    let shop = Shop::with(&[("Lora/a.safetensors", &lora_that_says(&said)), ("Lora/b.safetensors", &lora())]);
    // Twice: as found, and as the index knows it.
    for _ in 0..2 {
        let item = shop.library.find(LibraryKind::Lora, "a").expect("found");
        let entry = shop.library.entry(&item);
        assert_eq!(entry.addon_hash, Some(noted.to_lowercase()));
        assert_eq!(
            (entry.base_model.as_deref(), entry.format.as_deref()),
            (Some("sd_v1"), Some("safetensors"))
        );
        assert!(entry.details.is_none() && entry.preview.is_none());
        let details = shop.library.entry_with_details(&item).details.expect("told");
        assert_eq!((details.output_name.as_deref(), details.tags.len()), (Some("out"), 1));
        let snapshot = Library::open(vec![shop.models.clone()], shop.folder.path(), |_| ()).rescan();
        assert!(snapshot.entries.contains(&item));
    }
    let preview = shop.put("Lora/b.preview.png", b"");
    shop.put("Lora/b.json", br#"{"notes": "mine"}"#);
    shop.library.rescan();
    shop.library.rescan();
    let item = shop.library.find(LibraryKind::Lora, "b").expect("found");
    let entry = shop.library.entry_with_details(&item);
    assert_eq!(entry.preview, Some(preview.display().to_string()));
    assert_eq!(entry.details.and_then(|details| details.notes).as_deref(), Some("mine"));
    let events = shop.events.lock().expect("sound").clone();
    assert!(matches!(&events[..], [event] if event.changed == ["lora/b"]), "{events:?}");
}

#[test]
fn files_of_every_form_are_looked_into_in_the_folders_for_them() {
    let detector = b"PK\x03\x04 a whole program";
    let shop = Shop::with(&[
        ("adetailer/face.pt", detector),
        ("adetailer/page.pt", b"<!doctype html>"),
        ("insightface/buffalo/det.onnx", b"\x08\x07"),
        ("faceswaplab/inswapper.onnx", b"\x08\x07"),
        ("faceswaplab/faces/me.safetensors", &lora_that_says(&json!({}))),
        ("ESRGAN/plain.pth", b"\x80\x02}q\x00."),
        ("Lora/renamed.pt", &lora()),
        ("GFPGAN/x.onnx", b"\x08\x07"),
        ("Lora/x.onnx", b"\x08\x07"),
        ("elsewhere/ignored.pt", detector),
        ("elsewhere/ignored.bin", detector),
    ]);
    let snapshot = shop.library.snapshot();
    let entries = snapshot.entries.iter().filter(|item| !item.is_built_in());
    let found: Vec<_> = entries.map(|item| format!("{}/{}", item.kind, item.name)).collect();
    let expected =
        ["lora/me", "lora/renamed", "restorer/x", "detector/face", "face_model/det", "face_model/inswapper"];
    assert_eq!(found, expected);
    let problems: Vec<_> = shop.problems().into_iter().map(|(path, _)| path).collect();
    assert_eq!(problems, ["adetailer/page.pt", "ESRGAN/plain.pth", "Lora/x.onnx"]);
}

#[test]
fn pictures_that_carry_embeddings_are_some_and_others_are_nothing() {
    let fixture = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/adapters").join(name);
        fs::read(path).expect("read")
    };
    let (text, pixels, webp) =
        (fixture("emb-text.png"), fixture("emb-pixels.png"), fixture("emb-pixels.webp"));
    let plain = fixture("emb-plain.png");
    let shop = Shop::with(&[
        ("embeddings/text.PNG", &text),
        ("embeddings/deep/pixels.png", &pixels),
        ("embeddings/pixels.webp", &webp),
        ("embeddings/a.safetensors", &fixture("emb-params.safetensors")),
        ("embeddings/a.png", &plain),
        ("embeddings/stripes.png", &fixture("emb-stripes.png")),
        ("embeddings/a.preview.png", &text),
        ("embeddings/broken.png", &fixture("emb-broken-uneven.png")),
        ("embeddings/page.png", b"<!doctype html>"),
        ("embeddings/b.jpg", &text),
        ("Lora/c.png", &text),
        ("text.png", &text),
    ]);
    symlink("nowhere", shop.models.join("embeddings/loose.png")).expect("linked");
    let found = |snapshot: &Snapshot| -> Vec<_> {
        let entries = snapshot.entries.iter().filter(|item| !item.is_built_in());
        let format = |item: &Item| item.facts.format.clone().unwrap_or_default();
        entries.map(|item| format!("{}/{} {}", item.kind, item.name, format(item))).collect()
    };
    let expected = [
        "embedding/a safetensors",
        "embedding/in emb-pixels.png png",
        "embedding/in emb-pixels.webp webp",
        "embedding/in emb-text.png png",
    ];
    let problems = |shop: &Shop| shop.problems().into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    // As found, as it was known, and as the index knows it.
    for _ in 0..2 {
        assert_eq!(found(&shop.library.rescan()), expected);
        assert_eq!(problems(&shop), ["embeddings/broken.png"]);
    }
    let again = Library::open(vec![shop.models.clone()], shop.folder.path(), |_| ()).rescan();
    assert_eq!((found(&again), again.problems.len()), (expected.map(str::to_owned).to_vec(), 1));
    for name in ["in emb-text.png", "embeddings/text", "text.PNG"] {
        let item = shop.library.find(LibraryKind::Embedding, name).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((item.name.as_str(), item.facts.parameters), ("in emb-text.png", 3 * 32), "{name}");
    }
    // One that is replaced by a preview is gone, one that comes is there.
    shop.put("embeddings/text.PNG", &plain);
    shop.put("embeddings/stripes.png", &text);
    assert_eq!(
        shop.library.find(LibraryKind::Embedding, "embeddings/stripes").expect("found").name,
        "in emb-text.png"
    );
    assert_eq!(found(&shop.library.rescan()), expected);
    assert!(shop.library.find(LibraryKind::Embedding, "embeddings/text.PNG").is_err());
}

#[test]
fn of_a1111s_root_only_what_holds_models_is_looked_at_and_folders_for_a_kind_are_that() {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = folder.path().join("my loras");
    let roots = vec![
        Root::of_models(folder.path().join("webui")),
        Root { path: kept, kind: Some(LibraryKind::Lora) },
        Root { path: folder.path().join("none"), kind: Some(LibraryKind::Vae) },
    ];
    let library = Library::open(roots, folder.path(), |_| ());
    for (path, bytes) in [
        ("webui/models/Stable-diffusion/anime/v2.safetensors", tiny()),
        ("webui/models/Lora/one.safetensors", lora()),
        ("webui/embeddings/word.safetensors", lora_that_says(&json!({}))),
        ("webui/extensions/sd-webui-controlnet/models/net.onnx", b"x".to_vec()),
        ("webui/outputs/not.safetensors", lora()),
        ("webui/venv/lib/not.safetensors", lora()),
        ("webui/not.safetensors", lora()),
        ("my loras/deep/two.safetensors", lora()),
        ("my loras/three.pt", lora()),
    ] {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
    }
    let snapshot = library.rescan();
    let entries = snapshot.entries.iter().filter(|item| !item.is_built_in());
    let found: Vec<_> = entries.map(|item| format!("{}/{}", item.kind, item.name)).collect();
    assert_eq!(found, ["checkpoint/v2", "lora/one", "lora/three", "lora/two", "lora/word", "controlnet/net"]);
    for (kind, name) in [
        (LibraryKind::Checkpoint, "anime/v2"),
        (LibraryKind::Checkpoint, "anime_v2"),
        (LibraryKind::Checkpoint, "Stable-diffusion/anime/v2.safetensors"),
        (LibraryKind::Lora, "deep/two"),
        (LibraryKind::Lora, "deep_two"),
        (LibraryKind::Lora, "three.pt"),
    ] {
        library.find(kind, name).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let problems: Vec<_> = snapshot.problems.iter().map(|problem| problem.path.clone()).collect();
    assert_eq!(problems, [folder.path().join("none")]);
    // One that was not there when the daemon began.
    fs::create_dir_all(folder.path().join("webui/extensions/other/models")).expect("made");
    fs::write(folder.path().join("webui/extensions/other/models/late.safetensors"), lora()).expect("written");
    library.rescan();
    library.find(LibraryKind::Lora, "late").expect("found");
}

#[test]
fn a_file_that_moves_is_told_of_at_once_and_its_hash_goes_with_it() {
    let shop = Shop::with(&[("Stable-diffusion/old.safetensors", &tiny())]);
    let sha256 = shop.pin("old", &Patient).expect("pinned").sha256(&|| false).expect("hashed");
    fs::create_dir(shop.models.join("Stable-diffusion/deep")).expect("made");
    fs::rename(
        shop.models.join("Stable-diffusion/old.safetensors"),
        shop.models.join("Stable-diffusion/deep/new.safetensors"),
    )
    .expect("moved");
    shop.library.rescan();
    let events = shop.events.lock().expect("sound").clone();
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!(
        (&event.added[..], &event.removed[..]),
        (&["checkpoint/new".into()][..], &["checkpoint/old".into()][..])
    );
    let entry = shop.library.entry(&shop.find("new").expect("found"));
    assert_eq!((entry.hash.as_deref(), entry.auto_v2.as_deref()), (Some(&*sha256), Some(&sha256[..10])));
    assert_eq!(shop.path_of(&sha256[..10]), "Stable-diffusion/deep/new.safetensors");
}

#[test]
fn a_model_in_a_folder_is_one_file_to_the_library() {
    let shop = Shop::with(&[
        ("diffusers/v1.5/model_index.json", b"{}"),
        ("diffusers/v1.5/unet/diffusion_pytorch_model.safetensors", &lora()),
    ]);
    // Whether it can be read is not the library's affair.
    let told =
        || -> Vec<_> { shop.problems().into_iter().map(|(path, _)| path).chain(shop.names()).collect() };
    assert_eq!(told().len(), 1, "{:?}", told());
    assert!(told()[0] == "diffusers/v1.5" || told()[0] == "v1.5", "{:?}", told());
    // A change of any of its files is one of it.
    let at = |path: &str| stamp::Seen::at(&shop.models.join(path)).expect("there");
    let before = at("diffusers/v1.5");
    assert_eq!(before.file.size, 2 + lora().len() as u64);
    shop.put("diffusers/v1.5/unet/config.json", b"{}");
    assert_ne!(at("diffusers/v1.5"), before);
    // Nor is any of them an entry by itself, whoever asks for it.
    let inside = "diffusers/v1.5/unet/diffusion_pytorch_model";
    assert!(shop.library.find(LibraryKind::Lora, inside).is_err());
    assert_eq!(told().len(), 1, "{:?}", told());
    // What comes later is found in it.
    shop.rest();
    shop.put("diffusers/v1.5/unet/more.safetensors", &lora());
    assert!(!shop.library.snapshot().has_its_files());
    let now = shop.library.rescan();
    let stamps = now.entries.iter().filter_map(|item| match &item.source {
        Source::File { seen, .. } => Some(*seen),
        Source::BuiltIn(_) => None,
    });
    let stamps = stamps.chain(now.problems.iter().filter_map(|problem| problem.seen));
    assert_eq!(stamps.collect::<Vec<_>>(), [at("diffusers/v1.5")]);
}

#[test]
fn a_file_that_was_just_written_to_is_not_called_broken_for_good() {
    let shop = Shop::with(&[("Stable-diffusion/half.safetensors", &tiny()[..1000])]);
    let young = shop.library.snapshot();
    assert!(
        young.young().count() == 1 && young.problems[0].reason.contains("a moment ago"),
        "{:?}",
        young.problems
    );
    // Whole by the next look, without a word in between.
    shop.put("Stable-diffusion/half.safetensors", &tiny());
    shop.library.look_at_young();
    assert_eq!(shop.names(), ["half"]);
    assert!(shop.library.snapshot().young().next().is_none());
}

#[test]
fn hashes_are_computed_in_the_background_and_told_of_together() {
    let folder = tempfile::tempdir().expect("a folder");
    let models = folder.path().join("models");
    let mut shop = Shop::over(folder, vec![models]);
    let library = Arc::new(std::mem::replace(
        &mut shop.library,
        Library::open(Vec::<PathBuf>::new(), Path::new("/none"), |_| ()),
    ));
    let noted = "b".repeat(64);
    shop.put("Stable-diffusion/z.safetensors", &tiny());
    shop.put("Lora/a.safetensors", &lora());
    shop.put("Lora/b.safetensors", &lora_that_says(&json!({"sshs_model_hash": noted})));
    shop.put("insightface/x.onnx", b"x");
    library.rescan();
    let hash = |library: &Arc<Library>| {
        let kept = Mutex::new(Vec::new());
        library.hash_all(&mut Failed::new(), |library, done| {
            kept.lock().expect("sound").extend(done.iter().map(|hashed| hashed.name.clone()));
            library.keep_hashes(&done);
        });
        kept.into_inner().expect("sound")
    };
    assert_eq!(hash(&library), ["checkpoint/z", "lora/a", "lora/b", "face_model/x"]);
    let entry =
        |library: &Arc<Library>, kind, name: &str| library.entry(&library.find(kind, name).expect("found"));
    let sha256 = |bytes: &[u8]| hash::hex(&<sha2::Sha256 as sha2::Digest>::digest(bytes));
    let known = |library: &Arc<Library>| {
        let z = entry(library, LibraryKind::Checkpoint, "z");
        assert_eq!((z.hash, z.addon_hash), (Some(sha256(&tiny())), None));
        let a = entry(library, LibraryKind::Lora, "a");
        assert_eq!((a.hash, a.addon_hash), (Some(sha256(&lora())), Some(sha256(&[0, 0]))));
        assert_eq!(entry(library, LibraryKind::Lora, "b").addon_hash.as_ref(), Some(&noted));
    };
    known(&library);
    let events = shop.events.lock().expect("sound").clone();
    assert!(
        matches!(&events[..], [event] if event.changed.len() == 4 && event.added.is_empty()),
        "{events:?}"
    );
    assert_eq!(hash(&library), [""; 0], "once");
    // The next daemon goes on behind what was done.
    drop(library);
    shop.put("Lora/c.safetensors", &lora_that_says(&json!({})));
    let next = Arc::new(Library::open(vec![shop.models.clone()], shop.folder.path(), |_| ()));
    next.rescan();
    known(&next);
    assert_eq!(hash(&next), ["lora/c"]);
    // One that cannot be read is left alone until it is another.
    let gone = shop.put("Lora/d.safetensors", &lora());
    next.rescan();
    fs::remove_file(gone).expect("removed");
    assert_eq!(hash(&next), [""; 0]);
}

#[test]
fn hashing_gives_way_while_others_are_busy() {
    let folder = tempfile::tempdir().expect("a folder");
    let models = folder.path().join("models");
    fs::create_dir_all(models.join("Lora")).expect("made");
    fs::write(models.join("Lora/a.safetensors"), lora()).expect("written");
    let (sender, told) = std::sync::mpsc::channel();
    let sender = Mutex::new(sender);
    let tell = move |event: &LibraryEvent| drop(sender.lock().expect("sound").send(event.clone()));
    let library = Arc::new(Library::open(vec![models], folder.path(), tell));
    library.set_busy(true);
    library.start_hashing().expect("started");
    library.rescan();
    // It has come to the file, and stands before it.
    while !library.pace.gives_way() {
        assert!(told.try_recv().is_err());
        std::thread::yield_now();
    }
    assert!(told.try_recv().is_err());
    library.set_busy(false);
    assert_eq!(told.recv().expect("told").changed, ["lora/a"]);
}
