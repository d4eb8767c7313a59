//! Mechanism C, background check: the guest makes its key, proves itself to the Credential Authority, and receives the
//! credential with every secret sealed to it. Reads down the page like the figure in the draft.

use crate::attester::Attester;
use crate::channel::Channel;
use crate::config::MeasuredConfig;
use crate::console::Console;
use crate::credential::BoundCredential;
use inwit_protocol::binding::{Agent, Binding, Purpose};
use inwit_protocol::evidence::AgentRegister;
use inwit_protocol::message::{AcquireRequest, Reply, ReplyError};
use inwit_protocol::primitives::SigningKey;
use inwit_protocol::refusal::{Refusal, RefusalCode};
use inwit_protocol::seal;
use inwit_protocol::secret::Secret;
use ring::rand::SystemRandom;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for the report device: a TDX quote takes a second, and stops for good if the host's service does.
pub(crate) const REPORT_TIMEOUT: Duration = Duration::from_secs(90);

/// What a mechanism works with.
pub struct Parts<'a> {
    /// The platform.
    pub attester: Attester,
    /// The agent as measured.
    pub agent: Agent,
    /// Where it measured itself.
    pub register: AgentRegister,
    /// The measured configuration.
    pub config: &'a MeasuredConfig,
    /// The console.
    pub console: &'a Console,
}

/// What a mechanism ends in.
pub struct Acquired {
    /// The credential, bound to the key held here.
    pub credential: BoundCredential,
    /// Released secrets by name.
    pub secrets: BTreeMap<String, Secret>,
}

fn internal(what: impl std::fmt::Display) -> Refusal {
    Refusal::new(RefusalCode::Internal, what)
}

/// Mechanism C: W makes the key and asks the CA, which has the Evidence verified.
pub async fn c_background_check(with: Parts<'_>) -> Result<Acquired, Refusal> {
    let Parts { attester, agent, register, config, console } = with;
    let random = SystemRandom::new();
    let key = Arc::new(SigningKey::generate(&random).map_err(internal)?);
    let (decapsulation, encapsulation) = seal::generate();
    console.phase("key", &format!("{:?}", key.public()));

    let channel = Channel::open(&config.authority, Arc::clone(&key), &config.authority_pins).await?;
    console.phase("channel", "TLS 1.3 to a pinned authority key");

    let binding = Binding {
        purpose: Purpose::CertifyKey,
        nonce: channel.nonce(),
        credential_key: key.public().clone(),
        encapsulation_key: Some(encapsulation),
        agent,
    };
    let binding = binding.make(&key, &random).map_err(internal)?;
    let asked = binding.clone();
    let evidence = tokio::task::spawn_blocking(move || attester.evidence(&asked, register));
    let evidence = tokio::time::timeout(REPORT_TIMEOUT, evidence)
        .await
        .map_err(|_| Refusal::new(RefusalCode::AttesterFailed, "the report device does not answer"))?
        .map_err(internal)??;
    console.phase(
        "evidence",
        &format!("{} quote of {} bytes, log of {}", evidence.platform, evidence.quote.len(), evidence.event_log.len()),
    );

    let request = AcquireRequest { binding: binding.clone(), evidence, identifier: config.identifier.clone() };
    let authority = channel.authority().clone();
    let reply = channel.exchange(&request.encode()).await?;
    let reply =
        Reply::parse(&reply).map_err(|error| Refusal::new(RefusalCode::Malformed, format_args!("reply: {error}")))?;
    let grant = reply.accept(&[authority], &binding).map_err(reply_refusal)?;
    let credential = BoundCredential::bind(&grant, key, config)?;
    console.phase("credential", &format!("{} bound to the key held", config.identifier));

    let mut secrets = BTreeMap::new();
    for SealedEntry { name, sealed } in entries(&grant) {
        let secret = decapsulation.open(sealed, name, binding.bytes()).map_err(|_| {
            Refusal::new(
                RefusalCode::SealedKeyUnopenable,
                format_args!("secret {name} does not open with this guest's key"),
            )
        })?;
        secrets.insert(name.to_owned(), secret);
    }
    console.phase("secrets", &format!("{} released and opened", secrets.len()));
    Ok(Acquired { credential, secrets })
}

struct SealedEntry<'a> {
    name: &'a str,
    sealed: &'a seal::Sealed,
}

fn entries(grant: &inwit_protocol::message::Grant) -> impl Iterator<Item = SealedEntry<'_>> {
    grant.secrets.iter().map(|secret| SealedEntry { name: &secret.name, sealed: &secret.sealed })
}

fn reply_refusal(error: ReplyError) -> Refusal {
    let invalid = |cause: String| Refusal::new(RefusalCode::ReplyInvalid, cause);
    match error {
        ReplyError::Refused(refusal) => refusal,
        ReplyError::Statement(error) => invalid(format!("the reply's signature or payload is wrong: {error:?}")),
        ReplyError::OtherBinding => invalid("the reply answers another binding".to_owned()),
    }
}
