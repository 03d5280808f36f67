//! What the documents promise: examples that load, files that exist.

#[path = "../../src/config/tls/forge.rs"]
mod forge;

use std::fs;
use std::path::Path;

use crate::{read, top};

/// The example files, by name.
fn examples() -> Vec<String> {
    let found = fs::read_dir(top().join("config")).expect("config/ is there");
    let names = found.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// The fenced blocks of a document in one language.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    let after = document.split(opening.as_str()).skip(1);
    after.filter_map(|rest| rest.split_once("```")).map(|(block, _)| block.to_owned()).collect()
}

fn load(name: &str, text: &str, folder: &Path) -> Result<teal::config::settings::Settings, String> {
    let environment = |name: &str| (name == "STATE_DIRECTORY").then(|| "/var/lib/teal".to_owned());
    teal::config::parse(name, text, &environment, folder).map_err(|report| report.to_string())
}

#[test]
fn every_example_loads_and_is_mentioned() {
    let (examples, readme) = (examples(), read("README.md"));
    assert!(examples.len() >= 3, "{examples:?}");
    // Nobody publishes a key: the files that examples name are made for the test.
    let folder = tempfile::tempdir().expect("a folder");
    forge::examples(folder.path());
    for name in examples {
        let path = format!("config/{name}");
        load(&path, &read(&path), folder.path()).unwrap_or_else(|report| panic!("{report}"));
        assert!(readme.contains(&path), "README.md: {path} is not mentioned");
    }
}

#[test]
fn the_readme_shows_a_file_that_loads() {
    let shown = blocks(&read("README.md"), "yaml");
    assert_eq!(shown.len(), 1, "README.md: the first real file is the only yaml block");
    let settings = load("README.md", &shown[0], top()).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(settings.services.len(), 1, "README.md: the example serves one service");
}

#[test]
fn the_documents_name_files_that_exist() {
    for document in ["README.md", "deploy/README.md"] {
        let text = read(document);
        let named = text.split(['`', '(', ')', ' ', '\n']).filter(|word| {
            ["config/", "deploy/", "src/", "tests/", ".ci/"].iter().any(|folder| word.starts_with(folder))
        });
        let missing: Vec<_> = named.filter(|path| !top().join(path).exists()).collect();
        assert!(missing.is_empty(), "{document} names what is not there: {missing:?}");
    }
}

#[test]
fn blocks_are_found_and_bad_ones_refused() {
    let document = "a\n```yaml\nversion: 1\n```\nb\n```sh\nls\n```\n";
    assert_eq!(blocks(document, "yaml"), ["version: 1\n"]);
    assert!(load("x", "version: 1\nservices: {}\n", top()).is_err());
}
