//! What a process may, as flags of a command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

/// What a process may: all else that can be denied is.
///
/// What every program needs is granted to all: to read the system's libraries, and a few files of `/proc`, `/sys`, `/dev`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grants {
    /// A file that it may read, or a folder with all in it
    #[arg(long = "read", value_name = "PATH")]
    pub reads: Vec<PathBuf>,
    /// A program that it may become, or a folder of such, the system's too then; without one, it may become none
    #[arg(long = "run", value_name = "PATH")]
    pub runs: Vec<PathBuf>,
    /// A folder that it may write into, and remove from
    #[arg(long = "write", value_name = "PATH")]
    pub writes: Vec<PathBuf>,
    /// Whether it may use the network
    #[arg(long)]
    pub network: bool,
    /// Memory of its own, beside what it begins with: what it shares is not counted
    #[arg(long, value_name = "BYTES")]
    pub memory: u64,
    /// Descriptors behind 2 that it keeps
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub inherited: u32,
    /// The process that started it, with which it ends
    #[arg(long, value_name = "ID")]
    pub parent: u32,
}

impl Grants {
    /// The flags that say this.
    pub(super) fn flags(&self) -> Vec<OsString> {
        let Self { reads, runs, writes, network, memory, inherited, parent } = self;
        let path = |flag: &str, path: &PathBuf| {
            let mut flag = OsString::from(flag);
            flag.push(path);
            flag
        };
        let reads = reads.iter().map(|read| path("--read=", read));
        let runs = runs.iter().map(|run| path("--run=", run));
        let writes = writes.iter().map(|write| path("--write=", write));
        let network = network.then(|| "--network".into());
        let numbers =
            [format!("--memory={memory}"), format!("--inherited={inherited}"), format!("--parent={parent}")];
        reads.chain(runs).chain(writes).chain(network).chain(numbers.map(Into::into)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        grants: Grants,
    }

    #[test]
    fn flags_say_what_is_granted() {
        let odd = PathBuf::from(OsString::from_vec(b"-a b=\xff".to_vec()));
        let some = Grants {
            reads: vec![odd.clone(), "/b".into()],
            runs: vec!["/c".into()],
            writes: vec![odd],
            network: true,
            memory: 1 << 40,
            inherited: 2,
            parent: 7,
        };
        for grants in [some, Grants::default()] {
            let read = Flags::try_parse_from([OsString::from("x")].into_iter().chain(grants.flags()));
            assert_eq!(read.expect("read").grants, grants);
        }
    }
}
