//! Files, surroundings and reports.

use rookery_oracle::{Event, History, HistoryError, Kind, Line, Report};

use super::story::{BOB, Story, arrived};

fn with_a_loss() -> Story {
    let mut story = Story::of_two();
    story.ann_sends([1, 2, 3]);
    story.note(BOB, arrived(1, 1));
    story.note(
        0,
        Event::FaultBegan {
            id: 7,
            kind: "redis killed".to_owned(),
            what: "the subscriber's link".to_owned(),
        },
    );
    story.note(BOB, arrived(3, 3));
    story.note(0, Event::FaultEnded { id: 7 });
    story.ends();
    story
}

#[test]
fn a_finding_shows_its_surroundings() {
    let report = with_a_loss().check();
    let finding = &report.findings[0];
    assert_eq!(finding.faults, ["redis killed: the subscriber's link"]);
    let around = finding.around.join("\n");
    assert!(around.contains("fault_began") && around.contains("fault_ended"));
    assert!(!around.contains("\"d\":1,"), "Ann's lines are elsewhere");
    // What was lost was sent and acknowledged.
    assert_eq!(finding.story.len(), 2, "{:?}", finding.story);
    let text = report.to_markdown("Oracle");
    for part in [
        "## Oracle",
        "**BROKEN**",
        "| lost | 1 |",
        "### lost: 1",
        "one:14",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn a_report_is_json_too() {
    let report = with_a_loss().check();
    let text = serde_json::to_string(&report).unwrap();
    let again: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(again.count(Kind::Lost), 1);
    assert!(text.contains("\"kind\":\"lost\""));
}

fn written(lines: &[Line], end: &str) -> (tempfile::TempDir, Vec<History>) {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = lines
        .iter()
        .map(|line| serde_json::to_string(line).expect("a line"));
    let text: String = lines.map(|line| line + "\n").collect();
    std::fs::write(folder.path().join("one.jsonl"), text + end).expect("a file");
    std::fs::write(folder.path().join("notes.txt"), "no history").expect("a file");
    let histories = History::folder(folder.path()).expect("a folder");
    (folder, histories)
}

#[test]
fn a_folder_of_files_is_judged_like_lines_in_memory() {
    let story = with_a_loss();
    let (_folder, histories) = written(&story.lines, "");
    let report = rookery_oracle::check(&histories, &story.state, &story.options).unwrap();
    assert_eq!(report.count(Kind::Lost), 1);
    assert_eq!(report.findings[0].place.as_deref(), Some("one.jsonl:14"));
    assert_eq!(report.counts.torn, 0);
}

#[test]
fn a_file_may_end_within_a_line_and_nowhere_else() {
    let story = with_a_loss();
    let (_folder, histories) = written(&story.lines, "{\"t\":1,\"d\"");
    let report = rookery_oracle::check(&histories, &story.state, &story.options).unwrap();
    assert_eq!(report.counts.torn, 1);
    let (_folder, histories) = written(&story.lines, "{\"t\":1,\"d\"\n");
    let error = rookery_oracle::check(&histories, &story.state, &story.options).unwrap_err();
    assert!(
        matches!(error, HistoryError::Line { line: 18, .. }),
        "{error}"
    );
}

#[test]
fn a_file_that_is_no_history_is_refused() {
    let story = with_a_loss();
    let (_folder, histories) = written(&story.lines[1..], "");
    let error = rookery_oracle::check(&histories, &story.state, &story.options).unwrap_err();
    assert!(matches!(error, HistoryError::Format { .. }), "{error}");
}

#[test]
fn the_program_says_by_its_exit_code_what_it_found() {
    let program = |folder: &std::path::Path, state: &std::path::Path| {
        let program = env!("CARGO_BIN_EXE_rookery-oracle");
        let mut command = std::process::Command::new(program);
        command.args([folder, state]).output().unwrap()
    };
    let story = with_a_loss();
    let (folder, _) = written(&story.lines, "");
    let state = folder.path().join("state.json");
    std::fs::write(&state, serde_json::to_string(&story.state).unwrap()).unwrap();
    let output = program(folder.path(), &state);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("| lost | 1 |"));
    std::fs::remove_file(folder.path().join("one.jsonl")).unwrap();
    assert_eq!(program(folder.path(), &state).status.code(), Some(2));
}
