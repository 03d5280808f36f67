//! Texts of the command line that become values: shares, durations, tokens.
//!
//! Invariant: every error is a sentence that shows a good value.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use crate::config::settings::{Address, Place};
use crate::domain::split::Share;

/// Bytes of a token file: more is not a token.
const MAX_TOKEN: u64 = 4 * 1024;

/// A pool and its share, `green=10%`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PoolShare {
    /// The pool's name.
    pub(super) pool: String,
    /// Its share.
    pub(super) share: Share,
}

/// Reads `POOL=SHARE`.
pub(super) fn pool_share(text: &str) -> Result<PoolShare, String> {
    let (pool, share) = text.split_once('=').ok_or("write POOL=SHARE, such as green=10%")?;
    if pool.is_empty() {
        return Err("the pool's name is missing: write POOL=SHARE, such as green=10%".to_owned());
    }
    let share = share.parse().map_err(|error| format!("{error}"))?;
    Ok(PoolShare { pool: pool.to_owned(), share })
}

/// Reads the admin API's address, which has no TLS.
pub(super) fn admin(text: &str) -> Result<Address, String> {
    match text.parse::<Address>() {
        Ok(address) if address.tls => Err("the admin API speaks no TLS: write http://".to_owned()),
        Ok(address) if !matches!(address.place, Place::Host { .. }) => {
            Err("the admin API is at http://HOST:PORT".to_owned())
        }
        Ok(address) if !matches!(address.place, Place::Host { .. }) => Err("write http://HOST:PORT".to_owned()),
        Ok(address) => Ok(address),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads a duration such as `90s`, `10m`, `1h 30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "write a number and a unit, such as 500ms, 90s or 10m".to_owned())
}

/// Reads a token: the text itself, or the content of `file:PATH` without the white space around it.
pub(super) fn token(text: &str) -> Result<String, String> {
    let Some(path) = text.strip_prefix("file:") else { return Ok(text.to_owned()) };
    let mut content = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_TOKEN + 1).read_to_string(&mut content))
        .map_err(|error| format!("the token file `{path}` cannot be read: {error}"))?;
    match content.len() as u64 > MAX_TOKEN {
        true => Err(format!("the token file `{path}` is larger than 4 KiB")),
        false => Ok(content.trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_or_explained() {
        let good = [("green=10%", "green", "10%"), ("a-b=0.25%", "a-b", "0.25%"), ("x=100%", "x", "100%")];
        for (text, pool, share) in good {
            let expected = PoolShare { pool: pool.to_owned(), share: share.parse().unwrap() };
            assert_eq!(pool_share(text), Ok(expected), "{text}");
        }
        let percentage = "a share is a percentage from 0% to 100% with at most two decimals, such as 10% or 0.5%";
        let bad = [
            ("green", "write POOL=SHARE, such as green=10%"),
            ("", "write POOL=SHARE, such as green=10%"),
            ("=10%", "the pool's name is missing: write POOL=SHARE, such as green=10%"),
            ("green=10", percentage),
            ("green=101%", percentage),
            ("green=", percentage),
            ("green==10%", percentage),
        ];
        for (text, error) in bad {
            assert_eq!(pool_share(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn durations_are_read_or_explained() {
        let good = [("500ms", 500), ("90s", 90_000), ("10m", 600_000), ("1h 30m", 5_400_000), ("1h30m", 5_400_000)];
        for (text, millis) in good {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "m", "-1s", "10 parsecs", "99999999999999999999s"] {
            assert_eq!(
                duration(text),
                Err("write a number and a unit, such as 500ms, 90s or 10m".to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn tokens_come_from_the_text_or_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let from_file = || token(&format!("file:{}", path.display()));
        assert_eq!(token("secret"), Ok("secret".to_owned()));
        assert!(from_file().unwrap_err().contains("cannot be read"));
        std::fs::write(&path, "  secret\n").unwrap();
        assert_eq!(from_file(), Ok("secret".to_owned()));
        std::fs::write(&path, "x".repeat(4 * 1024 + 1)).unwrap();
        assert!(from_file().unwrap_err().ends_with("is larger than 4 KiB"));
        std::fs::write(&path, b"\xff\xfe").unwrap();
        assert!(from_file().unwrap_err().contains("cannot be read"));
    }
}
