//! The forms in which Reference Values are handed over: told apart by content when they are read, chosen when they are
//! written.
//!
//! Not trusted: the bytes; each form has one strict reader, and what a form says beyond what is kept here is refused
//! instead of dropped. Never believed: where a document came from; a signature is not checked.

use std::fmt;

use super::moment::Moment;
use super::{AgentReference, MAX_REFERENCE_BYTES, Measured, ReferenceError, ReferenceValues, corim, rvps};
use crate::made_from::MadeFrom;

/// A form of Reference Values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Our own, for people.
    Toml,
    /// Our own, for programs.
    Json,
    /// Concise Reference Integrity Manifest, unsigned (draft-ietf-rats-corim): binary.
    Corim,
    /// What the Reference Value Provider Service of Trustee takes: JSON.
    Rvps,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Toml => "TOML",
            Self::Json => "JSON",
            Self::Corim => "CoRIM",
            Self::Rvps => "RVPS",
        })
    }
}

impl Form {
    /// Refuses a field of this form.
    pub(super) fn refuse(self, field: impl fmt::Display, problem: impl fmt::Display) -> ReferenceError {
        ReferenceError::Field { form: self, field: field.to_string(), problem: problem.to_string() }
    }
}

/// From when and until when a document says that it holds. Nothing here has a clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: Option<Moment>,
    /// The last moment.
    pub not_after: Option<Moment>,
}

impl Validity {
    /// Whether no end is set on either side.
    #[must_use]
    pub const fn is_unbounded(&self) -> bool {
        self.not_before.is_none() && self.not_after.is_none()
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.not_before, self.not_after) {
            (None, None) => f.write_str("always"),
            (Some(from), None) => write!(f, "from {from}"),
            (None, Some(until)) => write!(f, "until {until}"),
            (Some(from), Some(until)) => write!(f, "from {from} until {until}"),
        }
    }
}

/// What one document states, whichever form it has. Other people's documents have no agent, and may have an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stated {
    /// The form it was read from; for values made here, the form they are at home in.
    pub form: Form,
    /// Name of the values.
    pub name: Option<String>,
    /// The agent inside the image.
    pub agent: Option<AgentReference>,
    /// What the hardware reports.
    pub measured: Measured,
    /// When it holds.
    pub validity: Validity,
    /// What the values were computed from; only our own forms say that.
    pub made_from: Option<MadeFrom>,
}

impl From<ReferenceValues> for Stated {
    fn from(values: ReferenceValues) -> Self {
        let ReferenceValues { name, agent, measured, made_from } = values;
        let validity = Validity::default();
        Self { form: Form::Toml, name: Some(name), agent: Some(agent), measured, validity, made_from }
    }
}

impl Stated {
    /// Reads a document of any form.
    ///
    /// # Errors
    /// [`ReferenceError`], naming form and field.
    pub fn read(bytes: &[u8]) -> Result<Self, ReferenceError> {
        if bytes.len() > MAX_REFERENCE_BYTES {
            return Err(ReferenceError::TooLarge(bytes.len()));
        }
        if corim::is_meant(bytes) {
            return corim::read(bytes);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| ReferenceError::Unknown)?;
        match text.trim_start().bytes().next() {
            Some(b'{' | b'[') if rvps::is_meant(text)? => rvps::read(text),
            Some(b'{' | b'[') => Ok(Self { form: Form::Json, ..ReferenceValues::from_json(text)?.into() }),
            _ => Ok(ReferenceValues::from_toml(text)?.into()),
        }
    }

    /// The whole Reference Values, ready to be registered.
    ///
    /// # Errors
    /// [`ReferenceError::Incomplete`] without name or agent, [`ReferenceError::Validity`] when the document says when
    /// it holds, which nobody would enforce once it is registered; [`ReferenceError::Name`].
    pub fn complete(self) -> Result<ReferenceValues, ReferenceError> {
        let Self { form, name, agent, measured, validity, made_from } = self;
        if !validity.is_unbounded() {
            return Err(ReferenceError::Validity { form, validity });
        }
        let agent = agent.ok_or(ReferenceError::Incomplete { form, missing: "agent" })?;
        let name = name.ok_or(ReferenceError::Incomplete { form, missing: "name" })?;
        ReferenceValues { name, agent, measured, made_from }.checked()
    }

    /// Writes a document. What the values were made from goes into our own forms only.
    ///
    /// # Errors
    /// [`ReferenceError::Incomplete`] and [`ReferenceError::Validity`] for our own forms, which hold whole values only;
    /// a beginning of validity in RVPS, which has no place for it; [`ReferenceError::Name`].
    pub fn write(&self, form: Form) -> Result<Vec<u8>, ReferenceError> {
        match form {
            Form::Toml => Ok(self.clone().complete()?.to_toml()?.into_bytes()),
            Form::Json => Ok((self.clone().complete()?.to_json()? + "\n").into_bytes()),
            Form::Corim => corim::write(self),
            Form::Rvps => Ok(rvps::write(std::slice::from_ref(self))?.into_bytes()),
        }
    }

    /// Writes one RVPS document for several sets of one platform: every name has the values of all of them, as Trustee
    /// keeps one list for each name.
    ///
    /// # Errors
    /// As for [`Stated::write`], and for sets of different platforms or ends.
    pub fn write_rvps(all: &[Self]) -> Result<Vec<u8>, ReferenceError> {
        Ok(rvps::write(all)?.into_bytes())
    }
}

impl ReferenceValues {
    /// Reads whole Reference Values of any form: TOML, JSON, CoRIM or RVPS.
    ///
    /// # Errors
    /// [`ReferenceError`], naming form and field.
    pub fn read(bytes: &[u8]) -> Result<Self, ReferenceError> {
        Stated::read(bytes)?.complete()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::sample::samples;

    const FORMS: [Form; 4] = [Form::Toml, Form::Json, Form::Corim, Form::Rvps];

    #[test]
    fn every_platform_survives_every_form() {
        for values in samples() {
            for form in FORMS {
                let written = Stated::from(values.clone()).write(form).unwrap();
                let read = Stated::read(&written).unwrap();
                assert_eq!(read.form, form);
                assert_eq!(read, Stated { form, ..values.clone().into() });
                assert_eq!(ReferenceValues::read(&written).unwrap(), values, "{form}");
                for other in FORMS {
                    let converted = read.write(other).unwrap();
                    assert_eq!(ReferenceValues::read(&converted).unwrap(), values, "{form} to {other}");
                }
            }
        }
    }

    #[test]
    fn what_is_measured_goes_alone_into_the_forms_of_others() {
        for values in samples() {
            let bare = Stated { name: None, agent: None, ..values.into() };
            for form in [Form::Toml, Form::Json] {
                assert!(matches!(bare.write(form), Err(ReferenceError::Incomplete { missing: "agent", .. })), "{form}");
            }
            let read = Stated::read(&bare.write(Form::Rvps).unwrap()).unwrap();
            assert_eq!(read, Stated { form: Form::Rvps, ..bare.clone() });
            assert!(matches!(read.complete(), Err(ReferenceError::Incomplete { form: Form::Rvps, missing: "agent" })));
            let read = Stated::read(&bare.write(Form::Corim).unwrap()).unwrap();
            assert_eq!((&read.measured, read.agent.as_ref()), (&bare.measured, None));
            let error = ReferenceValues::read(&bare.write(Form::Corim).unwrap()).unwrap_err().to_string();
            assert!(error.contains("CoRIM state no agent") && error.contains("inwit-measure convert"), "{error}");
        }
    }

    #[test]
    fn an_end_is_kept_or_refused_but_never_forgotten() {
        for values in samples() {
            let end: Moment = "2027-01-31T12:00:00Z".parse().unwrap();
            let validity = Validity { not_before: None, not_after: Some(end) };
            let stated = Stated { validity, ..values.into() };
            for form in [Form::Corim, Form::Rvps] {
                let written = stated.write(form).unwrap();
                assert_eq!(Stated::read(&written).unwrap(), Stated { form, ..stated.clone() });
                let error = ReferenceValues::read(&written).unwrap_err().to_string();
                assert!(error.contains("until 2027-01-31T12:00:00Z"), "{error}");
            }
            for form in [Form::Toml, Form::Json] {
                assert!(matches!(stated.write(form), Err(ReferenceError::Validity { .. })), "{form}");
            }
        }
    }

    #[test]
    fn bytes_of_no_form_are_told_so() {
        for bytes in [&[0xff, 0xfe][..], &[0x7f, b'E', b'L', b'F', 0xff], &[0x80]] {
            assert!(matches!(Stated::read(bytes), Err(ReferenceError::Unknown)), "{bytes:02x?}");
        }
        assert!(matches!(Stated::read(b""), Err(ReferenceError::Toml(_))), "an empty file is an empty TOML document");
        assert!(matches!(Stated::read(b"{"), Err(ReferenceError::Json(_))));
        assert!(matches!(Stated::read(b"["), Err(ReferenceError::Field { form: Form::Rvps, .. })));
        assert!(matches!(Stated::read(&[0xd9, 0x01, 0xf5]), Err(ReferenceError::Cbor(_))));
        let long = vec![b' '; MAX_REFERENCE_BYTES + 1];
        assert!(matches!(Stated::read(&long), Err(ReferenceError::TooLarge(_))));
    }
}
