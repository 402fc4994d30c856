//! Keys, region, service and certificates for a bucket, from the same places as in other programs.
//!
//! Variables, files and services are those of the AWS programs, read by the library aws-creds. The address overrides
//! them. The library looks for keys anew whenever they have expired, even in the environment.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use awscreds::Credentials;

use bygone_core::error::Error;
use bygone_core::error::Result;
use bygone_core::store::s3::KeySource;
use bygone_core::store::s3::S3Access;
use bygone_core::store::s3::S3Address;
use bygone_core::store::s3::S3Keys;

/// Name of the session when asking for the keys of a role.
const SESSION_NAME: &str = "bygone";

/// How to reach `address`, by the `variables` of the environment.
pub fn s3_access(address: &S3Address, variables: &BTreeMap<String, String>) -> Result<S3Access> {
    access_in(address, &|name| variables.get(name).cloned())
}

fn access_in(address: &S3Address, get: &dyn Fn(&str) -> Option<String>) -> Result<S3Access> {
    let profile = address.profile.clone().or_else(|| get("AWS_PROFILE"));
    let config = profile_settings(profile.as_deref(), get);
    let setting = |name: &str| config.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let ca = address.ca.clone().or_else(|| get("AWS_CA_BUNDLE")).or_else(|| setting("ca_bundle"));
    let ca = ca.or_else(|| get("SSL_CERT_FILE"));
    let ca_pem = match ca {
        None => None,
        Some(path) => Some(fs::read(&path).map_err(|source| Error::Local {
            doing: "read the certificate file",
            path: path.clone(),
            source,
        })?),
    };
    let endpoint = get("AWS_ENDPOINT_URL_S3").or_else(|| get("AWS_ENDPOINT_URL")).or_else(|| setting("endpoint_url"));
    let endpoint = endpoint.map(|endpoint| endpoint.trim_end_matches('/').to_owned());
    let service = address.endpoint.as_ref().or(endpoint.as_ref());
    let host = service.map_or("amazonaws.com", |service| service.split_once("://").map_or("", |(_, host)| host));
    let proxy = if service.is_some_and(|service| service.starts_with("http:")) { "http_proxy" } else { "https_proxy" };
    let proxy = get(proxy)
        .or_else(|| get(&proxy.to_uppercase()).filter(|_| proxy != "http_proxy"))
        .or_else(|| get("all_proxy"));
    let no_proxy = get("no_proxy").or_else(|| get("NO_PROXY")).unwrap_or_default();
    let proxy = proxy.filter(|_| !is_without_proxy(host, &no_proxy));
    let region = get("AWS_REGION").or_else(|| get("AWS_DEFAULT_REGION")).or_else(|| setting("region"));
    Ok(S3Access {
        keys: key_source(address.profile.clone(), profile),
        region,
        endpoint,
        ca_pem,
        proxy,
        now: SystemTime::now,
    })
}

/// A source of keys. Each call looks for them anew, because a provider of expiring keys replaces them.
fn key_source(wanted: Option<String>, profile: Option<String>) -> KeySource {
    Arc::new(move || {
        let credentials = find(wanted.as_deref(), profile.as_deref())?;
        keys_of(&credentials).ok_or_else(no_keys)
    })
}

fn find(wanted: Option<&str>, profile: Option<&str>) -> Result<Credentials> {
    if let Some(name) = wanted {
        return Credentials::from_profile(Some(name)).map_err(|cause| Error::Invalid {
            what: format!("the profile {name} has no keys: {cause}: add them to ~/.aws/credentials"),
        });
    }
    let usable = |credentials: &Credentials| keys_of(credentials).is_some();
    Credentials::from_env()
        .ok()
        .filter(usable)
        .or_else(|| Credentials::from_profile(profile).ok().filter(usable))
        .or_else(|| Credentials::from_sts_env(SESSION_NAME).ok())
        .or_else(|| Credentials::from_container_credentials_provider().ok())
        .or_else(|| Credentials::from_instance_metadata_v2(false).ok())
        .or_else(|| Credentials::from_instance_metadata(false).ok())
        .ok_or_else(no_keys)
}

fn no_keys() -> Error {
    let what = "there are no keys for the bucket: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or add a profile to \
                ~/.aws/credentials and name it with AWS_PROFILE or with profile= in the address";
    Error::Invalid { what: what.into() }
}

fn keys_of(credentials: &Credentials) -> Option<S3Keys> {
    let token = credentials.session_token.clone().or_else(|| credentials.security_token.clone());
    let expires = credentials.expiration.and_then(|end| u64::try_from(end.unix_timestamp()).ok());
    Some(S3Keys {
        access_key: credentials.access_key.clone().filter(|key| !key.is_empty())?,
        secret_key: credentials.secret_key.clone().filter(|key| !key.is_empty())?.into(),
        session_token: token.filter(|token| !token.is_empty()).map(Into::into),
        expires: expires.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
    })
}

/// The settings of a profile in the AWS configuration file. A file that is missing or unreadable has none.
fn profile_settings(profile: Option<&str>, get: &dyn Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let home = || get("HOME").map(|home| PathBuf::from(home).join(".aws/config"));
    let path = get("AWS_CONFIG_FILE").map(PathBuf::from).or_else(home);
    let text = path.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    section(&text, profile.unwrap_or("default"))
}

fn section(text: &str, profile: &str) -> Vec<(String, String)> {
    let mut is_ours = false;
    let mut settings = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let name = name.trim();
            is_ours = name.strip_prefix("profile ").map_or(name, str::trim) == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| is_ours) {
            settings.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    settings
}

/// Whether `no_proxy` names this host, or a domain that contains it.
fn is_without_proxy(host: &str, no_proxy: &str) -> bool {
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let is_here = |name: &str| {
        let name = name.trim().trim_start_matches("*.").trim_start_matches('.');
        !name.is_empty()
            && (name == "*" || bare == name || bare.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')))
    };
    no_proxy.split(',').any(is_here)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(address: &str, environment: &[(&str, &str)]) -> Result<S3Access> {
        let environment: BTreeMap<_, _> = environment.iter().copied().collect();
        let address = S3Address::parse(address.strip_prefix("s3:").unwrap()).unwrap();
        access_in(&address, &|name| environment.get(name).map(ToString::to_string))
    }

    #[test]
    fn region_and_service_come_from_the_variables_or_the_profile() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config");
        let text =
            "# comment\n[default]\nregion = eu-west-1\n[profile far]\nregion=ap-south-1\nendpoint_url = http://far/\n";
        fs::write(&config, text).unwrap();
        let file = ("AWS_CONFIG_FILE", config.to_str().unwrap());
        let region = |environment: &[(&str, &str)]| access("s3://bucket/x", environment).unwrap().region;
        assert_eq!(region(&[]), None);
        assert_eq!(region(&[file]).as_deref(), Some("eu-west-1"));
        assert_eq!(region(&[file, ("AWS_DEFAULT_REGION", "a-1"), ("AWS_REGION", "b-1")]).as_deref(), Some("b-1"));
        let far = access("s3://bucket/x", &[file, ("AWS_PROFILE", "far")]).unwrap();
        assert_eq!((far.region.as_deref(), far.endpoint.as_deref()), (Some("ap-south-1"), Some("http://far")));
        let named = access("s3://bucket/x?profile=far", &[file]).unwrap();
        assert_eq!(named.region.as_deref(), Some("ap-south-1"));
    }

    #[test]
    fn a_proxy_is_used_unless_no_proxy_names_the_host() {
        let proxy = |address: &str, no_proxy| {
            let environment = [("https_proxy", "http://proxy:3128"), ("no_proxy", no_proxy)];
            access(address, &environment).unwrap().proxy
        };
        assert_eq!(proxy("s3://bucket/x", "").as_deref(), Some("http://proxy:3128"));
        assert_eq!(proxy("s3://bucket/x", "localhost,.amazonaws.com"), None);
        assert_eq!(proxy("s3://bucket/x?endpoint=https://s3.here:9000", "here"), None);
        assert!(proxy("s3://bucket/x?endpoint=https://s3.there", "here").is_some());
        assert_eq!(proxy("s3://bucket/x?endpoint=http://s3.there", ""), None, "that one is for https");
    }

    #[test]
    fn a_file_of_certificates_that_is_missing_is_named() {
        let error = access("s3://bucket/x", &[("AWS_CA_BUNDLE", "/absent.pem")]).err().unwrap();
        assert!(error.to_string().contains("/absent.pem"), "{error}");
    }

    #[test]
    fn keys_that_are_empty_are_none() {
        let keys = |access: &str, secret: &str| {
            let credentials = Credentials::new(Some(access), Some(secret), None, Some("token"), None).unwrap();
            keys_of(&credentials).map(|keys| (keys.access_key, keys.session_token.map(|token| token.to_string())))
        };
        assert_eq!(keys("a", "b"), Some(("a".into(), Some("token".into()))));
        assert_eq!((keys("", "b"), keys("a", "")), (None, None));
    }
}
