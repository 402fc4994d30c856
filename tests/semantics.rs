//! docs/SEMANTICS.md lists the promises, each with the tests that hold it. This test checks that those exist.

use std::fs;
use std::path::Path;

#[test]
fn every_promise_names_a_test_that_exists() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let promises = fs::read_to_string(tests.join("../docs/SEMANTICS.md")).unwrap();
    let mut found = 0;
    for promise in promises.lines().filter(|line| line.starts_with("- ") && !line.starts_with("- Not ")) {
        let named: Vec<_> = promise.split('`').filter_map(|word| word.split_once("::")).collect();
        assert!(!named.is_empty(), "no test holds this promise: {promise}");
        for (module, test) in named {
            let source = fs::read_to_string(tests.join(format!("{module}.rs"))).unwrap_or_default();
            assert!(source.contains(&format!("#[test]\nfn {test}()")), "there is no test {module}::{test}");
            found += 1;
        }
    }
    assert!(found > 20, "only {found} tests are named");
}
