//! Simulated hardware that signs whatever a target makes of its input. So a changed byte is met by the check of its
//! meaning, and not always by the check of the signature before it.
//!
//! The AMD root's keys take seconds to make and are kept in the build folder; they sign nothing but inputs of targets.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock};

use inwit_authority::evidence::{AppraisalPolicy, Endorsements, Product, SnpRoot, TdxPart, TdxRoot};
use inwit_authority::policy::{PermissionFile, PolicyFile, TcbFile};
use inwit_measurements::Digest;
use inwit_measurements::reference::{AgentReference, Measured, ReferenceValues};
use inwit_tests::hardware::amd::Tcb;
use inwit_tests::hardware::{AmdTestRoot, IntelTestRoot, SnpMachine, TdxMachine};

use ring::signature::RsaKeyPair;

use crate::NOW;

/// What every simulated machine launched.
const LAUNCHED: [u8; 48] = [0x4d; 48];

/// A Milan chip. Its number is fixed, so that inputs kept from earlier runs are still about this chip.
pub static CHIP: LazyLock<SnpMachine> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fuzz/simulated-amd");
    std::fs::create_dir_all(folder.parent().expect("a folder above")).expect("the build folder can be written");
    let root = AmdTestRoot::load_or_generate(&folder, NOW).expect("openssl makes RSA keys");
    SnpMachine::on_chip(&Arc::new(root), [7; 64], Tcb::default(), LAUNCHED).expect("a chip")
});

/// A patched TDX platform with a Trust Domain.
pub static TD: LazyLock<TdxMachine> = LazyLock::new(|| {
    let root = Arc::new(IntelTestRoot::generate(NOW).expect("a root"));
    TdxMachine::new(&root, LAUNCHED, [[0; 48]; 4]).expect("a platform")
});

/// AMD's side of the chip: its root, and nothing else.
pub fn amd() -> Endorsements {
    let root = &CHIP.root;
    let list = root.crl_der().expect("a revocation list");
    let root = SnpRoot::new(Product::Milan, root.ark_der(), &[root.ask_der().to_vec()], &[list]).expect("a root");
    Endorsements { snp: vec![root], ..Endorsements::default() }
}

/// Intel's side of the Trust Domain: its root with current collateral.
pub fn intel() -> Endorsements {
    let collateral = TD.collateral_json().expect("collateral");
    let root = TdxRoot::new(TD.root.root_der(), &[TdxPart::Collateral(collateral.as_bytes())]).expect("a root");
    Endorsements { tdx: vec![root], ..Endorsements::default() }
}

/// The strict policy, which the simulated machines meet as they are.
pub fn policy() -> AppraisalPolicy {
    let mut file = PolicyFile::strict();
    let Tcb { boot_loader, tee, snp, microcode, .. } = Tcb::default();
    file.snp.minimum_tcb.insert("milan".to_owned(), TcbFile { boot_loader, tee, snp, microcode, fmc: None });
    file.tdx.smt = PermissionFile::Forbidden;
    let digest = Digest::from_bytes;
    let nobody =
        || AgentReference { executable: Digest::from_bytes([0; 32]), configuration: Digest::from_bytes([0; 32]) };
    let values =
        |name: &str, measured| ReferenceValues { name: name.to_owned(), agent: nobody(), measured, made_from: None };
    let snp = values("snp", Measured::Snp { launch_digest: digest(LAUNCHED) });
    let [rtmr0, rtmr1, rtmr2] = [digest([0; 48]); 3];
    let tdx = values("tdx", Measured::Tdx { mrtd: digest(LAUNCHED), rtmr0, rtmr1, rtmr2 });
    file.with(vec![snp, tdx]).expect("a policy")
}

/// The attestation key of an Azure VM's TPM, RSA-2048. Kept, as inputs from earlier runs name it.
pub static HCL_AK: LazyLock<RsaKeyPair> = LazyLock::new(|| {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fuzz/simulated-hclakpub.der");
    // PKCS #8 or RSAPrivateKey: versions of openssl differ.
    let read = || {
        let key = std::fs::read(&file).ok()?;
        RsaKeyPair::from_pkcs8(&key).or_else(|_| RsaKeyPair::from_der(&key)).ok()
    };
    read().unwrap_or_else(|| {
        std::fs::create_dir_all(file.parent().expect("a folder above")).expect("the build folder can be written");
        let beside = file.with_extension(std::process::id().to_string());
        let made = Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-outform", "DER", "-out"])
            .arg(&beside)
            .output();
        assert!(made.is_ok_and(|made| made.status.success()), "openssl makes an RSA key");
        std::fs::rename(&beside, &file).expect("the build folder can be written");
        read().expect("ring reads it")
    })
});
