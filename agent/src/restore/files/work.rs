//! The worker threads of a restore.

use std::thread;

use crossbeam_channel::Receiver;
use crossbeam_channel::bounded;

use bygone_core::entry::Kind;
use bygone_core::error::Error;
use bygone_core::read::View;

use crate::restore::directories::At;
use crate::restore::directories::ROOT;
use crate::restore::files::big::Big;
use crate::restore::files::file;
use crate::restore::files::queue::Feeder;
use crate::restore::files::queue::Work;
use crate::restore::files::verify;
use crate::restore::job::Job;
use crate::restore::job::Verdict;
use crate::restore::node;
use crate::restore::report::Failure;
use crate::restore::shared::Shared;

/// Runs `body`, which feeds the workers, and returns when all work is done.
pub(in crate::restore) fn run<'a>(
    shared: &'a Shared<'a>,
    body: impl FnOnce(&mut Feeder<'a>) -> Result<(), Error>,
) -> Result<(), Error> {
    let threads = match shared.options.threads {
        // With a far store, workers wait more than they work.
        0 => thread::available_parallelism().map_or(2, usize::from).max(shared.reader.frames().readers()),
        threads => threads,
    };
    let (sender, receiver) = bounded(threads * 2);
    thread::scope(|scope| {
        for _ in 0..threads {
            let receiver = receiver.clone();
            thread::Builder::new().spawn_scoped(scope, move || serve(shared, &receiver)).map_err(|source| {
                Error::Local { doing: "start a thread for", path: "the restore".to_owned(), source }
            })?;
        }
        drop(receiver);
        let mut feeder = Feeder::new(sender, shared);
        let result = body(&mut feeder).and_then(|()| feeder.flush());
        if result.is_err() {
            shared.halt();
        }
        result
    })?;
    // Workers may have failed after the last piece of work was handed over; the tally says why.
    if shared.is_stopped() { Err(Error::Cancelled) } else { Ok(()) }
}

/// The body of a worker.
fn serve(shared: &Shared<'_>, receiver: &Receiver<Vec<Work>>) {
    let view = match shared.reader.view() {
        Ok(view) => view,
        Err(error) => return shared.stop(At::Directory(ROOT), Failure::Stop(error)),
    };
    for work in receiver.iter().flatten() {
        if let Err(error) = shared.watch.check() {
            shared.stop(At::Directory(ROOT), Failure::Stop(error));
        }
        if !shared.is_stopped() {
            perform(shared, &view, work);
        }
    }
}

fn perform(shared: &Shared<'_>, view: &View, work: Work) {
    match work {
        Work::Entry(job) => {
            if let Err(failure) = restore(shared, view, &job) {
                shared.fail_entry(&job, failure);
            }
        }
        Work::Part(big, range) => {
            big.write(shared, range);
            Big::give_back(shared, big);
        }
        Work::Check(job, stretch) => verify::check(shared, view, &job, stretch),
    }
}

fn restore(shared: &Shared<'_>, view: &View, job: &Job) -> Result<(), Failure> {
    match (&job.verdict, &job.entry.kind) {
        (Verdict::Adjust, _) => node::adjust(shared, job),
        (_, Kind::File(content)) => file::restore(shared, view, job, content),
        _ => node::restore(shared, job),
    }
}
