//! The one exchange of mechanism C: a request with binding and Evidence, a reply with the credential and every sealed
//! secret, or a refusal. Wire shapes only; who may ask and what is granted is decided elsewhere.

use crate::binding::{BINDING_LIMIT, EncodedBinding};
use crate::cbor::{self, Items, ParseError, SHORT, TEXT};
use crate::evidence::Evidence;
use crate::frame::REQUEST_LIMIT;
use crate::identity::WorkloadIdentifier;
use crate::primitives::{PublicKey, SigningKey};
use crate::refusal::Refusal;
use crate::seal::{CIPHERTEXT_MAX, ENCAPSULATED_LEN, Sealed};
use crate::signed::{Form, Signed, Statement, StatementError, Verified};
use ciborium::Value;
use ring::rand::SecureRandom;

const REQUEST_LABEL: &str = "inwit-acquire-v1";
const REPLY_LABEL: &str = "inwit-reply-v1";
/// Longest certificate, in bytes.
pub const CERTIFICATE_LIMIT: usize = 8_192;

/// A guest asks for its credential and its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcquireRequest {
    /// The binding, exactly as it was hashed into the report.
    pub binding: EncodedBinding,
    /// Evidence over it.
    pub evidence: Evidence,
    /// The identity that the guest's measured configuration expects. It selects nothing: another one is refused.
    pub identifier: WorkloadIdentifier,
}

impl AcquireRequest {
    /// Deterministic CBOR.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&Value::Array(vec![
            Value::Text(REQUEST_LABEL.into()),
            Value::Bytes(self.binding.bytes().to_vec()),
            Value::Bytes(self.evidence.encode()),
            Value::Text(self.identifier.uri().into()),
        ]))
    }

    /// Reads what [`AcquireRequest::encode`] wrote, using every byte.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut items = Items::labelled(bytes, REQUEST_LABEL)?;
        let binding = EncodedBinding::received(items.bytes(BINDING_LIMIT)?);
        let evidence = Evidence::parse(&items.bytes(REQUEST_LIMIT)?)?;
        let identifier = WorkloadIdentifier::parse(&items.text(TEXT)?).map_err(|_| ParseError::Shape(REQUEST_LABEL))?;
        items.end()?;
        Ok(Self { binding, evidence, identifier })
    }
}

/// A secret that the workload is entitled to, sealed to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSecret {
    /// The name under which the Owner registered it; part of the sealing.
    pub name: String,
    /// The ciphertext.
    pub sealed: Sealed,
}

/// What a guest is granted. Signed by the authority's pinned key, for exactly one binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// SHA-256 of the binding that it answers.
    pub binding: [u8; 32],
    /// The workload identity certificate and its intermediates, DER, leaf first, the root left out.
    pub chain: Vec<Vec<u8>>,
    /// The trust domain's anchors, DER certificates.
    pub anchors: Vec<Vec<u8>>,
    /// Secrets, sealed to the encapsulation key in the binding.
    pub secrets: Vec<SealedSecret>,
    /// The authority's clock, seconds since 1970: the first clock that the guest may believe.
    pub now: u64,
}

impl Statement for Grant {
    const LABEL: &'static str = "inwit-grant-v1";
    const FORM: Form = Form::Labelled;
    const LIMIT: usize = crate::frame::REPLY_LIMIT;

    fn encode(&self) -> Vec<u8> {
        let list = |items: &[Vec<u8>]| Value::Array(items.iter().map(|der| Value::Bytes(der.clone())).collect());
        let secret = |secret: &SealedSecret| {
            Value::Array(vec![
                Value::Text(secret.name.clone()),
                Value::Bytes(secret.sealed.encapsulated.clone()),
                Value::Bytes(secret.sealed.ciphertext.clone()),
            ])
        };
        cbor::encode(&Value::Array(vec![
            Value::Text(Self::LABEL.into()),
            Value::Bytes(self.binding.into()),
            list(&self.chain),
            list(&self.anchors),
            Value::Array(self.secrets.iter().map(secret).collect()),
            Value::Integer(self.now.into()),
        ]))
    }

    fn parse(payload: &[u8]) -> Result<Self, ParseError> {
        let mut items = Items::labelled(payload, Self::LABEL)?;
        let grant = Self {
            binding: items.array()?,
            chain: certificates(items.items()?)?,
            anchors: certificates(items.items()?)?,
            secrets: secrets(items.items()?)?,
            now: items.unsigned()?,
        };
        items.end()?;
        Ok(grant)
    }
}

fn certificates(mut items: Items) -> Result<Vec<Vec<u8>>, ParseError> {
    let mut list = Vec::with_capacity(items.left());
    while items.left() > 0 {
        list.push(items.bytes(CERTIFICATE_LIMIT)?);
    }
    Ok(list)
}

fn secrets(mut items: Items) -> Result<Vec<SealedSecret>, ParseError> {
    let mut list = Vec::with_capacity(items.left());
    while items.left() > 0 {
        let mut secret = items.items()?;
        list.push(SealedSecret {
            name: secret.text(SHORT)?,
            sealed: Sealed { encapsulated: secret.bytes(ENCAPSULATED_LEN)?, ciphertext: secret.bytes(CIPHERTEXT_MAX)? },
        });
        secret.end()?;
    }
    Ok(list)
}

/// The answer to a request.
pub enum Reply {
    /// Granted; readable once the signature is verified.
    Granted(Signed<Grant>),
    /// Refused.
    Refused(Refusal),
}

/// Why a reply is no use to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// The authority refused.
    Refused(Refusal),
    /// The signature or the payload is wrong.
    Statement(StatementError),
    /// It answers another binding.
    OtherBinding,
}

impl Reply {
    /// A signed grant.
    pub fn grant(
        grant: &Grant,
        by: &SigningKey,
        random: &dyn SecureRandom,
    ) -> Result<Self, crate::primitives::CryptoError> {
        Signed::sign(grant, by, random).map(Self::Granted)
    }

    /// Deterministic CBOR.
    pub fn encode(&self) -> Vec<u8> {
        let (granted, body) = match self {
            Self::Granted(grant) => (true, grant.to_value()),
            Self::Refused(refusal) => (false, refusal.to_value()),
        };
        cbor::encode(&Value::Array(vec![Value::Text(REPLY_LABEL.into()), Value::Bool(granted), body]))
    }

    /// Reads what [`Reply::encode`] wrote, using every byte.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut items = Items::labelled(bytes, REPLY_LABEL)?;
        let granted = items.boolean()?;
        let body = items.value()?;
        items.end()?;
        if granted { Signed::from_value(body).map(Self::Granted) } else { Refusal::from_value(body).map(Self::Refused) }
    }

    /// The grant, if one of the pinned `keys` signed it for this `binding`.
    pub fn accept(self, keys: &[PublicKey], binding: &EncodedBinding) -> Result<Verified<Grant>, ReplyError> {
        match self {
            Self::Refused(refusal) => Err(ReplyError::Refused(refusal)),
            Self::Granted(signed) => {
                let grant = signed.verify(keys).map_err(ReplyError::Statement)?;
                if grant.binding == crate::primitives::sha256(binding.bytes()) {
                    Ok(grant)
                } else {
                    Err(ReplyError::OtherBinding)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{AgentRegister, Platform};
    use crate::refusal::RefusalCode;
    use proptest::prelude::*;
    use ring::rand::SystemRandom;

    fn grant(binding: &EncodedBinding) -> Grant {
        Grant {
            binding: crate::primitives::sha256(binding.bytes()),
            chain: vec![vec![1; 10]],
            anchors: vec![vec![2; 10]],
            secrets: vec![SealedSecret {
                name: "disk".into(),
                sealed: Sealed { encapsulated: vec![3], ciphertext: vec![4] },
            }],
            now: 1_700_000_000,
        }
    }

    #[test]
    fn a_grant_is_accepted_only_from_the_pinned_key_and_for_its_binding() {
        let random = SystemRandom::new();
        let (key, other) = (SigningKey::generate(&random).unwrap(), SigningKey::generate(&random).unwrap());
        let binding = EncodedBinding::received(vec![9; 9]);
        let reply = || Reply::parse(&Reply::grant(&grant(&binding), &key, &random).unwrap().encode()).unwrap();
        assert_eq!(
            *reply().accept(&[other.public().clone(), key.public().clone()], &binding).unwrap(),
            grant(&binding)
        );
        assert!(matches!(
            reply().accept(&[other.public().clone()], &binding),
            Err(ReplyError::Statement(StatementError::Signature))
        ));
        let elsewhere = EncodedBinding::received(vec![8; 9]);
        assert!(matches!(reply().accept(&[key.public().clone()], &elsewhere), Err(ReplyError::OtherBinding)));
    }

    #[test]
    fn a_flipped_byte_of_a_granted_reply_never_yields_a_grant() {
        let random = SystemRandom::new();
        let key = SigningKey::generate(&random).unwrap();
        let binding = EncodedBinding::received(vec![9; 9]);
        let bytes = Reply::grant(&grant(&binding), &key, &random).unwrap().encode();
        for position in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[position] ^= 1;
            let granted = Reply::parse(&flipped).ok().and_then(|r| r.accept(&[key.public().clone()], &binding).ok());
            assert!(granted.is_none(), "byte {position}");
        }
    }

    #[test]
    fn a_request_and_a_refusal_round_trip() {
        let request = AcquireRequest {
            binding: EncodedBinding::received(vec![1, 2]),
            evidence: Evidence {
                platform: Platform::Snp,
                quote: vec![1],
                endorsements: vec![],
                event_log: vec![],
                agent_register: AgentRegister::Absent,
            },
            identifier: WorkloadIdentifier::parse("spiffe://demo.example/a").unwrap(),
        };
        assert_eq!(AcquireRequest::parse(&request.encode()).unwrap(), request);
        let refusal = Refusal::new(RefusalCode::NonceMismatch, "another connection");
        match Reply::parse(&Reply::Refused(refusal.clone()).encode()).unwrap() {
            Reply::Refused(back) => assert_eq!(back, refusal),
            Reply::Granted(_) => panic!("a refusal became a grant"),
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = AcquireRequest::parse(&bytes);
            let _ = Reply::parse(&bytes);
        }
    }
}
