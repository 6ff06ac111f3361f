//! Small file systems in memory: permissions do not bind the root user, sizes and read-only mounts do.

use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A mounted file system, unmounted when dropped.
pub struct Tmpfs {
    dir: TempDir,
}

impl Tmpfs {
    /// Mounts one with these options; none, with a line that says so, where this user may not.
    pub fn mount(options: &str) -> Option<Self> {
        let dir = TempDir::new().expect("a temporary folder");
        if mounted(&["-t", "tmpfs", "-o", options, "tmpfs"], dir.path()) {
            return Some(Tmpfs { dir });
        }
        println!("skipped: this user may not mount a file system");
        None
    }

    /// Mounts it anew with other options.
    pub fn remount(&self, options: &str) {
        assert!(mounted(&["-o", &format!("remount,{options}")], self.path()), "remounting");
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily, so that nothing that still looks at it keeps it.
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        assert!(unmounted.is_ok_and(|s| s.success()) || std::thread::panicking(), "unmounting");
    }
}

fn mounted(args: &[&str], at: &Path) -> bool {
    let mut mount = Command::new("mount");
    mount.args(args).arg(at).stdout(Stdio::null()).stderr(Stdio::null());
    mount.status().is_ok_and(|s| s.success())
}
