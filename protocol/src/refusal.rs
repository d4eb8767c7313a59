//! Why something was refused: one stable code per cause, the fail-closed case it belongs to, and whether trying again
//! can help. A refusal never carries a secret or a raw foreign string; both sides may print it. What it says of
//! a measurement stays in the log of the side that judged.

use crate::cbor::{self, Items, ParseError};
use ciborium::Value;
use core::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $case:literal, $retry:expr, $next:literal;)*) => {
        /// A stable name for a cause of refusal. The text form is part of the interface: scripts and tests rely on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum RefusalCode { $($(#[$doc])* $variant,)* }

        impl RefusalCode {
            /// Every code, in order.
            pub const ALL: &'static [RefusalCode] = &[$(RefusalCode::$variant,)*];
            /// The stable text form, for example `measurement-unregistered`.
            pub fn text(self) -> &'static str { match self { $(Self::$variant => $text,)* } }
            /// The fail-closed case of the verifier contract (FC-1 … FC-16) that the code belongs to.
            pub fn case(self) -> &'static str { match self { $(Self::$variant => $case,)* } }
            /// Whether the same request, made anew, may succeed without anybody changing anything.
            pub fn retry_may_help(self) -> bool { match self { $(Self::$variant => $retry,)* } }
            /// What the person who reads the refusal can do next.
            pub fn next_step(self) -> &'static str { match self { $(Self::$variant => $next,)* } }
            /// The code of a text form, if there is one.
            pub fn from_text(text: &str) -> Option<Self> { match text { $($text => Some(Self::$variant),)* _ => None } }
        }
    };
}

codes! {
    /// The request carried no quote.
    EvidenceMissing = "evidence-missing", "FC-1", false, "check that the guest's report device answers";
    /// Evidence or an endorsement is outside its validity window.
    EndorsementExpired = "endorsement-expired", "FC-2", false, "import fresh endorsements, and check the verifier's clock";
    /// A TPM states an earlier time of its life than one that was accepted.
    TpmRolledBack = "tpm-rolled-back", "FC-2", false, "run the machine's TPM from its newest state, and no copy of it; after TPM2_Clear, `inwit-authority tpm forget` it";
    /// An attestation result is for another audience, or outside of its time.
    ResultUnusable = "result-unusable", "FC-2", true, "have the verifier make a result for this audience now, and compare the clocks of both";
    /// The nonce in the binding is not this connection's.
    NonceMismatch = "nonce-mismatch", "FC-3", false, "evidence of another connection was replayed: look at what relays the bytes";
    /// The connection's nonce has been spent.
    NonceReused = "nonce-reused", "FC-3", false, "open a new connection for each request";
    /// The signature over the quote or report does not verify.
    QuoteSignature = "quote-signature", "FC-4", false, "the quote was altered or signed by another key";
    /// The certificate chain does not end in a configured root.
    ChainUntrusted = "chain-untrusted", "FC-4", false, "configure the platform's root if it is one you trust";
    /// A certificate, CRL or collateral that the chain needs is not at hand.
    EndorsementMissing = "endorsement-missing", "FC-4", false, "import the endorsement that the cause names";
    /// A certificate of the chain is revoked.
    EndorsementRevoked = "endorsement-revoked", "FC-4", false, "replace the platform or its certificate";
    /// No registered Reference Value matches what the hardware measured.
    MeasurementUnregistered = "measurement-unregistered", "FC-5", false, "register the image with `inwit-authority workload add`, or boot the registered one";
    /// The agent that made the binding is not the one in the measured set.
    AgentNotMeasured = "agent-not-measured", "FC-5", false, "register the agent's executable and configuration digests with the workload";
    /// The platform's firmware is older than policy demands.
    TcbTooOld = "tcb-too-old", "FC-5", false, "update the platform firmware, or state a lower minimum in the policy";
    /// Event log, registers and quote contradict each other.
    EventLogMismatch = "event-log-mismatch", "FC-5", false, "the event log was altered or truncated on its way";
    /// The key in the binding is not the key that authenticated the connection.
    KeyMismatch = "key-mismatch", "FC-6", false, "the binding names another key: look at what relays the bytes";
    /// The proof of possession inside the binding does not verify.
    PopInvalid = "pop-invalid", "FC-7", false, "the binding was altered, or its maker does not hold the key";
    /// The report's data is not the digest of the binding.
    BindingMismatch = "binding-mismatch", "FC-7", false, "the report was made for another binding";
    /// The request names an identity that the mapping does not give.
    IdentityMismatch = "identity-mismatch", "FC-8", false, "make the guest's configured identity and the registered workload agree";
    /// A certificate belongs to another trust domain.
    TrustDomainMismatch = "trust-domain-mismatch", "FC-8", false, "check which trust domain the peer should be in";
    /// The authority's key is not one of the pinned keys.
    AuthorityNotPinned = "authority-not-pinned", "FC-8", false, "something else answered in the authority's place, or its keys rolled: rebuild the guest's configuration with the new pin";
    /// A certificate breaks a rule of the workload identity profile.
    CertificateInvalid = "certificate-invalid", "FC-8", false, "have the peer obtain a certificate that follows the profile";
    /// The other side cannot be reached.
    Unreachable = "unreachable", "FC-10", true, "check that the relay and the authority run";
    /// Bytes that do not parse.
    Malformed = "malformed", "FC-13", false, "the message was altered, or its sender speaks another version";
    /// A frame or field above its limit.
    Oversized = "oversized", "FC-13", false, "the message exceeds what its kind may hold";
    /// A platform, algorithm or version that is not known here.
    Unsupported = "unsupported", "FC-13", false, "use a platform and version that both sides support";
    /// Debug, migration or another forbidden mode is on.
    DebugEnabled = "debug-enabled", "FC-14", false, "launch the VM without debug";
    /// Another launch policy bit or privilege level is not as demanded.
    PolicyForbids = "policy-forbids", "FC-14", false, "launch the VM with the policy that the authority demands";
    /// The clock cannot be used for the judgement.
    ClockUnavailable = "clock-unavailable", "FC-15", true, "set the verifier's clock";
    /// A fault of the refusing side.
    Internal = "internal", "FC-16", true, "read the log of the side that refused";
    /// The guest found no report device and no TPM.
    NoPlatform = "no-platform", "FC-1", false, "boot as a confidential VM, or attach a TPM";
    /// The report device failed or gave something else than was asked.
    AttesterFailed = "attester-failed", "FC-1", true, "look at the host's quote service";
    /// The reply is not signed by a pinned key, or is for another binding.
    ReplyInvalid = "reply-invalid", "FC-8", false, "look at what relays the bytes";
    /// The credential that came back does not belong to the key held here.
    CredentialMismatch = "credential-mismatch", "FC-6", false, "the authority issued for another key: look at its log";
    /// A sealed secret does not open with this guest's key.
    SealedKeyUnopenable = "sealed-key-unopenable", "FC-6", false, "it was sealed to another guest, or altered on its way";
    /// The workload disk is missing, altered, or not the one the released secret is for.
    DiskUnopenable = "disk-unopenable", "FC-5", false, "attach the disk that was sealed for this workload, unaltered";
    /// The measured configuration file is missing or wrong.
    ConfigurationInvalid = "configuration-invalid", "FC-13", false, "rebuild the image with a valid configuration";
    /// The workload could not be started or ended badly.
    WorkloadFailed = "workload-failed", "FC-16", false, "read the workload's own output";
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Longest cause that is kept of a peer's refusal, in bytes.
const MAX_CAUSE: usize = 240;

/// A refusal as it crosses the wire or reaches a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code.
    pub code: RefusalCode,
    /// One line of cause, printable ASCII.
    pub cause: String,
}

impl Refusal {
    /// A refusal with one line of cause; control and non-ASCII characters are replaced, the length is bounded.
    pub fn new(code: RefusalCode, cause: impl fmt::Display) -> Self {
        let cause: String = cause
            .to_string()
            .chars()
            .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
            .take(MAX_CAUSE)
            .collect();
        Self { code, cause }
    }

    pub(crate) fn to_value(&self) -> Value {
        Value::Array(vec![
            Value::Text(self.code.text().into()),
            Value::Text(self.cause.clone()),
            Value::Bool(self.code.retry_may_help()),
        ])
    }

    /// A peer's refusal. An unknown code is kept as [`RefusalCode::Internal`] with its name in the cause.
    pub(crate) fn from_value(value: Value) -> Result<Self, ParseError> {
        let mut items = Items::of(value, "refusal")?;
        let (code, cause) = (items.text(cbor::SHORT)?, items.text(cbor::TEXT)?);
        let _retry: bool = items.boolean()?;
        items.end()?;
        Ok(match RefusalCode::from_text(&code) {
            Some(known) => Self::new(known, cause),
            None => Self::new(RefusalCode::Internal, format_args!("unknown refusal {code}: {cause}")),
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}; next: {}", self.code, self.code.case(), self.cause, self.code.next_step())
    }
}

impl core::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_text_and_finds_its_way_back() {
        let mut seen = std::collections::BTreeSet::new();
        for code in RefusalCode::ALL {
            assert!(seen.insert(code.text()), "{code} stands twice");
            assert_eq!(RefusalCode::from_text(code.text()), Some(*code));
            assert!(code.case().starts_with("FC-") && !code.next_step().is_empty());
        }
    }

    #[test]
    fn a_cause_cannot_smuggle_terminal_escapes_or_grow() {
        let refusal = Refusal::new(RefusalCode::Malformed, format!("\u{1b}[2J\n{}", "x".repeat(999)));
        assert!(refusal.cause.chars().all(|c| c.is_ascii_graphic() || c == ' '));
        assert!(refusal.cause.len() <= MAX_CAUSE);
    }
}
