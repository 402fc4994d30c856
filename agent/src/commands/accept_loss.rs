//! `bygone accept-loss`: what the store has lost, and giving it up.

use serde_json::json;

use bygone_cli::exit::Exit;
use bygone_cli::exit::Failure;
use bygone_cli::exit::Result;
use bygone_cli::output::count;
use bygone_core::catalog::Alarm;
use bygone_core::recover;
use bygone_core::survey;
use bygone_core::survey::Accepted;
use bygone_core::survey::Finding;

use crate::commands::Context;
use crate::commands::alarms;

/// List what is wrong with the store and not yet accepted, and accept it
///
/// Without --yes and without WHICH the open alarms are listed and nothing is changed; the command ends with 13 if there
/// are any. Accepting ends alarms and deletes nothing: what is lost stays known as lost, and the next backup stores again
/// what the source still has. Where commits were lost, this machine records again whatever its catalog still knows.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Accept only these: a code such as REMOTE_MISSING, or an object, or the beginning of its name
    #[arg(value_name = "WHICH")]
    which: Vec<String>,
    /// Accept all that is listed
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
        return Err(Failure::Usage("an empty name would mean all alarms: say --yes for that".into()));
    }
    let mut locked = context.lock(context.open()?)?;
    if args.which.is_empty() && !args.yes {
        let learnt = recover::sync_as_found(&mut locked, &context.watch)?;
        let open = survey::alarms_open(&mut locked)?;
        return list(context, &open, &learnt.unexplained);
    }
    let progress = context.progress();
    let accepted = survey::accept_loss(&mut locked, context.now, &context.watch, |alarm| args.is_chosen(alarm));
    drop(progress);
    tell(context, &accepted?)
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
                format!("{} open; --yes accepts, or name a code or an object", count(number, "alarm is", "alarms are"))
            }
        };
        context.say(&end)?;
    }
    Ok(exit(open))
}

fn exit(open: &[Finding]) -> Exit {
    if open.is_empty() { Exit::Complete } else { Exit::Disagree }
}

fn tell(context: &mut Context, accepted: &Accepted) -> Result<Exit> {
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
        context.say("this machine writes a chain of commits of its own from now on")?;
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
        (0, open) => format!("nothing was accepted: none of {} is named so", count(open, "open alarm", "open alarms")),
        (number, 0) => format!("{} accepted, none is open", count(number, "alarm was", "alarms were")),
        (number, open) => {
            format!("{} accepted, {} open", count(number, "alarm was", "alarms were"), count(open, "is", "are"))
        }
    };
    context.say(&end)?;
    Ok(exit(&accepted.open))
}
