//! Guards that can be taken out, so that it can be seen that the checks would notice.

/// A guard that is taken out. Each is one condition of the drivers; nothing of it is in the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// S-4, lesson 2: a reign starts where the last one did, not at its reservation.
    ReignFromStart,
    /// S-4: a standby begins behind whatever entry is last, not behind the one that it found to be over.
    BeginAnywhere,
    /// S-2: replies leave when the extension is sent, not when it is stored.
    ReplyBeforeDurable,
    /// S-3, lesson 9: no listing after the create of a control entry.
    NoListing,
    /// S-5, lesson 1: the reign does not run out, and tails are taken from whoever answers.
    NoDeadline,
    /// H-4, lesson 3: one stripe-writer's seal is not waited for.
    SealOneLess,
    /// H-4: seals are counted by stripe-writer, not by stripe.
    SealByWriter,
    /// H-5: only the newest segment is waited for.
    SealNewOnly,
    /// H-5: only the segments before the newest are waited for.
    SealOldOnly,
    /// H-5: a segment is opened at a tail that still moves.
    RestripeOpen,
    /// H-5: a segment is opened at the durable tail, not at the issued one.
    RestripeAtDurable,
    /// H-5: a segment is opened by a reign that has not granted.
    RestripeUnsealed,
    /// H-5, lesson 4: a client splits tokens by whatever control entry it knows.
    OldLayout,
    /// H-3, lesson 4: a stripe-writer does not look for a reign that appends speak of.
    NeverLearn,
    /// S-4, lesson 16: a client asks one sequencer only, whatever that answers.
    StayWithOne,
    /// H-3, lesson 15: a seal is answered, and nothing is refused, made durable or filled for it.
    SealIgnored,
    /// C-8: a put that failed counts as stored.
    DoubtIsDone,
    /// S-3, lesson 1: a sequencer that is fenced goes on with what it has in memory.
    FencedGoesOn,
    /// H-2, lesson 14: a look-up that failed counts as "nothing there".
    ErrorIsJunk,
    /// C-5, lesson 11: "exists" counts as mine.
    ExistsIsMine,
    /// C-6, lesson 13: a new owner takes the number of the last one.
    SameOwner,
    /// C-6, lesson 12: whoever takes a stripe does not mind that another's object has the name of its fence.
    SkipFence,
    /// C-4, lesson 15: a holder acknowledges what is not durable when it gives a stripe back.
    GiveBackEarly,
    /// C-7, lesson 9: late completions are not verified.
    NoVerify,
    /// H-1: holes are filled above the issued tail.
    FillAhead,
    /// H-2, lesson 5: a record over junk counts as committed.
    JunkIsCommitted,
    /// C-3, lesson 6: a new owner goes on behind the last name, not at the end of the chain.
    LastName,
    /// the linearizable tail does not look at the control chain.
    TailOfAnyone,
    /// A client that is told NotOwner takes a new token, although the record may be there.
    NotOwnerIsRefused,
    /// S-7, lesson 15: what is held counts into the frontier that is reported.
    FrontierAhead,
}

impl Mutation {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 30] = [
        ("reign-from-start", Self::ReignFromStart),
        ("begin-anywhere", Self::BeginAnywhere),
        ("reply-before-durable", Self::ReplyBeforeDurable),
        ("no-listing", Self::NoListing),
        ("no-deadline", Self::NoDeadline),
        ("seal-one-less", Self::SealOneLess),
        ("seal-by-writer", Self::SealByWriter),
        ("seal-new-only", Self::SealNewOnly),
        ("seal-old-only", Self::SealOldOnly),
        ("restripe-open", Self::RestripeOpen),
        ("restripe-at-durable", Self::RestripeAtDurable),
        ("restripe-unsealed", Self::RestripeUnsealed),
        ("old-layout", Self::OldLayout),
        ("never-learn", Self::NeverLearn),
        ("stay-with-one", Self::StayWithOne),
        ("seal-ignored", Self::SealIgnored),
        ("doubt-is-done", Self::DoubtIsDone),
        ("fenced-goes-on", Self::FencedGoesOn),
        ("error-is-junk", Self::ErrorIsJunk),
        ("exists-is-mine", Self::ExistsIsMine),
        ("same-owner", Self::SameOwner),
        ("skip-fence", Self::SkipFence),
        ("give-back-early", Self::GiveBackEarly),
        ("no-verify", Self::NoVerify),
        ("fill-ahead", Self::FillAhead),
        ("junk-is-committed", Self::JunkIsCommitted),
        ("last-name", Self::LastName),
        ("tail-of-anyone", Self::TailOfAnyone),
        ("not-owner-is-refused", Self::NotOwnerIsRefused),
        ("frontier-ahead", Self::FrontierAhead),
    ];

    /// The mutation of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, mutation)| *mutation)
    }
}
