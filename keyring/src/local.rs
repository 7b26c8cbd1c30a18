//! A key service in a file: the embedded default.
//!
//! The root key is 32 random bytes in a file of mode 0600. Contexts mean what they mean to a key service
//! in a cloud: a key wrapped for one is not unwrapped for another.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::kms::{GeneratedKey, KeyContext, Kms, KmsError, PlainKey};
use crate::wrapping::WrappingKey;

const ROOT_KEY_BYTES: usize = 32;
const ROOT_KEY_MODE: u32 = 0o600;

pub struct LocalKms {
    root: WrappingKey,
}

#[derive(Debug, thiserror::Error)]
pub enum LocalKmsError {
    #[error("root key file: {0}")]
    Io(#[from] io::Error),
    #[error("root key file is not a regular file")]
    NotAFile,
    #[error("root key file is open to others: its mode must be 0600")]
    Mode,
    #[error("root key file does not hold {ROOT_KEY_BYTES} bytes")]
    Length,
    #[error("random source failed")]
    Randomness,
}

impl LocalKms {
    /// Reads the root key, or makes one where there is no file.
    pub fn open_or_create(path: &Path) -> Result<Self, LocalKmsError> {
        match Self::open(path) {
            Err(LocalKmsError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                create(path)?;
                Self::open(path)
            }
            other => other,
        }
    }

    pub fn open(path: &Path) -> Result<Self, LocalKmsError> {
        let mut file = File::open(path)?;
        // Of the open file, not of the path: nobody exchanges it in between.
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(LocalKmsError::NotAFile);
        }
        if metadata.mode() & 0o777 != ROOT_KEY_MODE {
            return Err(LocalKmsError::Mode);
        }
        if metadata.len() != ROOT_KEY_BYTES as u64 {
            return Err(LocalKmsError::Length);
        }
        let mut key = Zeroizing::new([0; ROOT_KEY_BYTES]);
        file.read_exact(key.as_mut())?;
        Ok(Self::from_root_key(&PlainKey::new(key)))
    }

    /// With a root key that is kept elsewhere.
    pub fn from_root_key(root: &PlainKey) -> Self {
        Self { root: WrappingKey::new(root) }
    }
}

#[async_trait]
impl Kms for LocalKms {
    async fn generate_data_key(&self, context: &KeyContext) -> Result<GeneratedKey, KmsError> {
        let mut key = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(key.as_mut()).map_err(|_| KmsError::Unavailable)?;
        let plain = PlainKey::new(key);
        let wrapped =
            self.root.wrap(&wrapping_context(context), &plain).map_err(|_| KmsError::Unavailable)?;
        Ok(GeneratedKey { plain, wrapped })
    }

    async fn decrypt(&self, context: &KeyContext, wrapped: &[u8]) -> Result<PlainKey, KmsError> {
        self.root.unwrap(&wrapping_context(context), wrapped).ok_or(KmsError::WrongContext)
    }

    async fn re_encrypt(&self, context: &KeyContext, wrapped: &[u8]) -> Result<Bytes, KmsError> {
        let plain = self.decrypt(context, wrapped).await?;
        self.root.wrap(&wrapping_context(context), &plain).map_err(|_| KmsError::Unavailable)
    }
}

/// Label 15, tenant 16, epoch 4 bytes, then the purpose.
fn wrapping_context(context: &KeyContext) -> Vec<u8> {
    [
        b"sotto local kms".as_slice(),
        context.tenant.0.as_bytes(),
        &context.epoch.0.to_be_bytes(),
        context.purpose.as_str().as_bytes(),
    ]
    .concat()
}

/// The file appears under its name whole or not at all, and never replaces another: a crash half-way
/// must leave neither a short key nor two keys.
fn create(path: &Path) -> Result<(), LocalKmsError> {
    let mut key = Zeroizing::new([0; ROOT_KEY_BYTES]);
    aws_lc_rs::rand::fill(key.as_mut()).map_err(|_| LocalKmsError::Randomness)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let draft = directory.join(format!(".root-key-{}", Uuid::new_v4()));
    let written = write_durably(&draft, &key).and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    match written {
        // Another process was first; its key is the one.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    File::open(directory)?.sync_all()?;
    Ok(())
}

fn write_durably(path: &Path, key: &[u8; ROOT_KEY_BYTES]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(ROOT_KEY_MODE).open(path)?;
    file.write_all(key)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use sotto_model::TenantId;

    use super::*;
    use crate::key_scope::Epoch;
    use crate::kms::KeyPurpose;

    fn context(tenant: u128, epoch: u32) -> KeyContext {
        KeyContext {
            tenant: TenantId(Uuid::from_u128(tenant)),
            purpose: KeyPurpose::Messages,
            epoch: Epoch(epoch),
        }
    }

    fn refusal(path: &Path) -> String {
        match LocalKms::open_or_create(path) {
            Ok(_) => "opened".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn a_root_key_is_made_once_and_read_ever_after() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("root.key");
        let made = LocalKms::open_or_create(&path).expect("made");
        let metadata = fs::metadata(&path).expect("file");
        assert_eq!((metadata.mode() & 0o777, metadata.len()), (0o600, 32));
        assert_eq!(fs::read_dir(directory.path()).expect("directory").count(), 1);

        let key = made.generate_data_key(&context(1, 1)).await.expect("key");
        let read = LocalKms::open_or_create(&path).expect("read");
        let plain = read.decrypt(&context(1, 1), &key.wrapped).await.expect("decrypt");
        assert_eq!(plain.as_bytes(), key.plain.as_bytes());
    }

    #[tokio::test]
    async fn a_key_is_unwrapped_for_its_own_context_only() {
        let kms = LocalKms::from_root_key(&PlainKey::new([9; 32].into()));
        let key = kms.generate_data_key(&context(1, 1)).await.expect("key");
        for other in [context(2, 1), context(1, 2)] {
            assert_eq!(kms.decrypt(&other, &key.wrapped).await.map(|_| ()), Err(KmsError::WrongContext));
            assert_eq!(kms.re_encrypt(&other, &key.wrapped).await, Err(KmsError::WrongContext));
        }
        let anew = kms.re_encrypt(&context(1, 1), &key.wrapped).await.expect("re-encrypt");
        assert_ne!(anew, key.wrapped);
        let plain = kms.decrypt(&context(1, 1), &anew).await.expect("decrypt");
        assert_eq!(plain.as_bytes(), key.plain.as_bytes());
    }

    #[test]
    fn a_file_that_others_may_read_or_of_another_length_is_refused() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("root.key");
        LocalKms::open_or_create(&path).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        assert_eq!(refusal(&path), "root key file is open to others: its mode must be 0600");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
        fs::write(&path, [0; 31]).expect("write");
        assert_eq!(refusal(&path), "root key file does not hold 32 bytes");
        assert_eq!(refusal(directory.path()), "root key file is not a regular file");
        assert!(
            refusal(&directory.path().join("missing/root.key")).starts_with("root key file: No such file")
        );
    }
}
