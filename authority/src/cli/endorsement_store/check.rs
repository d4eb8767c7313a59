//! What is missing from the store, no longer or not yet valid, or ends soon, root by root, with what to import next. It
//! looks at dates and names alone: whether everything was signed is seen when the store is loaded. The moment is an
//! argument, and where to fetch is a word for people: nothing is fetched.

use super::super::table::{Cell, row};
use super::homes::unverified;
use super::item::{Item, Kind};
use super::list::{columns, date, day, days};
use super::stored::Kept;
use crate::evidence::Product;
use crate::evidence::x509::Window;
use inwit_protocol::evidence::Platform;

const DAY: u64 = 86_400;

/// What the policy asks of the store.
pub(in super::super) struct Demands {
    /// SNP chains without a revocation list are refused.
    pub(in super::super) amd_lists: bool,
    /// Keys of cloud providers are accepted.
    pub(in super::super) providers: bool,
    /// Platforms of which something has to be there.
    pub(in super::super) platforms: Vec<Platform>,
}

/// Why something is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Missing,
    Ended,
    NotYet,
    EndsSoon,
    Unverified,
}

impl State {
    fn text(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Ended => "ended",
            Self::NotYet => "not-yet-valid",
            Self::EndsSoon => "ends-soon",
            Self::Unverified => "unverified",
        }
    }

    fn of(window: Window, at: u64, within: u64) -> Option<Self> {
        match window {
            Window { from, .. } if from > at => Some(Self::NotYet),
            Window { until, .. } if until < at => Some(Self::Ended),
            Window { until, .. } if until < at.saturating_add(within) => Some(Self::EndsSoon),
            _ => None,
        }
    }
}

/// One thing to see to.
struct Finding {
    platform: Platform,
    state: State,
    name: String,
    window: Option<Window>,
    next: String,
}

/// What a check found.
pub(in super::super) struct Checked {
    /// A line each.
    pub(in super::super) text: String,
    pub(in super::super) findings: Cell,
    /// Whether there is nothing to see to.
    pub(in super::super) current: bool,
}

/// Looks at everything in the store; what ends within `within_days` after `at` is told of as well.
pub(in super::super) fn check(kept: &[Kept], at: u64, within_days: u16, demands: &Demands) -> Checked {
    let within = u64::from(within_days).saturating_mul(DAY);
    let unverified = unverified(kept);
    let mut findings = Vec::new();
    let mut seen: Vec<&[u8]> = Vec::new();
    for root in kept.iter().filter(|kept| kept.item.kind.is_root() && kept.item.kind != Kind::AttestationKey) {
        if seen.contains(&root.item.bytes.as_slice()) {
            continue;
        }
        seen.push(&root.item.bytes);
        // The same root may be stored several times, each with other collateral.
        let same = kept.iter().filter(|other| other.item.bytes == root.item.bytes);
        let folders: Vec<_> = same.map(|same| &same.folder).collect();
        let under: Vec<&Item> =
            kept.iter().filter(|kept| folders.contains(&&kept.folder)).map(|kept| &kept.item).collect();
        findings.extend(lacking(&root.item, &under, demands));
        // The dates of what anybody can have written say nothing.
        let (unproven, under): (Vec<&Item>, Vec<&Item>) =
            under.into_iter().partition(|item| unverified.contains(&item.digest()));
        findings.extend(unproven.into_iter().map(|item| {
            let (platform, name, window) = (item.kind.platform(), item.name.clone(), item.window);
            let chain = "header SGX-PCK-CRL-Issuer-Chain of pckcrl, as PEM";
            let next =
                format!("import its issuer chain too; Intel's provisioning certification service has it: {chain}");
            Finding { platform, state: State::Unverified, name, window, next }
        }));
        let newest = newest(&under);
        findings.extend(newest.into_iter().filter_map(|item| {
            let state = State::of(item.window?, at, within)?;
            let (platform, name, window) = (item.kind.platform(), item.name.clone(), item.window);
            Some(Finding { platform, state, name, window, next: next(item.kind, item, demands) })
        }));
    }
    findings.extend(unrooted(kept, demands));
    told(&findings, at)
}

/// Of everything that stands for the same thing the newest; of AMD's lists the one that lasts longest.
fn newest<'a>(under: &[&'a Item]) -> Vec<&'a Item> {
    let mut newest: Vec<&Item> = Vec::new();
    for item in under {
        let until = |item: &Item| item.window.map(|window| window.until);
        match newest.iter_mut().find(|other| other.kind == item.kind && other.slot == item.slot) {
            Some(other) if matches!(item.kind, Kind::AmdList(_)) && until(item) > until(other) => *other = item,
            Some(other) if item.rank > other.rank && !matches!(item.kind, Kind::AmdList(_)) => *other = item,
            Some(_) => {}
            None => newest.push(item),
        }
    }
    newest
}

/// What a root needs under it and does not have.
fn lacking(root: &Item, under: &[&Item], demands: &Demands) -> Vec<Finding> {
    let has = |wanted: &dyn Fn(&Item) -> bool| under.iter().any(|item| wanted(item));
    let wanted: Vec<(Kind, String, bool)> = match root.kind {
        Kind::AmdRoot(product) => {
            let (kind, lists) = (Kind::AmdIntermediate(product), Kind::AmdList(product));
            let named =
                |start: &'static str| has(&move |item: &Item| item.kind == kind && item.name.starts_with(start));
            vec![
                (kind, format!("ASK (SEV-{product})"), named("ASK")),
                (kind, format!("ASVK (SEV-VLEK-{product})"), named("ASVK") || !demands.providers),
                (lists, format!("revocation list of ARK-{product}"), has(&|i| i.kind == lists) || !demands.amd_lists),
            ]
        }
        _ => {
            let of = |kind: Kind, name: &'static str| has(&move |i: &Item| i.kind == kind && i.issuer.contains(name));
            let signer = |i: &Item| i.kind == Kind::IntelCertificate && i.name.contains("TCB Signing");
            vec![
                (Kind::IntelCertificate, "Intel SGX TCB Signing".to_owned(), has(&signer)),
                (Kind::TcbInfo, "TCB info of any platform family".to_owned(), of(Kind::TcbInfo, "")),
                (Kind::QeIdentity, "identity of the TD quoting enclave".to_owned(), of(Kind::QeIdentity, "")),
                (Kind::IntelList, "revocation list of Intel SGX Root CA".to_owned(), of(Kind::IntelList, "Root CA")),
                (Kind::IntelList, "revocation list of a PCK CA".to_owned(), of(Kind::IntelList, "PCK")),
            ]
        }
    };
    let missing = wanted.into_iter().filter(|(_, _, there)| !there);
    let finding = |(kind, name, _): (Kind, String, bool)| {
        let nothing = Item { kind, name: name.clone(), slot: String::new(), window: None, ..root.clone() };
        Finding {
            platform: kind.platform(),
            state: State::Missing,
            next: next(kind, &nothing, demands),
            name,
            window: None,
        }
    };
    missing.map(finding).collect()
}

/// Platforms without a root, where one is asked for, or where there is none at all.
fn unrooted(kept: &[Kept], demands: &Demands) -> Vec<Finding> {
    let rooted =
        |platform: Platform| kept.iter().any(|kept| kept.item.kind.is_root() && kept.item.kind.platform() == platform);
    let all = [Platform::Snp, Platform::Tdx, Platform::Vtpm];
    let nothing = !all.into_iter().any(rooted);
    let asked = |platform: &Platform| demands.platforms.contains(platform) || (nothing && demands.platforms.is_empty());
    let finding = |platform: Platform| {
        let (name, next) = match platform {
            Platform::Tdx => {
                ("Intel SGX Root CA", "compare it with Intel's, then import it by its file or --trust-root")
            }
            Platform::Vtpm => {
                ("TPM attestation key", "import the SHA-256 of each trusted key, a line of 64 hex digits each")
            }
            _ => ("ARK of a product", "compare it with AMD's, then import it by its file or --trust-root"),
        };
        Finding { platform, state: State::Missing, name: name.to_owned(), window: None, next: next.to_owned() }
    };
    all.into_iter().filter(asked).filter(|platform| !rooted(*platform)).map(finding).collect()
}

/// Where somebody gets a fresh one; of AMD's lists both where the policy names providers.
fn next(kind: Kind, item: &Item, demands: &Demands) -> String {
    let amd = |product: Product, what: &str| format!("AMD's key distribution service has it: vcek/v1/{product}/{what}");
    let intel = |what: &str| format!("Intel's provisioning certification service has it: {what}");
    match kind {
        Kind::AmdRoot(product) | Kind::AmdIntermediate(product) if item.name.starts_with("ASVK") => {
            format!("AMD's key distribution service has it: vlek/v1/{product}/cert_chain")
        }
        Kind::AmdRoot(product) | Kind::AmdIntermediate(product) => amd(product, "cert_chain"),
        // Both are signed with one key, and nothing in them says which is which.
        Kind::AmdList(product) => match demands.providers {
            true => format!("{} and vlek/v1/{product}/crl: import both", amd(product, "crl")),
            false => amd(product, "crl"),
        },
        Kind::AmdKey(product) => amd(product, "{hwid}?…, for the chip's present TCB"),
        Kind::TcbInfo => match item.slot.rsplit(' ').next().filter(|fmspc| !fmspc.is_empty()) {
            Some(fmspc) => intel(&format!("tdx/certification/v4/tcb?fmspc={fmspc}")),
            None => intel("tdx/certification/v4/tcb?fmspc=…, with the FMSPC that refusals name"),
        },
        Kind::QeIdentity => intel("tdx/certification/v4/qe/identity"),
        Kind::IntelList if item.name.contains("Root CA") => {
            "Intel's certificate service has it: IntelSGXRootCA.der".to_owned()
        }
        Kind::IntelList if item.name.contains("Processor") => {
            intel("sgx/certification/v4/pckcrl?ca=processor&encoding=der")
        }
        Kind::IntelList => intel("sgx/certification/v4/pckcrl?ca=platform&encoding=der"),
        Kind::IntelCertificate if item.name.contains("PCK") => {
            intel("header SGX-PCK-CRL-Issuer-Chain of pckcrl, as PEM")
        }
        Kind::IntelCertificate => intel("header TCB-Info-Issuer-Chain of tcb, as PEM"),
        Kind::IntelRoot => "Intel's root ends: compare the new one with Intel's, then import it".to_owned(),
        Kind::AttestationKey => String::new(),
    }
}

fn told(findings: &[Finding], at: u64) -> Checked {
    let moment = |window: Option<Window>| window.map(|window| date(window.until));
    let when = |finding: &Finding| match (finding.state, finding.window) {
        (State::Ended, Some(window)) => format!("{}, {} days ago", day(window.until), days(window.until, at)),
        (State::EndsSoon, Some(window)) => format!("{}, in {} days", day(window.until), days(at, window.until)),
        (State::NotYet, Some(window)) => format!("begins {}", day(window.from)),
        _ => "-".to_owned(),
    };
    let line = |finding: &Finding| {
        let platform = finding.platform.text().to_owned();
        [platform, finding.state.text().to_owned(), finding.name.clone(), when(finding), finding.next.clone()]
    };
    let lines: Vec<[String; 5]> = findings.iter().map(line).collect();
    let rows = findings.iter().map(|finding| {
        Cell::from(vec![
            row("platform", finding.platform.text()),
            row("state", finding.state.text()),
            row("name", finding.name.as_str()),
            row("until", moment(finding.window)),
            row("next", finding.next.as_str()),
        ])
    });
    Checked { text: columns(&lines), findings: rows.collect(), current: findings.is_empty() }
}
