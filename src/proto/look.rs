//! What a message meets: the states of both sides as the simulator counts them, and no more of
//! them than that. Not for drivers.

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident { $($variant:ident),* $(,)? })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($variant),* }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant),*];
        }
    )* };
}

states! {
    /// How far the connection has come that a client's message came on, in the leader's eyes;
    /// where it serves, how far its session has come.
    AtLeader {
        Unknown, New, Reporting,
        ServingNew, ServingOpening, ServingOpen, ServingIdling,
        Sessionless, Refused,
    }

    /// How far the reign has come.
    Phase { Starting, Grace, Open, Over }

    /// What a client's message is about, if anything, in the leader's eyes.
    LeaderSubject {
        None,
        SessionUnknown, SessionAwaited, SessionKnown, SessionEnding,
        LockUnknown, LockFree, LockHeld, LockBeingLost, RequestRead,
        RequestWaiting, RequestGranted, RequestUnknown,
        LeaseHeld, LeaseBeingRevoked, LeaseRevoked, LeaseStale,
    }

    /// How far the connection has come that a leader's message came on, in the client's eyes.
    AtClient { Stale, Probing, Reporting, Serving, Closed }

    /// Whether the client knows that its session lives.
    Session { Fresh, Lives, Lapsed }

    /// What a leader's message is about, if anything, in the client's eyes.
    ClientSubject {
        None,
        SessionOwn, SessionOther,
        RequestWaiting, RequestGone,
        LeaseHeld, LeaseLosing, LeaseReleasing, LeaseNotYetGood, LeaseUnknown,
        QueryAsked, QueryGone,
    }
}
