//! The plugin author's guide, as it is written: its commands are run one after the other, in an empty folder.

use std::path::Path;
use std::process::Output;

use latentd_models::image::Picture;

use crate::harness::Daemon;

/// The commands of the guide: each block of a shell's.
fn blocks() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin-api/README.md");
    let text = std::fs::read_to_string(path).expect("the guide");
    let blocks = text.split("```sh\n").skip(1);
    blocks.map(|rest| rest.split("```").next().expect("an end").to_owned()).collect()
}

/// Runs commands as somebody types them who has latentd on the PATH.
fn typed(daemon: &Daemon, commands: &str, more: &[(&str, &str)]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_latentd")).parent().expect("a folder");
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap_or_default());
    let like = daemon.command(&[]);
    let mut shell = std::process::Command::new("bash");
    shell.args(["-euc", commands]).current_dir(daemon.folder.path()).env("PATH", path);
    for (name, value) in like.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    // The toolchain is the tests' own, wherever HOME points to.
    for variable in ["CARGO_HOME", "RUSTUP_HOME"] {
        let usual = std::env::var_os("HOME").map(|home| {
            Path::new(&home).join(match variable {
                "CARGO_HOME" => ".cargo",
                _ => ".rustup",
            })
        });
        if let Some(folder) = std::env::var_os(variable).map(Into::into).or(usual) {
            shell.env(variable, folder);
        }
    }
    // Nor is the plugin built as our own crates are.
    for variable in ["RUSTC_WORKSPACE_WRAPPER", "CLIPPY_ARGS", "CARGO_TARGET_DIR", "RUSTFLAGS"] {
        shell.env_remove(variable);
    }
    shell.envs(more.iter().copied()).output().expect("a shell")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn the_guides_first_commands_end_in_a_grey_picture() {
    let daemon = Daemon::start();
    let output = typed(&daemon, &blocks()[0], &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("soft-grey"), "{}", said(&output));
    let png = std::fs::read(daemon.folder.path().join("soft-grey/grey.png")).expect("a picture");
    let picture = Picture::decode(&png, 1 << 26).expect("decodes");
    assert!(picture.pixels.chunks(3).all(|pixel| pixel.iter().all(|value| *value == pixel[0])));
    // A second time it says what is in the way.
    let output = typed(&daemon, "latentd plugins new soft-grey", &[]);
    assert!(!output.status.success() && said(&output).contains("is there already"), "{}", said(&output));
    let output = typed(&daemon, "latentd plugins new Soft_Grey", &[]);
    assert!(
        output.status.code() == Some(2) && said(&output).contains("must be 1 to 64"),
        "{}",
        said(&output)
    );
}

#[tokio::test]
async fn a_plugin_in_rust_does_the_same() {
    let daemon = Daemon::start();
    // What it depends on is there already, since the tests themselves are built with it.
    let output = typed(&daemon, &blocks()[1], &[("CARGO_NET_OFFLINE", "true")]);
    assert!(output.status.success(), "{}", said(&output));
    let install = "mkdir -p $XDG_DATA_HOME/latentd/plugins && \
         cp soft-grey-in-rust/target/release/libsoft_grey.so $XDG_DATA_HOME/latentd/plugins && \
         latentd generate 'a red circle' --checkpoint tiny-sd1 --width 64 --height 64 --plugin soft-grey -o grey.png";
    let output = typed(&daemon, install, &[]);
    assert!(output.status.success(), "{}", said(&output));
    let png = std::fs::read(daemon.folder.path().join("grey.png")).expect("a picture");
    let picture = Picture::decode(&png, 1 << 26).expect("decodes");
    assert!(picture.pixels.chunks(3).all(|pixel| pixel.iter().all(|value| *value == pixel[0])));
}
