//! The binding: what the guest puts, hashed, into the hardware report. It holds the connection's nonce, the Credential
//! Key, the encapsulation key, the agent, and a proof of possession made by the Credential Key over all of that.
//! One CBOR array, one order, chosen by the guest alone; the digest is over the bytes exactly as they travel.

use crate::cbor::{self, Items, ParseError, SHORT};
use crate::primitives::{CryptoError, P256_SIGNATURE_MAX, P256_SPKI_LEN, PublicKey, SigningKey, sha256, sha512};
use crate::seal::{ENCAPSULATION_KEY_LEN, EncapsulationKey};
use ciborium::Value;
use ring::rand::SecureRandom;

const LABEL: &str = "inwit-binding-v1";
const POP_LABEL: &[u8] = b"inwit-pop-v1";
const AGENT_LABEL: &str = "inwit-agent-v1";
/// Longest binding, in bytes.
pub const BINDING_LIMIT: usize = 4_096;

/// What the Evidence is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To have the guest's own key certified, and secrets released beside it (mechanisms A, B, C).
    CertifyKey,
    /// To have a key released that the Key Store holds (mechanism D).
    ReleaseKey,
}

impl Purpose {
    fn text(self) -> &'static str {
        match self {
            Self::CertifyKey => "certify-key",
            Self::ReleaseKey => "release-key",
        }
    }

    fn from_text(text: &str) -> Result<Self, ParseError> {
        match text {
            "certify-key" => Ok(Self::CertifyKey),
            "release-key" => Ok(Self::ReleaseKey),
            _ => Err(ParseError::Label(LABEL)),
        }
    }
}

/// The agent as it names itself. Believed only where the measurement covers it (CAM-8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Program name.
    pub name: String,
    /// Program version.
    pub version: String,
    /// SHA-256 of the agent's executable file.
    pub executable: [u8; 32],
    /// SHA-256 of its measured configuration file.
    pub configuration: [u8; 32],
}

impl Agent {
    /// The event that the agent writes to a run-time register before anything else; the register is extended with
    /// the digest of these bytes. Holds what identifies the agent, and nothing that changes from boot to boot.
    pub fn event(&self) -> Vec<u8> {
        cbor::encode(&Value::Array(vec![
            Value::Text(AGENT_LABEL.into()),
            Value::Bytes(self.executable.into()),
            Value::Bytes(self.configuration.into()),
        ]))
    }

    fn to_value(&self) -> Value {
        Value::Array(vec![
            Value::Text(self.name.clone()),
            Value::Text(self.version.clone()),
            Value::Bytes(self.executable.into()),
            Value::Bytes(self.configuration.into()),
        ])
    }

    fn parse(mut items: Items) -> Result<Self, ParseError> {
        let agent = Self {
            name: items.text(SHORT)?,
            version: items.text(SHORT)?,
            executable: items.array()?,
            configuration: items.array()?,
        };
        items.end()?;
        Ok(agent)
    }
}

/// REPORT_DATA for SNP and TDX: SHA-512 of the binding, 64 bytes. Made only from a binding's bytes, so nobody can have a
/// report over bytes of their own choosing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ReportData([u8; 64]);

impl ReportData {
    /// The data that the report over this binding must hold.
    pub fn of(binding: &EncodedBinding) -> Self {
        Self(sha512(&binding.0))
    }

    /// The 64 bytes.
    pub fn bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

/// extraData of a TPM quote: SHA-256 of the binding, 32 bytes (a TPM takes no 64).
pub fn qualifying_data(binding: &EncodedBinding) -> [u8; 32] {
    sha256(&binding.0)
}

/// The exact bytes of a binding, as made by [`Binding::make`] or received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedBinding(Vec<u8>);

impl EncodedBinding {
    /// Bytes as received; says nothing about what they mean until [`Binding::parse`].
    pub fn received(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A parsed binding, whose proof of possession was verified: parsing and verifying are one act.
#[derive(Clone)]
pub struct Binding {
    /// What the Evidence is for.
    pub purpose: Purpose,
    /// The TLS exporter value of the connection it was made for.
    pub nonce: [u8; 32],
    /// The key whose possession is proven, P-256.
    pub credential_key: PublicKey,
    /// Where secrets are sealed to; absent if none are wanted.
    pub encapsulation_key: Option<EncapsulationKey>,
    /// The agent that made it.
    pub agent: Agent,
}

/// What is wrong with a binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindingError {
    /// It does not parse.
    Malformed(ParseError),
    /// A key in it is not one.
    Key(CryptoError),
    /// The proof of possession does not verify.
    Possession,
}

impl From<ParseError> for BindingError {
    fn from(error: ParseError) -> Self {
        Self::Malformed(error)
    }
}

impl Binding {
    fn earlier_elements(&self) -> Vec<Value> {
        vec![
            Value::Text(LABEL.into()),
            Value::Text(self.purpose.text().into()),
            Value::Bytes(self.nonce.into()),
            Value::Bytes(self.credential_key.spki().to_vec()),
            self.encapsulation_key.as_ref().map_or(Value::Null, |key| Value::Bytes(key.bytes().to_vec())),
            self.agent.to_value(),
        ]
    }

    fn to_be_proven(elements: &[Value]) -> Vec<u8> {
        [POP_LABEL, &cbor::encode(&Value::Array(elements.to_vec()))].concat()
    }

    /// Encodes the binding with the proof of possession by `key`, whose public half it names.
    pub fn make(&self, key: &SigningKey, random: &dyn SecureRandom) -> Result<EncodedBinding, CryptoError> {
        let mut elements = self.earlier_elements();
        let pop = key.sign(&Self::to_be_proven(&elements), random)?;
        elements.push(Value::Bytes(pop));
        Ok(EncodedBinding(cbor::encode(&Value::Array(elements))))
    }

    /// Reads a binding and verifies its proof of possession. The nonce, the key and the agent are still to be compared
    /// with what is expected: only the caller knows the connection.
    pub fn parse(encoded: &EncodedBinding) -> Result<Self, BindingError> {
        if encoded.0.len() > BINDING_LIMIT {
            return Err(ParseError::Length(LABEL).into());
        }
        let mut items = Items::labelled(&encoded.0, LABEL)?;
        let purpose = Purpose::from_text(&items.text(SHORT)?)?;
        let nonce = items.array()?;
        let credential_key = PublicKey::from_spki(&items.bytes(P256_SPKI_LEN)?).map_err(BindingError::Key)?;
        let encapsulation_key = match items.optional_bytes(ENCAPSULATION_KEY_LEN)? {
            Some(bytes) => Some(EncapsulationKey::parse(&bytes).map_err(BindingError::Key)?),
            None => None,
        };
        let agent = Agent::parse(items.items()?)?;
        let pop = items.bytes(P256_SIGNATURE_MAX)?;
        items.end()?;
        let binding = Self { purpose, nonce, credential_key, encapsulation_key, agent };
        let message = Self::to_be_proven(&binding.earlier_elements());
        binding.credential_key.verify(&message, &pop).map_err(|_| BindingError::Possession)?;
        Ok(binding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ring::rand::SystemRandom;

    fn sample() -> (SigningKey, Binding) {
        let key = SigningKey::generate(&SystemRandom::new()).unwrap();
        let binding = Binding {
            purpose: Purpose::CertifyKey,
            nonce: [7; 32],
            credential_key: key.public().clone(),
            encapsulation_key: Some(crate::seal::generate().1),
            agent: Agent {
                name: "inwit-guest".into(),
                version: "0".into(),
                executable: [1; 32],
                configuration: [2; 32],
            },
        };
        (key, binding)
    }

    #[test]
    fn comes_back_as_it_was_made() {
        let (key, binding) = sample();
        let encoded = binding.make(&key, &SystemRandom::new()).unwrap();
        let back = Binding::parse(&encoded).unwrap();
        assert_eq!(back.nonce, binding.nonce);
        assert_eq!(back.agent, binding.agent);
        assert_eq!(back.credential_key, binding.credential_key);
        assert_eq!(ReportData::of(&encoded).bytes(), &sha512(encoded.bytes()));
    }

    #[test]
    fn proof_of_possession_by_another_key_is_refused() {
        let (_, binding) = sample();
        let (other, _) = sample();
        let encoded = binding.make(&other, &SystemRandom::new()).unwrap();
        assert_eq!(Binding::parse(&encoded).err(), Some(BindingError::Possession));
    }

    #[test]
    fn every_flipped_byte_is_refused() {
        let (key, binding) = sample();
        let encoded = binding.make(&key, &SystemRandom::new()).unwrap();
        for position in 0..encoded.bytes().len() {
            let mut bytes = encoded.bytes().to_vec();
            bytes[position] ^= 1;
            assert!(Binding::parse(&EncodedBinding::received(bytes)).is_err(), "byte {position}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Binding::parse(&EncodedBinding::received(bytes));
        }
    }
}
