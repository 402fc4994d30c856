//! Which place counts when a setting is given in several.

use std::fs;

use super::*;

fn environment() -> Environment {
    Environment { home: Some("/home/u".into()), ..Environment::default() }
}

fn locations(globals: &Globals, environment: Environment) -> Result<Locations> {
    Settings::resolve(globals, environment)?.locations()
}

fn globals(repo: &str) -> Globals {
    Globals { repo: Some(repo.into()), ..Globals::default() }
}

#[test]
fn the_command_line_overrides_the_environment() {
    let environment = Environment {
        repo: Some("/env".into()),
        catalog_dir: Some("/env-catalog".into()),
        state_home: Some("/state".into()),
        ..environment()
    };
    let store = |globals: &Globals| locations(globals, environment.clone()).unwrap().address;
    assert_eq!(store(&Globals::default()), Address::Local("/env".into()));
    assert_eq!(store(&globals("/line")), Address::Local("/line".into()));
    let base = |globals: &Globals| locations(globals, environment.clone()).unwrap().catalog_base;
    assert_eq!(base(&Globals::default()), Path::new("/env-catalog"));
    assert_eq!(base(&Globals { catalog_dir: Some("/x".into()), ..Globals::default() }), Path::new("/x"));
}

#[test]
fn the_strongest_place_sets_the_patience() {
    let environment = Environment { retry_for: Some("2m".into()), ..environment() };
    let nothing = Environment::default();
    let section = |seconds| Section { retry_for: Some(Patience(Duration::from_secs(seconds))), ..Section::default() };
    let defaults = Configuration { defaults: section(3), ..Configuration::default() };
    let both = Configuration { profile: section(4), defaults: section(3) };
    let line = Globals { retry_for: Some(Duration::ZERO), ..globals("/r") };
    let of = |globals: &Globals, environment: &Environment, configuration: &Configuration| {
        patience_in(globals, environment, configuration).unwrap().as_secs()
    };
    assert_eq!(of(&line, &environment, &both), 0, "the command line");
    assert_eq!(of(&globals("/r"), &environment, &both), 4, "then the profile");
    assert_eq!(of(&globals("/r"), &environment, &defaults), 120, "then the environment");
    assert_eq!(of(&globals("/r"), &nothing, &defaults), 3, "then what counts for all");
    assert_eq!(of(&globals("/r"), &nothing, &Configuration::default()), PATIENCE_DEFAULT.as_secs());
    let wrong = Environment { retry_for: Some("soon".into()), ..Environment::default() };
    assert!(patience_in(&globals("/r"), &wrong, &defaults).is_err());
}

#[test]
fn catalog_and_cache_have_default_directories() {
    let at_home = locations(&globals("file:/r"), environment()).unwrap();
    let directories = ["/home/u/.local/state/bygone", "/home/u/.cache/bygone", "/r"].map(PathBuf::from);
    assert_eq!(at_home.directories(), directories);
    let relative = Environment { state_home: Some("state".into()), ..environment() };
    let base = locations(&globals("/r"), relative).unwrap().catalog_base;
    assert_eq!(base, Path::new("/home/u/.local/state/bygone"), "a relative XDG variable is ignored");
    let absolute = Environment { state_home: Some("/state".into()), ..environment() };
    assert_eq!(locations(&globals("/r"), absolute).unwrap().catalog_base, Path::new("/state/bygone"));
}

#[test]
fn a_missing_setting_is_a_usage_error() {
    let error = locations(&Globals::default(), environment()).unwrap_err();
    assert!(matches!(&error, Failure::Usage(text) if text.contains("BYGONE_REPO")), "{error}");
    let homeless = locations(&globals("/r"), Environment::default()).unwrap_err();
    assert!(matches!(&homeless, Failure::Usage(text) if text.contains("--catalog-dir")), "{homeless}");
    assert!(locations(&globals("sftp:x"), environment()).is_err());
    let bucket = locations(&globals("s3://bucket/x"), environment()).unwrap();
    assert_eq!(bucket.directories().len(), 2, "a bucket is no directory of this machine");
}

#[test]
fn a_passphrase_option_overrides_all_passphrase_variables() {
    let environment = Environment {
        passphrase_file: Some("/file".into()),
        passphrase_command: Some("command".into()),
        passphrase: Some("value".into()),
        ..environment()
    };
    let line = Globals { passphrase_command: Some("pass show x".into()), ..Globals::default() };
    let sources = passphrase_in(&line, &environment, &Configuration::default());
    assert_eq!((sources.file, sources.value), (None, None), "the variables are weaker");
    assert_eq!(sources.command, Some("pass show x".into()));
    let sources = passphrase_in(&Globals::default(), &environment, &Configuration::default());
    assert_eq!(sources.file, Some("/file".into()));
    assert_eq!(sources.value, Some("value".into()));
}

#[test]
fn command_line_profile_environment_defaults_in_this_order() {
    let scratch = tempfile::tempdir().unwrap();
    fs::create_dir(scratch.path().join("bygone")).unwrap();
    let text = r#"
        [defaults]
        repository = "/defaults"
        cache-dir = "/defaults-cache"
        passphrase-file = "/defaults-passphrase"
        limit-upload = 1
        limit-download = 1
        parallel = 1
        [profile.p]
        repository = "/profile"
        passphrase-command = "profile"
        limit-upload = 2
        [profile.bare]
    "#;
    fs::write(scratch.path().join("bygone/config.toml"), text).unwrap();
    let bare = Environment { config_home: Some(scratch.path().into()), ..environment() };
    let full = Environment { repo: Some("/environment".into()), passphrase: Some("value".into()), ..bare.clone() };
    let profile = |name: &str| Globals { profile: Some(name.into()), ..Globals::default() };
    let store = |globals: &Globals, environment: &Environment| locations(globals, environment.clone()).unwrap().address;
    let cases = [
        (globals("/line"), &full, "/line"),
        (Globals { profile: Some("p".into()), ..globals("/line") }, &full, "/line"),
        (profile("p"), &full, "/profile"),
        (profile("bare"), &full, "/environment"),
        (Globals::default(), &full, "/environment"),
        (profile("bare"), &bare, "/defaults"),
    ];
    for (globals, environment, expected) in cases {
        assert_eq!(store(&globals, environment), Address::Local(expected.into()), "{globals:?}");
    }
    assert_eq!(locations(&profile("p"), full.clone()).unwrap().cache_base, Path::new("/defaults-cache"));
    let passphrase = |globals: &Globals, environment: &Environment| {
        Settings::resolve(globals, environment.clone()).unwrap().passphrase
    };
    assert_eq!(passphrase(&profile("p"), &full).command, Some("profile".into()));
    assert_eq!(passphrase(&profile("bare"), &full).value, Some("value".into()));
    assert_eq!(passphrase(&profile("bare"), &bare).file, Some("/defaults-passphrase".into()));
    let limits = |globals: &Globals| limits_in(globals, &configuration_in(globals, &bare).unwrap());
    let expected = Limits { upload: Some(2), download: Some(1), transfers: Some(1) };
    assert_eq!(limits(&profile("p")), expected);
    let line = Globals { limit_upload: Some(Rate(None)), parallel: Some(Parallel(7)), ..profile("p") };
    assert_eq!(limits(&line), Limits { upload: None, transfers: Some(7), ..expected });
    assert!(locations(&profile("q"), full.clone()).is_err());
    assert!(locations(&profile("p"), Environment::default()).is_err(), "a profile without a home is not overlooked");
}
