//! Alarms and other findings about the store, as every command shows them.

use serde_json::Value;
use serde_json::json;

use bygone_cli::terminal::output;
use bygone_cli::terminal::output::count;
use bygone_cli::terminal::output::one_line;
use bygone_core::recover::Learnt;
use bygone_core::survey::Finding;

use crate::commands::Context;

/// A finding in one line.
pub(super) fn line(finding: &Finding) -> String {
    one_line(&format!("{}: {}: {}", finding.diagnosis, finding.object, finding.detail))
}

/// A finding for programs.
pub(super) fn value(finding: &Finding) -> Value {
    let Finding { diagnosis, object, detail } = finding;
    json!({ "diagnosis": diagnosis.code(), "object": object, "detail": detail, "advice": diagnosis.advice() })
}

/// Findings for programs, limited to the first thousand.
pub(super) fn values(findings: &[Finding]) -> Vec<Value> {
    findings.iter().take(VALUES_MAX).map(value).collect()
}

/// A store filled with foreign objects must not fill the memory of the reader.
const VALUES_MAX: usize = 1_000;

/// What to do about each kind of finding.
pub(super) fn advice(findings: &[Finding]) -> Vec<String> {
    let mut kinds: Vec<_> = findings.iter().map(|finding| finding.diagnosis).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.iter().map(|diagnosis| format!("what to do about {diagnosis}: {}", diagnosis.advice())).collect()
}

/// Alarms that are shown one by one; the rest are counted.
const SHOWN_MAX: usize = 20;

/// Shows what a survey has found, before the command goes on. In JSON, everything is part of the result instead.
pub(super) fn show(context: &mut Context, learnt: &Learnt) {
    if context.settings.json {
        return;
    }
    for finding in learnt.news.raised.iter().take(SHOWN_MAX) {
        output::message(&format!("alarm: {}", line(finding)));
    }
    let more = learnt.news.raised.len().saturating_sub(SHOWN_MAX);
    if more > 0 {
        let more = count(more as u64, "more alarm", "more alarms");
        output::message(&format!("and {more}: list all with `bygone accept-loss`"));
    }
    advice(&learnt.news.raised).iter().for_each(|text| output::message(text));
    if learnt.settled > 0 && !context.settings.quiet {
        let volumes = count(
            learnt.settled,
            "volume of an interrupted backup was found in the store and is used",
            "volumes of an interrupted backup were found in the store and are used",
        );
        output::message(&format!("note: {volumes}"));
    }
    for object in &learnt.news.ended {
        output::message(&format!("{object} is intact again: its alarm has ended"));
    }
    learnt.notes.iter().for_each(|note| output::message(&format!("note: {}", line(note))));
    if context.settings.verbose {
        learnt.unexplained.iter().for_each(|finding| output::message(&format!("note: {}", line(finding))));
    }
}

/// Reminds the user of open alarms.
pub(super) fn remind(context: &Context, open: &[Finding]) {
    if !open.is_empty() && !context.settings.json {
        let alarms = count(open.len() as u64, "alarm is", "alarms are");
        output::message(&format!(
            "{alarms} open, so this ends with 13: `bygone accept-loss` lists alarms, and accepts them with --yes"
        ));
    }
}
