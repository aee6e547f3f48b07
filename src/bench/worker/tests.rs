use super::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Nothing {
    path: std::path::PathBuf,
}

impl ChildJob for Nothing {
    fn work(self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn specification_survives_the_command_line() {
    let job = Nothing { path: "/tmp/with space/\"quote\"".into() };
    let text = json(&Spec { parent: 7, job: &job });
    let spec: Spec<Nothing> = serde_json::from_str(&text).unwrap();
    assert_eq!((spec.parent, spec.job), (7, job));
}

#[test]
fn nonsense_is_a_usage_error() {
    assert_eq!(main::<Nothing>("{}"), 64);
}
