//! A library over two models folders, of which one does not answer, or is of another machine.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use latentd_client::protocol::{LibraryEvent, LibraryKind};
use serde_json::json;

use crate::error::Class;
use crate::library::background::Failed;
use crate::library::places::Root;
use crate::library::snapshot::{Folder, Snapshot};
use crate::library::tests::{lora, lora_that_says, tiny};
use crate::library::watch::Watched;
use crate::library::{Library, Patient};

/// Two models folders and a library over them: one that will not answer, and one that goes on.
fn beside_a_share() -> (tempfile::TempDir, PathBuf, PathBuf, Library, std::sync::mpsc::Receiver<LibraryEvent>)
{
    let folder = tempfile::tempdir().expect("a folder");
    let (share, disk) = (folder.path().join("share/models"), folder.path().join("disk"));
    let half = &tiny()[..1000];
    for (path, bytes) in [
        ("share/models/Stable-diffusion/a-far.safetensors", &tiny()[..]),
        ("share/models/Stable-diffusion/half.safetensors", half),
        ("share/embeddings/word.safetensors", &lora_that_says(&json!({}))),
        ("disk/Stable-diffusion/near.safetensors", &tiny()),
    ] {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
    }
    symlink("nowhere.safetensors", share.join("Stable-diffusion/loose.safetensors")).expect("linked");
    for changed in ["share/models/Stable-diffusion", "share/embeddings"] {
        // So that whatever comes changes its time.
        let changed = fs::File::open(folder.path().join(changed)).expect("opened");
        changed.set_modified(SystemTime::UNIX_EPOCH).expect("set");
    }
    let (sender, told) = std::sync::mpsc::channel();
    let sender = Mutex::new(sender);
    let tell = move |event: &LibraryEvent| drop(sender.lock().expect("sound").send(event.clone()));
    let library = Library::open(vec![share.clone(), disk.clone()], folder.path(), tell);
    (folder, share, disk, library, told)
}

#[test]
fn a_folder_that_does_not_answer_keeps_nobody_from_the_others_and_is_not_looked_at() {
    let (folder, share, disk, library, told) = beside_a_share();
    let before = library.rescan();
    assert!(before.has_loose_ends() && before.young().count() == 1);
    assert_eq!(library.default_checkpoint("").expect("one").name, "a-far");
    let ended = library.askers.silence(&share);
    // Before anybody scanned: who names it is told at once.
    let refused = |name: &str, kind| {
        let error = library.find(kind, name).expect_err("refused");
        assert!(error.class == Class::Model && error.text.contains("does not answer"), "{error}");
        assert!(error.text.contains(&share.display().to_string()), "{error}");
    };
    refused("a-far", LibraryKind::Checkpoint);
    // What is looked at from now on is gone: what stays known was not looked at.
    fs::remove_dir_all(folder.path().join("share")).expect("removed");
    let snapshot = library.rescan();
    assert_eq!(snapshot.entries, before.entries, "what was known stays, also of what lies beside");
    assert_eq!(snapshot.roots, before.roots, "and what it is for");
    assert!(snapshot.has_silent() && !snapshot.has_loose_ends() && snapshot.young().next().is_none());
    assert!(snapshot.has_its_roots() && !library.is_other_elsewhere());
    library.look_at_young();
    library.look_at(&[share.join("Stable-diffusion/a-far.safetensors")]);
    refused("a-far", LibraryKind::Checkpoint);
    refused("Stable-diffusion/a-far.safetensors", LibraryKind::Checkpoint);
    refused("word", LibraryKind::Lora);
    assert!(library.pin(Some("a-far"), "", &Patient).is_err());
    assert_eq!(library.default_checkpoint("").expect("another").name, "near");
    library.pin(Some("near"), "", &Patient).expect("held");
    // Nor what was never seen there: what lies there is not known, and that is said.
    refused(&share.join("unseen.safetensors").display().to_string(), LibraryKind::Checkpoint);
    let error = library.find(LibraryKind::Checkpoint, "unseen").expect_err("none");
    assert!(error.class == Class::NotFound && error.text.contains("does not answer"), "{error}");
    // The hash of none of them is waited for, nor computed.
    assert_eq!(library.pin(Some("0123456789"), "", &Patient).err().expect("none").class, Class::NotFound);
    let library = Arc::new(library);
    let hashed = Mutex::new(Vec::new());
    library.hash_all(&mut Failed::new(), |_, done| {
        hashed.lock().expect("sound").extend(done.into_iter().map(|hashed| hashed.name));
    });
    assert_eq!(hashed.into_inner().expect("sound"), [""; 0], "what is near was hashed for who waited");
    fs::write(disk.join("Stable-diffusion/new.safetensors"), tiny()).expect("written");
    library.find(LibraryKind::Checkpoint, "new").expect("found");
    assert_eq!(library.snapshot().entries.len(), before.entries.len() + 1);
    assert_eq!(told.try_recv().expect("told").added, ["checkpoint/new"]);
    // It answers that all is gone.
    ended.store(true, Ordering::Release);
    assert!(library.is_other_elsewhere());
    let after = library.rescan();
    assert!(!after.has_silent());
    assert_eq!(told.try_recv().expect("told").removed, ["checkpoint/a-far", "lora/word"]);
}

#[test]
fn who_asks_before_the_first_scan_is_not_held_up_by_a_folder_that_does_not_answer() {
    let (_folder, share, _, library, _told) = beside_a_share();
    let _ended = library.askers.silence(&share);
    let (near, far) = std::thread::scope(|scope| {
        let find = |name| {
            let library = &library;
            scope.spawn(move || library.find(LibraryKind::Checkpoint, name).map(|item| item.name))
        };
        let threads = [find("near"), find("a-far")];
        threads.map(|thread| thread.join().expect("no panic")).into()
    });
    assert_eq!(near, Ok("near".into()));
    assert!(far.is_err_and(|error| error.class == Class::NotFound), "it was not looked for");
    assert!(library.lock().snapshot.is_none());
}

#[test]
fn a_folder_in_one_that_does_not_answer_is_its_own() {
    let (_folder, share, ..) = beside_a_share();
    let inner = Root { path: share.join("Stable-diffusion"), kind: Some(LibraryKind::Checkpoint) };
    let outer = Root::of_models(share.clone());
    for roots in [[outer.clone(), inner.clone()], [inner, outer]] {
        let folder = tempfile::tempdir().expect("a folder");
        let library = Library::open(roots.to_vec(), folder.path(), |_| ());
        let before = library.rescan();
        let _ended = library.askers.silence(&share);
        let now = library.rescan();
        assert_eq!(now.entries, before.entries);
        library.find(LibraryKind::Checkpoint, "a-far").expect("it answers");
        assert!(library.find(LibraryKind::Lora, "word").is_err());
    }
}

/// What is known, as if the share's folders were of another machine.
fn as_if_elsewhere(library: &Library, share: &Path) -> Arc<Snapshot> {
    let known = library.rescan();
    let folders = known.folders.iter().map(|folder| {
        let remote = folder.path.starts_with(share.parent().expect("a folder"));
        Folder { remote, ..folder.clone() }
    });
    let known = Arc::new(Snapshot {
        entries: known.entries.clone(),
        problems: known.problems.clone(),
        folders: folders.collect(),
        linked: known.linked.clone(),
        roots: Arc::clone(&known.roots),
        grounds: Arc::clone(&known.grounds),
    });
    library.lock().snapshot = Some(Arc::clone(&known));
    known
}

#[test]
fn what_is_elsewhere_is_asked_by_nobody_who_waits() {
    let (folder, share, _, library, _told) = beside_a_share();
    let known = as_if_elsewhere(&library, &share);
    assert!(!library.is_other_elsewhere());
    library.pin(Some("a-far"), "", &Patient).expect("held");
    library.find(LibraryKind::Lora, "word").expect("found");
    // What comes there is known once its folder was asked; what is known there is looked at by who asks it.
    fs::write(share.join("Stable-diffusion/late.safetensors"), tiny()).expect("written");
    fs::write(share.join("Stable-diffusion/half.safetensors"), tiny()).expect("written");
    assert!(library.find(LibraryKind::Checkpoint, "late").is_err());
    assert!(Arc::ptr_eq(&library.snapshot(), &known));
    assert!(library.is_other_elsewhere());
    library.look_at_young();
    library.find(LibraryKind::Checkpoint, "half").expect("whole");
    // One beside the models folder that is another, too.
    let now = as_if_elsewhere(&library, &share);
    library.find(LibraryKind::Checkpoint, "late").expect("found");
    assert!(!library.is_other_elsewhere());
    fs::write(folder.path().join("share/embeddings/new.safetensors"), lora()).expect("written");
    assert!(library.is_other_elsewhere());
    // It ceases to answer, and that is not known yet.
    let _ended = library.askers.silence(&share);
    fs::remove_dir_all(folder.path().join("share")).expect("removed");
    library.look_at_young();
    for name in ["a-far", "half"] {
        let error = library.pin(Some(name), "", &Patient).err().expect("refused");
        assert!(error.class == Class::Model && error.text.contains("does not answer"), "{error}");
    }
    library.pin(Some("near"), "", &Patient).expect("held");
    assert!(Arc::ptr_eq(&library.snapshot(), &now), "nothing was looked at");
    assert_eq!(library.default_checkpoint("").expect("another").name, "near");
}

#[test]
fn the_watcher_goes_on_beside_a_folder_that_does_not_answer() {
    let (folder, share, disk, library, told) = beside_a_share();
    let before = library.rescan();
    let ended = library.askers.silence(&share);
    fs::remove_dir_all(folder.path().join("share")).expect("removed");
    let library = Arc::new(library);
    library.start().expect("started");
    fs::write(disk.join("Stable-diffusion/new.safetensors"), tiny()).expect("written");
    let mut seen = Vec::new();
    while !seen.contains(&"checkpoint/new".to_owned()) {
        let event = told.recv().expect("told");
        assert!(event.removed.is_empty(), "{event:?}");
        seen.extend(event.added);
    }
    assert_eq!(library.snapshot().entries.len(), before.entries.len() + 1);
    ended.store(true, Ordering::Release);
    while told.recv().expect("told").removed.is_empty() {}
}
