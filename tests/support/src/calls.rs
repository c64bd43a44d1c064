//! The numbers of system calls, which differ from one kind of machine to another.

use nix::libc;

/// The number of a call that each kind of machine has.
#[track_caller]
pub fn number(name: &str) -> libc::c_long {
    match name {
        "bind" => libc::SYS_bind,
        "clone3" => libc::SYS_clone3,
        "connect" => libc::SYS_connect,
        "dup3" => libc::SYS_dup3,
        "faccessat2" => libc::SYS_faccessat2,
        "fchmod" => libc::SYS_fchmod,
        "fcntl" => libc::SYS_fcntl,
        "flock" => libc::SYS_flock,
        "ftruncate" => libc::SYS_ftruncate,
        "getcwd" => libc::SYS_getcwd,
        "getdents64" => libc::SYS_getdents64,
        "getpid" => libc::SYS_getpid,
        "getppid" => libc::SYS_getppid,
        "getpeername" => libc::SYS_getpeername,
        "getrandom" => libc::SYS_getrandom,
        "getsid" => libc::SYS_getsid,
        "getsockname" => libc::SYS_getsockname,
        "getsockopt" => libc::SYS_getsockopt,
        "kill" => libc::SYS_kill,
        "listen" => libc::SYS_listen,
        "madvise" => libc::SYS_madvise,
        "memfd_create" => libc::SYS_memfd_create,
        "pidfd_open" => libc::SYS_pidfd_open,
        "pidfd_send_signal" => libc::SYS_pidfd_send_signal,
        "prctl" => libc::SYS_prctl,
        "prlimit64" => libc::SYS_prlimit64,
        "pwrite64" => libc::SYS_pwrite64,
        "recvmsg" => libc::SYS_recvmsg,
        "rseq" => libc::SYS_rseq,
        "sched_getaffinity" => libc::SYS_sched_getaffinity,
        "sendmsg" => libc::SYS_sendmsg,
        "setsid" => libc::SYS_setsid,
        "setsockopt" => libc::SYS_setsockopt,
        "sigaltstack" => libc::SYS_sigaltstack,
        "socketpair" => libc::SYS_socketpair,
        "statx" => libc::SYS_statx,
        "tgkill" => libc::SYS_tgkill,
        "waitid" => libc::SYS_waitid,
        _ => panic!("no number of {name:?} is known here"),
    }
}
