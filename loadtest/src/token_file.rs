//! The file whose content agents and coordinator share.

use std::fs;
use std::path::Path;

use anyhow::Context;

use crate::link::Token;

pub(crate) fn read_token(file: &Path) -> anyhow::Result<Token> {
    let raw = fs::read_to_string(file).with_context(|| format!("read token from `{}`", file.display()))?;
    Ok(Token::new(&raw)?)
}
