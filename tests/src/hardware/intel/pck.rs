//! The platform's certificate: what Intel's extension 1.2.840.113741.1.13.1 states about it.
//!
//! Source: Intel "SGX PCK Certificate and Certificate Revocation List Profile Specification". Writes only.

use rcgen::SerialNumber;
use ring::signature::EcdsaKeyPair;

use crate::hardware::der::{self, BOOLEAN, ENUMERATED, OCTET_STRING};

/// What a PCK certificate states. The defaults are a patched platform that a strict policy accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PckFields {
    /// Platform provisioning identifier.
    pub ppid: [u8; 16],
    /// CPUSVN, which is also the list of the sixteen component SVNs.
    pub cpu_svn: [u8; 16],
    /// SVN of the provisioning certification enclave.
    pub pce_svn: u8,
    /// Identifier of that enclave.
    pub pce_id: [u8; 2],
    /// Family, model, stepping, platform and custom SKU.
    pub fmspc: [u8; 6],
    /// 0 standard, 1 scalable, 2 scalable with integrity.
    pub sgx_type: u8,
    /// Identity of the platform instance.
    pub platform_instance_id: [u8; 16],
    /// Whether packages may be added later; Intel's strict policy refuses it.
    pub dynamic_platform: bool,
    /// Whether Intel keeps the platform's root keys; refused likewise.
    pub cached_keys: bool,
    /// Whether hyperthreading is on; refused likewise.
    pub smt_enabled: bool,
}

impl Default for PckFields {
    fn default() -> Self {
        Self {
            ppid: [0x50; 16],
            cpu_svn: [4, 4, 2, 2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0],
            pce_svn: 11,
            pce_id: [0; 2],
            fmspc: [0xb0, 0xc0, 0x6f, 0, 0, 0],
            sgx_type: 1,
            platform_instance_id: [0x1d; 16],
            dynamic_platform: false,
            cached_keys: false,
            smt_enabled: false,
        }
    }
}

/// A platform's provisioning certification key with its certificate chain.
#[derive(Debug)]
pub struct Pck {
    /// What the certificate states.
    pub fields: PckFields,
    /// PEM of PCK certificate, platform CA and root, in this order, then a NUL.
    pub chain: String,
    pub(super) serial: SerialNumber,
    pub(super) key: EcdsaKeyPair,
}

impl PckFields {
    /// The extension's value, DER.
    pub(super) fn extension(&self) -> Vec<u8> {
        let octets = |tail: &[u64], bytes: &[u8]| entry(tail, &der::element(OCTET_STRING, bytes));
        let flag = |number: u64, value: bool| entry(&[7, number], &der::element(BOOLEAN, &[u8::from(value) * 0xff]));
        let components = (1..).zip(self.cpu_svn).flat_map(|(number, svn)| entry(&[2, number], &svn_of(svn)));
        let tcb =
            [components.collect(), entry(&[2, 17], &svn_of(self.pce_svn)), octets(&[2, 18], &self.cpu_svn)].concat();
        let configuration =
            [flag(1, self.dynamic_platform), flag(2, self.cached_keys), flag(3, self.smt_enabled)].concat();
        der::sequence(&[
            &octets(&[1], &self.ppid),
            &entry(&[2], &der::sequence(&[&tcb])),
            &octets(&[3], &self.pce_id),
            &octets(&[4], &self.fmspc),
            &entry(&[5], &der::element(ENUMERATED, &[self.sgx_type])),
            &octets(&[6], &self.platform_instance_id),
            &entry(&[7], &der::sequence(&[&configuration])),
        ])
    }
}

fn svn_of(value: u8) -> Vec<u8> {
    der::integer(u64::from(value))
}

/// SEQUENCE of identifier and value, the form of everything in the extension.
fn entry(tail: &[u64], value: &[u8]) -> Vec<u8> {
    let oid = der::object(&[&[1, 2, 840, 113_741, 1, 13, 1], tail].concat());
    der::sequence(&[&oid, value])
}

#[cfg(test)]
mod tests {
    use dcap_qvl::intel::{extract_cert_chain, parse_pck_extension};
    use dcap_qvl::quote::Quote;

    use super::*;
    use crate::hardware::fixture::vectors;

    #[test]
    fn the_extension_of_a_real_platform_is_written_byte_for_byte() {
        let Some(vectors) = vectors("extension of a real PCK certificate") else { return };
        let quote = std::fs::read(vectors.join("_tdx-assembled/0c699dd4533f-UpToDate/quote.bin")).unwrap();
        let chain = extract_cert_chain(&Quote::parse(&quote).unwrap()).unwrap();
        let real = parse_pck_extension(&chain[0]).unwrap();
        let fields = PckFields {
            ppid: real.ppid.try_into().unwrap(),
            cpu_svn: real.cpu_svn,
            pce_svn: real.pce_svn.try_into().unwrap(),
            pce_id: real.pce_id.try_into().unwrap(),
            fmspc: real.fmspc,
            sgx_type: real.sgx_type.try_into().unwrap(),
            platform_instance_id: real.platform_instance_id.unwrap().try_into().unwrap(),
            dynamic_platform: real.dynamic_platform.unwrap(),
            cached_keys: real.cached_keys.unwrap(),
            smt_enabled: real.smt_enabled.unwrap(),
        };
        assert_eq!(fields.extension(), real.raw_extension);
    }
}
