//! Whether a folder is where its changes are not told of: on another machine, or behind a program.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::path::Path;

/// What the kernel calls such file systems (`f_type` of statfs): NFS, SMB by its three names, FUSE, 9P, AFS by two, Ceph,
/// Coda, NCP, GFS2, OCFS2, Lustre, VirtualBox' and VMware's shared folders.
#[cfg(target_os = "linux")]
const REMOTE: [u32; 17] = [
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x6573_5546,
    0x0102_1997,
    0x5346_414f,
    0x6b41_4653,
    0x00c3_6400,
    0x7375_7245,
    0x564c,
    0x0116_1970,
    0x7461_636f,
    0x0bd0_0bd0,
    0x786f_4256,
    0xbacb_acbc,
    0x6a65_6a63,
];

/// Asks the system; of what it does not say, changes are taken to be told.
#[cfg(target_os = "linux")]
pub(super) fn is_remote(folder: &Path) -> bool {
    let Ok(path) = CString::new(folder.as_os_str().as_encoded_bytes()) else {
        return false;
    };
    let mut found = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the path ends with a NUL, and the structure is ours to be written to.
    if unsafe { libc::statfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: it was zeroed, which is a valid value of it, and then written.
    let kind = unsafe { found.assume_init() }.f_type;
    is_remote_type(kind as u32)
}

#[cfg(target_os = "linux")]
fn is_remote_type(kind: u32) -> bool {
    REMOTE.contains(&kind)
}

/// Nothing is known.
#[cfg(not(target_os = "linux"))]
pub(super) fn is_remote(_: &Path) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_disk_of_this_machine_is_none_and_what_is_elsewhere_is() {
        assert!(!is_remote(Path::new("/proc")));
        assert!(!is_remote(Path::new("/none/of/this")) && !is_remote(Path::new("a\0b")));
        // ext4, btrfs, xfs, tmpfs, overlayfs; NFS, CIFS, FUSE, 9P.
        for (kind, expected) in [
            (0xef53, false),
            (0x9123_683e, false),
            (0x5846_5342, false),
            (0x0102_1994, false),
            (0x794c_7630, false),
            (0x6969, true),
            (0xff53_4d42, true),
            (0x6573_5546, true),
            (0x0102_1997, true),
        ] {
            assert_eq!(is_remote_type(kind), expected, "{kind:x}");
        }
    }
}
