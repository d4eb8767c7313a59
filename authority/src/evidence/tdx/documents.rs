//! TCB info and QE identity of Intel's provisioning certification service (API v4), from the JSON that was signed to typed
//! values: lengths, dates and hexadecimal are checked here once, so that judging a quote meets no text. Intel adds members
//! as it goes, and those that are not known are passed over; one that is missing or stands twice refuses the document.
//!
//! Says nothing about signatures: `parts` verifies them over exactly the bytes that are read here.

use dcap_qvl::tcb_info::{TdxModuleIdentity, TdxModuleTcbLevel};
use dcap_qvl::{QeIdentity, QeTcbLevel, TcbInfo, TcbLevel, TcbStatus};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::evidence::x509::Window;

/// TCB info of one platform family.
#[derive(Debug)]
pub(super) struct TcbDocument {
    pub(super) fmspc: [u8; 6],
    pub(super) pce_id: [u8; 2],
    pub(super) evaluation_number: u32,
    pub(super) window: Window,
    /// tdxModule: what modules of version 0 have to be.
    pub(super) module: ModuleRule,
    pub(super) modules: Vec<ModuleIdentity>,
    /// Best first, whatever the order in the document: by SGX components, then PCESVN, then TDX components, as Intel's
    /// verification library orders them.
    pub(super) levels: Vec<PlatformLevel>,
}

/// What a TDX module has to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ModuleRule {
    pub(super) signer: [u8; 48],
    pub(super) attributes: u64,
    pub(super) mask: u64,
}

/// One of tdxModuleIdentities: modules of one version.
#[derive(Debug)]
pub(super) struct ModuleIdentity {
    /// For example `TDX_01`.
    pub(super) id: String,
    pub(super) version: u8,
    pub(super) rule: ModuleRule,
    pub(super) levels: Vec<SvnLevel>,
}

/// What stands beside a level's SVNs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) status: TcbStatus,
    /// tcbDate, unix time.
    pub(super) date: u64,
    pub(super) advisory_ids: Vec<String>,
}

/// A level of one ISVSVN: of a TDX module, or of the quoting enclave.
#[derive(Debug)]
pub(super) struct SvnLevel {
    pub(super) isvsvn: u16,
    pub(super) standing: Standing,
}

/// A level of the platform.
#[derive(Debug)]
pub(super) struct PlatformLevel {
    pub(super) sgx: [u8; 16],
    pub(super) pce_svn: u16,
    pub(super) tdx: [u8; 16],
    pub(super) standing: Standing,
}

/// Identity of the TD quoting enclave.
#[derive(Debug)]
pub(super) struct EnclaveDocument {
    pub(super) evaluation_number: u32,
    pub(super) window: Window,
    pub(super) misc_select: [u8; 4],
    pub(super) misc_select_mask: [u8; 4],
    pub(super) attributes: [u8; 16],
    pub(super) attributes_mask: [u8; 16],
    pub(super) signer: [u8; 32],
    pub(super) product: u16,
    pub(super) levels: Vec<SvnLevel>,
}

/// What says which kind of document it is; the rest is read when that is the right one.
#[derive(Deserialize)]
struct Kind {
    /// TCB info of version 2, which is for SGX, has none.
    id: Option<String>,
    version: u64,
}

/// Reads a document's kind, and says what is wrong with it unless it is `id` in one of the `versions`.
fn of_kind(json: &str, id: &str, versions: std::ops::RangeInclusive<u64>) -> Result<(), String> {
    let kind: Kind = serde_json::from_str(json).map_err(|error| error.to_string())?;
    match kind.id.as_deref() {
        Some(is) if is == id => {}
        Some("SGX" | "QE" | "QVE") | None => return Err(format!("it is for SGX, not for TDX (id {id} is)")),
        Some(other) => return Err(format!("id {other:?} is not {id}")),
    }
    if !versions.contains(&kind.version) {
        return Err(format!("version {} is not known here", kind.version));
    }
    Ok(())
}

impl TcbDocument {
    /// Reads TCB info.
    ///
    /// # Errors
    /// One line on what is wrong.
    pub(super) fn parse(json: &str) -> Result<Self, String> {
        of_kind(json, "TDX", 3..=u64::MAX)?;
        let info: TcbInfo = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let module = info.tdx_module.ok_or("tdxModule is missing")?;
        let mut levels: Vec<PlatformLevel> =
            info.tcb_levels.into_iter().map(PlatformLevel::of).collect::<Result<_, _>>()?;
        levels.sort_by_key(|level| std::cmp::Reverse((level.sgx, level.pce_svn, level.tdx)));
        let modules: Vec<ModuleIdentity> =
            info.tdx_module_identities.into_iter().filter_map(ModuleIdentity::of).collect::<Result<_, _>>()?;
        let mut versions: Vec<u8> = modules.iter().map(|module| module.version).collect();
        versions.sort_unstable();
        versions.dedup();
        if versions.len() != modules.len() {
            return Err("two TDX module identities have the same id".to_owned());
        }
        Ok(Self {
            fmspc: hexadecimal(&info.fmspc, "fmspc")?,
            pce_id: hexadecimal(&info.pce_id, "pceId")?,
            evaluation_number: info.tcb_evaluation_data_number,
            window: dates(&info.issue_date, &info.next_update)?,
            module: ModuleRule::of(&module.mrsigner, &module.attributes, &module.attributes_mask)?,
            modules,
            levels,
        })
    }
}

impl ModuleRule {
    fn of(signer: &str, attributes: &str, mask: &str) -> Result<Self, String> {
        Ok(Self {
            signer: hexadecimal(signer, "mrsigner")?,
            attributes: u64::from_le_bytes(hexadecimal(attributes, "attributes")?),
            mask: u64::from_le_bytes(hexadecimal(mask, "attributesMask")?),
        })
    }
}

impl ModuleIdentity {
    /// `None` for an identity that is not named for a module version: no quote can ask for it.
    fn of(identity: TdxModuleIdentity) -> Option<Result<Self, String>> {
        let digits = identity.id.strip_prefix("TDX_")?;
        let [version] = hexadecimal(digits, "id").ok()?;
        let levels: Result<Vec<SvnLevel>, String> = identity.tcb_levels.into_iter().map(SvnLevel::of_module).collect();
        let rule = ModuleRule::of(&identity.mrsigner, &identity.attributes, &identity.attributes_mask);
        Some(rule.and_then(|rule| Ok(Self { id: identity.id, version, rule, levels: levels? })))
    }
}

impl SvnLevel {
    fn of_module(level: TdxModuleTcbLevel) -> Result<Self, String> {
        let standing = Standing::of(level.tcb_status, &level.tcb_date, level.advisory_ids)?;
        Ok(Self { isvsvn: level.tcb.isvsvn.into(), standing })
    }

    fn of_enclave(level: QeTcbLevel) -> Result<Self, String> {
        let standing = Standing::of(level.tcb_status, &level.tcb_date, level.advisory_ids)?;
        Ok(Self { isvsvn: level.tcb.isvsvn, standing })
    }
}

impl PlatformLevel {
    fn of(level: TcbLevel) -> Result<Self, String> {
        let sixteen = |components: Vec<dcap_qvl::TcbComponents>| {
            let svns: Vec<u8> = components.iter().map(|component| component.svn).collect();
            svns.try_into().map_err(|_| "a TCB level does not have 16 components of each kind".to_owned())
        };
        Ok(Self {
            sgx: sixteen(level.tcb.sgx_components)?,
            pce_svn: level.tcb.pce_svn,
            tdx: sixteen(level.tcb.tdx_components)?,
            standing: Standing::of(level.tcb_status, &level.tcb_date, level.advisory_ids)?,
        })
    }
}

impl Standing {
    fn of(status: TcbStatus, date: &str, advisory_ids: Vec<String>) -> Result<Self, String> {
        Ok(Self { status, date: seconds(date)?, advisory_ids })
    }
}

impl EnclaveDocument {
    /// Reads the identity of the TD quoting enclave.
    ///
    /// # Errors
    /// One line on what is wrong.
    pub(super) fn parse(json: &str) -> Result<Self, String> {
        of_kind(json, "TD_QE", 2..=3)?;
        let identity: QeIdentity = serde_json::from_str(json).map_err(|error| error.to_string())?;
        Ok(Self {
            evaluation_number: identity.tcb_evaluation_data_number,
            window: dates(&identity.issue_date, &identity.next_update)?,
            misc_select: identity.miscselect,
            misc_select_mask: identity.miscselect_mask,
            attributes: identity.attributes,
            attributes_mask: identity.attributes_mask,
            signer: identity.mrsigner,
            product: identity.isvprodid,
            levels: identity.tcb_levels.into_iter().map(SvnLevel::of_enclave).collect::<Result<_, _>>()?,
        })
    }
}

fn seconds(text: &str) -> Result<u64, String> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok();
    time.and_then(|time| u64::try_from(time.unix_timestamp()).ok()).ok_or_else(|| format!("{text:?} is no date"))
}

fn dates(from: &str, until: &str) -> Result<Window, String> {
    Ok(Window { from: seconds(from)?, until: seconds(until)? })
}

/// Hexadecimal of either case and exactly this length.
pub(super) fn hexadecimal<const N: usize>(text: &str, member: &str) -> Result<[u8; N], String> {
    let wrong = || format!("{member} is not {N} bytes in hexadecimal");
    let mut out = [0; N];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return Err(wrong());
    }
    for (byte, pair) in out.iter_mut().zip(pairs) {
        let digits = core::str::from_utf8(pair).ok().filter(|digits| !digits.starts_with('+')).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn info() -> Value {
        let level = |sgx: u8, pce: u16, tdx: u8| {
            let all = |svn: u8| vec![json!({ "svn": svn }); 16];
            let tcb = json!({ "sgxtcbcomponents": all(sgx), "pcesvn": pce, "tdxtcbcomponents": all(tdx) });
            json!({ "tcb": tcb, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": "UpToDate" })
        };
        let rule = json!({
            "id": "TDX_03", "mrsigner": "00".repeat(48), "attributes": "01".repeat(8), "attributesMask": "FF".repeat(8),
            "tcbLevels": [{ "tcb": { "isvsvn": 3 }, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": "OutOfDate" }],
        });
        json!({
            "id": "TDX", "version": 3, "issueDate": "2026-03-16T10:00:00Z", "nextUpdate": "2026-04-15T10:00:00+01:00",
            "fmspc": "90c06F000000", "pceId": "0001", "tcbType": 0, "tcbEvaluationDataNumber": 17,
            "tdxModule": rule, "tdxModuleIdentities": [rule], "tcbLevels": [level(1, 2, 9), level(2, 1, 0), level(2, 1, 3)],
        })
    }

    #[test]
    fn levels_are_put_in_intels_order_and_dates_become_seconds() {
        let read = TcbDocument::parse(&info().to_string()).unwrap();
        let order: Vec<_> = read.levels.iter().map(|level| (level.sgx[0], level.pce_svn, level.tdx[0])).collect();
        assert_eq!(order, [(2, 1, 3), (2, 1, 0), (1, 2, 9)]);
        assert_eq!((read.fmspc, read.pce_id), ([0x90, 0xc0, 0x6f, 0, 0, 0], [0, 1]));
        assert_eq!((read.window.from, read.window.until), (1_773_655_200, 1_776_243_600));
        assert_eq!((read.modules[0].version, read.modules[0].rule.attributes), (3, 0x0101_0101_0101_0101));
    }

    #[test]
    fn a_document_that_says_too_little_or_twice_is_refused() {
        let text = info().to_string();
        let without = |member: &str| {
            let mut json = info();
            json.as_object_mut().unwrap().remove(member);
            json.to_string()
        };
        for member in
            ["id", "version", "issueDate", "fmspc", "pceId", "tdxModule", "tcbLevels", "tcbEvaluationDataNumber"]
        {
            assert!(TcbDocument::parse(&without(member)).is_err(), "without {member}");
        }
        for (part, instead) in [
            ("\"pceId\":\"0001\"", "\"pceId\":\"0001\",\"pceId\":\"0000\""),
            ("\"id\":\"TDX\"", "\"id\":\"SGX\""),
            ("\"version\":3", "\"version\":2"),
            ("90c06F000000", "90c06F0000"),
            ("UpToDate", "UpToDat"),
            ("2026-03-16T10:00:00Z", "yesterday"),
            ("{\"svn\":9},", ""),
        ] {
            assert!(text.contains(part), "{part}");
            assert!(TcbDocument::parse(&text.replacen(part, instead, 1)).is_err(), "{instead}");
        }
        let more = text.replacen("\"pceId\":\"0001\"", "\"pceId\":\"0001\",\"new\":[]", 1);
        assert!(TcbDocument::parse(&more).is_ok(), "Intel may say more");
        let mut twice = info();
        twice["tdxModuleIdentities"] = json!([twice["tdxModule"], twice["tdxModule"]]);
        assert!(TcbDocument::parse(&twice.to_string()).unwrap_err().contains("same id"));
    }

    #[test]
    fn hexadecimal_has_exactly_the_length() {
        assert_eq!(hexadecimal::<6>("90c06F000000", "x"), Ok([0x90, 0xc0, 0x6f, 0, 0, 0]));
        for bad in ["90c06F0000", "90c06F00000000", "90c06F00000", "90c06F00000g", "90c06F0000+1", "90c06F0000é"] {
            assert!(hexadecimal::<6>(bad, "x").is_err(), "{bad}");
        }
    }
}
