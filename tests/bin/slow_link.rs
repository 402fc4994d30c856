//! A slow link as a program: `slow-link SERVER LATENCY_MS MBIT_PER_SECOND [RESETS WITHIN_BYTES SEED]`.
//!
//! It prints where it listens. For each line of its standard input it prints the counts of the link as JSON, and it
//! ends with its standard input.

use std::io;
use std::io::BufRead;
use std::io::Write;
use std::time::Duration;

use serde_json::json;

use bygone_tests::slow_link::Shape;
use bygone_tests::slow_link::SlowLink;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wrong = || io::Error::other("slow-link SERVER LATENCY_MS MBIT_PER_SECOND [RESETS WITHIN_BYTES SEED]");
    let number =
        |at: usize| -> io::Result<u64> { arguments.get(at).and_then(|text| text.parse().ok()).ok_or_else(wrong) };
    let server = arguments.first().and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
    let mut shape = Shape {
        latency: Duration::from_millis(number(1)?),
        bytes_per_second: Some(number(2)? * 1_000_000 / 8).filter(|rate| *rate > 0),
        ..Shape::default()
    };
    if arguments.len() > 3 {
        shape = shape.with_resets(number(5)?, usize::try_from(number(3)?).map_err(|_| wrong())?, number(4)?);
    }
    let link = SlowLink::to(server, shape)?;
    let mut out = io::stdout();
    writeln!(out, "{}", link.address())?;
    for line in io::stdin().lock().lines() {
        line?;
        let counts = link.counts();
        let counts = json!({
            "connections": counts.connections, "resets": counts.resets, "requests": counts.requests,
            "bytes_up": counts.bytes_up, "bytes_down": counts.bytes_down,
        });
        writeln!(out, "{counts}")?;
    }
    Ok(())
}
