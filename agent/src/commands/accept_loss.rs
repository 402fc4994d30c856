//! `bygone accept-loss`: lists what the store has lost, and accepts the loss.

use serde_json::json;

use bygone_cli::exit::Exit;
use bygone_cli::exit::Failure;
use bygone_cli::exit::Result;
use bygone_cli::terminal::output::count;
use bygone_core::catalog::Alarm;
use bygone_core::recover;
use bygone_core::survey;
use bygone_core::survey::Accepted;
use bygone_core::survey::Finding;

use crate::commands::Context;
use crate::commands::alarms;

/// List the open alarms about the store, or accept them
///
/// Without --yes or WHICH, lists the open alarms, changes nothing, and ends with 13 if there are any. Accepting an alarm
/// ends it and deletes nothing: what is lost stays recorded as lost, and the next backup stores again what the source
/// still has. If commits were lost, this machine records again everything that its catalog still knows.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Accept only these alarms: a code such as REMOTE_MISSING, an object, or the beginning of an object's name
    #[arg(value_name = "WHICH")]
    which: Vec<String>,
    /// Accept all open alarms
    #[arg(long)]
    yes: bool,
}

impl Args {
    fn is_chosen(&self, alarm: &Alarm) -> bool {
        let is_named = |which: &String| which == alarm.diagnosis.code() || alarm.object.starts_with(which.as_str());
        if self.which.is_empty() { self.yes } else { self.which.iter().any(is_named) }
    }
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Exit> {
    if args.which.iter().any(String::is_empty) {
        return Err(Failure::Usage("an empty WHICH would match every alarm: accept all of them with --yes".into()));
    }
    let is_list = args.which.is_empty() && !args.yes;
    let repository = context.open()?;
    let mut locked = if is_list { context.lock_catalog(repository)? } else { context.lock(repository)? };
    if is_list {
        let learnt = recover::sync_as_found(&mut locked, &context.watch)?;
        let open = survey::alarms_open(&mut locked)?;
        return list(context, &open, &learnt.unexplained);
    }
    let progress = context.progress();
    let accepted = survey::accept_loss(&mut locked, context.now, &context.watch, |alarm| args.is_chosen(alarm));
    drop(progress);
    report(context, &accepted?)
}

fn list(context: &mut Context, open: &[Finding], unexplained: &[Finding]) -> Result<Exit> {
    if context.settings.json {
        let (alarms, unexplained) = (alarms::values(open), alarms::values(unexplained));
        context.output.value(&json!({ "open": alarms, "accepted": [], "unexplained": unexplained }))?;
    } else {
        for finding in open {
            context.output.line(&alarms::line(finding))?;
        }
        for advice in alarms::advice(open) {
            context.say(&advice)?;
        }
        let end = match open.len() as u64 {
            0 => "no alarm is open".to_owned(),
            number => {
                let alarms = count(number, "alarm is", "alarms are");
                format!("{alarms} open: accept all with --yes, or name a code or an object")
            }
        };
        context.say(&end)?;
    }
    Ok(exit(open))
}

fn exit(open: &[Finding]) -> Exit {
    if open.is_empty() { Exit::Complete } else { Exit::Disagree }
}

fn report(context: &mut Context, accepted: &Accepted) -> Result<Exit> {
    if context.settings.json {
        context.output.value(&json!({
            "accepted": alarms::values(&accepted.findings),
            "open": alarms::values(&accepted.open),
            "snapshots_recorded_again": accepted.snapshots_again,
            "volumes_recorded_again": accepted.volumes_again,
            "new_chain": accepted.is_new_chain,
        }))?;
        return Ok(exit(&accepted.open));
    }
    for finding in &accepted.findings {
        context.output.line(&format!("accepted: {}", alarms::line(finding)))?;
    }
    if accepted.is_new_chain {
        context.say("from now on this machine writes a new chain of commits")?;
    }
    if accepted.snapshots_again + accepted.volumes_again > 0 {
        context.say(&format!(
            "recorded again from this machine's catalog: {}, {}",
            count(accepted.snapshots_again, "snapshot", "snapshots"),
            count(accepted.volumes_again, "volume", "volumes"),
        ))?;
    }
    let end = match (accepted.findings.len() as u64, accepted.open.len() as u64) {
        (0, 0) => "no alarm was open: there was nothing to accept".to_owned(),
        (0, open) => {
            let alarms = count(open, "open alarm does", "open alarms do");
            format!("nothing was accepted: {alarms} not match")
        }
        (number, 0) => format!("{} accepted, none are open", count(number, "alarm was", "alarms were")),
        (number, open) => {
            format!("{} accepted, {} open", count(number, "alarm was", "alarms were"), count(open, "is", "are"))
        }
    };
    context.say(&end)?;
    Ok(exit(&accepted.open))
}
