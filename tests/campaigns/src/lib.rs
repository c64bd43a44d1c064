//! What the long runs share: `bench`, `soak` and `sweep` (see the scripts of these names). A test's
//! author needs this crate only for clients at full load.
//!
//! - [`load`]: clients at full load or at a fixed rate, and what became of every request
//! - [`deploy`]: a server that is restarted under load outside a box
//! - [`family`]: everything that a program has started ends with it
//! - [`port`]: a TCP port that nobody else gets
//! - [`strike`]: a process is KILLed at its Nth system call
//! - [`sweep`]: what comes of it, in the middle of a restart

pub mod deploy;
pub mod family;
pub mod load;
mod moving;
pub mod port;
pub mod strike;
pub mod sweep;

use std::process::ExitCode;

/// The options of a program. `Err` is the exit code where there are none to go on with: after `--help`,
/// or 2 after a complaint.
pub fn options<T>(
    program: &str,
    usage: &str,
    parsed: Result<Option<T>, lexopt::Error>,
) -> Result<T, ExitCode> {
    match parsed {
        Ok(Some(options)) => Ok(options),
        Ok(None) => {
            println!("{usage}");
            Err(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("{program}: {error}\n\n{usage}");
            Err(ExitCode::from(2))
        }
    }
}
