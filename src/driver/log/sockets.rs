//! What a daemon logs of its sockets, and of their transfer.

use super::event::Field;
use super::events;
use crate::sys::process::own_pid;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

events! {
    /// Of a daemon's sockets.
    Event {
        /// The variables that pass sockets to this process are wrong, or meant for another process.
        PassedRefused: Info "passed" { daemon = own_pid(), refused: &'a dyn Display as Field::Quoted }
            => "Nothing, unless sockets were passed to this service.";

        /// A socket was passed to this process, by systemd for example.
        Passed: Debug "passed" {
            daemon = own_pid(),
            number: i32,
            name: Option<&'a str>,
            kind: &'a str,
            address: &'a dyn Display as Field::Plain,
        } => "Nothing.";

        /// A descriptor was passed that is no socket that can be used.
        PassedUnusable: Warn "passed" {
            daemon = own_pid(),
            number: i32,
            name: Option<&'a str>,
            refused: &'a dyn Display as Field::Quoted,
        } => "Correct the socket in the settings of the supervisor.";

        /// The program has a socket that it asked for.
        Socket: Info "socket" {
            daemon = own_pid(),
            kind: &'a str,
            name: Option<&'a str>,
            address: &'a dyn Display as Field::Plain,
            member: Option<&'a str>,
            from: &'a str,
            retired: Option<&'a str> as Field::text_if_any,
        } => "Nothing.";

        /// A socket that was taken over could not have been bound by this program itself.
        NotBindable: Warn "socket" {
            daemon = own_pid(),
            kind: &'a str,
            address: &'a dyn Display as Field::Plain,
            error: &'a dyn Display as Field::Quoted,
            reason = Field::Text("taken over, but this program could not bind it itself: a fresh start of \
                the service would fail"),
            remedy: &'a str as Field::Text,
        } => "See `remedy`.";

        /// A socket that was taken over has got the settings that this program asks for.
        SocketChanged: Info "socket" {
            daemon = own_pid(),
            kind: &'a str,
            address: &'a dyn Display as Field::Plain,
            file: Option<&'a str> as Field::text_if_any,
            backlog: Option<u32>,
        } => "Nothing.";

        /// The program has asked for a socket after `started`, so it was bound anew.
        SocketLate: Warn "socket" {
            daemon = own_pid(),
            kind: &'a str,
            address: &'a dyn Display as Field::Plain,
            from = "bound",
            reason = Field::Text("asked for after started(): from a predecessor it is not taken over, \
                and what waits in its queue there is lost"),
        } => "Ask for all sockets between `init` and `started`.";

        /// The path of the predecessor's socket was removed or names another socket.
        SocketLostItsPath: Warn "socket" {
            daemon = own_pid(),
            kind: &'a str,
            address: &'a dyn Display as Field::Plain,
            from = "predecessor",
            refused = Field::Text("its path no longer names it: bound anew"),
        } => "Find out what removes the socket's path.";

        /// A socket that other processes share is not in the mode that was asked for.
        SocketMode: Warn "socket" {
            daemon = own_pid(),
            kind: &'a str,
            address: &'a dyn Display as Field::Plain,
            nonblocking: bool,
            reason = Field::Text("asked for otherwise, but other processes share it"),
        } => "Let all programs that share the socket ask for the same mode, or use \
              `sockets::Options::change_nonblocking`.";

        /// A socket that was found in the other mode is now in the one that was asked for.
        SocketModeChanged: Info "socket" {
            daemon = own_pid(),
            kind: &'a str,
            address: &'a dyn Display as Field::Plain,
            nonblocking: bool,
            reason = Field::Text("changed, also for the processes that share it"),
        } => "Nothing.";

        /// A listener of `sockets::tokio` cannot accept connections. It tries again.
        CannotAccept: Warn "socket" {
            daemon = own_pid(),
            error: &'a dyn Display as Field::Quoted,
        } => "Raise the limit that `error` names: often the number of open files.";

        /// The kernel refuses to distribute connections among the members of a group.
        NotSteered: Warn "socket" {
            daemon = own_pid(),
            kind: &'a str,
            address: &'a dyn Display as Field::Plain,
            error: &'a dyn Display as Field::Quoted,
            reason = Field::Text("cannot choose among the members of a group: what still arrives at \
                those that close is lost"),
        } => "Update the kernel, or keep the size of the group.";

        /// New flows of a steered group go to this generation, and older flows to their own.
        Steered: Info "socket" {
            daemon = own_pid(),
            address: &'a dyn Display as Field::Plain,
            newest: u64,
            generations: usize,
            members: usize,
            reason = Field::Text("new flows go to the newest generation"),
        } => "Nothing.";

        /// The kernel refuses the program that steers a group.
        FlowsNotSteered: Error "socket" {
            daemon = own_pid(),
            address: &'a dyn Display as Field::Plain,
            error: &'a dyn Display as Field::Quoted,
            reason = Field::Text("new flows still go where they went before"),
        } => "Raise `net.core.optmem_max` if memory is missing; else restart the service with fewer members.";

        /// The predecessor's socket is closed, since this program did not ask for it.
        SocketUnclaimed: Info "socket" {
            daemon = own_pid(),
            kind: &'a str,
            name: Option<&'a str>,
            address: &'a dyn Display as Field::Plain,
            from: &'a str,
            closed = Field::Text("not asked for"),
        } => "Nothing, if the program no longer serves this address.";

        /// The predecessor's socket is closed. What arrives there goes to a socket of this program, whose
        /// address covers it.
        SocketReplaced: Info "socket" {
            daemon = own_pid(),
            kind: &'a str,
            name: Option<&'a str>,
            address: &'a dyn Display as Field::Plain,
            from = "predecessor",
            closed = Field::Text("replaced by a socket whose address covers it"),
        } => "Nothing.";

        /// A socket of the predecessor gets what arrives until the predecessor closes it.
        NotReplaced: Warn "socket" {
            daemon = own_pid(),
            kind: &'a str,
            address: &'a dyn Display as Field::Plain,
            error: &'a dyn Display as Field::Quoted,
            reason = Field::Text("replaced only when the predecessor closes it: what arrives in that \
                moment may be lost"),
        } => "Update the kernel to 5.7 or later. For a UDP socket at every address: nothing.";

        /// A socket of the predecessor and the new one share their port until the predecessor drains.
        SocketShared: Info "socket" {
            daemon = own_pid(),
            kind: &'a str,
            address: &'a dyn Display as Field::Plain,
            shared_with: &'a dyn Display as Field::Plain,
            reason = Field::Text("their addresses overlap: bound with SO_REUSEPORT"),
        } => "Nothing.";

        /// A member of a group that has become smaller is closed.
        SocketRetired: Info "socket" {
            daemon = own_pid(),
            kind: &'a str,
            address: &'a dyn Display as Field::Plain,
            member: u32,
            closed = Field::Text("the older generations have ended"),
        } => "Nothing.";

        /// A predecessor has no sockets to transfer.
        NothingTransferred: Info "transfer" {
            daemon = own_pid(),
            predecessor: i32,
            predecessor_generation: u64,
            sockets = 0,
            reason = Field::Text("it hands nothing over"),
        } => "Nothing.";

        /// The predecessor ended during the transfer. This daemon keeps the sockets that it has.
        TransferHalfWay: Warn "transfer" {
            daemon = own_pid(),
            predecessor: i32,
            predecessor_generation: u64,
            sockets: usize,
            reason = Field::Text("it ended half-way"),
        } => "Find out why the predecessor ended.";

        /// The generation on probation hangs, refuses or has died: the one that stands by gives its sockets instead.
        TransferFromStandby: Warn "transfer" {
            daemon = own_pid(),
            predecessor: i32,
            standby: i32,
            standby_generation: u64,
            error: &'a dyn Display as Field::Quoted,
        } => "Find out why that generation did not give its sockets.";

        /// A process that waits in `init` has duplicates of the sockets.
        Copied: Debug "transfer" {
            generation: Option<u64>,
            daemon = own_pid(),
            candidate: i32,
            sockets: usize,
        } => "Nothing.";

        /// The generation that served while this process waited in `init` has died. This process uses the duplicates
        /// of its sockets.
        CopiesUsed: Warn "transfer" {
            daemon = own_pid(),
            predecessor_generation: u64,
            sockets: usize,
        } => "Find out why that generation has died.";

        /// The predecessor's sockets are here.
        Received: Info "transfer" {
            daemon = own_pid(),
            predecessor: i32,
            predecessor_generation: u64,
            sockets: usize,
            state: Option<u64>,
            states: usize,
            descriptors: usize,
            elapsed_ms: Duration as Field::Millis,
        } => "Nothing.";

        /// A generation that drains does not hand over the sockets of its flows.
        FlowsNotReceived: Warn "transfer" {
            daemon = own_pid(),
            predecessor: i32,
            predecessor_generation: u64,
            error: &'a dyn Display as Field::Quoted,
            reason = Field::Text("its successor has crashed, and it does not hand over the sockets of its flows"),
        } => "Nothing, if the start succeeds; otherwise end that generation.";

        /// The program has not asked for a state that the predecessor handed over.
        StateUnclaimed: Debug "transfer" {
            daemon = own_pid(),
            name: &'a str as Field::Escaped,
            version: u32,
            bytes: u64,
            closed = Field::Text("not asked for"),
        } => "Nothing.";

        /// The predecessor's state cannot be had.
        ReceiveFailed: Error "transfer" { daemon = own_pid(), error: &'a dyn Display as Field::Quoted }
            => "Repair what `error` names.";

        /// The sockets were sent to the successor. If it does not confirm them, an error follows.
        Given: Info "transfer" {
            generation: Option<u64>,
            daemon = own_pid(),
            successor: i32,
            successor_generation: u64,
            sockets: usize,
            state: Option<u64>,
            states: usize,
            descriptors: usize,
            elapsed_ms: Duration as Field::Millis,
        } => "Nothing.";

        /// The daemon before has crashed, and the launcher has given its sockets.
        ReceivedFromLauncher: Info "transfer" {
            daemon = own_pid(),
            predecessor_generation: u64,
            sockets: usize,
        } => "Read why the daemon before has crashed.";

        /// Descriptors of the daemon that has crashed did not arrive. This one binds the sockets anew, which may fail.
        LostFromLauncher: Warn "transfer" { daemon = own_pid(), sockets: usize }
            => "Raise the limit of open files.";

        /// A socket cannot be given to the launcher, since the description of its path is too long.
        TooLong: Warn "keep" {
            daemon = own_pid(),
            kind: &'a str,
            address: &'a dyn Display as Field::Plain,
            reason = Field::Text("its path is too long: it does not outlive a crash"),
        } => "Use a shorter path.";

        /// A transfer, or another request at the control socket, has failed.
        GiveFailed: Warn "transfer" {
            daemon = own_pid(),
            peer: Option<i32>,
            error: &'a dyn Display as Field::Quoted,
        } => "Repair what `error` names.";

        /// The control socket accepts no connection.
        AcceptFailed: Warn "transfer" { daemon = own_pid(), error: &'a dyn Display as Field::Quoted }
            => "Raise the limit that `error` names: often the number of open files.";

        /// The hook `hand_over` panicked.
        HandOverPanicked: Error "transfer" {
            daemon = own_pid(),
            hook = "hand_over",
            name: &'a str as Field::Escaped,
            panic: &'a str as Field::Escaped,
        } => "Repair the hook.";

        /// A request of the program `seamless` was carried out.
        Command: Info "command" {
            daemon = own_pid(),
            request: &'a str,
            peer: i32,
            uid: u32,
        } => "Nothing.";

        /// A request of the program `seamless` was refused.
        CommandRefused: Warn "command" {
            daemon = own_pid(),
            request: &'a str,
            peer: i32,
            uid: u32,
            refused: &'a str as Field::Escaped,
        } => "See `refused`.";

        /// The path of the control socket had been removed, or nobody listened there.
        ControlSocketPutBack: Warn "check" {
            daemon = own_pid(),
            path: &'a Path as Field::Path,
            reason = Field::Text("nobody listened at the control socket: it is put back"),
        } => "Find out what removes files beside the PID file.";

        /// If the newest generation dies while this one drains, the next one cannot find it.
        ControlSocketNotNamed: Warn "start" {
            daemon = own_pid(),
            path: &'a Path as Field::Path,
            error: &'a dyn Display as Field::Quoted,
            reason = Field::Text("flows of this generation may be lost if its successor crashes"),
        } => "Let the user of the service write to the folder of the PID file.";

        /// systemd's descriptor store has too little room.
        StoreTooSmall: Warn "systemd" {
            daemon = own_pid(),
            setting: &'a dyn Display as Field::Quoted,
            sockets: usize,
            reason = Field::Text("not all sockets are kept: those that are left out do not outlive a \
                crash"),
        } => "Raise `FileDescriptorStoreMax`.";

        /// systemd keeps the sockets.
        Stored: Debug "systemd" { daemon = own_pid(), stored: usize, kept: usize } => "Nothing.";

        /// systemd was not told which sockets to keep.
        NotStored: Debug "systemd" {
            daemon = own_pid(),
            reason = Field::Text("sockets are not stored"),
            error: &'a dyn Display as Field::Quoted,
        } => "Nothing: the next generation tries again.";
    }
}
