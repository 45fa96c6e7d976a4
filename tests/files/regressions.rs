//! What a fuzz target once found, in `regressions/TARGET/`: read again, each ends in an error or in nothing.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use crate::readers;

#[test]
fn what_was_found_once_stays_mended() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/files/regressions");
    for target in fs::read_dir(&folder).expect("regressions") {
        let target = target.expect("an entry").path();
        let read = match target.file_name().and_then(|name| name.to_str()) {
            Some("weights") => readers::weights,
            Some("config") => readers::config,
            Some("pictures") => readers::pictures,
            Some("infotext") => readers::infotext,
            other => panic!("{other:?} is no fuzz target"),
        };
        for file in fs::read_dir(&target).expect("a folder") {
            let file = file.expect("an entry").path();
            let bytes = fs::read(&file).expect("read");
            assert!(catch_unwind(|| read(&bytes)).is_ok(), "{} is found again", file.display());
        }
    }
}
