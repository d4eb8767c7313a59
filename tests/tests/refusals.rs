//! What must be refused, each with its own code: the real guest as a process, the real relay and authority, one thing
//! broken. The guest says why in one line and ends with 3; nothing is started, nothing is released, and where the
//! authority refused, its audit log says the same. Hostile relays are in `refusals_relay.rs`, hostile guests in
//! `refusals_authority.rs`, hostile authorities in `refusals_guest.rs`, guests in virtual machines in `boots.rs`.

mod refusals_support;

use inwit_protocol::evidence::Platform::{self, Snp, Tdx, Vtpm};
use inwit_protocol::refusal::RefusalCode::{self, *};
use inwit_tests::hardware::amd::AuxBlob;
use inwit_tests::hardware::intel::QuoteVersion;
use inwit_tests::hardware::{Fault, Machine, SnpMachine, TdxMachine};
use inwit_tests::stage::CONFIDENTIAL;
use inwit_tests::stage::play::{Scene, Twist};
use refusals_support::By::{self, Authority, Guest};
use refusals_support::process_ground;
use std::time::Duration;

/// One thing broken on one platform.
#[track_caller]
fn refused(platform: Platform, twist: Twist, code: RefusalCode, by: By) {
    let Some(ground) = process_ground(&format!("{code} on {platform}")) else { return };
    ground.play(platform, Scene::Process, twist).assert_refused(Scene::Process, code, by);
}

/// Nothing broken, or nothing that matters: so what is refused elsewhere is refused for its one reason.
#[track_caller]
fn granted(platform: Platform, twist: Twist) {
    let Some(ground) = process_ground(&format!("a grant on {platform}")) else { return };
    ground.play(platform, Scene::Process, twist).assert_good(Scene::Process);
}

/// The simulated SNP machine, changed.
macro_rules! snp {
    ($change:expr) => {
        Twist::Machine(|machine| {
            let change: fn(&mut SnpMachine) = $change;
            match machine {
                Machine::Snp(machine) => change(machine),
                Machine::Tdx(_) => unreachable!(),
            }
        })
    };
}

/// The simulated TDX machine, changed.
macro_rules! tdx {
    ($change:expr) => {
        Twist::Machine(|machine| {
            let change: fn(&mut TdxMachine) = $change;
            match machine {
                Machine::Tdx(machine) => change(machine),
                Machine::Snp(_) => unreachable!(),
            }
        })
    };
}

mod nothing_broken {
    use super::*;

    #[test]
    fn on_snp() {
        granted(Snp, Twist::None);
    }

    #[test]
    fn on_tdx() {
        granted(Tdx, Twist::None);
    }

    #[test]
    fn on_a_tpm() {
        granted(Vtpm, Twist::None);
    }

    #[test]
    fn but_a_slow_report_device() {
        granted(Snp, Twist::Device(Fault::Slow(Duration::from_secs(2))));
    }
}

mod evidence_missing {
    use super::*;

    #[test]
    fn on_snp() {
        refused(Snp, Twist::Device(Fault::EmptyQuote), EvidenceMissing, Guest);
    }

    #[test]
    fn on_tdx() {
        refused(Tdx, Twist::Device(Fault::EmptyQuote), EvidenceMissing, Guest);
    }
}

/// What the guest itself notices of a report device that fails or lies, before one byte is sent.
mod report_device {
    use super::*;

    #[test]
    fn gives_an_error() {
        refused(Snp, Twist::Device(Fault::Errno(5)), AttesterFailed, Guest); // EIO
    }

    #[test]
    fn is_busy_for_good() {
        refused(Tdx, Twist::Device(Fault::Errno(16)), AttesterFailed, Guest); // EBUSY
    }

    #[test]
    fn gives_half_a_report() {
        refused(Snp, Twist::Device(Fault::ShortQuote), AttesterFailed, Guest);
    }

    #[test]
    fn gives_more_than_a_report() {
        refused(Snp, Twist::Device(Fault::TrailingBytes), AttesterFailed, Guest);
    }

    #[test]
    fn reports_over_other_data_on_snp() {
        refused(Snp, Twist::Device(Fault::WrongReportData), AttesterFailed, Guest);
    }

    #[test]
    fn reports_over_other_data_on_tdx() {
        refused(Tdx, Twist::Device(Fault::WrongReportData), AttesterFailed, Guest);
    }

    #[test]
    fn replays_the_report_of_another_boot() {
        let Some(ground) = process_ground("a replayed report") else { return };
        let root = ground.amd_root();
        let machine = Machine::from(SnpMachine::new(&root, [7; 48]).unwrap());
        let stale = machine.evidence(&[0x77; 64], 0).unwrap();
        let trial = ground.play(Snp, Scene::Process, Twist::Device(Fault::Replay(stale)));
        trial.assert_refused(Scene::Process, AttesterFailed, Guest);
    }

    #[test]
    fn serves_another_privilege_level_only() {
        refused(Snp, snp!(|machine| machine.privlevel_floor = 1), AttesterFailed, Guest);
    }
}

/// Quotes that are no quotes: what the guest cannot see, the authority refuses by form.
mod quote_form {
    use super::*;

    #[test]
    fn half_a_quote_on_tdx() {
        refused(Tdx, Twist::Device(Fault::ShortQuote), Malformed, Authority);
    }

    #[test]
    fn more_than_a_quote_on_tdx() {
        refused(Tdx, Twist::Device(Fault::TrailingBytes), Malformed, Authority);
    }

    #[test]
    fn a_certificate_table_of_garbage() {
        refused(Snp, snp!(|machine| machine.auxblob = AuxBlob::Other(vec![7; 100])), Malformed, Authority);
    }

    #[test]
    fn a_report_version_that_is_not_known() {
        refused(Snp, snp!(|machine| machine.version = 9), Unsupported, Authority);
    }

    #[test]
    fn a_signature_algorithm_that_is_not_known() {
        refused(Snp, snp!(|machine| machine.signature_algo = 9), Unsupported, Authority);
    }
}

mod quote_signature {
    use super::*;

    #[test]
    fn wrong_on_snp() {
        refused(Snp, Twist::Device(Fault::FlipSignature), QuoteSignature, Authority);
    }

    #[test]
    fn wrong_on_tdx() {
        refused(Tdx, Twist::Device(Fault::FlipSignature), QuoteSignature, Authority);
    }

    #[test]
    fn absent_since_the_host_masked_the_chip_key() {
        refused(Snp, snp!(|machine| machine.key_info = 7 << 2), Unsupported, Authority);
    }
}

mod chain {
    use super::*;

    #[test]
    fn to_another_root_on_snp() {
        refused(Snp, Twist::ForeignRoot, ChainUntrusted, Authority);
    }

    #[test]
    fn to_another_root_on_tdx() {
        refused(Tdx, Twist::ForeignRoot, ChainUntrusted, Authority);
    }

    #[test]
    fn to_a_tpm_that_is_not_enrolled() {
        refused(Vtpm, Twist::ForeignRoot, ChainUntrusted, Authority);
    }

    #[test]
    fn of_a_foreign_quoting_enclave() {
        refused(Tdx, tdx!(|machine| machine.qe_mr_signer[0] ^= 1), ChainUntrusted, Authority);
    }

    #[test]
    fn without_the_chips_certificate() {
        refused(Snp, snp!(|machine| machine.auxblob = AuxBlob::Empty), EndorsementMissing, Authority);
    }

    #[test]
    fn with_the_certificate_of_another_chip() {
        refused(Snp, snp!(|machine| machine.chip_id[0] ^= 1), EndorsementMissing, Authority);
    }

    #[test]
    fn with_the_certificate_of_another_patch_level() {
        refused(Snp, snp!(|machine| machine.reported_tcb.snp += 1), EndorsementMissing, Authority);
    }

    #[test]
    fn of_a_product_without_a_root() {
        refused(Snp, snp!(|machine| machine.cpuid = [0x19, 0x11, 1]), EndorsementMissing, Authority); // Genoa
    }
}

mod launch_policy {
    use super::*;

    #[test]
    fn debug_on_snp() {
        refused(Snp, snp!(|machine| machine.policy |= 1 << 19), DebugEnabled, Authority);
    }

    #[test]
    fn debug_on_tdx() {
        refused(Tdx, tdx!(|machine| machine.td_attributes |= 1), DebugEnabled, Authority);
    }

    #[test]
    fn migration_agent_on_snp() {
        refused(Snp, snp!(|machine| machine.policy |= 1 << 18), DebugEnabled, Authority);
    }

    #[test]
    fn migratable_on_tdx() {
        refused(Tdx, tdx!(|machine| machine.td_attributes |= 1 << 29), DebugEnabled, Authority);
    }

    #[test]
    fn sept_ve_not_disabled() {
        refused(Tdx, tdx!(|machine| machine.td_attributes = 0), PolicyForbids, Authority);
    }

    #[test]
    fn a_service_td() {
        let twist = tdx!(|machine| {
            machine.version = QuoteVersion::V5Td15;
            machine.mr_service_td = [1; 48];
        });
        refused(Tdx, twist, PolicyForbids, Authority);
    }

    #[test]
    fn old_firmware_on_snp() {
        refused(Snp, snp!(|machine| machine.firmware = [0, 50, 1]), TcbTooOld, Authority);
    }

    #[test]
    fn an_old_module_on_tdx() {
        refused(Tdx, tdx!(|machine| machine.tee_tcb_svn[0] = 1), TcbTooOld, Authority);
    }
}

mod measurement_unregistered {
    use super::*;

    #[test]
    fn on_snp() {
        refused(Snp, Twist::OtherMeasurement, MeasurementUnregistered, Authority);
    }

    #[test]
    fn on_tdx() {
        refused(Tdx, Twist::OtherMeasurement, MeasurementUnregistered, Authority);
    }

    #[test]
    fn on_a_tpm() {
        refused(Vtpm, Twist::OtherMeasurement, MeasurementUnregistered, Authority);
    }
}

mod agent_not_in_the_measured_set {
    use super::*;

    #[test]
    fn on_snp() {
        refused(Snp, Twist::OtherAgent, AgentNotMeasured, Authority);
    }

    #[test]
    fn on_tdx() {
        refused(Tdx, Twist::OtherAgent, AgentNotMeasured, Authority);
    }

    #[test]
    fn on_a_tpm() {
        refused(Vtpm, Twist::OtherAgent, AgentNotMeasured, Authority);
    }

    #[test]
    fn something_else_in_rtmr3() {
        refused(Tdx, tdx!(|machine| machine.extend_rtmr(3, &[7; 48])), AgentNotMeasured, Authority);
    }
}

mod the_other_end {
    use super::*;

    #[test]
    fn an_authority_key_that_is_not_pinned() {
        refused(Snp, Twist::OtherPin, AuthorityNotPinned, Guest);
    }

    #[test]
    fn nobody_there() {
        // A port that was free a moment ago, on which nobody listens.
        let address = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        refused(Snp, Twist::Authority(address), Unreachable, Guest);
    }

    #[test]
    fn an_identity_that_the_mapping_does_not_give() {
        refused(Snp, Twist::OtherIdentity, IdentityMismatch, Authority);
    }
}

/// The search on which all of the above stands finds what it searches for.
#[test]
fn the_search_for_secrets_finds_one() {
    let finds = |name: &str, content: &str| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
        std::panic::catch_unwind(|| refusals_support::assert_no_secret_below(folder.path())).is_err()
    };
    let hex: String = CONFIDENTIAL.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(finds("a/b/log", &format!("before {CONFIDENTIAL} after")));
    assert!(finds("log", &format!("before {hex} after")));
    assert!(finds("run/secrets/payload", "any content"));
    assert!(!finds("run/other", "any content"));
}
