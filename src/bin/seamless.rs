//! The program `seamless`: looks at a service, restarts and stops it. `seamless --help`.

fn main() -> std::process::ExitCode {
    seamless::command::main()
}
