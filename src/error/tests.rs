use super::*;
use std::error::Error as _;

fn denied() -> io::Error {
    io::Error::from_raw_os_error(nix::libc::EACCES)
}

#[test]
fn an_error_names_step_path_cause_and_remedy() {
    let error =
        Error::io(ErrorKind::Claim, r#"cannot open "/run/web/web.pid.lock" (claim)"#, denied())
            .hint("the folder must be writable by uid 1000");
    assert_eq!(
        error.to_string(),
        r#"cannot open "/run/web/web.pid.lock" (claim): Permission denied (os error 13); the folder must be writable by uid 1000"#,
    );
    assert_eq!(error.kind(), ErrorKind::Claim);
    assert_eq!(format!("{error:?}"), format!("Claim: {error}"), "what `main` prints");
}

#[test]
fn the_source_is_the_io_error() {
    let error = Error::io(ErrorKind::PidFile, "cannot write (PID file)", denied());
    let source = error.source().expect("a source").downcast_ref::<io::Error>().expect("from io");
    assert_eq!(source.raw_os_error(), Some(nix::libc::EACCES));
    assert_eq!(source.kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn an_error_of_our_own_has_no_source() {
    let error = Error::new(ErrorKind::CannotRestart, "cannot restart (restart): why");
    assert_eq!(error.to_string(), "cannot restart (restart): why");
    assert!(error.source().is_none());
    assert_eq!(error.hint("how").to_string(), "cannot restart (restart): why; how");
}

#[test]
fn an_error_goes_wherever_errors_go() {
    fn goes<T: std::error::Error + Send + Sync + 'static>() {}
    goes::<Error>();
    let boxed: Box<dyn std::error::Error + Send + Sync> =
        Error::new(ErrorKind::System, "cannot").into();
    assert!(boxed.is::<Error>());
}

#[test]
fn a_call_that_no_file_explains_is_one_that_a_filter_refuses() {
    let text = |kind, number| {
        Error::io(kind, "cannot (init)", io::Error::from_raw_os_error(number)).to_string()
    };
    let (eperm, enosys) = (nix::libc::EPERM, nix::libc::ENOSYS);
    for (kind, number, named) in [
        (ErrorKind::System, eperm, true),
        (ErrorKind::Takeover, eperm, true),
        (ErrorKind::Claim, enosys, true),
        (ErrorKind::Claim, eperm, false),
        (ErrorKind::PidFile, eperm, false),
        (ErrorKind::System, nix::libc::EACCES, false),
    ] {
        let said = text(kind, number);
        assert_eq!(said.ends_with("(seccomp, SystemCallFilter= of systemd)"), named, "{said}");
    }
    let hinted = |number| {
        let error = Error::io(ErrorKind::System, "cannot", io::Error::from_raw_os_error(number));
        error.hint("write to the folder").to_string()
    };
    assert!(hinted(eperm).ends_with("; write to the folder"));
    assert!(!hinted(enosys).contains("write to the folder"), "that would not help");
}
