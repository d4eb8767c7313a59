//! What a VEK certificate says about the chip or cloud it was issued for, and whether that is the one that a report
//! speaks of (VCEK certificate and key distribution specification, publication 57230). Reading a certificate does not
//! authenticate it: that is the chain's part.

use std::fmt;

use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::X509Extension;

use super::report::{Report, SigningKey};
use super::tcb::{Product, SnpTcb};
use crate::evidence::x509::{self, Window, X509Error};

/// Arc of AMD's certificate extensions.
const AMD: &str = "1.3.6.1.4.1.3704.1.";
/// Longest CSP_ID that is read, in bytes.
const CSP_ID_LIMIT: usize = 64;
/// Uncompressed P-384 point: 04 ‖ x ‖ y.
const P384_POINT: usize = 97;

/// Why a certificate is not a VEK's, or not the one for a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum VekError {
    #[error("the VEK certificate is unusable: {0}")]
    X509(#[from] X509Error),
    #[error("the names in the VEK certificate are not those of a VCEK or VLEK of a product known here")]
    Names,
    #[error("extension {0} of the VEK certificate is missing")]
    Missing(&'static str),
    #[error("an extension of the VEK certificate is malformed, stands twice or does not belong there")]
    Extension,
    #[error("the VEK certificate holds no P-384 key")]
    Key,
}

/// Why a VEK certificate is not the one that a report was signed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Mismatch {
    #[error("the certificate at hand is of the other kind (VCEK where the report says VLEK, or the reverse)")]
    Kind,
    #[error("the certificate at hand is for {0}, the report is from another product")]
    Product(Product),
    #[error("the host masks CHIP_ID in its reports, so no VCEK can be told to be its chip's: unmask it, or use a VLEK")]
    MaskedChip,
    #[error("the VCEK at hand is another chip's: import that of {0}")]
    Chip(Chip),
    #[error("a reserved byte of a TCB_VERSION in the report is not zero for {0}")]
    TcbLayout(Product),
    #[error("the VCEK at hand is for another TCB: import that of {0}")]
    ChipTcb(Chip),
    #[error("the VLEK at hand is for TCB {certificate}, the report says {report}: import the one for that")]
    Tcb { certificate: SnpTcb, report: SnpTcb },
}

/// A chip at one TCB: all that AMD's key service has to be told to give its VCEK out. It fits into the cause of a refusal
/// with 60 characters beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chip {
    pub(crate) product: Product,
    pub(crate) chip_id: [u8; 64],
    pub(crate) tcb: SnpTcb,
}

impl fmt::Display for Chip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} chip ", self.product)?;
        let mut hwid = self.chip_id.iter().take(self.product.chip_id_length());
        hwid.try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, " at {}", self.tcb)
    }
}

/// What a VEK certificate states.
#[derive(Clone, Debug)]
pub(crate) struct Vek {
    pub(crate) product: Product,
    pub(crate) origin: Origin,
    pub(crate) tcb: SnpTcb,
    /// Uncompressed P-384 point.
    pub(crate) point: [u8; P384_POINT],
    /// Issuer as it is written.
    pub(crate) issuer: Vec<u8>,
    pub(crate) window: Window,
}

/// Whom the key was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// One chip, by its HWID, padded with zeros as CHIP_ID is.
    Chip([u8; 64]),
    /// A cloud provider, by its CSP_ID.
    Provider(String),
}

impl Vek {
    pub(crate) fn parse(der: &[u8]) -> Result<Self, VekError> {
        let certificate = x509::certificate(der)?;
        x509::unrepeated(&certificate)?;
        let (product, key) = names(&certificate).ok_or(VekError::Names)?;
        let extensions = Extensions::of(&certificate)?;
        let stated = extensions.product_name.ok_or(VekError::Missing("productName"))?;
        if stated.split('-').next() != Some(product.name()) {
            return Err(VekError::Names);
        }
        if extensions.structure_version != Some(product.certificate_version()) {
            return Err(VekError::Extension);
        }
        let tcb = extensions.tcb(product)?;
        let origin = match (key, extensions.chip, extensions.provider) {
            (SigningKey::Vcek, Some(chip), None) => Origin::Chip(chip_id(product, chip).ok_or(VekError::Extension)?),
            (SigningKey::Vlek, None, Some(provider)) => Origin::Provider(provider.to_owned()),
            (SigningKey::Vcek, None, None) => return Err(VekError::Missing("hwID")),
            (SigningKey::Vlek, None, None) => return Err(VekError::Missing("cspID")),
            _ => return Err(VekError::Extension),
        };
        Ok(Self {
            product,
            origin,
            tcb,
            point: point(&certificate)?,
            issuer: certificate.issuer().as_raw().to_vec(),
            window: Window::of(certificate.validity())?,
        })
    }

    /// Compares kind and product with a report's: what a certificate of another one states can not be compared at all.
    pub(crate) fn of_kind(&self, report: &Report) -> Result<(), Mismatch> {
        let kind = match self.origin {
            Origin::Chip(_) => SigningKey::Vcek,
            Origin::Provider(_) => SigningKey::Vlek,
        };
        if kind != report.signing_key {
            return Err(Mismatch::Kind);
        }
        // A version 2 report has no CPUID: then the certificate alone says the product, and its chain proves it.
        if let Some([family, model, _]) = report.cpuid
            && Product::from_cpuid(family, model) != Some(self.product)
        {
            return Err(Mismatch::Product(self.product));
        }
        Ok(())
    }

    /// Compares with a report: same kind, product, chip and TCB. In this order, so that of several certificates the one
    /// that comes nearest is told of: the right chip's at another patch level.
    pub(crate) fn matches(&self, report: &Report) -> Result<(), Mismatch> {
        self.of_kind(report)?;
        let (product, tcb) = (self.product, SnpTcb::parse(self.product, report.reported_tcb));
        let wanted = |tcb| Chip { product, chip_id: report.chip_id, tcb };
        match (&self.origin, tcb) {
            (Origin::Chip(_), _) if report.chip_id == [0; 64] => Err(Mismatch::MaskedChip),
            (_, None) => Err(Mismatch::TcbLayout(product)),
            (Origin::Chip(chip), Some(tcb)) if *chip != report.chip_id => Err(Mismatch::Chip(wanted(tcb))),
            (_, Some(tcb)) if tcb == self.tcb => Ok(()),
            (Origin::Chip(_), Some(tcb)) => Err(Mismatch::ChipTcb(wanted(tcb))),
            (Origin::Provider(_), Some(report)) => Err(Mismatch::Tcb { certificate: self.tcb, report }),
        }
    }
}

/// Product and kind by the names of subject and issuer.
fn names(certificate: &X509Certificate<'_>) -> Option<(Product, SigningKey)> {
    let issuer = x509::common_name(certificate.issuer())?.strip_prefix("SEV-")?;
    let (key, product) = match (x509::common_name(certificate.subject())?, issuer.strip_prefix("VLEK-")) {
        ("SEV-VCEK", None) => (SigningKey::Vcek, issuer),
        ("SEV-VLEK", Some(product)) => (SigningKey::Vlek, product),
        _ => return None,
    };
    let product = Product::from_name(product).filter(|known| known.name() == product)?;
    Some((product, key))
}

fn point(certificate: &X509Certificate<'_>) -> Result<[u8; P384_POINT], VekError> {
    let key = certificate.public_key();
    let curve = key.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
    let curve = curve.map(|oid| oid.to_id_string());
    let named =
        key.algorithm.algorithm.to_id_string() == "1.2.840.10045.2.1" && curve.as_deref() == Some("1.3.132.0.34");
    match <[u8; P384_POINT]>::try_from(key.subject_public_key.data.as_ref()) {
        Ok(point) if named && point.first() == Some(&4) => Ok(point),
        _ => Err(VekError::Key),
    }
}

/// HWID padded to the length of CHIP_ID.
fn chip_id(product: Product, hwid: &[u8]) -> Option<[u8; 64]> {
    let mut chip = [0; 64];
    if hwid.len() != product.chip_id_length() {
        return None;
    }
    chip.iter_mut().zip(hwid).for_each(|(to, from)| *to = *from);
    // All zero is how a report writes a masked chip: no certificate may stand for it.
    (chip != [0; 64]).then_some(chip)
}

/// AMD's extensions as found.
#[derive(Default)]
struct Extensions<'a> {
    structure_version: Option<u8>,
    product_name: Option<&'a str>,
    boot_loader: Option<u8>,
    tee: Option<u8>,
    snp: Option<u8>,
    microcode: Option<u8>,
    fmc: Option<u8>,
    chip: Option<&'a [u8]>,
    provider: Option<&'a str>,
}

impl<'a> Extensions<'a> {
    fn of(certificate: &X509Certificate<'a>) -> Result<Self, VekError> {
        let mut found = Self::default();
        for extension in certificate.extensions() {
            let oid = extension.oid.to_id_string();
            if let Some(arc) = oid.strip_prefix(AMD) {
                found.take(arc, extension)?;
            }
        }
        Ok(found)
    }

    fn take(&mut self, arc: &str, extension: &X509Extension<'a>) -> Result<(), VekError> {
        let value = extension.value;
        match arc {
            "1" => once(&mut self.structure_version, small_integer(value)),
            "2" => once(&mut self.product_name, text(value)),
            "3.1" => once(&mut self.boot_loader, small_integer(value)),
            "3.2" => once(&mut self.tee, small_integer(value)),
            "3.3" => once(&mut self.snp, small_integer(value)),
            "3.8" => once(&mut self.microcode, small_integer(value)),
            "3.9" => once(&mut self.fmc, small_integer(value)),
            // Reserved patch levels stand in the certificate as zero, beside reserved zero bytes in the report.
            "3.4" | "3.5" | "3.6" | "3.7" if small_integer(value) == Some(0) => Ok(()),
            "4" => once(&mut self.chip, Some(unwrapped(value))),
            "5" => once(&mut self.provider, text(value)),
            _ => Err(VekError::Extension),
        }
    }

    fn tcb(&self, product: Product) -> Result<SnpTcb, VekError> {
        let fmc = match (product, self.fmc) {
            (Product::Turin, None) => return Err(VekError::Missing("fmcSPL")),
            (Product::Genoa | Product::Milan, Some(_)) => return Err(VekError::Extension),
            (_, fmc) => fmc,
        };
        Ok(SnpTcb {
            fmc,
            boot_loader: self.boot_loader.ok_or(VekError::Missing("blSPL"))?,
            tee: self.tee.ok_or(VekError::Missing("teeSPL"))?,
            snp: self.snp.ok_or(VekError::Missing("snpSPL"))?,
            microcode: self.microcode.ok_or(VekError::Missing("ucodeSPL"))?,
        })
    }
}

fn once<T>(slot: &mut Option<T>, value: Option<T>) -> Result<(), VekError> {
    match (slot.is_some(), value) {
        (false, Some(value)) => {
            *slot = Some(value);
            Ok(())
        }
        _ => Err(VekError::Extension),
    }
}

/// A DER INTEGER from 0 to 255 in its one form.
fn small_integer(value: &[u8]) -> Option<u8> {
    match value {
        [2, 1, low @ 0..=0x7f] => Some(*low),
        [2, 2, 0, high @ 0x80..=0xff] => Some(*high),
        _ => None,
    }
}

/// A short DER IA5String of printable characters.
fn text(value: &[u8]) -> Option<&str> {
    let [0x16, length, text @ ..] = value else { return None };
    let fits = usize::from(*length) == text.len() && text.len() <= CSP_ID_LIMIT;
    let printable = text.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    core::str::from_utf8(text).ok().filter(|_| fits && printable)
}

/// HWID stands in certificates both as raw bytes and wrapped in a DER OCTET STRING.
fn unwrapped(value: &[u8]) -> &[u8] {
    match value {
        [4, length @ (8 | 64), hwid @ ..] if usize::from(*length) == hwid.len() => hwid,
        raw => raw,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patch_levels_have_one_der_form() {
        assert_eq!(small_integer(&[2, 1, 0x7f]), Some(0x7f));
        assert_eq!(small_integer(&[2, 2, 0, 0xdb]), Some(0xdb));
        for bad in [&[2, 1, 0x80][..], &[2, 2, 0, 0x7f], &[2, 2, 1, 0], &[2, 1], &[2, 1, 0, 0], &[4, 1, 0]] {
            assert_eq!(small_integer(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_chip_is_named_by_the_length_of_its_product_and_never_by_zeros() {
        assert!(chip_id(Product::Milan, &[1; 64]).is_some());
        assert!(chip_id(Product::Turin, &[1; 8]).is_some_and(|chip| chip[8..] == [0; 56]));
        assert_eq!(chip_id(Product::Milan, &[1; 8]), None);
        assert_eq!(chip_id(Product::Milan, &[0; 64]), None);
        assert_eq!(unwrapped(&[&[4, 64][..], &[7; 64]].concat()), [7; 64]);
        assert_eq!(unwrapped(&[7; 64]), [7; 64]);
    }

    #[test]
    fn names_are_short_printable_text() {
        assert_eq!(text(b"\x16\x05Milan"), Some("Milan"));
        assert_eq!(text(b"\x16\x06Milan"), None);
        assert_eq!(text(b"\x16\x02a\n"), None);
        assert_eq!(text(b"\x0c\x05Milan"), None);
    }
}
