//! Ways to break the protocol on purpose. A checker that finds each of them would also find the
//! same mistake made by accident.

use std::cell::Cell;

/// A mutation inside a machine, or of a step that the machines' driver takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Variant {
    /// `started` sends TERM before its own PID file and record are in place.
    TermBeforeRename,
    /// `started` sends TERM before the state is Serving.
    ServingAfterTerm,
    /// `started` gives up the claim before its file and record are in place.
    ClaimGivenUpEarly,
    /// Nobody waits for the claim.
    NoClaim,
    /// A detached daemon drains some time after its release, as in rs/seamless.
    FixedDrainTimer,
    /// A PID proves who a process is.
    NoStartTickCheck,
    /// USR2 ends a drain, also when the launcher sent it.
    HammerOnLauncherUsr2,
    /// A detached daemon leaves a lost PID file alone.
    LostFileNotPutBack,
    /// A detached daemon looks, decides and acts without holding the claim.
    CheckOutsideClaim,
    /// The launcher reads the status at once where the supervisor writes it after its signals.
    Usr2BeforeSettled,
    /// The check takes a file that names a newer generation for lost.
    PutBackOverNewer,
    /// The launcher leaves while a TERM is being understood.
    ExitWhileSettling,
    /// The launcher leaves as soon as it reads the release, before the signals it has taken.
    ReleasedBeforeSignals,
    /// A starting daemon does not care about its launcher's end.
    LauncherGoneIgnoredInStarting,
    /// A serving daemon does not care about its launcher's end.
    LauncherGoneIgnoredInServing,
    /// A stop ends the newest generation only.
    StopNotToldToOlder,
    /// A daemon that is told to stop while it starts ends at once.
    NoStopWhileStarting,
    /// `started` does not make anybody serve.
    NobodyServes,
    /// A check does not care about a newer generation.
    NewerIgnored,
    /// A check does not care about the supervisor's status.
    StatusIgnored,
    /// A detached daemon waits for ever, whatever the intent.
    OverdueIgnored,
    /// Claims taken meanwhile do not prolong the wait.
    ClaimsMovedIgnored,
    /// The launcher waits for a release that may never come.
    NoHandoffTimeout,
    /// A TERM that follows another while it is being understood is dropped.
    AgainIgnored,
    /// A CONT beside the TERM says nothing.
    ContIgnored,
    /// A generation signals every other one, not only the older ones.
    StopsNewer,
    /// A living launcher with a living supervisor of its own is no obstacle.
    ForeignTakenOver,
    /// The launcher ends with 0, however its daemon ended.
    NoMirror,
}

impl Variant {
    pub(super) const ALL: [Variant; 28] = [
        Variant::TermBeforeRename,
        Variant::ServingAfterTerm,
        Variant::ClaimGivenUpEarly,
        Variant::NoClaim,
        Variant::FixedDrainTimer,
        Variant::NoStartTickCheck,
        Variant::HammerOnLauncherUsr2,
        Variant::LostFileNotPutBack,
        Variant::CheckOutsideClaim,
        Variant::Usr2BeforeSettled,
        Variant::PutBackOverNewer,
        Variant::ExitWhileSettling,
        Variant::ReleasedBeforeSignals,
        Variant::LauncherGoneIgnoredInStarting,
        Variant::LauncherGoneIgnoredInServing,
        Variant::StopNotToldToOlder,
        Variant::NoStopWhileStarting,
        Variant::NobodyServes,
        Variant::NewerIgnored,
        Variant::StatusIgnored,
        Variant::OverdueIgnored,
        Variant::ClaimsMovedIgnored,
        Variant::NoHandoffTimeout,
        Variant::AgainIgnored,
        Variant::ContIgnored,
        Variant::StopsNewer,
        Variant::ForeignTakenOver,
        Variant::NoMirror,
    ];
}

thread_local! {
    static BROKEN: Cell<Option<Variant>> = const { Cell::new(None) };
}

/// Breaks the protocol on this thread, or mends it.
pub(super) fn set(variant: Option<Variant>) {
    BROKEN.set(variant);
}

/// Is the protocol broken in this way, on this thread?
pub(crate) fn is(variant: Variant) -> bool {
    BROKEN.get() == Some(variant)
}
