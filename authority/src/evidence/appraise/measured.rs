//! What was launched, against the registered Reference Values: all registers of one set, or none of it. Where nothing
//! matches and one set is closest, the refusal names the registers that differ.

use std::collections::BTreeMap;

use inwit_measurements::Digest;
use inwit_measurements::reference::{Measured, ReferenceValues};
use inwit_protocol::refusal::{Refusal, RefusalCode};

use crate::evidence::claims::{AzureClaims, AzureTee, Claims};
use crate::evidence::fields::Short;

/// Registers named in one refusal at most.
const NAMED: usize = 4;

/// Name, measured bytes, expected bytes.
type Register<'a> = (String, &'a [u8], &'a [u8]);

/// One register that is not as a set of Reference Values says.
struct Difference {
    register: String,
    /// The first bytes of what the hardware measured.
    measured: String,
}

/// How one set compares.
struct Comparison<'p> {
    values: &'p ReferenceValues,
    registers: usize,
    differences: Vec<Difference>,
}

/// Every set whose registers all equal the measured ones: there may be several, for different agents.
pub(super) fn matching<'p>(
    claims: &Claims,
    registered: &'p [ReferenceValues],
) -> Result<Vec<&'p ReferenceValues>, Refusal> {
    let compared: Vec<Comparison<'p>> = registered.iter().filter_map(|values| compare(claims, values)).collect();
    let equal: Vec<&ReferenceValues> =
        compared.iter().filter(|one| one.differences.is_empty()).map(|one| one.values).collect();
    if equal.is_empty() {
        return Err(Refusal::new(RefusalCode::MeasurementUnregistered, unmatched(claims, &compared)));
    }
    Ok(equal)
}

/// `None` for a set of another platform, and for one that names no register at all.
fn compare<'p>(claims: &Claims, values: &'p ReferenceValues) -> Option<Comparison<'p>> {
    let pairs: Vec<Register<'_>> = match (claims, &values.measured) {
        (Claims::Snp(claims), Measured::Snp { launch_digest }) => {
            vec![("launch digest".to_owned(), &claims.measurement, launch_digest.as_bytes())]
        }
        (Claims::Tdx(claims), Measured::Tdx { mrtd, rtmr0, rtmr1, rtmr2 }) => {
            let [first, second, third, _] = &claims.rtmrs;
            vec![
                ("mrtd".to_owned(), &claims.mrtd, mrtd.as_bytes()),
                ("rtmr0".to_owned(), first, rtmr0.as_bytes()),
                ("rtmr1".to_owned(), second, rtmr1.as_bytes()),
                ("rtmr2".to_owned(), third, rtmr2.as_bytes()),
            ]
        }
        (Claims::Vtpm(claims), Measured::Vtpm { pcrs }) => registers(&claims.pcrs, pcrs),
        (Claims::Azure(claims), measured) => paravisor_and_registers(claims, measured)?,
        _ => return None,
    };
    if pairs.is_empty() {
        return None;
    }
    let registers = pairs.len();
    let differs = |(register, measured, expected): Register<'_>| {
        (measured != expected).then(|| Difference { register, measured: Short(measured).to_string() })
    };
    Some(Comparison { values, registers, differences: pairs.into_iter().filter_map(differs).collect() })
}

/// The PCRs that a set names, measured and expected.
fn registers<'a>(quoted: &'a [[u8; 32]; 24], named: &'a BTreeMap<u8, Digest<32>>) -> Vec<Register<'a>> {
    // A PCR that no TPM has is compared with nothing, and so differs.
    let value = |number: u8| quoted.get(usize::from(number)).map_or(&[][..], |pcr| pcr);
    named
        .iter()
        .map(|(number, digest)| (format!("pcr{number}"), value(*number), digest.as_bytes().as_slice()))
        .collect()
}

/// The same for an Azure VM, and what its TEE measured of the paravisor. `None` without a TPM quote.
fn paravisor_and_registers<'a>(claims: &'a AzureClaims, measured: &'a Measured) -> Option<Vec<Register<'a>>> {
    let (first, pcrs) = match (&claims.tee, measured) {
        (AzureTee::Snp(claims), Measured::AzureSnp { launch_digest, pcrs }) => {
            (("launch digest".to_owned(), &claims.measurement[..], &launch_digest.as_bytes()[..]), pcrs)
        }
        (AzureTee::Tdx(claims), Measured::AzureTdx { mrtd, pcrs }) => {
            (("mrtd".to_owned(), &claims.mrtd[..], &mrtd.as_bytes()[..]), pcrs)
        }
        _ => return None,
    };
    let mut pairs = registers(&claims.tpm.as_ref()?.pcrs, pcrs);
    pairs.insert(0, first);
    Some(pairs)
}

/// One line on what comes closest.
fn unmatched(claims: &Claims, compared: &[Comparison<'_>]) -> String {
    let platform = claims.platform();
    let Some(fewest) = compared.iter().map(|one| one.differences.len()).min() else {
        return format!("no reference values for {platform} are registered");
    };
    let mut closest = compared.iter().filter(|one| one.differences.len() == fewest);
    match (closest.next(), closest.next()) {
        (Some(only), None) if fewest < only.registers || compared.len() == 1 => {
            let named = only.differences.iter().take(NAMED);
            let named: Vec<String> = named.map(|one| format!("{} ({})", one.register, one.measured)).collect();
            let others = only.differences.len().saturating_sub(NAMED);
            let others = if others == 0 { String::new() } else { format!(" and {others} more") };
            let verb = if fewest == 1 { "differs" } else { "differ" };
            format!("{}{others} of {platform} {verb} from reference values {}", named.join(", "), only.values.name)
        }
        _ => {
            format!("none of the {} sets of reference values for {platform} is near what was measured", compared.len())
        }
    }
}
