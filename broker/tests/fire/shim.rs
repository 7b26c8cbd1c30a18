//! A disk that is full, or slow, for the processes that preload it.

use std::fs::Permissions;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

/// What a write comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Enough = 0,
    /// Files do not grow.
    NoGrowth = 1,
    /// Nothing is written, as where each write takes a new place.
    None = 2,
}

pub(crate) struct Shim {
    folder: TempDir,
    control: std::fs::File,
}

/// Where `shim.c` looks for each number.
const FULLNESS_AT: u64 = 0;
const SYNC_DELAY_AT: u64 = 4;
const HITS_AT: u64 = 8;

impl Shim {
    /// `None` where there is no C compiler.
    pub(crate) fn compile() -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("sotto-fire-").tempdir().expect("make a folder");
        // Another user may run the database.
        let readable = |path: &Path, mode| {
            std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("set a mode");
        };
        readable(folder.path(), 0o755);
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fire/shim.c");
        let library = folder.path().join("shim.so");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .args([source, "-ldl"])
            .status()
            .ok()?;
        assert!(compiled.success(), "compile the shim");
        readable(&library, 0o755);
        let path = folder.path().join("control");
        std::fs::write(&path, [0; 12]).expect("make the control");
        readable(&path, 0o666);
        let control = std::fs::OpenOptions::new().read(true).write(true).open(&path);
        Some(Self { folder, control: control.expect("open the control") })
    }

    /// For a process that is to preload it.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        vec![("LD_PRELOAD".to_owned(), path("shim.so")), ("SOTTO_FIRE_CONTROL".to_owned(), path("control"))]
    }

    pub(crate) fn leave(&self, room: Room) {
        self.set(FULLNESS_AT, room as u32);
    }

    pub(crate) fn slow_syncs_by(&self, delay: Duration) {
        self.set(SYNC_DELAY_AT, u32::try_from(delay.as_millis()).expect("a short time"));
    }

    /// Calls that failed or waited so far.
    pub(crate) fn hits(&self) -> u32 {
        let mut bytes = [0; 4];
        self.control.read_exact_at(&mut bytes, HITS_AT).expect("read the control");
        u32::from_ne_bytes(bytes)
    }

    fn set(&self, at: u64, number: u32) {
        self.control.write_all_at(&number.to_ne_bytes(), at).expect("write the control");
    }
}
