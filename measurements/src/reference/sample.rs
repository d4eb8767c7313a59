//! Reference Values of every platform, for the tests of all forms.

use std::collections::BTreeMap;

use super::{AgentReference, Measured, ReferenceValues};
use crate::digest::{sha256, sha384};

pub(super) fn values(measured: Measured) -> ReferenceValues {
    let agent = AgentReference { executable: sha256(b"agent"), configuration: sha256(b"configuration") };
    ReferenceValues { name: "payments 1.4".into(), agent, measured, made_from: None }
}

pub(super) fn samples() -> [ReferenceValues; 5] {
    let pcrs = || BTreeMap::from([(4, sha256(b"kernel")), (15, sha256(b"agent"))]);
    let digest = |text: &str| sha384(text.as_bytes());
    [
        values(Measured::Snp { launch_digest: digest("launch") }),
        values(Measured::Tdx { mrtd: digest("td"), rtmr0: digest("0"), rtmr1: digest("1"), rtmr2: digest("2") }),
        values(Measured::Vtpm { pcrs: pcrs() }),
        values(Measured::AzureSnp { launch_digest: digest("paravisor"), pcrs: pcrs() }),
        values(Measured::AzureTdx { mrtd: digest("paravisor"), pcrs: pcrs() }),
    ]
}
