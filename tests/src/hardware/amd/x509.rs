//! The shapes of AMD's certificates and revocation list: names, extensions, signed parts.
//!
//! Compared element by element with AMD's own root, signing and chip certificates. It trusts its caller for every
//! value, signs nothing itself and reads no DER.

use super::rsa::{RsaKey, Trailer};
use super::{HardwareError, Product, VcekFields};
use crate::hardware::der::{
    self, BIT_STRING, BOOLEAN, IA5_STRING, OCTET_STRING, PRINTABLE_STRING, UTF8_STRING, context,
};

/// The signed part of a certificate, each field already DER.
pub(super) struct Tbs<'a> {
    pub(super) serial: u64,
    pub(super) issuer: &'a [u8],
    pub(super) validity: &'a [u8],
    pub(super) subject: &'a [u8],
    pub(super) spki: Vec<u8>,
    pub(super) extensions: Vec<Vec<u8>>,
}

impl Tbs<'_> {
    /// TBSCertificate, X.509 version 3, under the given signature algorithm identifier.
    pub(super) fn encode(&self, algorithm: &[u8]) -> Vec<u8> {
        let extensions = der::sequence(&[&self.extensions.concat()]);
        der::sequence(&[
            &der::element(context(0), &der::integer(2)),
            &der::integer(self.serial),
            algorithm,
            self.issuer,
            self.validity,
            self.subject,
            &self.spki,
            &der::element(context(3), &extensions),
        ])
    }
}

enum Critical {
    Yes,
    No,
}

fn extension(oid: &[u64], critical: Critical, value: &[u8]) -> Vec<u8> {
    let flag = match critical {
        Critical::Yes => der::element(BOOLEAN, &[0xff]),
        Critical::No => Vec::new(),
    };
    der::sequence(&[&der::object(oid), &flag, &der::element(OCTET_STRING, value)])
}

/// `bits` is the content of the BIT STRING: count of unused bits, then the flags.
pub(super) fn key_usage(bits: &[u8]) -> Vec<u8> {
    extension(&[2, 5, 29, 15], Critical::Yes, &der::element(BIT_STRING, bits))
}

pub(super) fn subject_key_id(key: &RsaKey) -> Vec<u8> {
    extension(&[2, 5, 29, 14], Critical::No, &der::element(OCTET_STRING, &key.identifier()))
}

pub(super) fn authority_key_id(key: &RsaKey) -> Vec<u8> {
    extension(&[2, 5, 29, 35], Critical::No, &der::sequence(&[&der::element(0x80, &key.identifier())]))
}

/// `path_length` is an encoded INTEGER or nothing.
pub(super) fn basic_constraints(path_length: &[u8]) -> Vec<u8> {
    let value = der::sequence(&[&der::element(BOOLEAN, &[0xff]), path_length]);
    extension(&[2, 5, 29, 19], Critical::Yes, &value)
}

pub(super) fn distribution_point(product: Product) -> Vec<u8> {
    // AMD's path under a name that can never resolve (RFC 2606): nothing here may look like AMD's service.
    let uri = format!("https://kds.invalid/vcek/v1/{}/crl", product.name());
    let point = der::element(context(0), &der::element(context(0), &der::element(0x86, uri.as_bytes())));
    extension(&[2, 5, 29, 31], Critical::No, &der::sequence(&[&der::sequence(&[&point])]))
}

/// AMD's extensions in the order of its certificates. The HWID value is raw bytes, not a DER string (as on hardware).
pub(super) fn vcek_extensions(product: Product, fields: &VcekFields) -> Vec<Vec<u8>> {
    let amd =
        |tail: &[u64], value: &[u8]| extension(&[&[1, 3, 6, 1, 4, 1, 3704, 1], tail].concat(), Critical::No, value);
    let level = |number: u64, value: u8| amd(&[3, number], &der::integer(u64::from(value)));
    let tcb = &fields.tcb;
    let mut all = vec![
        amd(&[1], &der::integer(product.vcek_struct_version())),
        amd(&[2], &der::element(IA5_STRING, fields.product_name.as_bytes())),
    ];
    match product {
        Product::Milan | Product::Genoa => {
            all.extend([level(1, tcb.boot_loader), level(2, tcb.tee)]);
            all.extend([4, 5, 6, 7].map(|reserved| level(reserved, 0)));
            all.extend([level(3, tcb.snp), level(8, tcb.microcode)]);
        }
        Product::Turin => {
            all.extend([level(9, tcb.fmc), level(1, tcb.boot_loader), level(2, tcb.tee), level(3, tcb.snp)]);
            all.extend([5, 6, 7].map(|reserved| level(reserved, 0)));
            all.push(level(8, tcb.microcode));
        }
    }
    all.push(amd(&[4], &fields.hwid));
    all
}

pub(super) fn validity(from: u64, until: u64) -> Result<Vec<u8>, HardwareError> {
    Ok(der::sequence(&[&der::time(from)?, &der::time(until)?]))
}

/// A distinguished name in AMD's order of attributes. Only the common name is AMD's, because verifiers read it.
pub(super) fn name(common_name: &str) -> Vec<u8> {
    let attribute = |last: u64, tag: u8, text: &str| {
        let pair = der::sequence(&[&der::object(&[2, 5, 4, last]), &der::element(tag, text.as_bytes())]);
        der::set_of_one(&pair)
    };
    der::sequence(&[
        &attribute(11, UTF8_STRING, "Simulated hardware"),
        &attribute(6, PRINTABLE_STRING, "XX"),
        &attribute(7, UTF8_STRING, "Nowhere"),
        &attribute(8, UTF8_STRING, "None"),
        &attribute(10, UTF8_STRING, "inwit tests"),
        &attribute(3, UTF8_STRING, common_name),
    ])
}

/// TBSCertList, version 2, with authority key identifier and list number as RFC 5280 section 5.2 demands.
pub(super) fn revocation_list(
    ark: &RsaKey,
    product: Product,
    this_update: u64,
    next_update: u64,
    serials: &[u64],
) -> Result<Vec<u8>, HardwareError> {
    let this_update = der::time(this_update)?;
    let entries: Vec<u8> =
        serials.iter().flat_map(|serial| der::sequence(&[&der::integer(*serial), &this_update])).collect();
    // An empty list is left out, not written as an empty SEQUENCE (RFC 5280 section 5.1.2.6).
    let revoked = if entries.is_empty() { Vec::new() } else { der::sequence(&[&entries]) };
    let number = extension(&[2, 5, 29, 20], Critical::No, &der::integer(1));
    let extensions = der::sequence(&[&authority_key_id(ark), &number]);
    Ok(der::sequence(&[
        &der::integer(1),
        &Trailer::Explicit.algorithm(),
        &name(&format!("ARK-{}", product.name())),
        &this_update,
        &der::time(next_update)?,
        &revoked,
        &der::element(context(0), &extensions),
    ]))
}
