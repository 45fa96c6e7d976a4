//! Whether a folder is where its changes are not told of: on another machine, or behind a program.

use std::ffi::CString;
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
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

/// FUSE among them: programs that give what they like as folders.
#[cfg(target_os = "linux")]
const FUSE: u32 = 0x6573_5546;

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
    let kind = unsafe { found.assume_init() }.f_type as u32;
    is_remote_type(kind) && !(kind == FUSE && is_disk_behind_program(folder))
}

/// What goes through a program may be a disk of this machine all the same, as NTFS and exFAT often are: the kernel knows.
#[cfg(target_os = "linux")]
fn is_disk_behind_program(folder: &Path) -> bool {
    let device = fs::metadata(folder).map(|metadata| metadata.dev());
    let mounts = fs::read_to_string("/proc/self/mountinfo");
    device.ok().zip(mounts.ok()).is_some_and(|(device, mounts)| {
        let device = format!("{}:{}", libc::major(device), libc::minor(device));
        type_of(&mounts, &device) == Some("fuseblk")
    })
}

/// The type of the file system on a device, from `/proc/self/mountinfo`: the third field is its number, and the type stands
/// behind a lone dash.
#[cfg(target_os = "linux")]
fn type_of<'a>(mounts: &'a str, device: &str) -> Option<&'a str> {
    let mount = mounts.lines().find(|mount| mount.split(' ').nth(2) == Some(device))?;
    mount.split_once(" - ")?.1.split(' ').next()
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

    #[test]
    fn a_disk_behind_a_program_is_told_from_a_share_behind_one() {
        let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            61 22 8:17 / /mnt/my\\040disk rw,nosuid shared:30 - fuseblk /dev/sdb1 rw,user_id=0\n\
            62 22 0:51 / /mnt/nas rw,nosuid - fuse.sshfs me@nas:/models rw\n\
            63 22 0:5 /\n";
        for (device, expected) in [
            ("8:1", Some("ext4")),
            ("8:17", Some("fuseblk")),
            ("0:51", Some("fuse.sshfs")),
            ("0:5", None),
            ("9:9", None),
        ] {
            assert_eq!(type_of(mounts, device), expected, "{device}");
        }
        assert!(!is_disk_behind_program(Path::new("/proc")));
    }
}
