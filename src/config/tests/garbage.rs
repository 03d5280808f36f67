//! Whatever else may be in a file: nothing panics, everything ends.

use super::*;

/// Reads a text and renders its report; a router can be built from whatever is accepted.
fn survive(text: &str) {
    match parse(text) {
        Ok(settings) => {
            let claim = |service: &'_ Service| -> (String, _, _) {
                (service.name.clone(), service.hosts.clone(), service.paths.clone())
            };
            let owned: Vec<_> = settings.services.iter().map(claim).collect();
            let claims: Vec<_> = owned.iter().map(|(service, hosts, paths)| Claim { service, hosts, paths }).collect();
            assert!(Router::build(&claims).is_ok());
        }
        Err(report) => {
            assert!(report.problems().count() > 0);
            report.problems().for_each(|located| assert!(located.line >= 1 && located.column >= 1));
            assert!(report.render(true).len() >= report.render(false).len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        survive(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_yaml_like_text(text in "([\\-?:,\\[\\]{}#&*!|>'\"%@` \n\ta-z0-9.$é]|version: 1\n|services:|pools: |\\$\\{A){0,120}") {
        survive(&text);
    }

    #[test]
    fn mutations_of_the_reference(edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..30, "[\\-?:,\\[\\]{}#&*!|>'\"% \n\ta-z0-9$é\u{0}]{0,6}"), 1..6)) {
        let mut text = reference();
        for (at, cut, insert) in edits {
            let start = text.floor_char_boundary(at.index(text.len() + 1));
            let end = text.floor_char_boundary((start + cut).min(text.len())).max(start);
            text.replace_range(start..end, &insert);
        }
        survive(&text);
    }

    #[test]
    fn torn_references(at in any::<prop::sample::Index>()) {
        let text = reference();
        survive(&text[..text.floor_char_boundary(at.index(text.len()))]);
    }
}

/// Shapes that make naive readers quadratic, deep or endless.
#[test]
fn a_large_file_of_one_shape_ends() {
    let shapes =
        ["[", "{a: ", "- ", "? ", "a: 1\n", "'", "&a ", "!!a ", "|\n a\n", "[],", "a: {b: 1}, ", "é: [1]\n", "%"];
    for shape in shapes {
        for prefix in ["", "a: {"] {
            survive(&format!("{prefix}{}", shape.repeat(128 * 1024 / shape.len())));
        }
    }
}
