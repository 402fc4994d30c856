//! `bygone.json`: the description of a repository, readable by people and protected against unnoticed changes.
//!
//! It is the only object that is read before any key is known, so it carries no secret and its size is limited. Once
//! the master key is open, its MAC proves that it belongs to this repository and that the store has changed no setting.
//! A later bygone names what this one does not know as [`Features`], which are judged before all other members.

use serde::Deserialize;
use serde::Serialize;
use subtle::ConstantTimeEq;

use crate::compress::Compression;
use crate::crypto::Keys;
use crate::error::Error;
use crate::error::Result;
use crate::features::Features;
use crate::id::RepositoryId;
use crate::id::hex;
use crate::limits;
use crate::objects::CONFIG_NAME;

/// The settings of a repository, fixed when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The repository's name.
    pub repository: RepositoryId,
    /// Size of a full block, in bytes.
    pub block_bytes: u32,
    /// Stored size at which a volume is closed, in bytes.
    pub volume_bytes: u64,
    /// How frames are compressed.
    pub compression: Compression,
    /// What a program must know to use it.
    pub features: Features,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    repository: String,
    block_bytes: u32,
    frame_bytes: u32,
    volume_bytes: u64,
    compression: String,
    read: Vec<String>,
    write: Vec<String>,
    optional: Vec<String>,
    mac: String,
}

#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// What is judged once the format is known, before any other member is.
#[derive(Deserialize)]
struct Needs {
    read: Option<Vec<String>>,
}

impl Config {
    /// Fails unless every setting is within the limits of the format.
    pub fn validate(&self) -> Result<()> {
        let limit = |what, found, min, max| match found {
            _ if found > max => Err(Error::Limit { what, found, max }),
            _ if found < min => Err(Error::Invalid { what: format!("{what} is {found}, it must be at least {min}") }),
            _ => Ok(()),
        };
        let (block_min, block_max) = (limits::BLOCK_BYTES_MIN, limits::BLOCK_BYTES_MAX);
        limit("the block size in bytes", self.block_bytes.into(), block_min.into(), block_max.into())?;
        if !self.block_bytes.is_power_of_two() {
            return Err(Error::Invalid { what: format!("the block size {} is not a power of two", self.block_bytes) });
        }
        let (volume_min, volume_max) = (limits::VOLUME_BYTES_MIN, limits::VOLUME_BYTES_CLOSE_MAX);
        limit("the volume size in bytes", self.volume_bytes, volume_min, volume_max)
    }

    /// Fails if this program may only read the repository.
    pub fn check_writable(&self) -> Result<()> {
        self.features.check_writable()
    }

    /// The object's bytes.
    pub fn encode(&self, keys: &Keys) -> Result<Vec<u8>> {
        let document = Document {
            format: limits::FORMAT_VERSION.into(),
            repository: self.repository.to_hex(),
            block_bytes: self.block_bytes,
            frame_bytes: limits::FRAME_BYTES,
            volume_bytes: self.volume_bytes,
            compression: self.compression.to_string(),
            read: self.features.read.clone(),
            write: self.features.write.clone(),
            optional: self.features.optional.clone(),
            mac: hex(&keys.config_mac(self.mac_message().as_bytes())),
        };
        let mut text = serde_json::to_vec_pretty(&document).map_err(|e| Error::corrupt(CONFIG_NAME, e))?;
        text.push(b'\n');
        Ok(text)
    }

    /// Parses the object without proof: enough to find the catalog and to try the keys.
    pub fn decode(bytes: &[u8]) -> Result<UnprovenConfig> {
        let damaged = |detail: &dyn std::fmt::Display| Error::corrupt(CONFIG_NAME, detail);
        let version: Version = serde_json::from_slice(bytes).map_err(|e| damaged(&e))?;
        if version.format > limits::FORMAT_VERSION.into() {
            let known = limits::FORMAT_VERSION.into();
            return Err(Error::TooNew { what: CONFIG_NAME.into(), found: version.format, known });
        }
        if version.format == 0 {
            return Err(damaged(&"format"));
        }
        let needs: Needs = serde_json::from_slice(bytes).map_err(|e| damaged(&e))?;
        let Some(read) = needs.read else {
            return Err(damaged(&"it lists no features, so it is not whole, or was made before the first release"));
        };
        let named = Features { read, ..Features::default() };
        named.validate().map_err(|e| damaged(&e))?;
        named.check_readable()?;
        let document: Document = serde_json::from_slice(bytes).map_err(|e| damaged(&e))?;
        let config = Config {
            repository: RepositoryId::from_hex(&document.repository).ok_or_else(|| damaged(&"repository"))?,
            block_bytes: document.block_bytes,
            volume_bytes: document.volume_bytes,
            compression: document.compression.parse().map_err(|_| damaged(&"compression"))?,
            features: Features { read: document.read, write: document.write, optional: document.optional },
        };
        config.validate()?;
        config.features.validate().map_err(|e| damaged(&e))?;
        if document.frame_bytes != limits::FRAME_BYTES {
            return Err(damaged(&"frame_bytes"));
        }
        Ok(UnprovenConfig { config, mac: document.mac })
    }

    fn mac_message(&self) -> String {
        format!(
            "format={};repository={};block_bytes={};frame_bytes={};volume_bytes={};compression={};{}",
            limits::FORMAT_VERSION,
            self.repository,
            self.block_bytes,
            limits::FRAME_BYTES,
            self.volume_bytes,
            self.compression,
            self.features.mac_message()
        )
    }
}

/// A description whose MAC has not been checked yet.
#[derive(Debug)]
pub struct UnprovenConfig {
    config: Config,
    mac: String,
}

impl UnprovenConfig {
    /// The repository that it claims to be.
    pub fn repository(&self) -> RepositoryId {
        self.config.repository
    }

    /// The description, if it was made with these keys.
    pub fn prove(self, keys: &Keys) -> Result<Config> {
        let expected = hex(&keys.config_mac(self.config.mac_message().as_bytes()));
        if bool::from(expected.as_bytes().ct_eq(self.mac.as_bytes())) {
            Ok(self.config)
        } else {
            Err(Error::corrupt(CONFIG_NAME, "its settings were changed: its MAC does not match them"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::MasterKey;

    fn sample() -> (Config, Keys) {
        let repository = RepositoryId([1; 16]);
        let config = Config {
            repository,
            block_bytes: 1 << 20,
            volume_bytes: 64 << 20,
            compression: Compression::Lz4,
            features: Features { write: vec!["write-me".into()], optional: vec!["a".into(), "b".into()], read: vec![] },
        };
        (config, Keys::derive(&MasterKey::from_bytes([7; 32]), repository))
    }

    #[test]
    fn settings_come_back_and_no_setting_can_be_changed() {
        let (config, keys) = sample();
        let text = String::from_utf8(config.encode(&keys).unwrap()).unwrap();
        assert_eq!(Config::decode(text.as_bytes()).unwrap().prove(&keys).unwrap(), config);
        for (from, to) in [
            ("1048576", "2097152"),
            ("67108864", "33554432"),
            ("lz4", "none"),
            ("0101", "0102"),
            ("-me", "-it"),
            (r#""a""#, r#""aa""#),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text);
            assert!(Config::decode(changed.as_bytes()).unwrap().prove(&keys).is_err(), "{from} -> {to}");
        }
    }

    #[test]
    fn a_later_version_is_named_before_its_fields_are_judged() {
        let error = Config::decode(br#"{"format": 2, "anything": true}"#).unwrap_err();
        assert!(matches!(error, Error::TooNew { found: 2, .. }), "{error}");
    }

    #[test]
    fn an_unknown_feature_is_named_before_other_members_are_judged() {
        let error = Config::decode(br#"{"format": 1, "read": ["some-thing"], "anything": true}"#).unwrap_err();
        assert!(matches!(&error, Error::Newer { needs, .. } if needs == "some-thing"), "{error}");
        let error = Config::decode(br#"{"format": 1, "anything": true}"#).unwrap_err();
        assert!(error.to_string().contains("before the first release"), "{error}");
    }

    #[test]
    fn a_member_that_is_unknown_repeated_or_missing_is_refused() {
        let (config, keys) = sample();
        let text = String::from_utf8(config.encode(&keys).unwrap()).unwrap();
        let broken = [
            text.replacen('{', r#"{ "more": 1,"#, 1),
            text.replacen('{', r#"{ "read": [],"#, 1),
            text.replacen("\"optional\"", "\"optionel\"", 1),
            text.replacen(r#""a","#, r#""c","#, 1),
            text.replacen(r#""a","#, r#""write-me","#, 1),
        ];
        for text in broken {
            let error = Config::decode(text.as_bytes()).unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{error}: {text}");
        }
    }
}
