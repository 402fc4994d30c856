//! Hands entries to the workers to be restored or compared, big files in parts.

use std::io;
use std::sync::Arc;

use bygone_core::entry::Entry;
use bygone_core::entry::Kind;
use bygone_core::entry::printable;
use bygone_core::error::Error;
use bygone_core::read::View;

use crate::restore::directories::At;
use crate::restore::directories::Directories;
use crate::restore::directories::Place;
use crate::restore::directories::Trail;
use crate::restore::files::big::Big;
use crate::restore::files::file::PART_BYTES;
use crate::restore::files::queue::Feeder;
use crate::restore::files::queue::Work;
use crate::restore::files::verify::stretches;
use crate::restore::job::Job;
use crate::restore::job::Verdict;
use crate::restore::report::target;
use crate::restore::shared::Shared;
use crate::restore::walk::Event;
use crate::restore::walk::Walk;

/// Hands an entry to the workers, a big file in parts.
pub(in crate::restore) fn submit(
    shared: &Shared<'_>,
    view: &View,
    feeder: &mut Feeder<'_>,
    job: Job,
) -> Result<(), Error> {
    let (directory, size) = (job.directory, job.entry.meta.size);
    let entry = Arc::clone(&job.entry);
    let content = match &entry.kind {
        Kind::File(content) if job.verdict != Verdict::Adjust => content,
        _ => return feeder.push(directory, Work::Entry(job), 0),
    };
    if size <= PART_BYTES {
        return feeder.push(directory, Work::Entry(job), size);
    }
    let (big, parts) = match Big::begin(shared, view, job, content) {
        Ok(begun) => begun,
        Err(failed) => {
            let (job, failure) = *failed;
            shared.fail_entry(&job, failure);
            return Ok(());
        }
    };
    for part in parts {
        let bytes = part.end - part.start;
        feeder.push(directory, Work::Part(Arc::clone(&big), part), bytes)?;
    }
    Big::give_back(shared, big);
    Ok(())
}

/// Walks in the same way as the restore, and hands every file to the workers to be checked.
pub(in crate::restore) fn verify_all(
    shared: &Shared<'_>,
    view: &View,
    mut walk: Walk<'_>,
    root: &Arc<Place>,
    directories: &mut Directories,
    feeder: &mut Feeder<'_>,
) -> Result<(), Error> {
    let mut trail = Trail::new(Arc::clone(root));
    while let Some(event) = walk.next()? {
        match event {
            Event::Enter { entry, taken } => {
                let (parent, here) = (trail.here().0, Arc::clone(trail.here().1));
                let opened = here.open(&entry.name);
                let added =
                    opened.and_then(|place| Ok((directories.add(parent, entry.name.clone(), &place, None)?, place)));
                match added {
                    Ok((index, place)) => trail.enter(index, Arc::new(place)),
                    Err(error) => {
                        // A directory that was not selected itself is missing if nothing below it was selected.
                        let expected = !taken && error.kind() == io::ErrorKind::NotFound;
                        if !expected && !shared.has_failed(&here, &entry.name) {
                            shared.fail(At::Path(walk.path().to_vec()), target("verify")(error));
                        }
                        walk.skip();
                    }
                }
            }
            Event::Entry(entry) => push(shared, view, &trail, feeder, entry)?,
            // The restore has reported it.
            Event::Unreadable(_) => {}
            Event::Leave => {
                trail.leave().map_err(|source| Error::Local { doing: "leave", path: printable(walk.path()), source })?
            }
        }
    }
    Ok(())
}

fn push(
    shared: &Shared<'_>,
    view: &View,
    trail: &Trail,
    feeder: &mut Feeder<'_>,
    entry: Arc<Entry>,
) -> Result<(), Error> {
    let (directory, place) = trail.here();
    let Kind::File(content) = &entry.kind else { return Ok(()) };
    if shared.has_failed(place, &entry.name) {
        return Ok(());
    }
    let size = entry.meta.size;
    let job = || Job { place: Arc::clone(place), directory, entry: Arc::clone(&entry), verdict: Verdict::Match };
    if size <= PART_BYTES {
        return feeder.push(directory, Work::Check(job(), None), size);
    }
    match stretches(shared, view, &entry, content) {
        Ok(stretches) => {
            for stretch in stretches {
                let bytes = stretch.range.end - stretch.range.start;
                feeder.push(directory, Work::Check(job(), Some(stretch)), bytes)?;
            }
        }
        Err(failure) => shared.fail(At::In(directory, entry.name.clone()), failure),
    }
    Ok(())
}
