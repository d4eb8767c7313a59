//! The authority and Azure machines: the whole path of the real guest as a process, machines that their paravisor describes
//! otherwise than registered or falsely, and a hostile guest that puts its Evidence together by hand. Each refusal has its
//! code, and the audit log says the same. The TPM is a real one and every signature is true, unless a test says otherwise.

mod refusals_support;

use inwit_protocol::azure::AzureQuote;
use inwit_protocol::evidence::AgentRegister;
use inwit_protocol::evidence::Platform::{self, AzureSnp, AzureTdx};
use inwit_protocol::primitives::sha256;
use inwit_protocol::refusal::RefusalCode::{self, *};
use inwit_tests::hardware::{Machine, Paravisor};
use inwit_tests::stage::play::{Scene, Twist};
use inwit_tests::world::setup::Step;
use refusals_support::By::{self, Authority, Guest};
use refusals_support::azure::AzureSite;
use refusals_support::site::{Answer, Holder, Log};
use refusals_support::{ground, process_ground};

#[track_caller]
fn granted(platform: Platform) {
    let Some(ground) = process_ground(&format!("a grant on {platform}")) else { return };
    ground.play(platform, Scene::Process, Twist::None).assert_good(Scene::Process);
}

#[track_caller]
fn refused(platform: Platform, twist: Twist, code: RefusalCode, by: By) {
    let Some(ground) = process_ground(&format!("{code} on {platform}")) else { return };
    ground.play(platform, Scene::Process, twist).assert_refused(Scene::Process, code, by);
}

mod nothing_broken {
    use super::*;

    #[test]
    fn on_snp() {
        granted(AzureSnp);
    }

    #[test]
    fn on_tdx() {
        granted(AzureTdx);
    }
}

/// The TEE below, and what its paravisor says of the machine.
mod described {
    use super::*;

    #[test]
    fn under_a_foreign_root_on_snp() {
        // Nobody can import what no root vouches for.
        refused(AzureSnp, Twist::ForeignRoot, EndorsementMissing, Authority);
    }

    #[test]
    fn under_a_foreign_root_on_tdx() {
        refused(AzureTdx, Twist::ForeignRoot, ChainUntrusted, Authority);
    }

    #[test]
    fn with_debug_below_the_paravisor() {
        let debug = Twist::Machine(|machine| match machine {
            Machine::Snp(machine) => machine.policy |= 1 << 19,
            Machine::Tdx(machine) => machine.td_attributes |= 1,
        });
        refused(AzureSnp, debug.clone(), DebugEnabled, Authority);
        refused(AzureTdx, debug, DebugEnabled, Authority);
    }

    /// A paravisor that vouches for a key which is not the TPM's.
    #[test]
    fn with_a_key_that_is_not_the_tpms() {
        let foreign = Twist::Paravisor(|paravisor| paravisor.named_key = Some(vec![0xd5; 256]));
        refused(AzureSnp, foreign.clone(), QuoteSignature, Authority);
        refused(AzureTdx, foreign, QuoteSignature, Authority);
    }

    /// The hardware's report is true, and is over something else than the claims beside it.
    #[test]
    fn by_claims_that_the_hardware_did_not_sign() {
        let other = Twist::Paravisor(|paravisor| paravisor.report_data = Some([0x5a; 64]));
        refused(AzureSnp, other.clone(), QuoteSignature, Authority);
        refused(AzureTdx, other, QuoteSignature, Authority);
    }

    /// Bytes behind the digest have no meaning, and must not get one.
    #[test]
    fn with_more_than_a_digest_in_the_report() {
        let Some(ground) = ground("more than a digest", &[Step::Packages, Step::RustTarget]) else { return };
        let site = AzureSite::open(&ground);
        let mut paravisor = Paravisor::on(Machine::from(site.chip.clone()));
        let claims = &site.provisioned.hcl_report[1_236..];
        let mut data = [0; 64];
        data[..32].copy_from_slice(&sha256(claims));
        data[63] = 1;
        paravisor.report_data = Some(data);
        let described = paravisor.describe(&site.provisioned.attestation_key).unwrap();
        assert_eq!(&described.hcl_report[1_236..], claims);
        site.ask(|quote, _| quote.hcl_report = described.hcl_report).assert_refused("quote-signature");
    }

    #[test]
    fn with_a_console_or_without_secure_boot() {
        refused(AzureSnp, Twist::Paravisor(|paravisor| paravisor.console_enabled = true), PolicyForbids, Authority);
        refused(AzureTdx, Twist::Paravisor(|paravisor| paravisor.secure_boot = false), PolicyForbids, Authority);
    }

    #[test]
    fn by_a_hash_that_is_not_known() {
        refused(AzureSnp, Twist::Paravisor(|paravisor| paravisor.hash_type = 9), Unsupported, Authority);
    }

    /// SNP that calls itself TDX has no quoting service; TDX that calls itself SNP has no SNP report.
    #[test]
    fn as_the_other_hardware() {
        refused(AzureSnp, Twist::Paravisor(|paravisor| paravisor.report_type = 4), AttesterFailed, Guest);
        refused(AzureTdx, Twist::Paravisor(|paravisor| paravisor.report_type = 2), Unsupported, Authority);
    }
}

mod registered {
    use super::*;

    #[test]
    fn otherwise() {
        refused(AzureSnp, Twist::OtherMeasurement, MeasurementUnregistered, Authority);
        refused(AzureTdx, Twist::OtherMeasurement, MeasurementUnregistered, Authority);
    }

    #[test]
    fn with_another_agent() {
        refused(AzureSnp, Twist::OtherAgent, AgentNotMeasured, Authority);
    }
}

/// By hand, on one machine that is registered.
#[test]
fn a_hostile_guest() {
    let Some(ground) = ground("a hostile guest on Azure", &[Step::Packages, Step::RustTarget]) else { return };
    let site = AzureSite::open(&ground);
    assert!(matches!(site.ask(|_, _| {}), Answer::Granted(_)), "an honest guest");

    // A quote of another connection: true, by the right TPM, with the right registers.
    let (holder, other) = (Holder::new(), Holder::new());
    let stale = site.quote(&site.binding(&site.visit(&other), &other));
    site.ask(|quote, _| quote.tpm = Some(stale)).assert_refused("binding-mismatch");

    // A whole request of another connection, by the holder of its key.
    let first = site.visit(&holder);
    let binding = site.binding(&first, &holder);
    let hcl_report = site.provisioned.hcl_report.clone();
    let quote = AzureQuote { hcl_report, tpm: Some(site.quote(&binding)), td_quote: None };
    let request = site.request(binding, &quote, AgentRegister::Pcr(15));
    site.visit(&holder).ask(&request).assert_refused("nonce-mismatch");

    // The true report of another machine with the same paravisor on the same chip, which vouches for that machine's TPM.
    let another = Paravisor::on(Machine::from(site.chip.clone())).describe(&[0xd5; 256]).unwrap().hcl_report;
    let theirs = another.clone();
    site.ask(|quote, _| quote.hcl_report = theirs).assert_refused("quote-signature");

    // This machine's hardware report with the claims of that one.
    let ours = site.provisioned.hcl_report.clone();
    let mixed = [&ours[..1_216], &another[1_216..]].concat();
    site.ask(|quote, _| quote.hcl_report = mixed).assert_refused("quote-signature");

    // Registers that were not quoted, a signature that was bent, no quote at all, the agent elsewhere or nowhere.
    site.ask(|quote, _| quote.tpm.as_mut().unwrap().pcrs[4][0] ^= 1).assert_refused("event-log-mismatch");
    site.ask(|quote, _| quote.tpm.as_mut().unwrap().signature[9] ^= 1).assert_refused("quote-signature");
    site.ask(|quote, _| quote.tpm = None).assert_refused("binding-mismatch");
    site.ask(|quote, _| quote.td_quote = Some(vec![4; 700])).assert_refused("malformed");
    site.ask(|_, register| *register = AgentRegister::Pcr(14)).assert_refused("agent-not-measured");
    site.ask(|_, register| *register = AgentRegister::Absent).assert_refused("agent-not-measured");
    assert!(matches!(site.ask(|_, _| {}), Answer::Granted(_)), "an honest guest after all that");
    let codes = [
        BindingMismatch,
        NonceMismatch,
        QuoteSignature,
        QuoteSignature,
        EventLogMismatch,
        QuoteSignature,
        BindingMismatch,
        Malformed,
        AgentNotMeasured,
        AgentNotMeasured,
    ];
    let refused = codes.iter().map(|code| code.text().to_owned()).collect();
    assert_eq!(site.close(), Log { granted: 2, refused });
}

/// The machine runs another agent than the one that speaks, or none at all.
#[test]
fn a_register_that_is_not_the_agents() {
    let Some(ground) = ground("PCR 15 of another agent", &[Step::Packages, Step::RustTarget]) else { return };
    let site = AzureSite::open_untouched(&ground);
    site.ask(|_, _| {}).assert_refused("agent-not-measured");
    site.extend_agent_register(b"another agent");
    site.ask(|_, _| {}).assert_refused("agent-not-measured");
    let refused = vec![AgentNotMeasured.text().to_owned(); 2];
    assert_eq!(site.close(), Log { granted: 0, refused });
}
